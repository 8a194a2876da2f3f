// Ranks that share the experts of a model: they take the steps that a single process takes.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/train/muon.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/thread_ranks.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::expert_parallel {

namespace {

using ranks::Beside;
using ranks::on_ranks;
using ranks::Threads;

template <class R, class X = Expert<SwiGlu, Hidden<24>>, class... Shared>
using Mixed = Transformer<Vocab<260>, Context<16>, Width<16>,
                          Layers<1, DenseBlock<RmsNorm, Attention<Heads<4>, Rope>, Expert<SwiGlu, Hidden<24>>>>,
                          Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, Rope>, R, X, Shared...>>>;

/// How a run is done.
struct How {
  Index ranks = 1, together = 1, steps = 3;
  bool recompute = false, pads = false, beside = false;
  bool one_for_all = false;  // from the second step on the routers' biases send all tokens to the first expert
  Settings settings = {};
};

/// What each rank's run comes to.
struct Came {
  std::vector<StepReport> steps;
  std::vector<double> weights;
  double validation = 0;
};

/// Micro-batch `i` of a step: 2 sequences of 16 tokens. With pads each ends in some, and the fourth is all pads but
/// one.
void fill(Index step, Index i, bool pads, std::vector<Token>& inputs, std::vector<Token>& targets) {
  auto tokens = random_tokens(33, 260, static_cast<std::uint64_t>(100 * step + i));
  for (Index n = 0; n < 32; ++n) {
    const bool pad = pads && (n % 16 >= 16 - i % 4 * 3 || (i == 3 && n > 0));
    inputs.push_back(pad ? -1 : tokens[static_cast<std::size_t>(n)]);
    targets.push_back(pad ? -1 : tokens[static_cast<std::size_t>(n + 1)]);
  }
}

/// One rank's run, of four micro-batches a step in all. All have one type of communicator, so that a Trainer is
/// compiled once for each architecture.
template <class Arch, class B, class O>
Came run(const How& how, O optimizer, const AnyCommunicator<B>& communicator) {
  B backend = [] {
    if constexpr (std::is_constructible_v<B, int>) {
      return B(1);
    } else {
      return B();
    }
  }();
  Model<Arch, B> model(backend, Seed{5}, how.settings);
  Trainer trainer(model, optimizer, Constant{}, communicator, how.together);
  trainer.average(0.5);
  Came came;
  for (Index step = 0; step < how.steps; ++step) {
    if (how.one_for_all && step == 1) {
      for (const Segment& tensor : segments<typename Arch::template Parameters<float>>()) {
        if (tensor.part == Part::router && tensor.is_vector) model.masters().data[tensor.offset] = 1000;
      }
      model.refresh();
    }
    std::vector<Token> inputs, targets;
    for (Index i = communicator.rank(); i < 4; i += communicator.size()) fill(step, i, how.pads, inputs, targets);
    came.steps.push_back(
        trainer.train_step(inputs, targets, 2, 16, {.clip = 0.5, .seed = Seed{9}, .recompute = how.recompute}));
  }
  came.validation = trainer.evaluate(tiny_data().first(130), 2, 16).loss;
  for (const auto weight : weights_of(model)) came.weights.push_back(static_cast<double>(weight));
  return came;
}

template <class Arch, class B = Reference<double>, class O = AdamW>
std::vector<Came> run(const How& how, O optimizer = {.lr = 1e-2}) {
  std::vector<Came> came(static_cast<std::size_t>(how.ranks));
  if (how.ranks == 1) {
    came[0] = run<Arch, B>(how, optimizer, {});
  } else {
    on_ranks(how.ranks, [&](const Threads& communicator) {
      came[static_cast<std::size_t>(communicator.rank())] =
          run<Arch, B>(how, optimizer, how.beside ? AnyCommunicator<B>(Beside(communicator)) : communicator);
    });
  }
  return came;
}

double greatest(const std::vector<double>& a, const std::vector<double>& b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

/// The same steps where so many ranks share four experts, so many of them together.
template <class Arch, class B = Reference<double>, class O = AdamW>
void check_as_one(double tolerance, How how = {}, O optimizer = {.lr = 1e-2}, Index ranks = 4, Index together = 2,
                  double of_weights = 0) {
  const auto expected = run<Arch, B>(how, optimizer)[0];
  how.ranks = ranks, how.together = together;
  const auto came = run<Arch, B>(how, optimizer);
  for (const auto& one : came) {
    REQUIRE(one.steps.size() == expected.steps.size());
    for (std::size_t i = 0; i < one.steps.size(); ++i) {
      INFO("step " << i + 1);
      CHECK(one.steps[i].loss == Approx(expected.steps[i].loss).epsilon(tolerance));
      CHECK(one.steps[i].balance_loss == Approx(expected.steps[i].balance_loss).epsilon(tolerance));
      CHECK(one.steps[i].gradient_norm == Approx(expected.steps[i].gradient_norm).epsilon(10 * tolerance));
      CHECK(one.steps[i].load_variation == Approx(expected.steps[i].load_variation).epsilon(10 * tolerance));
    }
    CHECK(one.validation == Approx(expected.validation).epsilon(10 * tolerance));
    CHECK(greatest(one.weights, expected.weights) < (of_weights > 0 ? of_weights : 200 * tolerance));
    CHECK(one.weights == came[0].weights);  // all ranks have all experts in the end
  }
  CHECK(run<Arch, B>(how, optimizer)[0].weights == came[0].weights);  // the same ranks, the same bits
}

}  // namespace

TEST_CASE("Ranks that share the experts take the steps of one process", "[ranks]") {
  using Plain = Mixed<Router<4, 2>>;
  SECTION("two ranks share all") { check_as_one<Plain>(1e-12, {}, AdamW{.lr = 1e-2}, 2, 2); }
  SECTION("four ranks share all") { check_as_one<Plain>(1e-12, {}, AdamW{.lr = 1e-2}, 4, 4); }
  SECTION("sums beside backward") { check_as_one<Plain>(1e-12, {.beside = true}); }
  SECTION("recomputation") { check_as_one<Plain>(1e-12, {.recompute = true}); }
  SECTION("pads") { check_as_one<Plain>(1e-12, {.pads = true}); }
  SECTION("one of four experts, biases, a shared expert") {
    check_as_one<Mixed<Router<4, 1>, Expert<Gelu, Hidden<24>, Bias>, tinymoe::Shared<Expert<SwiGlu, Hidden<8>>>>>(
        1e-12);
  }
  SECTION("all of four experts") { check_as_one<Mixed<Router<4, 4>>>(1e-12); }
  SECTION("experts with a capacity") { check_as_one<Mixed<Router<4, 2, Capacity<1>>>>(1e-12); }
  SECTION("noise, and as many experts as a token wants") {
    check_as_one<Mixed<Router<4, 3, DynamicTopK>>>(1e-12, {.steps = 2});
    check_as_one<Mixed<Router<4, 2, NoisyTopK>>>(1e-12, {.steps = 2});
    check_as_one<Mixed<Router<4, 2, Jitter, SigmoidScores>>>(1e-12, {.steps = 2, .settings = {setting::jitter = 0.1}});
  }
  SECTION("all tokens go to one expert") {
    check_as_one<Mixed<Router<4, 1, tinymoe::Bias>>>(1e-11, {.one_for_all = true});
    check_as_one<Mixed<Router<4, 1, tinymoe::Bias>>>(1e-11, {.recompute = true, .one_for_all = true});
  }
  SECTION("a balance loss over the step, a bias that moves") {
    check_as_one<Plain>(1e-12, {.settings = {setting::balance_over_step = true, setting::balance_weight = 0.5}});
    check_as_one<Mixed<Router<4, 2, SigmoidScores, BalanceBias>>>(1e-12, {.settings = {setting::bias_rate = 0.05}});
  }
  SECTION("dropout outside the experts") { check_as_one<Plain>(1e-12, {.settings = {setting::dropout = 0.1}}); }
  SECTION("Muon") { check_as_one<Plain, Reference<double>, Muon>(1e-10, {}, {.lr = 1e-2}); }
  SECTION("float32") { check_as_one<Plain, Cpu>(1e-6); }
  SECTION("bfloat16") { check_as_one<Plain, CpuBfloat16>(1e-3, {.steps = 1}, AdamW{.lr = 1e-3}, 4, 2, 3e-3); }
}

TEST_CASE("A rank holds its own experts between evaluations, and takes the step of no other", "[ranks]") {
  using Arch = Mixed<Router<4, 2>>;
  std::vector<std::vector<float>> before(2), after(2);
  on_ranks(2, [&](const Threads& communicator) {
    const auto rank = static_cast<std::size_t>(communicator.rank());
    Cpu backend(1);
    Model<Arch, Cpu> model(backend, Seed{5});
    Trainer trainer(model, AdamW{.lr = 1e-2}, Constant{}, communicator, 2);
    const auto tokens = random_tokens(32, 260, rank);
    trainer.train_step(tokens, tokens, 2, 16);
    before[rank] = weights_of(model);
    trainer.gather_experts();
    after[rank] = weights_of(model);
  });
  CHECK(after[0] == after[1]);
  std::vector<float> first;
  {
    Cpu backend(1);
    const Model<Arch, Cpu> model(backend, Seed{5});
    first = weights_of(model);
  }
  using P = Arch::Parameters<float>;
  const auto tensors = segments<P>();
  const auto places = detail::places_of_segments<P>(2);
  const auto same = [](const std::vector<float>& a, const std::vector<float>& b, const Segment& tensor) {
    return std::equal(a.begin() + tensor.offset, a.begin() + tensor.offset + tensor.size(), b.begin() + tensor.offset);
  };
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    for (const Index rank : {0, 1}) {
      const auto& mine = before[static_cast<std::size_t>(rank)];
      const bool is_here = places[i].part < 0 || places[i].part == rank;
      CHECK(same(mine, after[0], tensors[i]) == is_here);
      if (!is_here) CHECK(same(mine, first, tensors[i]));
    }
  }
}

