// AdamW against an independent loop, the norm of the gradients, and chunks.

#include "tinymoe/train/optimizer.hpp"

#include <cmath>
#include <vector>

#include "support/catch.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "train/descent.hpp"

namespace tinymoe_test::optimizer {

namespace {

/// Adam with decoupled decay as in the paper (Loshchilov and Hutter 2019, algorithm 2), one weight.
struct PlainAdamW {
  double m = 0, v = 0;
  double operator()(double w, double g, int t, double rate, double decay, const AdamW& o) {
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    const double mean = m / (1 - std::pow(o.beta1, t)), square = v / (1 - std::pow(o.beta2, t));
    return w - rate * decay * w - rate * mean / (std::sqrt(square) + o.epsilon);
  }
};

/// Whether each element of a buffer of `P` decays, by the tensors' names: all but norms' gains and biases.
template <class P>
std::vector<bool> decays() {
  std::vector<bool> result;
  P::for_each(Path{}, [&](const ParameterInfo& info) {
    const std::string name = info.path.text() + "." + std::string(info.names[0].name);
    const bool vector = name.find("norm") != std::string::npos || name.find(".bias") != std::string::npos;
    result.insert(result.end(), static_cast<std::size_t>(aligned_size(info.size())), !vector);
  });
  return result;
}

}  // namespace

TEST_CASE("AdamW follows an independent loop over several steps", "[optimizer]") {
  Reference<double> backend;
  Model<Tiny, Reference<double>> model(backend, Seed{3}), copy(backend, Seed{3});
  const AdamW options{.lr = 2e-2, .beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-7, .weight_decay = 0.3};
  Trainer trainer(model, options, WarmupCosine{.warmup = 2, .steps = 6, .floor = 0.1});
  const auto decay = decays<Model<Tiny, Reference<double>>::Weights>();
  auto expected = weights_of(model);
  std::vector<PlainAdamW> states(expected.size());
  const Batches batches(tiny_data(), 3, 8, Seed{5});
  std::vector<Token> inputs(24), targets(24);
  const double clip = 0.7;
  bool clipped = false;
  for (int t = 1; t <= 5; ++t) {
    batches.fill(t - 1, inputs, targets);
    // The gradient where the weights are now.
    set_weights(copy, weights_of(model));
    Trainer descent(copy, Descent{});
    descent.train_step(inputs, targets, 3, 8, {.clip = 0});
    const auto before = weights_of(model), after = weights_of(copy);
    double norm = 0;
    for (std::size_t i = 0; i < before.size(); ++i) norm += (before[i] - after[i]) * (before[i] - after[i]);
    norm = std::sqrt(norm);
    const double factor = norm > clip ? clip / norm : 1;
    clipped = clipped || norm > clip;

    const auto report = trainer.train_step(inputs, targets, 3, 8, {.clip = clip});
    CHECK(report.gradient_norm == Approx(norm).epsilon(1e-10));
    CHECK(report.step == t);
    CHECK(report.tokens == 24 * t);
    const double rates[] = {1e-2, 2e-2, 2e-2, 2e-2 * (0.1 + 0.45 * (1 + std::sqrt(0.5))), 2e-2 * 0.55};
    CHECK(report.learning_rate == Approx(rates[t - 1]).epsilon(1e-12));
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double g = (before[i] - after[i]) * factor;
      expected[i] = states[i](expected[i], g, t, rates[t - 1], decay[i] ? options.weight_decay : 0, options);
    }
    const auto found = weights_of(model);
    // What lies between the tensors is in no chunk and stays.
    std::vector<bool> in_tensor(expected.size());
    for (const Segment& segment : segments<Model<Tiny, Reference<double>>::Weights>()) {
      for (Index i = segment.offset; i < segment.offset + segment.size(); ++i)
        in_tensor[static_cast<std::size_t>(i)] = true;
    }
    for (std::size_t i = 0; i < expected.size(); ++i) {
      if (!in_tensor[i]) expected[i] = found[i];
    }
    CHECK(greatest_difference(found, expected) < 1e-9);
    CHECK(greatest_difference(found, before) > 1e-3);
    std::vector<double> gradients(expected.size());
    backend.copy_to_host(gradients.data(), trainer.gradients().data, gradients.size() * sizeof(double));
    CHECK(gradients == std::vector<double>(gradients.size(), 0.0));
  }
  CHECK(clipped);
}

