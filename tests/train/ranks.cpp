// Several ranks that train one model, each in its own thread: they take the same steps as a single rank.

#include <cstring>
#include <functional>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/text/batches.hpp"
#include "tinymoe/text/padded_batches.hpp"
#include "tinymoe/train/lion.hpp"
#include "tinymoe/train/muon.hpp"
#include "tinymoe/train/parameter_buckets.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/callbacks.hpp"
#include "train/thread_ranks.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::ranks {

namespace {

/// The reports and the results of a run.
struct Told {
  std::vector<StepReport> steps;
  std::vector<ExpertLoads> loads;
  std::vector<double> validation;
  std::vector<Index> checkpoints;
  std::vector<float> weights;
};

struct Watch : Observer {
  explicit Watch(Told& to) : told(to) {}
  Told& told;
  void on_step(const StepReport& report, const ExpertLoads& loads) override {
    told.steps.push_back(report), told.loads.push_back(loads);
  }
  void on_evaluation(const StepReport&, const EvaluationReport& evaluation) override {
    told.validation.push_back(evaluation.loss);
  }
  void on_checkpoint(const StepReport& last, const CheckpointReport&) override {
    told.checkpoints.push_back(last.step);
  }
};

template <class C>
Told fit(FitOptions options, const C& communicator, const std::filesystem::path& from = {}, Index stop = 1 << 30) {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{5},
                         {setting::dropout = 0.1});  // the random numbers of each micro-batch are its own
  Trainer trainer(model, AdamW{.lr = 1e-2}, WarmupCosine{.warmup = 2}, communicator);
  if (!from.empty()) trainer.resume(from);
  Told told;
  Watch watch(told);
  options.observers = {&watch};
  options.stop = [&, rank = Index{communicator.rank()}] { return rank == 0 && trainer.step() == stop; };
  trainer.fit(tiny_data(), options);
  told.weights = weights_of(model);
  return told;
}

/// The same on each of two ranks.
std::vector<Told> fit_on_two(const FitOptions& options, const std::filesystem::path& from = {}, Index stop = 1 << 30) {
  std::vector<Told> told(2);
  on_ranks(2, [&](const Threads& communicator) {
    told[static_cast<std::size_t>(communicator.rank())] = fit(options, communicator, from, stop);
  });
  return told;
}

void check_near(const Told& found, const Told& expected) {
  REQUIRE(found.steps.size() == expected.steps.size());
  for (std::size_t i = 0; i < found.steps.size(); ++i) {
    const auto &a = found.steps[i], &b = expected.steps[i];
    INFO("step " << i + 1);
    CHECK(a.step == b.step);
    CHECK(a.tokens == b.tokens);
    CHECK(a.loss == Approx(b.loss).epsilon(1e-5));
    CHECK(a.balance_loss == Approx(b.balance_loss).epsilon(1e-5));
    CHECK(a.z_loss == Approx(b.z_loss).epsilon(1e-5));
    CHECK(a.gradient_norm == Approx(b.gradient_norm).epsilon(1e-4));
    CHECK(a.learning_rate == b.learning_rate);
  }
  REQUIRE(found.validation.size() == expected.validation.size());
  for (std::size_t i = 0; i < found.validation.size(); ++i) {
    CHECK(found.validation[i] == Approx(expected.validation[i]).epsilon(1e-5));
  }
  CHECK(greatest_difference(found.weights, expected.weights) < 2e-4);
}

/// Packed sequences grow.
FitOptions options_for(Index accumulation, Batching batching) {
  const bool grows = batching == Batching::packed;
  return {.batch = 2,
          .time = 16,
          .growth = grows ? SequenceGrowth{{{{8, 0.5}}}} : SequenceGrowth{},
          .batching = batching,
          .accumulation = accumulation,
          .steps = 5,
          .clip = 0.5,
          .average = 0.5,
          .seed = Seed{3},
          .evaluate_every = 2,
          .validation = &tiny_data(),
          .tokenizer = &tiny_tokenizer()};
}

}  // namespace