TEST_CASE("A checkpoint of ranks that share experts is that of one process", "[ranks]") {
  const TemporaryFolder root;
  using Arch = Tiny;
  const auto fit = [&](const auto& communicator, Index together, Index steps, const std::filesystem::path& to,
                       const std::filesystem::path& from = {}) {
    Cpu backend(1);
    Model<Arch, Cpu> model(backend, Seed{5});
    Trainer trainer(model, AdamW{.lr = 1e-2}, Constant{}, communicator, together);
    if (!from.empty()) trainer.resume(from);
    trainer.fit(tiny_data(), {.batch = 2,
                              .time = 16,
                              .growth = {{{{8, 0.5}}}},
                              .accumulation = 4,
                              .steps = steps,
                              .average = 0.5,
                              .evaluate_every = 3,
                              .validation = &tiny_data(),
                              .checkpoint = to,
                              .best = to.string() + "-best",
                              .tokenizer = &tiny_tokenizer()});
    return weights_of(model);
  };
  const auto shared = [&](Index together, Index steps, const char* to, const std::filesystem::path& from = {}) {
    std::vector<std::vector<float>> weights(4);
    on_ranks(4, [&](const Threads& communicator) {
      weights[static_cast<std::size_t>(communicator.rank())] = fit(communicator, together, steps, root / to, from);
    });
    for (const auto& each : weights) CHECK(each == weights[0]);
    return weights[0];
  };
  const auto expected = fit(Alone(), 1, 4, root / "one");
  CHECK(greatest_difference(shared(2, 4, "shared"), expected) < 2e-4);
  // Moments too: a run goes on with ranks that share experts otherwise, or do not.
  shared(2, 2, "begun");
  fit(Alone(), 1, 2, root / "one begun");
  const auto resumed = fit(Alone(), 1, 4, root / "one resumed", root / "one begun");
  CHECK(greatest_difference(shared(4, 4, "by four", root / "begun"), resumed) < 2e-4);
  CHECK(greatest_difference(shared(1, 4, "not shared", root / "begun"), resumed) < 2e-4);
  CHECK(greatest_difference(fit(Alone(), 1, 4, root / "alone", root / "begun"), resumed) < 2e-4);
  // What is saved, is what was trained: the weights of the checkpoint, loaded by one process.
  Cpu backend(1);
  Model<Arch, Cpu> loaded(backend, Seed{6});
  load_model(root / "shared", loaded);
  CHECK(greatest_difference(weights_of(loaded), expected) < 2e-4);
}

