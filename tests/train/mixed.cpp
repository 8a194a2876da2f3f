// Mixed precision by definition, Reference<bfloat16, float> and Reference<float16, float>: what a half-precision device
// trains, without a device.

#include <vector>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/sample/generate.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/callbacks.hpp"
#include "train/optimizer_trial.hpp"

namespace tinymoe_test::mixed {

namespace {

using Brain = Reference<bfloat16, float>;
using Half = Reference<float16, float>;

/// A mixture whose experts are balanced by a bias that no optimizer moves, behind a dense block with biases.
using Balanced =
    Transformer<Vocab<260>, Context<16>, Width<16>, HeadBias,
                Layers<1, DenseBlock<LayerNorm, Attention<Heads<2>, Rope, Bias>, Expert<Gelu, Hidden<20>, Bias>>>,
                Layers<1, MoEBlock<LayerNorm, Attention<Heads<4>, KvHeads<2>, Rope, QkNorm>,
                                   Router<4, 2, SigmoidScores, BalanceBias>, Expert<SwiGlu, Hidden<24>>>>>;

template <class B>
std::vector<double> losses(Index steps, B backend = B()) {
  Model<Tiny, B> model(backend, Seed{11});
  Trainer trainer(model, AdamW{.lr = 1e-2}, WarmupCosine{.warmup = 5});
  std::vector<double> result;
  auto watch = on_each_step([&](const StepReport& report) { result.push_back(report.loss); });
  trainer.fit(tiny_data(), {.batch = 4, .time = 16, .steps = steps, .seed = Seed{7}, .observers = {&watch}});
  return result;
}

/// Whether what the layers read is the masters, rounded.
template <class M>
bool in_step(const M& model) {
  const auto masters = weights_of(model);
  std::vector<typename M::Scalar> copy(masters.size());
  model.backend().copy_to_host(copy.data(), model.buffer().data, copy.size() * sizeof(copy[0]));
  for (std::size_t i = 0; i < masters.size(); ++i) {
    if (copy[i].bits != typename M::Scalar(masters[i]).bits) return false;
  }
  return true;
}

FitOptions options_for(const std::filesystem::path& path, Index steps) {
  return {.batch = 2,
          .time = 16,
          .accumulation = 2,
          .steps = steps,
          .average = 0.9,
          .seed = Seed{3},
          .checkpoint = path,
          .tokenizer = &tiny_tokenizer()};
}

/// Trains as a program of its own would, from the checkpoint if there is one, and stops after `stop` steps.
template <class B>
std::vector<float> run(const std::filesystem::path& path, Index steps, Index stop = 1 << 30) {
  B backend;
  Model<Tiny, B> model(backend, Seed{5});
  Trainer trainer(model, AdamW{.lr = 1e-2});
  if (std::filesystem::exists(path)) trainer.resume(path);
  auto options = options_for(path, steps);
  options.stop = [&] { return trainer.step() == stop; };
  trainer.fit(tiny_data(), options);
  return weights_of(model);
}

std::string content(const std::filesystem::path& path) {
  std::string bytes;
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "average.safetensors"}) {
    bytes += read_bytes(path / file);
  }
  return bytes;
}

}  // namespace

TEST_CASE("Mixed precision follows float32's loss curve", "[mixed]") {
  const auto expected = losses<Cpu>(5);
  CHECK(greatest_difference(losses<Brain>(5), expected) < 0.02);
  CHECK(greatest_difference(losses<Half>(5), expected) < 0.003);
  CHECK(greatest_difference(losses<Reference<float>>(5), expected) < 1e-4);
  // What computes in bfloat16 rounds as its definition does, but for the order of sums.
  const auto rounded = losses<CpuBfloat16>(5);
  CHECK(greatest_difference(rounded, expected) < 0.02);
  CHECK(greatest_difference(rounded, losses<Brain>(5)) < 0.01);
}

TEST_CASE("Training on the CPU has the same bits for any number of threads", "[mixed]") {
  const auto check = [](auto backend, auto other, auto more) {
    const auto expected = losses(4, std::move(backend));
    CHECK(losses(4, std::move(other)) == expected);
    CHECK(losses(4, std::move(more)) == expected);
  };
  check(Cpu(1), Cpu(2), Cpu(5));
  check(CpuBfloat16(1), CpuBfloat16(2), CpuBfloat16(5));
}

