// Whole models on a CUDA device, against the oracle and the CPU.

#include "tinymoe/model.hpp"

#include "support/catch.hpp"
#include "support/data.hpp"
#include "tinymoe/backend/cuda.hpp"
#include "tinymoe/backend/reference.hpp"
#include "train/thread_ranks.hpp"
#include "train/tiny.hpp"

using namespace tinymoe;
using namespace tinymoe_test;

namespace {

/// Grouped queries, a window, normalised heads, a shared expert and biases.
using Modern = Transformer<
    Vocab<260>, Context<16>, Width<40>, Bigrams<50>, PerLayerEmbeddings, HeadBias,
    Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, PartialRope<4, 5>, SlidingWindow<5>, QkNorm, Bias>,
                       Router<3, 2, GateScale<5, 2>>, Expert<SwiGlu, Hidden<24>, Bias>,
                       Shared<Expert<Gelu, Hidden<16>>, Gated>>>>;
/// What other published systems have: a dense block, learned positions, noise, jitter, capacity, another loss.
using Classic = Transformer<
    Vocab<261>, Context<16>, Width<24>, TiedHead,
    Layers<1, DenseBlock<LayerNorm, Attention<Heads<3>, Learned, Bias>, Expert<Gelu, Hidden<32>, Bias>>>,
    Layers<1, MoEBlock<LayerNorm, Attention<Heads<3>, Learned>,
                       Router<4, 2, NoisyTopK, CvBalance, Jitter, Capacity<5, 4>>, Expert<Relu, Hidden<16>>>>,
    Layers<1, MoEBlock<LayerNorm, Attention<Heads<3>, Learned>, Router<4, 2, SigmoidScores, BalanceBias>,
                       Expert<SwiGlu, Hidden<16>>>>,
    Layers<1,
           MoEBlock<LayerNorm, Attention<Heads<3>, Learned>, Router<4, 2, ExpertChoice>, Expert<SwiGlu, Hidden<16>>>>>;

/// Heads and widths that are aligned for wide loads, for which decoding has its own kernels. Three choices, of more
/// experts than one block computes the logits of for three tokens.
using Aligned = Transformer<Vocab<260>, Context<16>, Width<32>,
                            Layers<1, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope, SlidingWindow<5>>,
                                               Router<4, 2>, Expert<SwiGlu, Hidden<24>>>>,
                            Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>, PartialRope<1, 2>, QkNormAcrossHeads>,
                                               Router<100, 3, Bias>, Expert<Gelu, Hidden<16>, Bias>>>>;

void need_gpu() {
  if (!Cuda::available()) skip("no GPU can be used here");
}

/// The loss and the gradients of one batch, with the weights of the seed.
struct OneStep {
  double loss, balance, z, norm;
  std::vector<double> weights;  // after AdamW
};

template <class Arch, class B>
OneStep one_step(B& backend, double dropout = 0, bool recompute = false, Index steps = 1) {
  Model<Arch, B> model(
      backend, Seed{5},
      Settings{setting::dropout = dropout, setting::attention_dropout = dropout, setting::expert_dropout = dropout});
  Trainer trainer(model, AdamW{.lr = 1e-3});
  OneStep result{};
  for (Index step = 0; step < steps; ++step) {
    auto inputs = random_tokens(6 * 16, 260, 2 * static_cast<std::uint64_t>(step) + 1);
    auto targets = random_tokens(6 * 16, 260, 2 * static_cast<std::uint64_t>(step) + 2);
    for (std::size_t pad : {15, 14, 31}) inputs[pad] = targets[pad] = -1;
    const auto report =
        trainer.train_step(inputs, targets, 3, 16, {.clip = 0.5, .seed = Seed{9}, .recompute = recompute});
    result.loss = report.loss, result.balance = report.balance_loss, result.z = report.z_loss;
    result.norm = report.gradient_norm;
  }
  for (const auto weight : weights_of(model)) result.weights.push_back(static_cast<double>(real_part(weight)));
  return result;
}

void check_near(const OneStep& found, const OneStep& expected, double tolerance) {
  CHECK(found.loss == Approx(expected.loss).epsilon(tolerance));
  CHECK(found.balance == Approx(expected.balance).epsilon(tolerance));
  CHECK(found.z == Approx(expected.z).epsilon(tolerance));
  CHECK(found.norm == Approx(expected.norm).epsilon(10 * tolerance));
}

}  // namespace