namespace {

/// A dense block and one of a Mixtral. Embedding, head and tables have more than one chunk, and those of the embedding
/// end within a row.
using Tabled = Transformer<
    Vocab<1000>, Context<16>, Width<24>, Bigrams<2000>, PerLayerEmbeddings,
    Layers<1, DenseBlock<RmsNorm, Attention<Heads<4>, Rope>, Expert<SwiGlu, Hidden<40>>>>,
    Layers<1, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Router<4, 2>, Expert<SwiGlu, Hidden<24>>>>>;

/// What some steps come to.
template <class B>
struct Taken {
  std::vector<float> weights;
  std::vector<typename B::Scalar> read;  // what layers read
  std::vector<double> norms;
  std::size_t state_bytes = 0;
};

/// Steps whose gradients are those of rank 0: the others score no target, and add zeros. Saves them in `to`; goes on
/// from `from`.
template <class B, class O, class C>
Taken<B> steps(O optimizer, const C& communicator, Index count, const std::filesystem::path& to,
               const std::filesystem::path& from = {}) {
  B backend(1);
  Model<Tabled, B> model(backend, Seed{5}, {setting::balance_weight = 0, setting::z_weight = 0});
  Trainer trainer(model, optimizer, Constant{}, communicator);
  trainer.average(0.5);
  if (!from.empty()) trainer.resume(from);
  Taken<B> taken;
  while (trainer.step() < count) {
    const auto tokens = random_tokens(32, 260, static_cast<std::uint64_t>(100 * communicator.rank() + trainer.step()));
    const std::vector<Token> none(tokens.size(), -1);
    taken.norms.push_back(
        trainer.train_step(tokens, communicator.rank() == 0 ? tokens : none, 2, 16, {.clip = 0.5}).gradient_norm);
  }
  trainer.save(to, tiny_tokenizer());
  taken.weights = weights_of(model);
  taken.read.resize(taken.weights.size());
  backend.copy_to_host(taken.read.data(), model.buffer().data, taken.read.size() * sizeof(taken.read[0]));
  taken.state_bytes = trainer.state_bytes();
  return taken;
}

/// One rank and three take the same steps, write the same files, and go on from each other's. `crowded`: so do more
/// ranks than there are pieces, some of which have nothing.
template <class B, class O>
void check_shares(O optimizer, bool crowded = false) {
  const TemporaryFolder root;
  const auto one = [&](Index count, const char* to, const std::filesystem::path& from = {}) {
    return steps<B>(optimizer, Alone(), count, root / to, from);
  };
  const auto three = [&](Index count, const char* to, const std::filesystem::path& from = {}) {
    std::vector<Taken<B>> taken(3);
    on_ranks(3, [&](const Threads& communicator) {
      taken[static_cast<std::size_t>(communicator.rank())] =
          steps<B>(optimizer, AnyCommunicator<B>(Beside(communicator)), count, root / to, from);
    });
    for (const auto& each : taken) {
      CHECK(same_bits(each.weights, taken[0].weights));
      CHECK(std::memcmp(each.read.data(), taken[0].read.data(), each.read.size() * sizeof(each.read[0])) == 0);
      CHECK(each.norms == taken[0].norms);
    }
    return taken[0];
  };
  const auto check_same = [&](const Taken<B>& found, const Taken<B>& expected, const char* at) {
    INFO(at);
    CHECK(same_bits(found.weights, expected.weights));
    CHECK(std::memcmp(found.read.data(), expected.read.data(), found.read.size() * sizeof(found.read[0])) == 0);
    for (const char* file : {"model.safetensors", "optimizer.safetensors", "average.safetensors"}) {
      CHECK(read_bytes(root / at / file) == read_bytes(root / "one" / file));
    }
  };
  const auto expected = one(4, "one"), found = three(4, "three");
  if (crowded) {
    constexpr Index many = 60;
    std::vector<Taken<B>> of_many(many);
    on_ranks(many, [&](const Threads& communicator) {
      of_many[static_cast<std::size_t>(communicator.rank())] =
          steps<B>(optimizer, AnyCommunicator<B>(communicator), 4, root / "many");
    });
    check_same(of_many.back(), expected, "many");
  }
  CHECK(found.norms == expected.norms);
  constexpr auto moment = static_cast<std::size_t>(buffer_size<Tabled::Parameters<float>>()) * sizeof(float);
  CHECK(expected.state_bytes - found.state_bytes > static_cast<std::size_t>(optimizer.moments) * moment / 2);
  check_same(found, expected, "three");
  one(2, "begun by one"), three(2, "begun by three");
  check_same(three(4, "ended by three", root / "begun by one"), expected, "ended by three");
  check_same(one(4, "ended by one", root / "begun by three"), expected, "ended by one");
}

}  // namespace

