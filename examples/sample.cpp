// Writes stories with a trained model.
//
//   sample runs/story --prompt "Once upon a time" --stories 3
//   sample runs/story --prompt "One day, Tom" --prompt "The cat" --min-p 0.05

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "architectures.hpp"
#include "programs.hpp"

int main(int count, char** values) {
  examples::SampleRun run;
  auto& options = run.options;
  CLI::App app("Writes stories with a trained model.");
  app.add_option("checkpoint", run.checkpoint, "folder that train wrote")->required();
  app.add_option("--prompt", run.prompts, "how each story begins; may be empty, and be given several times")
      ->allow_extra_args(false)
      ->capture_default_str();
  app.add_option("--stories", run.stories, "how many of each prompt")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000000));
  app.add_option("--tokens", options.tokens, "most tokens of a story")->capture_default_str();
  app.add_option("--temperature", options.temperature, "0: always the most likely token")->capture_default_str();
  app.add_option("--top-k", options.top_k, "choose among so many tokens; 0: all")->capture_default_str();
  app.add_option("--top-p", options.top_p, "choose among the likeliest tokens of this probability together; 1: all")
      ->capture_default_str();
  app.add_option("--min-p", options.min_p, "choose among tokens so likely, relative to the likeliest; 0: all")
      ->capture_default_str();
  app.add_option("--typical", options.typical_p,
                 "choose among the most typical tokens of this probability together; 1: all")
      ->capture_default_str();
  app.add_option("--repetition-penalty", options.repetition_penalty, "above 1: tokens seen before become less likely")
      ->capture_default_str();
  app.add_option("--seed", options.seed.value, "another seed, other stories")->capture_default_str();
  app.add_option("--threads", run.threads, "default: all cores")->check(CLI::Range(0, 4096));
  app.add_flag("--quiet", run.quiet, "stories only, no speed");
  CLI11_PARSE(app, count, values);
  try {
    examples::with_architecture_of(run.checkpoint,
                                   [&](auto named) { examples::sample<typename decltype(named)::Architecture>(run); });
  } catch (const std::exception& error) {
    std::cout.flush();
    std::fprintf(stderr, "sample: %s\n", error.what());
    return 1;
  }
}
