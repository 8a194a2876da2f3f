// Learning a tokenizer from a text file and encoding it.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "programs/main.hpp"
#include "programs/measure.hpp"
#include "programs/numbers.hpp"
#include "support.hpp"
#include "tinymoe/text/text.hpp"

namespace {

using namespace tinymoe;

struct Arguments {
  std::filesystem::path data;
  Index vocabulary = 2048;
  int repeats = 3, threads = 0;
};

void run(const Arguments& arguments) {
  const TextCorpus stories(arguments.data);
  const double megabytes = double(std::filesystem::file_size(arguments.data)) / 1e6;
  std::optional<Tokenizer> tokenizer;
  std::optional<TokenData> data;
  std::vector<double> learning, encoding;
  for (int repeat = 0; repeat < arguments.repeats; ++repeat) {
    learning.push_back(programs::seconds_of([&] {
      tokenizer = train_tokenizer(stories, {.vocabulary = arguments.vocabulary, .threads = arguments.threads});
    }));
    encoding.push_back(programs::seconds_of([&] { data = TokenData::encode(stories, *tokenizer, arguments.threads); }));
  }
  const double learn = programs::median(learning), encode = programs::median(encoding);
  std::printf("%.2f MB, %td stories, %td tokens of a vocabulary of %td, %.2f bytes a token; %d threads\n", megabytes,
              data->stories(), data->size(), tokenizer->vocabulary_size(),
              double(data->text_bytes()) / double(data->size()), tinymoe::detail::thread_count(arguments.threads));
  std::printf("learning: %.1f MB/s\n", megabytes / learn);
  const std::string size = std::to_string(arguments.vocabulary);
  bench::print_time_row("learn BPE " + size, learn, "s", 0, 3);
  bench::print_time_row("encode with BPE " + size, encode, "s", 0, 3);
  bench::print_row("encode with BPE " + size + ", speed", megabytes / encode, "MB/s");
}

}  // namespace

int main(int count, char** values) {
  Arguments arguments;
  CLI::App app("Learning a tokenizer from a text file and encoding it.");
  app.add_option("data", arguments.data, "stories, each ended by <|endoftext|>")->required()->check(CLI::ExistingFile);
  using programs::range::whole;
  programs::add_number(app, "--vocabulary", arguments.vocabulary, "tokens to learn", whole(257, 1 << 30));
  programs::add_number(app, "--repeats", arguments.repeats, "of each", whole(1));
  programs::add_number(app, "--threads", arguments.threads, "0: one per core", whole(0, tinymoe::detail::max_threads));
  return programs::run(app, count, values, [&] { run(arguments); });
}