TEST_CASE("Two ranks take the steps of one", "[ranks]") {
  for (const Batching batching : {Batching::packed, Batching::padded}) {
    for (const Index accumulation : {2, 5}) {  // of which each rank takes one; two and three
      INFO("padded " << (batching == Batching::padded) << ", accumulation " << accumulation);
      const auto expected = fit(options_for(accumulation, batching), Alone());
      const auto found = fit_on_two(options_for(accumulation, batching));
      for (const auto& one : found) {
        check_near(one, expected);
        CHECK(one.loads[0] == expected.loads[0]);  // before rounding can have moved a choice
        CHECK(one.steps.back().loss == found[0].steps.back().loss);
        CHECK(one.steps.back().seconds == found[0].steps.back().seconds);  // rank 0's clock is that of all
      }
      CHECK(same_bits(found[0].weights, found[1].weights));
    }
  }
}

TEST_CASE("Gradients of the later layers are summed while backward works on the earlier ones", "[ranks]") {
  // More than 2^18 numbers in each layer, so that it has a bucket of its own.
  using Wide =
      Transformer<Vocab<260>, Context<16>, Width<64>,
                  Layers<3, MoEBlock<RmsNorm, Attention<Heads<4>, Rope>, Router<4, 2>, Expert<SwiGlu, Hidden<384>>>>>;
  using P = Wide::Parameters<float>;
  const auto buckets = detail::parameter_buckets(segments<P>(), detail::places_of_segments<P>(), detail::chunks_of<P>(),
                                                 buffer_size<P>(), 2);
  REQUIRE(buckets.size() == 4);
  std::vector<std::vector<std::string>> told(2);
  std::vector<float> norms(2);
  on_ranks(2, [&](const Threads& communicator) {
    const auto rank = static_cast<std::size_t>(communicator.rank());
    const auto tokens = random_tokens(32, 260, rank);
    const auto step = [&](auto ranks) {
      Cpu backend(1);
      Model<Wide, Cpu> model(backend, Seed{5});
      Trainer trainer(model, AdamW{}, Constant{}, ranks);
      const float* gradients = trainer.gradients().data;
      if constexpr (requires { ranks.on_start; }) {
        trainer.communicator().on_start = [&](const void* row) {
          // The name of the bucket, and of those before it that are still to come.
          std::string line;
          for (std::size_t i = 0; i < buckets.size(); ++i) {
            const auto& all = buckets[i].all;
            if (row == gradients + all.first) {
              line += tinymoe::detail::sentence_of({i});
              break;
            }
            if (std::all_of(gradients + all.first, gradients + all.last, [](float number) { return number == 0; })) {
              line += tinymoe::detail::sentence_of({i, " to come, "});
            }
          }
          told[rank].push_back(line);
        };
      }
      norms[rank] = static_cast<float>(trainer.train_step(tokens, tokens, 2, 16).gradient_norm);
      return weights_of(model);
    };
    if (!same_bits(step(communicator), step(Beside(communicator)))) fail<TrainingError>("the sums are others");
  });
  // The embedding's gradient waits for the whole pass, as that of a layer does for its layer.
  for (const auto& lines : told) {
    CHECK(lines == std::vector<std::string>{"0 to come, 1 to come, 2 to come, 3", "0 to come, 1 to come, 2",
                                            "0 to come, 1", "0"});
  }
  CHECK(norms[0] == norms[1]);
}

TEST_CASE("Ranks read each window once, in the order of a single rank", "[ranks]") {
  Cpu backend(1);
  const Batches all(tiny_data(), 2, 16, Seed{3});
  const auto feed = [&](Index rank) {
    return BatchFeed<Cpu>(backend, tiny_data(),
                          {.batch = 2, .time = 16, .micro_batches = 5, .seed = Seed{3}, .rank = rank, .ranks = 3});
  };
  std::vector<Token> inputs(32), targets(32);
  for (Index rank = 0; rank < 3; ++rank) {
    auto its = feed(rank);
    for (Index step = 0; step < 4; ++step) {
      const auto batch = its.next(step);
      REQUIRE(batch.micro_batches() == (rank < 2 ? 2 : 1));
      for (Index i = 0; i < batch.micro_batches(); ++i) {
        all.fill(step * 5 + i * 3 + rank, inputs, targets);
        CHECK(std::ranges::equal(batch.inputs.subspan(static_cast<std::size_t>(32 * i), 32), inputs));
        CHECK(std::ranges::equal(batch.targets.subspan(static_cast<std::size_t>(32 * i), 32), targets));
      }
    }
  }
}

