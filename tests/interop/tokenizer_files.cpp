// What tokenizer_files.py judges:
//
//     stories                      writes the embedded stories
//     encode {FILE STRINGS OUT}…   for each string of STRINGS: its tokens without and with special ones, and both
//                                  decoded; of a sentencepiece model, which has no special ones, once
//     decode {FILE TOKENS OUT}…    the text of each list of tokens, which is streamed, too
//     export FILE OUT              a tokenizer of Llama 2's kind (tokenizer.bin) or a sentencepiece model as such a
//     model
//
// STRINGS, TOKENS and OUT are as things.hpp has them.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "things.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/text/pipeline/pipeline.hpp"
#include "tinymoe/text/pipeline/tokenizer.hpp"
#include "tinymoe/text/sentencepiece/export.hpp"
#include "tinymoe/text/stories/stories.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace {

using namespace tinymoe;
using tinymoe_interop::for_each_thing;

void encode(const char* file, const char* strings, const char* to) {
  if (std::string_view(file).ends_with(".model")) {
    const auto tokenizer = Tokenizer::load(file);
    Encoder encoder(tokenizer);
    return for_each_thing(strings, to, [&](std::string_view text, const auto& put) {
      std::vector<Token> tokens;
      encoder.encode(text, tokens);
      put(tokens);
      put(tokenizer.decode(tokens));
    });
  }
  const MappedFile mapped{std::filesystem::path(file)};
  const PipelineTokenizer tokenizer(parse_json(mapped.text(), file), std::string(mapped.text()), file);
  const auto encoder = tokenizer.encoder();
  for_each_thing(strings, to, [&](std::string_view text, const auto& put) {
    std::vector<Token> plain;
    encoder->encode(text, plain);
    const auto full = tokenizer.encode(text, {.special_in_text = true, .post_processor = true});
    put(plain);
    put(full);
    put(tokenizer.decode(plain));
    put(tokenizer.decode(full));
  });
}

void decode(const char* file, const char* lists, const char* to) {
  const auto tokenizer = Tokenizer::load(file);
  for_each_thing(lists, to, [&](std::string_view bytes, const auto& put) {
    std::vector<Token> tokens(bytes.size() / sizeof(Token));
    std::copy_n(bytes.data(), tokens.size() * sizeof(Token), reinterpret_cast<char*>(tokens.data()));
    const std::string whole = tokenizer.decode(tokens);
    std::string streamed;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      streamed += tokenizer.decode_after(std::span(tokens).first(i), std::span(tokens).subspan(i, 1));
    }
    if (streamed != whole) throw std::runtime_error("streamed \"" + streamed + "\", expected \"" + whole + "\"");
    put(whole);
  });
}

void write_model(const char* file, const char* to) {
  const std::filesystem::path path(file);
  save_sentencepiece(to, path.extension() == ".bin" ? Tokenizer::load_llama2c(path) : Tokenizer::load(path));
}

}  // namespace

int main(int count, char** arguments) {
  try {
    if (count == 2 && std::string_view(arguments[1]) == "stories") {
      tinymoe::EmbeddedStories{.count = 2000}.for_each_story([](std::string_view story) {
        std::printf("%.*s<|endoftext|>", static_cast<int>(story.size()), story.data());
      });
    }
    const std::string_view task = count > 1 ? arguments[1] : "";
    if (task == "export" && count == 4) write_model(arguments[2], arguments[3]);
    for (int i = 2; i + 2 < count; i += 3) {
      (task == "decode" ? decode : encode)(arguments[i], arguments[i + 1], arguments[i + 2]);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