TEMPLATE_TEST_CASE("a step on a Cuda is the oracle's step", "[cuda]", Modern, Classic) {
  need_gpu();
  Reference<double> oracle;
  Cuda device;
  for (const double dropout : {0.0, 0.1}) {
    for (const bool recompute : {false, true}) {
      INFO("dropout " << dropout << ", recompute " << recompute);
      const OneStep expected = one_step<TestType>(oracle, dropout, recompute);
      const OneStep found = one_step<TestType>(device, dropout, recompute);
      check_near(found, expected, 1e-5);
      // AdamW's first step is the rate times the gradient's sign, whatever its size: those near 0 may differ.
      CHECK(greatest_difference(found.weights, expected.weights) < 5e-4);
    }
  }
}

TEMPLATE_TEST_CASE("gradients on a Cuda are the oracle's", "[cuda]", Modern, Classic) {
  need_gpu();
  // Without a clip, plain descent at rate 1 leaves minus the gradients as the change of the weights.
  const auto gradients = [](auto& backend) {
    using B = std::remove_cvref_t<decltype(backend)>;
    Model<TestType, B> model(backend, Seed{5});
    detail::Passes passes(model);
    passes.plan(3, 16, false);
    const Memory memory = backend.allocate(static_cast<std::size_t>(model.size) * sizeof(typename B::Master));
    typename TestType::template Parameters<typename B::Master> bound;
    bind_parameters(bound, memory.template as<typename B::Master>().data);
    Pass pass{.batch = 3, .time = 16, .training = true, .seed = Seed{3}};
    passes.tally().clear();
    detail::TokenSlots<B> slots(backend, 48);
    passes.train(pass, slots.take(0, 0, random_tokens(48, 260), random_tokens(48, 260, 2)), 1.0 / 48, bound);
    std::vector<typename B::Master> found(static_cast<std::size_t>(model.size));
    backend.copy_to_host(found.data(), memory.bytes(), memory.size());
    return std::vector<double>(found.begin(), found.end());
  };
  Reference<double> oracle;
  const auto expected = gradients(oracle);
  const auto distance = [&](const std::vector<double>& found) {
    double apart = 0, size = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      apart += (found[i] - expected[i]) * (found[i] - expected[i]), size += expected[i] * expected[i];
    }
    return std::sqrt(apart / size);
  };
  Cuda exact;
  CHECK(distance(gradients(exact)) < 1e-5);
  CudaBfloat16 brain;
  CudaFloat16 half;
  // Each of some twenty operations rounds; a token near a router's edge may take another expert.
  CHECK(distance(gradients(brain)) < 0.15);
  CHECK(distance(gradients(half)) < 0.02);
}

TEMPLATE_TEST_CASE("cuBLAS has an algorithm for every product of aligned widths", "[cuda]", Cuda, CudaBfloat16) {
  need_gpu();
  TestType cuda;
  one_step<Aligned>(cuda);
  CHECK(cuda.plain_products() == 0);
}

TEMPLATE_TEST_CASE("five steps on a Cuda follow the CPU's", "[cuda]", Modern, Classic) {
  need_gpu();
  Cpu cpu(1);
  Cuda exact;
  CudaBfloat16 brain;
  CudaFloat16 half;
  for (const Index steps : {1, 2, 5}) {
    INFO("steps " << steps);
    const OneStep expected = one_step<TestType>(cpu, 0, false, steps);
    check_near(one_step<TestType>(exact, 0, false, steps), expected, 1e-4);
    CHECK(one_step<TestType>(brain, 0, false, steps).loss == Approx(expected.loss).epsilon(1e-2));
    CHECK(one_step<TestType>(half, 0, false, steps).loss == Approx(expected.loss).epsilon(1e-2));
  }
}

TEMPLATE_TEST_CASE("the same seed gives the same bits on a Cuda", "[cuda]", Cuda, CudaBfloat16, CudaFloat16) {
  need_gpu();
  TestType first, second;
  CHECK(one_step<Modern>(first, 0.1, false, 3).weights == one_step<Modern>(second, 0.1, false, 3).weights);
  CHECK(one_step<Classic>(first, 0.1, true, 2).weights == one_step<Classic>(second, 0.1, false, 2).weights);
}

TEMPLATE_TEST_CASE("the ways to compute a bank's products agree", "[cuda]", Cuda, CudaBfloat16) {
  need_gpu();
  TestType streams, one({.grouped = GroupedProducts::one_stream}), call({.grouped = GroupedProducts::call});
  const auto expected = one_step<Modern>(streams);
  CHECK(one_step<Modern>(one).loss == Approx(expected.loss).epsilon(1e-5));
  CHECK(one_step<Tiny>(call).loss == Approx(one_step<Tiny>(streams).loss).epsilon(1e-2));
}