TEST_CASE("Shares cover all parameters, are alike, and cut no matrix of a block", "[ranks]") {
  using P = Tabled::Parameters<float>;
  constexpr Index size = buffer_size<P>();
  const auto tensors = segments<P>();
  const auto places = detail::places_of_segments<P>();
  const auto chunks = detail::chunks_of<P>();
  for (const Index ranks : {1, 2, 3, 4, 7, 200}) {
    for (const Index least : {Index{1}, Index{1} << 13, size}) {
      INFO(ranks << " ranks, at least " << least);
      const auto buckets = detail::parameter_buckets(tensors, places, chunks, size, ranks, 1, least);
      // The embedding, the layers, and the norm, which is small enough to go with the last layer unless all are alone.
      REQUIRE(buckets.size() == (least == 1 ? 4u : least == size ? 2u : 3u));
      CHECK(buckets[0].layer == -1);
      CHECK(buckets[1].layer == 0);
      if (least == 1) CHECK(buckets[3].layer == 2);
      std::vector<Index> owned(static_cast<std::size_t>(ranks));
      Index first = 0, first_chunk = 0;
      for (const auto& bucket : buckets) {
        CHECK(bucket.all.first == first);
        CHECK(bucket.all.first_chunk == first_chunk);
        REQUIRE(std::ssize(bucket.firsts) == ranks + 1);
        for (Index rank = 0; rank < ranks; ++rank) {
          const auto run = bucket.share(rank);
          CHECK(run.first == first);
          CHECK(run.first_chunk == first_chunk);
          CHECK(run.last >= run.first);
          owned[static_cast<std::size_t>(rank)] += run.last - run.first;
          // The chunks are those of the elements, and the tensors those of the chunks.
          auto chunk = static_cast<std::size_t>(run.first_chunk);
          for (const Segment& tensor : detail::tensors_of_run(tensors, run)) {
            CHECK(tensor.offset >= run.first);
            CHECK(tensor.offset + tensor.size() <= run.last);
            for (Index i = 0; i < detail::chunk_count(tensor); ++i, ++chunk) {
              CHECK(chunks[chunk].offset == tensor.offset + i * detail::chunk_size(tensor));
              CHECK(chunks[chunk].size ==
                    std::min(detail::chunk_size(tensor), tensor.size() - i * detail::chunk_size(tensor)));
            }
            if (!detail::is_block_matrix(tensor)) continue;
            CHECK(std::any_of(tensors.begin(), tensors.end(), [&](const Segment& whole) {
              return whole.offset == tensor.offset && whole.rows == tensor.rows && whole.cols == tensor.cols;
            }));
          }
          CHECK(chunk == static_cast<std::size_t>(run.last_chunk));
          first = run.last, first_chunk = run.last_chunk;
        }
        CHECK(bucket.all.last == first);
        CHECK(bucket.all.last_chunk == first_chunk);
      }
      CHECK(first == size);
      CHECK(first_chunk == std::ssize(chunks));
      if (ranks <= 4) CHECK(*std::max_element(owned.begin(), owned.end()) < size / ranks + Chunk::largest);
    }
  }
}

TEST_CASE("Ranks with a share of the optimizer's state change the weights as one rank does, to the bit", "[ranks]") {
  check_shares<Cpu>(AdamW{.lr = 1e-2, .rates = {.norm = 4, .table = 6}, .decays = {.table = 3}});
  check_shares<Cpu>(Lion{.lr = 1e-3}, true);
  check_shares<Cpu>(Muon{.lr = 1e-2});
  check_shares<Cpu>(Muon{.lr = 1e-2, .experts = false, .feed_forward = false});
  check_shares<CpuBfloat16>(Muon{.lr = 1e-2});  // its layers read a rounded copy
}

