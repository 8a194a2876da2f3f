// Generates stories with a trained model.
//
//   sample runs/story --prompt "Once upon a time" --stories 3
//   sample runs/story --prompt "One day, Tom" --prompt "The cat" --min-p 0.05
//   sample runs/story --stories 20 --trace trace.npz
//   sample runs/story --stories 100 --tokens 512 --coherence --compare tinystories-valid.txt

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tinymoe/analysis/coherence.hpp>
#include <tinymoe/core/error.hpp>
#include <tinymoe/sample/trace_file.hpp>
#include <utility>
#include <vector>

#include "compiled_architectures.hpp"
#include "output_files.hpp"
#include "programs.hpp"
#include "programs/main.hpp"
#include "programs/numbers.hpp"
#include "progress.hpp"
#include "sample_settings.hpp"
#include "stories.hpp"

namespace {

/// The command line.
struct SampleRun {
  std::filesystem::path checkpoint;
  std::vector<std::string> prompts = {"Once upon a time"};
  tinymoe::Index stories = 1;  // of each prompt
  tinymoe::SampleOptions options = {};
  examples::DeviceOptions device;
  bool quiet = false;
  std::filesystem::path trace;  // empty: none
  bool coherence = false;
  std::vector<std::filesystem::path> compare;  // stories to measure beside those that are written
  std::string field;                           // of JSON among them
};

/// Measures of coherence and what they are of.
struct NamedCoherence {
  std::string name;
  tinymoe::Coherence counts;
};

/// The measures of the first `most` stories of each file. Throws as StoryFiles do.
std::vector<NamedCoherence> count_files(const std::vector<std::filesystem::path>& files, const std::string& field,
                                        tinymoe::Index most) {
  struct Enough {};
  std::vector<NamedCoherence> rows;
  for (const auto& file : files) {
    tinymoe::CoherenceCounter counter;
    try {
      examples::open_stories({file}, field).for_each_story([&](std::string_view story) {
        counter.add(story);
        if (counter.counts().stories == most) throw Enough();
      });
    } catch (const Enough&) {  // the rest is not read
    }
    rows.push_back({tinymoe::detail::on_one_line(file.string()), counter.counts()});
  }
  return rows;
}

void print_coherence(const std::vector<NamedCoherence>& rows) {
  std::size_t width = 8;
  for (const auto& row : rows) width = std::max(width, row.name.size());
  const auto percent = [](double share) {
    return std::isnan(share) ? "-" : std::to_string(std::lround(100 * share)) + " %";
  };
  const int wide = static_cast<int>(width);
  std::fprintf(stderr, "%-*s %8s %8s %27s %22s\n", wide, "", "stories", "words", "distinct four-grams", "names kept");
  for (const auto& [name, of] : rows) {
    std::fprintf(stderr, "%-*s %8td %8td %9td of %-8td %5s %7td of %-5td %5s\n", wide, name.c_str(), of.stories,
                 of.words, of.distinct_four_grams, of.four_grams, percent(of.distinct_share()).c_str(), of.kept_names,
                 of.late_names, percent(of.kept_share()).c_str());
  }
}

/// Prints stories to the standard output, and the speed to the standard error.
void sample(examples::Storyteller& storyteller, const SampleRun& run) {
  using tinymoe::Index;
  // Each prompt `stories` times. Story i has the story number i, so that it does not depend on the number of stories
  // (except by rounding).
  std::vector<std::string> prompts;
  for (const std::string& prompt : run.prompts) {
    prompts.insert(prompts.end(), static_cast<std::size_t>(run.stories), prompt);
  }
  constexpr Index at_once = 16;
  const bool alone = prompts.size() == 1;  // streamed as it is generated
  const bool traces = !run.trace.empty();
  if (!alone || traces) storyteller.plan({.sequences = std::min(at_once, std::ssize(prompts)), .trace = traces});
  std::vector<tinymoe::Story> traced;
  tinymoe::CoherenceCounter coherence;
  // Before a story is written: a file may be damaged.
  std::vector<NamedCoherence> counted = count_files(run.compare, run.field, std::ssize(prompts));
  Index tokens = 0, pieces = 0;
  const auto count = static_cast<double>(prompts.size());
  std::optional<examples::Percent> progress;
  if (!alone && !run.quiet) progress.emplace(stderr);
  const auto started = std::chrono::steady_clock::now();
  for (Index first = 0; first < std::ssize(prompts); first += at_once) {
    auto options = run.options;
    options.story = static_cast<std::uint32_t>(first);
    const auto batch = std::span(prompts).subspan(static_cast<std::size_t>(first));
    Index number = first;
    pieces = 0;
    auto stories = storyteller.write(
        batch.first(std::min<std::size_t>(at_once, batch.size())), options, [&](Index, std::string_view text) {
          if (alone) std::cout << text, programs::flush_output();
          const double done = double(first) + double(++pieces) / double(std::max<Index>(options.tokens, 1));
          if (progress) progress->show("stories", std::min(1.0, done / count));
          return true;
        });
    if (progress) progress->clear();
    for (auto& story : stories) {
      if (!alone) {
        std::cout << (number > 0 ? "\n" : "") << "--- story " << number + 1 << " ---\n" << story.text;
      }
      std::cout << '\n';
      programs::flush_output();
      ++number;
      tokens += story.tokens;
      if (run.coherence) coherence.add(story.text);
      if (traces) traced.push_back(std::move(story));
    }
  }
  if (traces) tinymoe::save_trace(run.trace, traced, storyteller.tokenizer());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  if (run.coherence) {
    counted.insert(counted.begin(), {"written", coherence.counts()});
    if (!run.quiet) std::fputc('\n', stderr);
    print_coherence(counted);
  }
  if (run.quiet) return;
  if (traces) std::fprintf(stderr, "\ntrace: %s", run.trace.c_str());
  std::fprintf(stderr, "\n%td tokens in %.2f s: %.0f tokens/s\n", tokens, seconds, double(tokens) / seconds);
}

}  // namespace