TEMPLATE_TEST_CASE("a run goes on from a checkpoint of another device", "[cuda]", Cuda, CudaBfloat16, CudaFloat16) {
  need_gpu();
  const TemporaryFolder folder;
  TestType cuda;
  Cpu cpu(2);
  const auto train = [](auto& backend, Index steps, const std::filesystem::path& from,
                        const std::filesystem::path& to) {
    Model<Tiny, std::remove_cvref_t<decltype(backend)>> model(backend, Seed{3});
    Trainer trainer(model, AdamW{.lr = 3e-3});
    if (!from.empty()) trainer.resume(from);
    return trainer
        .fit(tiny_data(),
             {.batch = 4, .steps = steps, .seed = Seed{7}, .checkpoint = to, .tokenizer = &tiny_tokenizer()})
        .loss;
  };
  const double tolerance = std::is_same_v<TestType, Cuda> ? 1e-4 : 2e-2;
  const double expected = train(cpu, 8, {}, folder / "cpu8");
  train(cpu, 4, {}, folder / "cpu4");
  CHECK(train(cuda, 8, folder / "cpu4", folder / "cuda8") == Approx(expected).epsilon(tolerance));
  train(cuda, 4, {}, folder / "cuda4");
  CHECK(train(cpu, 8, folder / "cuda4", folder / "back") == Approx(expected).epsilon(tolerance));
  // On one device, an interrupted run gives the bits of one that was not.
  CHECK(train(cuda, 8, folder / "cuda4", folder / "same") == train(cuda, 8, {}, folder / "whole"));
}

TEMPLATE_TEST_CASE("decoding on a Cuda gives the CPU's logits", "[cuda]", Modern, Classic, Aligned) {
  need_gpu();
  Cpu cpu(1);
  Cuda cuda({.early_starts = GENERATE(false, true)});
  const Model<TestType, Cpu> there(cpu, Seed{4});
  const Model<TestType, Cuda> here(cuda, Seed{4});
  Session expected(there, {.sequences = 3});
  Session found(here, {.sequences = 3});
  const auto same = [&](auto a, auto b) {
    CHECK(greatest_difference(std::vector<float>(a.begin(), a.end()), std::vector<float>(b.begin(), b.end())) < 1e-4);
  };
  for (const Index sequence : {0, 1, 2}) {
    const auto prompt = random_tokens(3 + 2 * sequence, 260, 10 + static_cast<std::uint64_t>(sequence));
    same(found.feed(prompt, sequence), expected.feed(prompt, sequence));
  }
  // Recorded from the second time on, for one sequence and for three, beyond the context's end.
  const std::vector<Index> all = {0, 1, 2}, one = {1};
  for (std::uint64_t turn = 0; turn < 12; ++turn) {
    const auto tokens = random_tokens(3, 260, 20 + turn);
    same(found.step(all, tokens), expected.step(all, tokens));
    same(found.step(one, std::span(tokens).first(1)), expected.step(one, std::span(tokens).first(1)));
    if (turn == 5) same(found.feed(tokens, 2), expected.feed(tokens, 2));
  }
}

TEMPLATE_TEST_CASE("prefill and decoding on a Cuda in 16 bits", "[cuda]", CudaBfloat16, CudaFloat16) {
  need_gpu();
  // One pass prefills 58 tokens of a context of 60; when it is full, the last half is prefilled again.
  using Long = TinyOf<260, 24, RmsNorm, 60>;
  Reference<double> oracle;
  TestType cuda({.early_starts = GENERATE(false, true)});
  const Model<Long, Reference<double>> there(oracle, Seed{4});
  const Model<Long, TestType> here(cuda, Seed{4});
  Session expected(there, {.sequences = 2});
  Session found(here, {.sequences = 2});
  const auto same = [&](auto a, auto b) {
    std::vector<double> x(a.begin(), a.end()), y(b.begin(), b.end());
    double square = 0, size = 0;
    for (std::size_t i = 0; i < x.size(); ++i) square += (x[i] - y[i]) * (x[i] - y[i]), size += y[i] * y[i];
    CHECK(std::sqrt(square / size) < (std::is_same_v<TestType, CudaFloat16> ? 0.01 : 0.05));
  };
  same(found.feed(random_tokens(58, 260), 0), expected.feed(random_tokens(58, 260), 0));
  same(found.feed(random_tokens(3, 260, 2), 1), expected.feed(random_tokens(3, 260, 2), 1));
  const std::vector<Index> both = {1, 0};
  for (std::uint64_t turn = 0; turn < 6; ++turn) {
    same(found.step(both, random_tokens(2, 260, 5 + turn)), expected.step(both, random_tokens(2, 260, 5 + turn)));
  }
}