TEST_CASE("Ranks save one checkpoint, which another number of ranks can resume", "[ranks]") {
  const TemporaryFolder root;
  auto two = options_for(2, Batching::packed), one = two;
  two.checkpoint = one.checkpoint = root / "run";
  two.metrics = one.metrics = root / "run.csv";
  auto alone = one;
  alone.checkpoint = root / "alone", alone.metrics.clear();
  const auto expected = fit(alone, Alone());
  const auto stopped = fit_on_two(two, {}, 3);  // rank 0 alone is asked to stop
  CHECK(stopped[0].steps.size() == 3);
  CHECK(stopped[1].steps.size() == 3);
  CHECK(stopped[0].checkpoints == std::vector<Index>{3});
  CHECK(stopped[1].checkpoints.empty());
  const auto resumed = fit(one, Alone(), root / "run");
  REQUIRE(resumed.steps.size() == 2);
  CHECK(resumed.steps.back().loss == Approx(expected.steps.back().loss).epsilon(1e-5));
  CHECK(greatest_difference(resumed.weights, expected.weights) < 2e-4);
  const auto rows = read_bytes(root / "run.csv");
  CHECK(std::count(rows.begin(), rows.end(), '\n') == 1 + 5 + 3);  // no row is there twice
  // Another number of micro-batches in all is another order.
  two.accumulation = 4;
  two.steps = 7;
  CHECK_THROWS_AS(fit_on_two(two, root / "run"), MismatchError);
}

TEST_CASE("A run that one rank cannot begin ends on all, and leaves the model as it was", "[ranks]") {
  const TemporaryFolder root;
  write_bytes(root / "file", "mine");
  std::vector<FitOptions> wrong(2, options_for(2, Batching::packed));
  wrong[0].checkpoint = root / "file";  // found before the run is planned
  wrong[1].metrics = root / "file";     // and after it
  for (const FitOptions& options : wrong) {
    std::vector<std::string> messages(2);
    on_ranks(2, [&](const Threads& communicator) {
      try {
        fit(options, communicator);
      } catch (const Error& error) {
        messages[static_cast<std::size_t>(communicator.rank())] = error.what();
      }
    });
    CHECK(messages[0].find("file: ") != std::string::npos);
    CHECK(messages[1] == "rank 0 cannot begin this run: " + messages[0]);
  }
  CHECK(read_bytes(root / "file") == "mine");
  // A step of one micro-batch is too little for two.
  check_message<OptionError>([] { fit_on_two(options_for(1, Batching::packed)); },
                             "1 micro-batch, which 2 processes cannot");
}

TEST_CASE("Ranks that would not train the same are refused before the first step, and told apart", "[ranks]") {
  const auto other_data = tiny_data().first(tiny_data().size() - 1);
  const Json recipe = {{"optimizer", "adamw"}, {"warmup", 2}};
  struct Difference {
    std::function<void(FitOptions&)> make;
    const char* named;
  };
  const TokenData* data = nullptr;
  const std::vector<Difference> differences = {
      {[](FitOptions&) {}, nullptr},
      {[](FitOptions& o) { o.seed = Seed{4}; }, "another seed than rank 0;"},
      {[](FitOptions& o) { o.batch = 3; }, "another batch than rank 0 (3, not 2);"},
      {[](FitOptions& o) { o.steps = 6; }, "another number of steps than rank 0 (6, not 5);"},
      {[](FitOptions& o) { o.clip = 0.25; }, "another limit of the gradients' norm than rank 0 (0.25, not 0.5);"},
      {[&](FitOptions& o) { o.validation = &other_data; }, "another validation data than rank 0;"},
      {[&](FitOptions&) { data = &other_data; }, "another training data than rank 0;"},
      {[](FitOptions& o) { o.recipe["warmup"] = 3; }, "another warmup than rank 0;"},
      {[](FitOptions& o) { o.recipe["new"] = 3; }, "another list of options, so another build"},
  };
  for (const auto& [make, named] : differences) {
    INFO((named == nullptr ? "none" : named));
    std::vector<std::string> messages(3);
    data = &tiny_data();
    FitOptions options = options_for(3, Batching::packed), changed = options;
    options.recipe = changed.recipe = recipe;
    make(changed);
    on_ranks(3, [&](const Threads& communicator) {
      const bool differs = communicator.rank() == 1;
      Cpu backend(1);
      Model<Tiny, Cpu> model(backend, Seed{5});
      Trainer trainer(model, AdamW{.lr = 1e-2}, Constant{}, communicator);
      try {
        trainer.fit(differs ? *data : tiny_data(), differs ? changed : options);
      } catch (const MismatchError& error) {
        messages[static_cast<std::size_t>(communicator.rank())] = error.what();
        if (trainer.step() > 0) messages[0] = "after a step";
      }
    });
    CHECK(messages[1] == messages[0]);
    CHECK(messages[2] == messages[0]);
    if (named == nullptr) {
      CHECK(messages[0].empty());
    } else {
      CHECK(messages[0].starts_with("rank 1 has " + std::string(named)));
    }
  }
  // The model, its settings and the optimizer.
  const auto message_of = [&](const Settings& settings, double rate, Seed seed) {
    std::string message;
    on_ranks(2, [&](const Threads& communicator) {
      const bool differs = communicator.rank() == 1;
      Cpu backend(1);
      Model<Tiny, Cpu> model(backend, differs ? seed : Seed{5}, differs ? settings : Settings{});
      Trainer trainer(model, AdamW{.lr = differs ? rate : 1e-2}, Constant{}, communicator);
      try {
        trainer.fit(tiny_data(), options_for(2, Batching::packed));
      } catch (const MismatchError& error) {
        if (differs) message = error.what();
      }
    });
    return message;
  };
  CHECK(message_of({}, 2e-2, Seed{5}).starts_with("rank 1 has another learning rate than rank 0 (0.02, not 0.01);"));
  CHECK(message_of({setting::dropout = 0.1}, 1e-2, Seed{5}).starts_with("rank 1 has another dropout than rank 0"));
  CHECK(message_of({}, 1e-2, Seed{6}).starts_with("rank 1 has another first weights than rank 0;"));
}

