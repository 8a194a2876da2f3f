// Byte-level BPE on the command line: learn a tokenizer from stories, import GPT-2's, encode and decode.
//
//   tokenize train stories.txt --vocabulary 2048 --out tokenizer.json
//   tokenize export tokenizer.json tokenizer.model
//   tokenize import --vocab vocab.json --merges merges.txt --out tokenizer.json
//   echo "Once upon a time" | tokenize encode tokenizer.json
//   echo "Once upon a time" | tokenize encode tokenizer.json --pieces
//   echo "7454 2402 257 640" | tokenize decode tokenizer.json

#include <tinymoe/text/sentencepiece/export.hpp>
#include <tinymoe/text/text.hpp>

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "output_files.hpp"
#include "programs/main.hpp"
#include "programs/numbers.hpp"
#include "progress.hpp"
#include "shown_stories.hpp"
#include "stories.hpp"

namespace {

using namespace tinymoe;

struct Arguments {
  std::string text = "-", tokenizer, out = "tokenizer.json", vocab, merges, field;
  TokenizerTraining training;
  bool pieces = false;
};

/// All of a file, or of the standard input if it is called "-".
std::string read_text(const std::string& path) {
  if (path == "-") {
    std::string text(std::istreambuf_iterator<char>(std::cin), {});
    if (std::ferror(stdin) != 0) fail<FileError>("the standard input cannot be read");
    return text;
  }
  return std::string(MappedFile(path).text());
}

void save(const Tokenizer& tokenizer, const std::string& path) {
  tokenizer.save(path);
  std::cerr << path << ": " << tokenizer.vocabulary_size() << " tokens\n";
}

/// Printable bytes: control characters and invalid UTF-8 as hexadecimal numbers.
std::string printable(std::string_view bytes) {
  constexpr char digits[] = "0123456789abcdef";
  const bool whole = find_invalid_utf8(bytes) == std::string_view::npos;
  std::string text;
  for (const char character : bytes) {
    const auto byte = static_cast<unsigned char>(character);
    if (byte >= 0x20 && byte != 0x7f && (byte < 0x80 || whole)) {
      text += character;
    } else {
      text += {'\\', 'x', digits[byte / 16], digits[byte % 16]};
    }
  }
  return text;
}

void encode(const Arguments& arguments) {
  const auto tokenizer = Tokenizer::load(arguments.tokenizer);
  const std::string text = read_text(arguments.text);
  const std::vector<Token> tokens = tokenizer.encode(text);
  std::optional<examples::Percent> progress;
  if (!examples::is_terminal(STDOUT_FILENO)) progress.emplace(stderr);  // else the tokens themselves show it
  const char* separator = "";
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (progress) progress->show("encoding", static_cast<double>(i) / static_cast<double>(tokens.size()));
    const Token token = tokens[i];
    if (arguments.pieces) {
      std::cout << token << "\t[" << printable(tokenizer.bytes(token)) << "]\n";
    } else {
      std::cout << std::exchange(separator, " ") << token;
    }
  }
  if (!arguments.pieces) std::cout << '\n';
}

void decode(const Arguments& arguments) {
  const auto tokenizer = Tokenizer::load(arguments.tokenizer);
  std::istringstream words(read_text(arguments.text));
  std::vector<Token> tokens;
  for (std::string word; words >> word;) {
    Token token = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), token);
    if (error != std::errc() || end != word.data() + word.size()) {
      fail<TextError>(arguments.text == "-" ? "standard input" : arguments.text, ": expected token numbers, found \"",
                      word.substr(0, 40), "\"");
    }
    tokens.push_back(token);
  }
  std::cout << tokenizer.decode(tokens);
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Byte-level BPE: learn, import, encode, decode");
  app.require_subcommand(1);

  auto* train = app.add_subcommand("train", "Learn a tokenizer from a file of stories");
  train->add_option("text", arguments.text, "Stories: a file, folder or pattern as for train --data")->required();
  examples::add_field_option(*train, arguments.field);
  using programs::range::whole;
  programs::add_number(*train, "--vocabulary", arguments.training.vocabulary, "Tokens in all", whole(257, 1 << 30));
  programs::add_number(*train, "--threads", arguments.training.threads, "Threads, 0 for all cores",
                       whole(0, tinymoe::detail::max_threads));
  train->add_option("--out", arguments.out, "The tokenizer.json to write")->capture_default_str();
  train->callback([&] {
    examples::expect_tokenizer(arguments.out);  // before the text is read
    save(examples::learn_tokenizer(examples::open_stories({arguments.text}, arguments.field), arguments.training),
         arguments.out);
  });

  auto* from_gpt2 = app.add_subcommand("import", "Write GPT-2's vocab.json and merges.txt as tokenizer.json");
  from_gpt2->add_option("--vocab", arguments.vocab, "vocab.json")->required();
  from_gpt2->add_option("--merges", arguments.merges, "merges.txt")->required();
  from_gpt2->add_option("--out", arguments.out, "The tokenizer.json to write")->capture_default_str();
  from_gpt2->callback([&] {
    examples::expect_tokenizer(arguments.out);
    save(Tokenizer::load_gpt2(arguments.vocab, arguments.merges), arguments.out);
  });

  auto* exporting = app.add_subcommand("export", "Write a tokenizer of Llama 2's kind as a sentencepiece model");
  exporting->add_option("tokenizer", arguments.tokenizer, "tokenizer.json or tokenizer.model")->required();
  exporting->add_option("model", arguments.out, "The .model to write")->required();
  exporting->callback([&] {
    examples::expect_tokenizer(arguments.out);
    const auto tokenizer = Tokenizer::load(arguments.tokenizer);
    save_sentencepiece(arguments.out, tokenizer);
    std::cerr << arguments.out << ": " << tokenizer.vocabulary_size() << " tokens\n";
  });

  auto* encoding = app.add_subcommand("encode", "Print the tokens of a text, every byte of it");
  encoding->add_option("tokenizer", arguments.tokenizer, "tokenizer.json or a sentencepiece .model")->required();
  encoding->add_option("text", arguments.text, "A file; - for the standard input")->capture_default_str();
  encoding->add_flag("--pieces", arguments.pieces, "One token a line, with its bytes");
  encoding->callback([&] { encode(arguments); });

  auto* decoding = app.add_subcommand("decode", "Print the text of token numbers");
  decoding->add_option("tokenizer", arguments.tokenizer, "tokenizer.json or a sentencepiece .model")->required();
  decoding->add_option("text", arguments.text, "A file; - for the standard input")->capture_default_str();
  decoding->callback([&] { decode(arguments); });

  // The work is done by the subcommands' callbacks.
  return programs::run(app, argc, argv, [] {});
}
