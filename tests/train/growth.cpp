// Sequences that grow over a run.

#include <tinymoe/text/sequence_growth.hpp>

#include <cstddef>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/callbacks.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::growth {

namespace {

using std::string;

/// Lengths of 4, 6 and, from half of the budget on, 16.
constexpr SequenceGrowth growing{{{{4, 0.25}, {6, 0.5}}}};

FitOptions options_for(Index steps) { return {.batch = 3, .time = 16, .growth = growing, .steps = steps}; }

struct Run {
  Cpu backend{1};
  Model<Tiny, Cpu> model{backend, Seed{5}};
  Trainer<Model<Tiny, Cpu>> trainer{model, AdamW{.lr = 1e-2}};
};

}  // namespace

TEST_CASE("Stages follow each other by the share of the budget", "[growth]") {
  CHECK(SequenceGrowth{}.empty());
  CHECK(SequenceGrowth{}.stage_at(0) == 0);
  CHECK(growing.size() == 2);
  CHECK(growing.stage_at(0) == 0);
  CHECK(growing.stage_at(0.2499) == 0);
  CHECK(growing.stage_at(0.25) == 1);
  CHECK(growing.stage_at(0.5) == 2);
  CHECK(growing.stage_at(7) == 2);
  CHECK(growing.text() == "4=0.25,6=0.5");
  CHECK(growing.below(6).text() == "4=0.25");
  CHECK(growing.below(4).empty());
  CHECK(growing.below(100) == growing);
}

TEST_CASE("A growing run allocates nothing for its later stages", "[growth]") {
  Run run;
  std::vector<std::size_t> bytes;
  std::vector<Index> tokens;
  auto watch = on_each_step(
      [&](const StepReport& report) { bytes.push_back(report.activation_bytes), tokens.push_back(report.tokens); });
  auto options = options_for(8);
  options.batch = 1, options.observers = {&watch};
  run.trainer.fit(tiny_data(), options);
  CHECK(tokens == std::vector<Index>{16, 32, 44, 56, 72, 88, 104, 120});  // two sequences of 6 fit into 16 tokens
  REQUIRE(bytes[0] > 0);
  CHECK(bytes == std::vector<std::size_t>(8, bytes[0]));
}

TEST_CASE("A run on growing sequences is resumed where it stopped", "[growth]") {
  const TemporaryFolder root;
  const auto run = [&](const char* name, Index stop, const SequenceGrowth& growth = growing) {
    Run its;
    if (std::filesystem::exists(root / name)) its.trainer.resume(root / name);
    auto options = options_for(8);
    options.growth = growth;
    options.checkpoint = root / name, options.tokenizer = &tiny_tokenizer();
    options.evaluate_every = 3, options.validation = &tiny_data();  // in full sequences, between steps of short ones
    options.stop = [&] { return its.trainer.step() == stop; };
    its.trainer.fit(tiny_data(), options);
    return weights_of(its.model);
  };
  const auto whole = run("whole", 100);
  for (const Index stop : {1, 2, 4, 7}) run("parts", stop);
  CHECK(same_bits(run("parts", 100), whole));
  CHECK(read_bytes(root / "parts/optimizer.safetensors") == read_bytes(root / "whole/optimizer.safetensors"));

  run("other", 3);
  check_message<MismatchError>([&] { run("other", 100, {}); }, "growth of sequences 4=0.25,6=0.5", "found none");
  check_message<MismatchError>([&] { run("other", 100, {{{{4, 0.25}}}}); }, "4=0.25,6=0.5", "found 4=0.25");
  // A growth that no run can have had; and a run of before there was growth, which goes on with full sequences alone.
  const auto state = root / "other/trainer.json";
  const std::string json = read_bytes(state);
  const auto from = json.find("\"growth\""), end = json.find(']', from) + 1;
  const auto with = [&](const std::string& growth) {
    write_bytes(state, json.substr(0, from) + growth + json.substr(end));
  };
  for (const char* wrong : {"7", "[7]", "[{\"time\": 4}]", "[{\"time\": 0, \"until\": 0.5}]",
                            "[{\"time\": 4, \"until\": 2}]", "[{\"time\": 16, \"until\": 0.5}]"}) {
    with(string("\"growth\": ") + wrong);
    check_message<FileError>([&] { run("other", 100); }, "trainer.json");
  }
  with("\"other\": 1");
  check_message<MismatchError>([&] { run("other", 100); }, "growth of sequences none", "found 4=0.25");
  run("other", 100, {});
}

TEST_CASE("Stages that do not grow are refused before the first step", "[growth]") {
  const auto fit = [](const SequenceGrowth& growth, Batching batching = Batching::packed) {
    return [=] {
      Run run;
      run.trainer.fit(
          tiny_data(),
          {.batch = 3, .time = 16, .growth = growth, .batching = batching, .steps = 4, .tokenizer = &tiny_tokenizer()});
    };
  };
  check_message<OptionError>(fit({{{{16, 0.5}}}}), "below the full 16", "16=0.5");
  check_message<OptionError>(fit({{{{8, 0.2}, {8, 0.5}}}}), "must grow", "8=0.2,8=0.5");
  check_message<OptionError>(fit({{{{4, 0.5}, {8, 0.5}}}}), "shares", "4=0.5,8=0.5");
  check_message<OptionError>(fit({{{{4, 0}}}}), "shares");
  check_message<OptionError>(fit({{{{4, 1}}}}), "shares");
  check_message<OptionError>(fit({{{{4, std::numeric_limits<double>::quiet_NaN()}}}}), "shares");
  check_message<OptionError>(fit({{{{0, 0.5}, {4, 0.6}}}}), "at least 1", "found 0");
  check_message<OptionError>(fit({{{{-1, 0.5}}}}), "at least 1", "found -1");
  check_message<OptionError>(fit(growing, Batching::padded), "packed");
}

}  // namespace tinymoe_test::growth