TEST_CASE("A step by hand may have other numbers of tokens on each rank", "[ranks]") {
  auto tokens = random_tokens(96, 260);
  auto targets = random_tokens(96, 260, 2);
  for (std::size_t i = 0; i < 20; ++i) targets[i] = -1;  // rank 0 scores fewer of its own
  for (std::size_t i = 3; i < 16; ++i) tokens[i] = pad_token;
  for (std::size_t i = 57; i < 64; ++i) tokens[i] = targets[i] = pad_token;
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{5});
  Trainer trainer(model);
  const auto expected = trainer.train_step(tokens, targets, 2, 16);
  on_ranks(2, [&](const Threads& communicator) {
    Cpu own(1);
    Model<Tiny, Cpu> copy(own, Seed{5});
    Trainer part(copy, AdamW{}, Constant{}, communicator);
    // One micro-batch, and two.
    const auto of = [&](const auto& all) {
      return communicator.rank() == 0 ? std::span(all).first(32) : std::span(all).subspan(32);
    };
    const auto report = part.train_step(of(tokens), of(targets), 2, 16);
    if (communicator.rank() != 0) return;
    CHECK(report.loss == Approx(expected.loss).epsilon(1e-6));
    CHECK(report.balance_loss == Approx(expected.balance_loss).epsilon(1e-5));
    CHECK(report.z_loss == Approx(expected.z_loss).epsilon(1e-5));
    CHECK(report.load_variation == Approx(expected.load_variation).epsilon(1e-5));
    CHECK(report.gradient_norm == Approx(expected.gradient_norm).epsilon(1e-5));
    CHECK(report.tokens == 96 - 13 - 7);
    CHECK(part.loads() == trainer.loads());
    CHECK(greatest_difference(weights_of(copy), weights_of(model)) < 1e-5);
  });
}

TEST_CASE("A loss that is not finite on one rank is an error on all, and no weight changes", "[ranks]") {
  const auto tokens = random_tokens(32, 260);
  std::vector<std::string> messages(2);
  on_ranks(2, [&](const Threads& communicator) {
    Cpu backend(1);
    Model<Tiny, Cpu> model(backend, Seed{5});
    Trainer trainer(model, AdamW{}, Constant{}, communicator);
    const auto before = weights_of(model);
    if (communicator.rank() == 1) trainer.gradients().data[3] = std::numeric_limits<float>::infinity();
    try {
      trainer.train_step(tokens, tokens, 2, 16);
    } catch (const TrainingError& error) {
      messages[static_cast<std::size_t>(communicator.rank())] = error.what();
    }
    if (!same_bits(weights_of(model), before)) messages[0] = "moved";
    trainer.train_step(tokens, tokens, 2, 16);  // and they go on
  });
  CHECK(messages[0].find("gradients' norm") != std::string::npos);
  CHECK(messages[1] == messages[0]);
}

