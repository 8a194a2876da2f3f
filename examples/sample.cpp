// Writes stories with a trained model.
//
//   sample runs/story --prompt "Once upon a time" --stories 3

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <iostream>

#include "architectures.hpp"

namespace {

using namespace tinymoe;

struct Arguments {
  std::filesystem::path checkpoint;
  std::string prompt = "Once upon a time";
  Index stories = 1;
  SampleOptions options;
  int threads = 0;
  bool quiet = false;
};

template <class Arch>
void run(const Arguments& arguments) {
  Cpu device(arguments.threads);
  Model<Arch, Cpu> model(device);
  load_model(arguments.checkpoint, model);
  const Tokenizer tokenizer = load_tokenizer<Arch>(arguments.checkpoint);
  Generator generator(model, tokenizer);
  Index tokens = 0;
  const auto started = std::chrono::steady_clock::now();
  for (Index story = 0; story < arguments.stories; ++story) {
    auto options = arguments.options;
    options.story = static_cast<std::uint32_t>(story);
    if (arguments.stories > 1) std::cout << (story > 0 ? "\n" : "") << "--- story " << story + 1 << " ---\n";
    const Story written =
        generator.write(arguments.prompt, options, [](std::string_view text) { std::cout << text << std::flush; });
    std::cout << std::endl;
    tokens += written.tokens;
  }
  if (arguments.quiet) return;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  std::fprintf(stderr, "\n%td tokens in %.2f s: %.0f tokens/s\n", tokens, seconds, double(tokens) / seconds);
}

}  // namespace

int main(int count, char** values) {
  Arguments a;
  CLI::App app("Writes stories with a trained model.");
  app.add_option("checkpoint", a.checkpoint, "folder that train wrote")->required();
  app.add_option("--prompt", a.prompt, "how each story begins; may be empty")->capture_default_str();
  app.add_option("--stories", a.stories, "how many")->capture_default_str()->check(CLI::Range(1, 1000000));
  app.add_option("--tokens", a.options.tokens, "most tokens of a story")->capture_default_str();
  app.add_option("--temperature", a.options.temperature, "0: always the most likely token")->capture_default_str();
  app.add_option("--top-k", a.options.top_k, "choose among so many tokens; 0: all")->capture_default_str();
  app.add_option("--top-p", a.options.top_p, "choose among the likeliest tokens of this probability together; 1: all")
      ->capture_default_str();
  app.add_option("--repetition-penalty", a.options.repetition_penalty, "above 1: tokens seen before become less likely")
      ->capture_default_str();
  app.add_option("--seed", a.options.seed.value, "another seed, other stories")->capture_default_str();
  app.add_option("--threads", a.threads, "default: all cores")->check(CLI::Range(0, 4096));
  app.add_flag("--quiet", a.quiet, "stories only, no speed");
  CLI11_PARSE(app, count, values);
  try {
    examples::with_architecture_of(a.checkpoint, [&](auto named) { run<typename decltype(named)::Architecture>(a); });
  } catch (const std::exception& error) {
    std::cout.flush();
    std::fprintf(stderr, "sample: %s\n", error.what());
    return 1;
  }
}
