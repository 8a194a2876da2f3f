// The moving average of the weights: its values, where it is read, and that a resumed run goes on with it.

#include "tinymoe/train/average.hpp"

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::average {

namespace {

using TinyModel = Model<Tiny, Cpu>;

std::vector<float> average_in(const std::filesystem::path& path) {
  Cpu backend(1);
  TinyModel model(backend, Seed{99});
  load_average(path, model);
  return weights_of(model);
}

FitOptions options_for(const std::filesystem::path& path, Index steps) {
  return {.batch = 2, .time = 16, .steps = steps, .average = 0.9, .checkpoint = path, .tokenizer = &tiny_tokenizer()};
}

}  // namespace

TEST_CASE("The average follows the weights by its formula", "[average]") {
  Cpu backend(1);
  TinyModel model(backend, Seed{5});
  Trainer trainer(model, AdamW{.lr = 1e-2});
  trainer.average(0.3);
  const auto tokens = random_tokens(32, 260);
  const auto start = weights_of(model);
  std::vector<double> expected(start.begin(), start.end());
  for (int t = 0; t < 6; ++t) {
    trainer.train_step(tokens, tokens, 2, 16);
    const double decay = std::min(0.3, (1.0 + t) / (10 + t));  // 0.1, 0.18…, 0.25, 0.3, 0.3…
    const auto now = weights_of(model);
    for (std::size_t i = 0; i < now.size(); ++i) expected[i] = decay * expected[i] + (1 - decay) * double(now[i]);
  }
  const TemporaryFolder root;
  const auto before = weights_of(model);
  trainer.save_weights(root / "weights", tiny_tokenizer());
  CHECK(same_bits(weights_of(model), before));
  TinyModel loaded(backend, Seed{6});
  load_model(root / "weights", loaded);
  const auto found = weights_of(loaded);
  CHECK(greatest_difference(std::vector<double>(found.begin(), found.end()), expected) < 1e-6);
  CHECK(greatest_difference(found, before) > 1e-3);
  CHECK(trainer.state_bytes() == 4 * sizeof(float) * static_cast<std::size_t>(TinyModel::size));

  // A full checkpoint has both.
  model.special_tokens().config = SpecialTokens{.begin = 1, .end = {2}};
  trainer.save(root / "full", tiny_tokenizer());
  CHECK(same_bits(average_in(root / "full"), found));
  load_average(root / "full", loaded);
  CHECK(loaded.special_tokens().config == model.special_tokens().config);
  CHECK(loaded.special_tokens().generation == model.special_tokens().config);  // its file is written, too
  load_model(root / "full", loaded);
  CHECK(same_bits(weights_of(loaded), before));

  // Evaluation is the average's, and leaves the weights; without an average it is the weights'.
  TinyModel averaged(backend, Seed{6});
  load_model(root / "weights", averaged);
  CHECK(trainer.evaluate(tiny_data()).loss == Trainer(averaged).evaluate(tiny_data()).loss);
  CHECK(same_bits(weights_of(model), before));
  CHECK_THROWS_AS(trainer.evaluate(tiny_data(), 1, 17), ShapeError);
  CHECK(same_bits(weights_of(model), before));
  trainer.average(0);
  CHECK(trainer.evaluate(tiny_data()).loss == Trainer(loaded).evaluate(tiny_data()).loss);
  CHECK_THROWS_AS(trainer.average(1), OptionError);
  CHECK_THROWS_AS(trainer.average(-0.5), OptionError);
}

TEST_CASE("An exception while the average replaces the weights restores them", "[average]") {
  Cpu backend(1);
  TinyModel model(backend, Seed{5});
  detail::WeightAverage average(model);
  average.start(0.9);
  model.masters().data[3] = 42;
  average.update();
  const auto before = weights_of(model);
  CHECK_THROWS_AS(average.instead([&] {
    CHECK_FALSE(same_bits(weights_of(model), before));
    fail<FileError>("no");
  }),
                  FileError);
  CHECK(same_bits(weights_of(model), before));
}

TEST_CASE("A resumed run goes on with its average to the bit", "[average]") {
  const TemporaryFolder root;
  const auto run = [](FitOptions options, Index stop = 1 << 30) {
    Cpu backend(1);
    TinyModel model(backend, Seed{5});
    Trainer trainer(model, AdamW{.lr = 1e-2});
    if (std::filesystem::exists(options.checkpoint)) trainer.resume(options.checkpoint);
    options.stop = [&] { return trainer.step() == stop; };
    trainer.fit(tiny_data(), options);
  };
  run(options_for(root / "whole", 6));
  run(options_for(root / "parts", 6), 3);
  CHECK_FALSE(same_bits(average_in(root / "parts"), average_in(root / "whole")));
  run(options_for(root / "parts", 6));
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "average.safetensors"}) {
    CHECK(read_bytes(root / "parts" / file) == read_bytes(root / "whole" / file));
  }
  // It cannot be left out, or changed, on the way.
  auto options = options_for(root / "parts", 8);
  options.average = 0;
  check_message<MismatchError>([&] { run(options); }, "decay 0.9", "found 0");
  // A checkpoint without an average has none to load.
  options.checkpoint = root / "plain";
  run(options);
  CHECK_FALSE(std::filesystem::exists(root / "plain/average.safetensors"));
  check_message<FileError>([&] { average_in(root / "plain"); }, "average.safetensors");
}

}  // namespace tinymoe_test::average