TEST_CASE("Ranks that fail together save the step before, and tell why", "[ranks]") {
  // What goes wrong on rank 1 after the second step, and what both say.
  struct Failure {
    const char *named, *on_rank_0, *on_rank_1;
    std::function<void(Trainer<Model<Tiny, Cpu>, AdamW, Constant, Threads>&)> make;
  };
  const std::vector<Failure> failures = {
      {"a gradient", "the gradients' norm is inf", "the gradients' norm is inf",
       [](auto& trainer) { trainer.gradients().data[3] = std::numeric_limits<float>::infinity(); }},
      {"an observer", "rank 1: the disk is full; the last good", "the disk is full",
       [](auto&) { fail<FileError>("the disk is full"); }},
  };
  for (const Failure& failure : failures) {
    INFO(failure.named);
    const TemporaryFolder root;
    std::vector<std::string> messages(2);
    std::vector<Index> saved(2, -1);
    on_ranks(2, [&](const Threads& communicator) {
      const auto rank = static_cast<std::size_t>(communicator.rank());
      Cpu backend(1);
      Model<Tiny, Cpu> model(backend, Seed{5});
      Trainer trainer(model, AdamW{.lr = 1e-2}, Constant{}, communicator);
      auto options = options_for(2, Batching::packed);
      options.checkpoint = root / "run";
      auto watch = on_each_step([&](const StepReport& report) {
        if (report.step == 2 && rank == 1) failure.make(trainer);
      });
      options.observers = {&watch};
      try {
        trainer.fit(tiny_data(), options);
      } catch (const Error& error) {
        messages[rank] = error.what();
      }
      saved[rank] = trainer.saved().step;
    });
    CHECK(messages[0].find(failure.on_rank_0) != std::string::npos);
    CHECK(messages[1].find(failure.on_rank_1) != std::string::npos);
    CHECK(messages[0].find("run (step 2)") != std::string::npos);
    CHECK(saved == std::vector<Index>{2, 2});
    const auto resumed = fit(options_for(2, Batching::packed), Alone(), root / "run");
    CHECK(resumed.steps.size() == 3);
  }
  // A token that is none, given by hand.
  const auto tokens = random_tokens(32, 260);
  std::vector<std::string> messages(2);
  on_ranks(2, [&](const Threads& communicator) {
    const auto rank = static_cast<std::size_t>(communicator.rank());
    Cpu backend(1);
    Model<Tiny, Cpu> model(backend, Seed{5});
    Trainer trainer(model, AdamW{}, Constant{}, communicator);
    auto wrong = tokens;
    if (rank == 1) wrong[5] = 260;
    try {
      trainer.train_step(wrong, tokens, 2, 16);
    } catch (const Error& error) {
      messages[rank] = error.what() + std::string(trainer.failed_together() ? ", together" : "");
    }
    trainer.train_step(tokens, tokens, 2, 16);
  });
  CHECK(messages[1] == "token 260 is outside the vocabulary of 260, together");
  CHECK(messages[0] == "rank 1: " + messages[1]);
}

namespace {

/// Rank 0 of two, whose other rank does what it does, and is gone at some call.
struct Parting {
  struct Calls {
    Index left, after = 0;  // calls until it is gone, and those after that
  };
  Calls* calls;
  static constexpr Index rank() { return 0; }
  static constexpr Index size() { return 2; }
  void sum(std::span<double>) { call(); }
  template <class B>
  void reduce_scatter(B&, View<typename B::Master>, std::span<const Index>) {
    call();
  }
  template <class B>
  void all_gather(B&, View<typename B::Master>, std::span<const Index>) {
    call();
  }
  void call() {
    if (calls->left-- > 0) return;
    calls->after += calls->left < -1;
    fail<DeviceError>("the other rank is gone");
  }
};
static_assert(Communicator<Parting>);

}  // namespace

TEST_CASE("A rank makes no call after its communicator has thrown", "[ranks]") {
  const TemporaryFolder root;
  auto options = options_for(2, Batching::packed);
  options.checkpoint = root / "run", options.checkpoint_every = 2, options.steps = 3;
  Index calls_of_a_run = 0;
  for (Index at = 0;; ++at) {
    INFO("call " << at);
    Parting::Calls calls{at};
    try {
      fit(options, Parting{&calls});
      calls_of_a_run = at;
    } catch (const DeviceError& error) {
      CHECK(std::string(error.what()).starts_with("the other rank is gone"));
    }
    CHECK(calls.after == 0);
    if (calls_of_a_run > 0) break;
    REQUIRE(at < 1000);
  }
  CHECK(calls_of_a_run > 20);
}