namespace {

/// Counts what is launched.
template <class B>
struct Counting : B {
  mutable Index launches = 0;
  template <RowKernel Kernel>
  void launch(Index rows, const Kernel& kernel) const {
    ++launches;
    B::launch(rows, kernel);
  }
  using T = typename B::Scalar;
  void matmul(View<const T> x, View<const T> w, View<const T> bias, View<T> y) const {
    ++launches;
    B::matmul(x, w, bias, y);
  }
  template <class... A>
  void grouped_matmul(const A&... a) const {
    ++launches;
    B::grouped_matmul(a...);
  }
  template <class... A>
  void sort_by_expert(A&&... a) const {
    ++launches;
    B::sort_by_expert(a...);
  }
  template <class... A>
  void route(A&&... a) const {
    ++launches;
    B::route(a...);
  }
  template <class... A>
  bool rotate_and_attend(const A&... a) const {
    ++launches;
    return B::rotate_and_attend(a...);
  }
  template <class Work>
  void replay(typename B::Recording&, Work&& work) const {
    work();
  }
};

}  // namespace

TEMPLATE_TEST_CASE("decoding a token takes eight launches a layer, and three", "[cuda]", Cuda, CudaBfloat16) {
  need_gpu();
  Counting<TestType> cuda;
  using Arch = Transformer<
      Vocab<260>, Context<16>, Width<32>,
      Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>>, Router<4, 2>, Expert<SwiGlu, Hidden<24>>>>>;
  const Model<Arch, Counting<TestType>> model(cuda, Seed{4});
  Session session(model);
  session.feed(random_tokens(3, 260));
  cuda.launches = 0;
  const Index sequence = 0;
  const Token token = 5;
  session.step({&sequence, 1}, {&token, 1});
  CHECK(cuda.launches == 8 * Arch::layers + 3);
}

TEST_CASE("the steps of a model without mixtures are recorded", "[cuda]") {
  need_gpu();
  using Plain = Transformer<Vocab<1040>, Context<16>, Width<32>,
                            Layers<2, DenseBlock<RmsNorm, Attention<Heads<4>>, Expert<SwiGlu, Hidden<40>, Bias>>>>;
  const auto losses = [](auto& backend, double dropout) {
    Model<Plain, std::remove_cvref_t<decltype(backend)>> model(backend, Seed{3}, Settings{setting::dropout = dropout});
    Trainer trainer(model, AdamW{.lr = 1e-2});
    std::vector<double> found;
    for (std::uint64_t step = 0; step < 9; ++step) {
      // The vocabulary is larger than one block sorts. In between come another loss scale, an evaluation, and another
      // shape.
      auto inputs = random_tokens(2 * 5 * 16, 260, step), targets = random_tokens(2 * 5 * 16, 260, step + 1);
      if (step == 5) targets[3] = -1;
      if (step == 6) inputs.resize(16), targets.resize(16);
      found.push_back(trainer.train_step(inputs, targets, step == 6 ? 1 : 5, 16).loss);
      if (step == 3) found.push_back(trainer.evaluate(tiny_data(), 5).loss);
    }
    return found;
  };
  Cpu cpu(2);
  Cuda cuda;
  CHECK(greatest_difference(losses(cuda, 0), losses(cpu, 0)) < 1e-4);
  CHECK(greatest_difference(losses(cuda, 0.1), losses(cpu, 0.1)) < 1e-4);
  CHECK(losses(cuda, 0) == losses(cuda, 0));
}

TEST_CASE("a dispatch may be destroyed or sorted again while its offsets are copied to the host", "[cuda]") {
  need_gpu();
  constexpr Index tokens = 200, experts = 3;
  Cuda cuda;
  const Memory memory = cuda.allocate(std::size_t(4 * tokens + experts + 1) * sizeof(std::int32_t));
  auto* at = memory.as<std::int32_t>().data;
  const auto sorted = [&](std::int32_t expert) {
    const std::vector<std::int32_t> chosen(tokens, expert);
    cuda.upload(at, chosen.data(), chosen.size() * sizeof(std::int32_t));
    Dispatch dispatch({at + 3 * tokens, 1, experts + 1}, {at + tokens, tokens, 1}, {at + 2 * tokens, 1, tokens});
    cuda.sort_by_expert({at, tokens, 1}, dispatch);
    return dispatch;
  };
  sorted(1);
  Dispatch dispatch = sorted(0);
  const std::vector<std::int32_t> chosen(tokens, 2);
  cuda.upload(at, chosen.data(), chosen.size() * sizeof(std::int32_t));
  cuda.sort_by_expert({at, tokens, 1}, dispatch);
  // Expert e's matrix is (e), and x is 1.
  const std::vector<float> host = {0, 1, 2};
  const Memory weights = cuda.allocate(sizeof(float) * experts), x = cuda.allocate(sizeof(float) * tokens),
               y = cuda.allocate(sizeof(float) * tokens);
  const std::vector<float> ones(tokens, 1.0f);
  cuda.copy_to_device(weights.bytes(), host.data(), weights.size());
  cuda.copy_to_device(x.bytes(), ones.data(), x.size());
  cuda.grouped_matmul({x.as<float>().data, tokens, 1}, {weights.as<float>().data, experts, 1, 1, 1}, {}, dispatch,
                      {y.as<float>().data, tokens, 1});
  std::vector<float> found(tokens);
  cuda.copy_to_host(found.data(), y.bytes(), y.size());
  CHECK(found == std::vector<float>(tokens, 2.0f));
}