TEST_CASE("The layers' copy is the masters rounded, whatever changed them", "[mixed]") {
  const TemporaryFolder root;
  const auto tokens = random_tokens(64, 260);
  const auto check = [&]<class B>(B backend, const auto& optimizer) {
    using M = Model<Balanced, B>;
    M model(backend, Seed{1}), other(backend, Seed{2});
    CHECK(in_step(model));
    const auto start = weights_of(model);
    Trainer trainer(model, optimizer);
    trainer.average(0.5);
    for (int step = 0; step < 3; ++step) {
      CHECK(trainer.train_step(tokens, tokens, 2, 16).step == step + 1);
      CHECK(in_step(model));
    }
    const auto trained = weights_of(model);
    CHECK(greatest_difference(trained, start) > 1e-3);
    trainer.evaluate(tiny_data(), 2, 16);  // of the average, which stands in and goes again
    CHECK(in_step(model));
    CHECK(same_bits(weights_of(model), trained));
    trainer.save(root / "run", tiny_tokenizer());
    trainer.save_weights(root / "weights", tiny_tokenizer());
    CHECK(in_step(model));

    Trainer resumed(other, optimizer);
    resumed.resume(root / "run");
    CHECK(in_step(other));
    CHECK(same_bits(weights_of(other), trained));  // the masters are what is saved
    load_model(root / "weights", other);
    CHECK(in_step(other));
    CHECK_FALSE(same_bits(weights_of(other), trained));
    load_average(root / "run", other);
    CHECK(in_step(other));
    std::filesystem::remove_all(root / "run");
  };
  check(Brain(), AdamW{.lr = 1e-2});
  check(Brain(), Lion{});
  check(Brain(), Muon{.lr = 1e-2});
  check(Half(), AdamW{.lr = 1e-2});
  check(Half(), Muon{.lr = 1e-2});
}

TEST_CASE("An optimizer's step in mixed precision is its step in float32", "[mixed]") {
  Brain brain;
  Half half;
  Reference<float> whole;
  CHECK(weights_after(brain, AdamW{.lr = 1e-2}, 5) == weights_after(whole, AdamW{.lr = 1e-2}, 5));
  CHECK(weights_after(brain, Lion{}, 5) == weights_after(whole, Lion{}, 5));
  // Muon's products are in 16 bits, as in the original; an update has a size of 0.2 · lr.
  const auto expected = weights_after(whole, Muon{.lr = 1e-2}, 5);
  CHECK(greatest_difference(weights_after(half, Muon{.lr = 1e-2}, 5), expected) < 2e-4);
  CHECK(greatest_difference(weights_after(brain, Muon{.lr = 1e-2}, 5), expected) < 2e-3);
  CHECK(greatest_difference(weights_after(whole, Muon{.lr = 1e-2}, 4), expected) > 2e-3);
}

TEST_CASE("A run in mixed precision resumes to the bit, and goes on in other types", "[mixed]") {
  const TemporaryFolder root;
  const auto check = [&]<class B>(std::type_identity<B>, const std::string& name) {
    INFO(name);
    run<B>(root / (name + "whole"), 6);
    run<B>(root / (name + "parts"), 6, 3);
    CHECK(content(root / (name + "parts")) != content(root / (name + "whole")));
    run<B>(root / (name + "parts"), 6);
    CHECK(content(root / (name + "parts")) == content(root / (name + "whole")));
  };
  check(std::type_identity<Brain>{}, "brain");
  check(std::type_identity<Half>{}, "half");
  check(std::type_identity<CpuBfloat16>{}, "cpu");

  // Cpu, bfloat16, float16 and Cpu again: each takes over masters, moments and average as they are.
  const auto expected = run<Cpu>(root / "whole", 8);
  const auto path = root / "relay";
  const auto pass_on = [&]<class B>(std::type_identity<B>) {
    const auto saved = content(path);
    B backend;
    Model<Tiny, B> model(backend, Seed{6});
    Trainer trainer(model, AdamW{.lr = 1e-2});
    trainer.resume(path);
    trainer.save(path, tiny_tokenizer());
    CHECK(content(path) == saved);
  };
  run<Cpu>(path, 8, 2);
  pass_on(std::type_identity<Brain>{});
  run<CpuBfloat16>(path, 8, 4);
  pass_on(std::type_identity<Cpu>{});
  pass_on(std::type_identity<Half>{});
  run<Half>(path, 8, 6);
  pass_on(std::type_identity<Cpu>{});
  const auto found = run<Cpu>(path, 8);
  CHECK(greatest_difference(found, expected) < 0.05);
  CHECK_FALSE(same_bits(found, expected));
}

TEST_CASE("What a model in mixed precision writes is near what its masters would", "[mixed]") {
  const TemporaryFolder root;
  run<Cpu>(root / "run", 60);
  const auto story = [&](auto backend) {
    Model<Tiny, decltype(backend)> model(backend, Seed{1});
    load_model(root / "run", model);
    Trainer trainer(model);
    const double loss = trainer.evaluate(tiny_data(), 4, 16).loss;
    return std::pair(generate(model, tiny_tokenizer(), "the cat", {.temperature = 0, .tokens = 10}), loss);
  };
  const auto [expected, loss] = story(Cpu(1));
  const auto [brain, brain_loss] = story(Brain());
  const auto [half, half_loss] = story(Half());
  CHECK(half == expected);
  CHECK(brain.substr(0, 10) == expected.substr(0, 10));
  CHECK(brain_loss == Approx(loss).margin(0.02));
  CHECK(half_loss == Approx(loss).margin(0.003));
}

}  // namespace tinymoe_test::mixed