TEST_CASE("A router that moves by its own tokens is refused on several ranks", "[ranks]") {
  using Chosen = Transformer<
      Vocab<260>, Context<16>, Width<16>,
      Layers<1, MoEBlock<RmsNorm, Attention<Heads<4>>, Router<4, 1, ExpertChoice>, Expert<SwiGlu, Hidden<24>>>>>;
  Cpu backend(1);
  Model<Chosen, Cpu> model(backend, Seed{5});
  check_message<OptionError>([&] { Trainer(model, AdamW{}, Constant{}, Threads(2)); }, "router", "several");
  CHECK_NOTHROW(Trainer(model, AdamW{}, Constant{}, Threads(1)));
}

namespace {

/// Three steps of four micro-batches, of which each rank takes its own.
template <class Arch>
std::pair<std::vector<StepReport>, std::vector<double>> counting_steps(
    const AnyCommunicator<Reference<double>>& communicator, const Settings& settings, bool recompute) {
  Reference<double> backend;
  Model<Arch, Reference<double>> model(backend, Seed{5}, settings);
  Trainer trainer(model, AdamW{.lr = 1e-2}, Constant{}, communicator);
  std::vector<StepReport> reports;
  for (std::uint64_t step = 0; step < 3; ++step) {
    std::vector<Token> tokens;
    for (Index i = communicator.rank(); i < 4; i += communicator.size()) {
      const auto some = random_tokens(32, 260, 100 * step + static_cast<std::uint64_t>(i));
      tokens.insert(tokens.end(), some.begin(), some.end());
    }
    reports.push_back(trainer.train_step(tokens, tokens, 2, 16, {.recompute = recompute}));
  }
  return {reports, weights_of(model)};
}

/// Ranks count the tokens of all: they take the steps that one takes.
template <class Arch>
void check_counts(Settings settings) {
  settings.set(setting::balance_weight = 0.5), settings.set(setting::bias_rate = 0.05);
  for (const bool recompute : {false, true}) {
    for (const Index ranks : {2, 4}) {
      INFO(ranks << " ranks, recompute " << recompute);
      const auto [reports, weights] = counting_steps<Arch>({}, settings, recompute);
      std::vector<std::pair<std::vector<StepReport>, std::vector<double>>> found(static_cast<std::size_t>(ranks));
      on_ranks(ranks, [&](const Threads& communicator) {
        found[static_cast<std::size_t>(communicator.rank())] = counting_steps<Arch>(communicator, settings, recompute);
      });
      for (const auto& one : found) {
        for (std::size_t i = 0; i < reports.size(); ++i) {
          CHECK(one.first[i].loss == Approx(reports[i].loss).epsilon(1e-12));
          CHECK(one.first[i].balance_loss == Approx(reports[i].balance_loss).epsilon(1e-12));
          CHECK(one.first[i].gradient_norm == Approx(reports[i].gradient_norm).epsilon(1e-11));
        }
        double most = 0;
        for (std::size_t i = 0; i < weights.size(); ++i) most = std::max(most, std::abs(one.second[i] - weights[i]));
        CHECK(most < 1e-9);
      }
    }
  }
}

template <class R>
using Counted = Transformer<Vocab<260>, Context<16>, Width<16>,
                            Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>>, R, Expert<SwiGlu, Hidden<8>>>>>;

}  // namespace

TEST_CASE("A balance loss over the step, and a bias that moves, count the tokens of all ranks", "[ranks]") {
  const Settings over_step{setting::balance_over_step = true};
  check_counts<Counted<Router<4, 2>>>(over_step);
  check_counts<Counted<Router<4, 2, GShardBalance>>>(over_step);
  check_counts<Counted<Router<4, 2, CvBalance>>>(over_step);
  check_counts<Counted<Router<4, 2, CvBalance, NoisyTopK>>>(over_step);
  check_counts<Counted<Router<4, 2, SigmoidScores, BalanceBias>>>({});
  // A rank with other micro-batches would be waited for: all are told.
  std::vector<std::string> messages(2);
  on_ranks(2, [&](const Threads& communicator) {
    Cpu backend(1);
    Model<Tiny, Cpu> model(backend, Seed{5}, over_step);
    Trainer trainer(model, AdamW{}, Constant{}, communicator);
    const auto tokens = random_tokens(32 * (communicator.rank() + 1), 260);
    try {
      trainer.begin_step(tokens, tokens, 2, 16);
    } catch (const OptionError& error) {
      messages[static_cast<std::size_t>(communicator.rank())] = error.what();
    }
  });
  for (const auto& message : messages) CHECK(message.find("as many micro-batches") != std::string::npos);
}

}  // namespace tinymoe_test::ranks