TEST_CASE("AdamW decays matrices and leaves gains alone", "[optimizer]") {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{3});
  Trainer trainer(model, AdamW{.lr = 0.5, .weight_decay = 0.5});
  // Moments at zero and a clip to almost nothing: what moves the weights is the decay.
  const auto tokens = random_tokens(16, Tiny::vocab);
  const auto before = weights_of(model);
  trainer.train_step(tokens, tokens, 1, 16, {.clip = 1e-30});
  const auto after = weights_of(model);
  const auto decay = decays<Model<Tiny, Cpu>::Weights>();
  double worst = 0;
  Index vectors = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    worst = std::max(worst, std::abs(double(after[i]) - double(before[i]) * (decay[i] ? 0.75 : 1.0)));
    vectors += decay[i] ? 0 : 1;
  }
  CHECK(worst < 1e-6);
  CHECK(vectors == 5 * 16);
}

TEST_CASE("A step of AdamW by hand, with a narrow copy of the weights", "[optimizer]") {
  float weights[3] = {1, -2, 3}, gradients[3] = {0.5f, -0.25f, 0}, mean[3] = {0, 0, 1}, square[3] = {0, 0, 4};
  bfloat16 copy[3] = {};
  const Chunk chunk{0, 3, 1};
  const float clip[2] = {9, 2};  // the factor is 2 here
  // Step 1: m̂ = g, v̂ = g² where the moments were zero, so the change is rate · sign(g).
  kernels::AdamWStep<bfloat16, float>{weights, copy, gradients, mean,  square, &chunk, clip,
                                      0.1f,    0.5f, 0.9f,      0.99f, 0.0f,   0.1f,   0.01f}(SerialGroup{}, 0);
  CHECK(weights[0] == Approx(0.95 - 0.1).epsilon(1e-6));
  CHECK(weights[1] == Approx(-1.9 + 0.1).epsilon(1e-6));
  CHECK(weights[2] == Approx(2.85 - 0.1 * 9 / std::sqrt(4 * 99)).epsilon(1e-6));  // m̂ = 0.9/0.1, v̂ = 3.96/0.01
  CHECK(mean[0] == Approx(0.1).epsilon(1e-6));
  CHECK(square[1] == Approx(0.01 * 0.25).epsilon(1e-6));
  for (int i = 0; i < 3; ++i) {
    CHECK(static_cast<float>(copy[i]) == static_cast<float>(bfloat16(weights[i])));
    CHECK(gradients[i] == 0);
  }
}

TEST_CASE("The gradients' norm and the factor that clips it", "[optimizer]") {
  const double squares[3] = {9, 16, 144};
  double result[2];
  kernels::ClipScale<double>{squares, 3, 6.5, result}(SerialGroup{}, 0);
  CHECK(result[0] == 13);
  CHECK(result[1] == 0.5);
  kernels::ClipScale<double>{squares, 3, 13, result}(SerialGroup{}, 0);
  CHECK(result[1] == 1);
  kernels::ClipScale<double>{squares, 3, 0, result}(SerialGroup{}, 0);  // no limit
  CHECK(result[1] == 1);
}

TEST_CASE("Chunks cover every tensor once and cross none", "[optimizer]") {
  // The vocabulary's matrices are larger than a chunk, and a chunk has no whole number of a table's rows.
  using P = Transformer<
      Vocab<2500>, Context<16>, Width<20>, Bigrams<900>, PerLayerEmbeddings,
      Layers<2, MoEBlock<RmsNorm, Attention<Heads<2>>, Router<4, 2>, Expert<SwiGlu, Hidden<24>>>>>::Parameters<float>;
  const auto chunks = detail::chunks_of<P>();
  std::vector<int> covered(static_cast<std::size_t>(buffer_size<P>()));
  bool split = false, split_table = false;
  for (const Chunk& chunk : chunks) {
    CHECK((chunk.size > 0 && chunk.size <= Chunk::largest));
    split = split || chunk.size == Chunk::largest;
    if (chunk.part == Part::table) {
      CHECK((chunk.row == 20 && chunk.size % 20 == 0));
      split_table = split_table || chunk.size == 16380;
    } else {
      CHECK(chunk.row == 0);
    }
    for (Index i = 0; i < chunk.size; ++i) ++covered[static_cast<std::size_t>(chunk.offset + i)];
  }
  CHECK((split && split_table));
  const auto decay = decays<P>();
  std::vector<int> expected(covered.size());
  for (const Segment& segment : segments<P>()) {
    std::fill_n(expected.begin() + segment.offset, segment.size(), 1);
    for (const Chunk& chunk : chunks) {
      if (chunk.offset + chunk.size <= segment.offset || chunk.offset >= segment.offset + segment.size()) continue;
      CHECK((chunk.offset >= segment.offset && chunk.offset + chunk.size <= segment.offset + segment.size()));
      CHECK((chunk.decay != 0) == decay[static_cast<std::size_t>(segment.offset)]);
    }
  }
  CHECK(covered == expected);
}

}  // namespace tinymoe_test::optimizer