TEST_CASE("A communicator that is chosen at run time groups ranks and sums beside backward as its own kind does",
          "[ranks]") {
  std::vector<std::vector<float>> found(2), expected(2);
  on_ranks(2, [&](const Threads& communicator) {
    const auto rank = static_cast<std::size_t>(communicator.rank());
    const auto train = [&](auto ranks) {
      Cpu backend(1);
      Model<Tiny, Cpu> model(backend, Seed{5});
      Trainer trainer(model, AdamW{.lr = 1e-2}, Constant{}, ranks, 2);
      const auto tokens = random_tokens(32, 260, rank);
      for (int i = 0; i < 3; ++i) trainer.train_step(tokens, tokens, 2, 16);
      trainer.gather_experts();
      return weights_of(model);
    };
    found[rank] = train(AnyCommunicator<Cpu>(Beside(communicator)));
    expected[rank] = train(communicator);
  });
  CHECK(found == expected);
}

namespace {

/// Counts exchanges, and may fail in one.
struct Counting {
  struct Counts {
    int started = 0, finished = 0;
    bool fails = false;
  };
  Counts* counts;
  static Index rank() { return 0; }
  static Index size() { return 2; }
  Counting group(Index) { return *this; }
  static void reduce_scatter(Cpu&, View<float>, std::span<const Index>) {}
  static void all_gather(Cpu&, View<float>, std::span<const Index>) {}
  static void sum(std::span<double>) {}
  static void exchange_numbers(std::span<const std::int32_t>, std::span<std::int32_t>) {}
  void start_exchange(Cpu&, const void*, std::span<const Index>, void*, std::span<const Index>, std::size_t) {
    ++counts->started;
  }
  void finish_exchange(Cpu&) {
    ++counts->finished;
    if (counts->fails) fail<TrainingError>("a rank has left");
  }
};

}  // namespace