TEST_CASE("all optimizers and the average run on a Cuda", "[cuda]") {
  need_gpu();
  Cpu cpu(1);
  Cuda cuda;
  const auto run = [](auto& backend, auto optimizer) {
    Model<Tiny, std::remove_cvref_t<decltype(backend)>> model(backend, Seed{3});
    Trainer trainer(model, optimizer);
    trainer.average(0.9);
    for (int i = 0; i < 3; ++i) {
      trainer.train_step(random_tokens(64, 260), random_tokens(64, 260, 2), 4, 16);
    }
    return std::pair(weights_of(model), trainer.evaluate(tiny_data(), 4).loss);
  };
  const auto check = [&](auto optimizer) {
    const auto [weights, loss] = run(cuda, optimizer);
    const auto [expected, expected_loss] = run(cpu, optimizer);
    CHECK(greatest_difference(weights, expected) < 1e-3);
    CHECK(loss == Approx(expected_loss).epsilon(1e-4));
  };
  check(AdamW{});
  check(Lion{.lr = 1e-4});
  check(Muon{.lr = 1e-3});
}

TEST_CASE("without a GPU the error is one clear sentence", "[cuda]") {
  if (Cuda::available()) {
    std::string sentence;
    try {
      Cuda nowhere({.device = 99});
    } catch (const DeviceError& error) {
      sentence = error.what();
    }
    CHECK(sentence.find("there is no GPU number 99; this machine has ") == 0);
    return;
  }
  std::string sentence;
  try {
    Cuda device;
  } catch (const DeviceError& error) {
    sentence = error.what();
  }
  INFO(sentence);
  CHECK(sentence.find("no NVIDIA GPU can be used here") == 0);
  CHECK(sentence.find("take the cpu instead") != std::string::npos);
}

TEST_CASE("ranks that share the experts of a model on a Cuda take the steps of one", "[cuda]") {
  need_gpu();
  using Arch = Transformer<Vocab<260>, Context<16>, Width<32>,
                           Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Router<4, 2>,
                                              Expert<SwiGlu, Hidden<24>>, Shared<Expert<SwiGlu, Hidden<16>>>>>>;
  // Four micro-batches a step in all.
  const auto run = [](Index size) {
    std::vector<StepReport> reports;
    ranks::on_ranks(size, [&](const ranks::Threads& rank) {
      Cuda device;
      Model<Arch, Cuda> model(device, Seed{5});
      Trainer trainer(model, AdamW{.lr = 1e-2}, Constant{}, rank, size);
      for (Index step = 0; step < 3; ++step) {
        std::vector<Token> inputs, targets;
        for (Index i = rank.rank(); i < 4; i += size) {
          const auto tokens = random_tokens(65, 260, static_cast<std::uint64_t>(4 * step + i));
          inputs.insert(inputs.end(), tokens.begin(), tokens.end() - 1);
          targets.insert(targets.end(), tokens.begin() + 1, tokens.end());
        }
        const StepReport report = trainer.train_step(inputs, targets, 4, 16, {.clip = 0.5, .seed = Seed{9}});
        if (rank.rank() == 0) reports.push_back(report);
      }
    });
    return reports;
  };
  const auto one = run(1);
  for (const Index size : {2, 4}) {
    const auto found = run(size);
    for (std::size_t step = 0; step < 3; ++step) {
      const double tolerance = step == 0 ? 1e-6 : 1e-5;  // AdamW makes more of what is rounded otherwise
      CHECK(found[step].loss == Approx(one[step].loss).epsilon(tolerance));
      CHECK(found[step].balance_loss == Approx(one[step].balance_loss).epsilon(tolerance));
      CHECK(found[step].gradient_norm == Approx(one[step].gradient_norm).epsilon(10 * tolerance));
    }
  }
}