int main(int count, char** values) {
  SampleRun run;
  CLI::App app("Generates stories with a trained model.");
  app.add_option("checkpoint", run.checkpoint, "folder that train wrote")->required();
  app.add_option("--prompt", run.prompts, "how each story begins; may be empty, and be given several times")
      ->allow_extra_args(false)
      ->capture_default_str();
  programs::add_number(app, "--stories", run.stories, "how many of each prompt", programs::range::whole(1, 1000000));
  examples::add_sample_options(app, run.options);
  examples::add_device_options(app, run.device);
  examples::add_weights_option(app, run.device);
  const auto* trace = app.add_option("--trace", run.trace,
                                     "a file for the experts, gates and router logits of each token: NAME.npz for "
                                     "NumPy, or NAME.json for JSON lines");
  auto* coherence = app.add_flag("--coherence", run.coherence,
                                 "count distinct four-grams, and names that the second half of a story has from its "
                                 "first");
  auto* compare =
      app.add_option("--compare", run.compare,
                     "a file of stories, of which as many are counted beside those written; may be given several times")
          ->needs(coherence)
          ->allow_extra_args(false);
  examples::add_field_option(app, run.field);
  app.get_option("--field")->needs(compare);
  app.add_flag("--quiet", run.quiet, "stories and counts only, no device, progress and speed");
  return programs::run(app, count, values, [&] {
    if (trace->count() > 0 && !tinymoe::is_trace_file(run.trace)) {
      tinymoe::fail<tinymoe::OptionError>("--trace is \"", run.trace.string(),
                                          "\"; end its name with .npz, .json or .jsonl");
    }
    if (trace->count() > 0) examples::expect_trace(run.trace);
    if (run.device.weights.empty()) run.device.weights = examples::stored_weights(run.checkpoint);
    examples::with_architecture_of(run.checkpoint, [&](auto named) {
      using Arch = typename decltype(named)::Architecture;
      examples::Device device = examples::open_device<Arch>(run.device, named.name);
      if (!run.quiet) std::fprintf(stderr, "device %s\n", examples::about(device, run.device).c_str());
      examples::on<Arch>(device, [&](auto& backend) -> void {
        sample(*examples::storyteller<Arch>(backend, run.checkpoint, run.device.weights), run);
      });
    });
  });
}