TEST_CASE("An exchange that an exception leaves under way is finished once", "[ranks]") {
  Counting::Counts counts;
  Cpu backend(1);
  detail::RankGroups<Counting, Cpu> ranks(Counting{&counts}, 2);
  ranks.form(backend);
  ExpertExchange& exchange = *ranks.exchange();
  const std::vector<Index> rows = {0, 1};
  const auto start = [&] { exchange.start(nullptr, rows, nullptr, rows, 4); };
  exchange.give_up();
  CHECK(counts.finished == 0);
  start();
  exchange.give_up();
  CHECK(counts.finished == 1);
  exchange.give_up();
  CHECK(counts.finished == 1);
  start();
  exchange.finish();
  exchange.give_up();
  CHECK(counts.finished == 2);
  counts.fails = true;
  start();
  CHECK_THROWS_AS(exchange.finish(), TrainingError);
  exchange.give_up();  // it has failed, and is not asked again
  CHECK(counts.finished == 3);
  start();
  CHECK_NOTHROW(exchange.give_up());
  CHECK(counts.finished == counts.started);
}

namespace {

/// Its sums fail, first those of all ranks and then those of a group.
class Failing : public Beside {
 public:
  explicit Failing(const Threads& ranks, bool is_group = false) : Beside(ranks), is_group_(is_group) {}
  Failing group(Index color) { return Failing(Threads::group(color), true); }
  template <class B>
  void finish(B& backend) {
    Beside::finish(backend);
    fail<TrainingError>(is_group_ ? "it has failed before" : "the disk is full");
  }

 private:
  bool is_group_;
};

}  // namespace

TEST_CASE("Of sums that fail one after the other the first error is told", "[ranks]") {
  std::vector<std::string> told(2);
  on_ranks(2, [&](const Threads& communicator) {
    Cpu backend(1);
    Model<Tiny, Cpu> model(backend, Seed{5});
    Trainer trainer(model, AdamW{}, Constant{}, Failing(communicator), 2);
    const auto tokens = random_tokens(32, 260);
    try {
      trainer.train_step(tokens, tokens, 2, 16);
    } catch (const TrainingError& error) {
      told[static_cast<std::size_t>(communicator.rank())] = error.what();
    }
  });
  for (const auto& sentence : told) CHECK(sentence == "the disk is full");
}

TEST_CASE("A loss that is not finite on one rank that shares experts is told by all", "[ranks]") {
  for (const bool over_step : {false, true}) {
    std::vector<std::string> told(2);
    on_ranks(2, [&](const Threads& communicator) {
      Cpu backend(1);
      Model<Tiny, Cpu> model(backend, Seed{5}, {setting::balance_over_step = over_step});
      Trainer trainer(model, AdamW{}, Constant{}, communicator, over_step ? 1 : 2);
      const auto good = random_tokens(64, 200);
      auto tokens = good;
      // A token that rank 0 alone meets, in its first micro-batch.
      const Token bad = 250;
      model.masters().data[bad * 16] = std::numeric_limits<float>::quiet_NaN();
      if (communicator.rank() == 0) tokens[3] = bad;
      try {
        trainer.train_step(tokens, good, 2, 16);
      } catch (const TrainingError& error) {
        told[static_cast<std::size_t>(communicator.rank())] = error.what();
      }
      trainer.train_step(good, good, 2, 16);  // the ranks are still at the same step
    });
    for (const auto& sentence : told) CHECK(sentence.find("step 1: the loss is nan") != std::string::npos);
  }
}

TEST_CASE("What ranks cannot share is refused", "[ranks]") {
  const auto make = [](auto arch, Index ranks, Index together, Settings settings = {}) {
    on_ranks(ranks, [&](const Threads& communicator) {
      Cpu backend(1);
      Model<typename decltype(arch)::type, Cpu> model(backend, Seed{5}, settings);
      Trainer trainer(model, AdamW{}, Constant{}, communicator, together);
    });
  };
  using Four = std::type_identity<Mixed<Router<4, 2>>>;
  using None = std::type_identity<
      Transformer<Vocab<260>, Context<16>, Width<16>,
                  Layers<1, DenseBlock<RmsNorm, Attention<Heads<4>, Rope>, Expert<SwiGlu, Hidden<24>>>>>>;
  check_message<OptionError>([&] { make(None{}, 2, 2); }, "the model has no experts to share");
  std::vector<std::string> disagree(2);
  on_ranks(2, [&](const Threads& communicator) {
    Cpu own(1);
    Model<Tiny, Cpu> of_rank(own);
    try {
      Trainer trainer(of_rank, AdamW{}, Constant{}, communicator, communicator.rank() + 1);
      const auto tokens = random_tokens(32, 260);
      trainer.begin_step(tokens, tokens, 2, 16);
    } catch (const OptionError& error) {
      disagree[static_cast<std::size_t>(communicator.rank())] = error.what();
    }
  });
  for (const auto& sentence : disagree)
    CHECK(sentence.find("do not agree on how many of them share") != std::string::npos);
  check_message<OptionError>([&] { make(Four{}, 3, 2); },
                             "expert parallelism in groups of 2 needs a number of processes that is a multiple of it; "
                             "found 3");
  check_message<OptionError>(
      [&] { make(Four{}, 3, 3); },
      "expert parallelism: 3 processes cannot share the 4 experts of a layer; give a number that "
      "divides them");
  check_message<OptionError>(
      [&] { make(Four{}, 2, 2, {setting::expert_dropout = 0.1}); },
      "the setting expert_dropout must be 0 in expert parallelism: its masks follow the order of "
      "rows");
  CHECK_THROWS_AS(make(std::type_identity<Mixed<Router<4, 1, ExpertChoice>>>{}, 2, 2), OptionError);
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend);
  const auto alone = [&] { Trainer trainer(model, AdamW{}, Constant{}, Alone{}, 2); };
  CHECK_THROWS_AS(alone(), OptionError);
  // Ranks with other numbers of micro-batches would wait for each other: all are told, and are at the same step.
  std::vector<std::string> told(2);
  on_ranks(2, [&](const Threads& communicator) {
    const auto rank = static_cast<std::size_t>(communicator.rank());
    Cpu backend(1);
    Model<Tiny, Cpu> model(backend);
    Trainer trainer(model, AdamW{}, Constant{}, communicator, 2);
    const auto tokens = random_tokens(32 * (communicator.rank() + 1), 260);
    try {
      trainer.train_step(tokens, tokens, 2, 16);
    } catch (const OptionError& error) {
      told[rank] = error.what();
    }
    const auto one = random_tokens(32, 260);
    trainer.train_step(one, one, 2, 16);
  });
  for (const auto& sentence : told) CHECK(sentence.find("as many micro-batches") != std::string::npos);
  const auto uneven = [&] {
    on_ranks(2, [](const Threads& communicator) {
      Cpu own(1);
      Model<Tiny, Cpu> of_rank(own);
      Trainer trainer(of_rank, AdamW{}, Constant{}, communicator, 2);
      trainer.fit(tiny_data(), {.batch = 2, .time = 16, .accumulation = 3, .steps = 1});
    });
  };
  check_message<OptionError>(uneven, "a step has 3 micro-batches; in expert parallelism",
                             "give an accumulation that is a multiple of the 2 processes");
}

}  // namespace tinymoe_test::expert_parallel
