// Training itself: losses, gradients, accumulation, padding, determinism, evaluation and wrong input.

#include "tinymoe/train/trainer.hpp"

#include <cstdint>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/checkpoint/upcycle.hpp"
#include "tinymoe/sample/sampler.hpp"
#include "tinymoe/sample/session.hpp"
#include "tinymoe/text/bpe_trainer.hpp"
#include "tinymoe/train/any_optimizer.hpp"
#include "train/callbacks.hpp"
#include "train/descent.hpp"

namespace tinymoe_test::trainer {

namespace {

template <class B>
std::vector<double> losses(B& backend, Index steps, std::vector<float>* weights = nullptr) {
  Model<Tiny, B> model(backend, Seed{11});
  Trainer trainer(model, AdamW{.lr = 1e-2}, WarmupCosine{.warmup = 5});
  std::vector<double> result;
  auto watch = on_each_step([&](const StepReport& report) { result.push_back(report.loss); });
  trainer.fit(tiny_data(), {.batch = 4, .time = 16, .steps = steps, .seed = Seed{7}, .observers = {&watch}});
  if constexpr (std::is_same_v<B, Cpu>) {
    if (weights != nullptr) *weights = weights_of(model);
  }
  return result;
}

/// The gradient of one step's loss, as plain descent shows it, and the loss.
template <class B>
std::vector<typename B::Master> gradient(B& backend, const std::vector<Token>& inputs,
                                         const std::vector<Token>& targets, Index batch, double* loss = nullptr,
                                         Settings settings = no_router_losses) {
  Model<Tiny, B> model(backend, Seed{11}, settings);
  const auto before = weights_of(model);
  Trainer trainer(model, Descent{});
  const auto report = trainer.train_step(inputs, targets, batch, 16, {.clip = 0});
  if (loss != nullptr) *loss = report.loss;
  auto change = weights_of(model);
  for (std::size_t i = 0; i < change.size(); ++i) change[i] = before[i] - change[i];
  return change;
}

/// Five updates by plain descent on a batch of 8, in micro-batches of `batch`.
template <class B>
std::vector<typename B::Master> descend(B& backend, Index batch) {
  Model<Tiny, B> model(backend, Seed{2}, no_router_losses);
  Trainer trainer(model, Descent{.lr = 0.5});
  const Batches batches(tiny_data(), 8, 16, Seed{1});
  std::vector<Token> inputs(128), targets(128);
  for (Index step = 0; step < 5; ++step) {
    batches.fill(step, inputs, targets);
    trainer.train_step(inputs, targets, batch, 16, {.clip = 0.5});
  }
  return weights_of(model);
}

}  // namespace

TEST_CASE("Loss falls on what can be learned, from the uniform guess on", "[trainer]") {
  Cpu backend(1);
  const auto curve = losses(backend, 80);
  REQUIRE(curve.size() == 80);
  CHECK(curve.front() == Approx(std::log(260.0)).margin(0.6));
  CHECK(curve.back() < 0.8);
}

TEST_CASE("The loss curve of a seed has the stored values, on the oracle and on the CPU", "[trainer]") {
  const std::vector<double> committed = {6.003717, 5.960739, 5.457884, 5.294117, 5.135990};
  Reference<double> oracle;
  const auto expected = losses(oracle, 5);
  for (std::size_t i = 0; i < 5; ++i) {
    INFO("step " << i + 1 << ", loss " << std::to_string(expected[i]));
    CHECK(std::abs(expected[i] - committed[i]) < 1e-3);
  }
  Cpu cpu(2);
  CHECK(greatest_difference(losses(cpu, 5), expected) < 1e-4);
}

TEST_CASE("The same seed and threads give the same bits", "[trainer]") {
  std::vector<float> first, second, other;
  for (auto* weights : {&first, &second}) {
    Cpu backend(2);
    losses(backend, 6, weights);
  }
  CHECK(same_bits(first, second));
  Cpu backend(2);
  losses(backend, 5, &other);
  CHECK_FALSE(same_bits(first, other));
}

TEST_CASE("Four micro-batches are one batch of four times the size", "[trainer]") {
  Reference<double> oracle;
  Cpu cpu(2);
  const auto expected = descend(oracle, 8);
  CHECK(greatest_difference(descend(oracle, 2), expected) < 1e-12);
  CHECK(greatest_difference(descend(cpu, 2), descend(cpu, 8)) < 1e-6);
  CHECK(greatest_difference(descend(oracle, 2), weights_of(Model<Tiny, Reference<double>>(oracle, Seed{2}))) > 1e-2);
}

TEST_CASE("The router's losses are a mean over the tokens of all micro-batches", "[trainer]") {
  // Both micro-batches are the same, so that one has the losses and gradients of two.
  Reference<double> oracle;
  const auto one = random_tokens(32, Tiny::vocab, 1);
  auto two = one;
  two.insert(two.end(), one.begin(), one.end());
  const Settings settings{setting::balance_weight = 0.5, setting::z_weight = 0.25};
  double loss_one = 0, loss_two = 0;
  const auto expected = gradient(oracle, one, one, 2, &loss_one, settings);
  CHECK(greatest_difference(gradient(oracle, two, two, 2, &loss_two, settings), expected) < 1e-14);
  CHECK(loss_one == Approx(loss_two).epsilon(1e-12));
  CHECK(greatest_difference(gradient(oracle, one, one, 2), expected) > 1e-4);
}

TEST_CASE("Padding changes neither the loss nor the gradient", "[trainer]") {
  Reference<double> oracle;
  const auto inputs = random_tokens(32, Tiny::vocab, 1);
  std::vector<Token> targets = random_tokens(32, Tiny::vocab, 2);
  for (std::size_t i = 10; i < 32; ++i) targets[i] = -1;  // the end of the first row, and all of the second
  double loss = 0, other_loss = 0, short_loss = 0;
  const auto expected = gradient(oracle, inputs, targets, 2, &loss);
  auto other = inputs;
  const auto noise = random_tokens(32, Tiny::vocab, 3);
  for (std::size_t i = 10; i < 32; ++i) other[i] = noise[i], targets[i] = -7;
  CHECK(greatest_difference(gradient(oracle, other, targets, 2, &other_loss), expected) < 1e-14);
  CHECK(other_loss == Approx(loss).epsilon(1e-14));
  // One row without the padded one.
  const std::vector<Token> row(inputs.begin(), inputs.begin() + 16), row_targets(targets.begin(), targets.begin() + 16);
  CHECK(greatest_difference(gradient(oracle, row, row_targets, 1, &short_loss), expected) < 1e-14);
  CHECK(short_loss == Approx(loss).epsilon(1e-14));
  // In micro-batches that have other numbers of padded tokens, every scored token counts the same.
  double parts_loss = 0;
  CHECK(greatest_difference(gradient(oracle, inputs, targets, 1, &parts_loss), expected) < 1e-14);
  CHECK(parts_loss == Approx(loss).epsilon(1e-14));
  // But a scored token matters.
  other[3] = (other[3] + 1) % Tiny::vocab;
  CHECK(greatest_difference(gradient(oracle, other, targets, 2), expected) > 1e-4);
}

TEST_CASE("A step with nothing to score, and a wrong shape or token, are errors and change nothing", "[trainer]") {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{1});
  Trainer trainer(model);
  const auto before = weights_of(model);
  const auto step = [&](std::vector<Token> inputs, std::vector<Token> targets, Index batch, Index time) {
    return [=, &trainer] { trainer.train_step(inputs, targets, batch, time); };
  };
  const auto tokens = random_tokens(32, Tiny::vocab);
  auto wrong = tokens;
  wrong[9] = Tiny::vocab;
  auto negative = tokens;
  negative[30] = -1;
  check_message<TrainingError>(step(tokens, std::vector<Token>(32, -1), 2, 16), "step 1", "no target");
  check_message<ShapeError>(step(tokens, tokens, 3, 16), "3 x 16", "32");
  check_message<ShapeError>(step(tokens, random_tokens(16, 260), 2, 16), "32 and 16");
  check_message<ShapeError>(step({}, {}, 2, 16), "2 x 16");
  check_message<ShapeError>(step(tokens, tokens, 0, 16), "0 x 16");
  check_message<ShapeError>(step(tokens, tokens, 1, -16), "1 x -16");
  check_message<ShapeError>(step(tokens, tokens, 1, 32), "32", "context of 16");
  check_message<TextError>(step(wrong, tokens, 2, 16), "token 260", "vocabulary of 260");
  check_message<TextError>(step(tokens, wrong, 2, 16), "token 260", "vocabulary of 260");
  check_message<TextError>(step(negative, tokens, 2, 16), "pad at 30", "target");
  CHECK(trainer.step() == 0);
  CHECK(same_bits(weights_of(model), before));
  // And it goes on after them.
  CHECK(trainer.train_step(tokens, negative, 2, 16).step == 1);
  CHECK_FALSE(same_bits(weights_of(model), before));
}

namespace {

/// `check()` of the options that are all defaults but for one field.
template <class O, class Field>
auto checked(Field O::*field, double value) {
  return [field, value] {
    O options;
    options.*field = static_cast<Field>(value);
    options.check();
  };
}

/// Checks that the option is refused by its name for each of `wrong`, a real one also for what is no number, and that
/// it may be any of `right`.
template <class O, class Field>
void check_range(const char* name, Field O::*field, std::vector<double> right, std::vector<double> wrong) {
  if constexpr (std::is_floating_point_v<Field>) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    wrong.insert(wrong.end(), {std::numeric_limits<double>::quiet_NaN(), infinity, -infinity});
    if constexpr (sizeof(Field) == 8) wrong.push_back(1e39);
  }
  for (const double value : wrong) check_message<OptionError>(checked(field, value), std::string(name) + " must be ");
  for (const double value : right) {
    INFO(name << " of " << value);
    CHECK_NOTHROW(checked(field, value)());
  }
}

/// 260 tokens of llama2.c, of which the last is one that a tokenizer.json cannot say.
Tokenizer unsaved_tokenizer() {
  std::vector<std::string> names = {"<unk>", "\n<s>\n", "\n</s>\n"};
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(byte));
    names.push_back(name);
  }
  names.push_back("\xff\xfe");
  std::string bytes = bytes_of(std::int32_t{16});
  for (const auto& name : names) bytes += bytes_of(0.0f) + bytes_of(static_cast<std::int32_t>(name.size())) + name;
  const TemporaryFolder folder;
  return Tokenizer::load_llama2c(write_bytes(folder / "tokenizer.bin", bytes));
}

/// FitOptions as a struct with a `check()` of a run of one step.
struct Fit : FitOptions {
  Fit() { minutes = 1; }
  void check() const { tinymoe::detail::check(*this); }
};

}  // namespace

TEST_CASE("Every option that is a number is refused by its name where it means nothing", "[options]") {
  const std::vector<double> from_0 = {0, -0.0, 0.5, 1e30}, share = {0, 0.5, 0.999999}, fraction = {0, 0.5, 1};
  const std::vector<double> below_0 = {-1, -1e-30}, no_share = {-1, 1, 0.99999999, 2}, no_fraction = {-1, 1.1};
  check_range("AdamW::lr", &AdamW::lr, from_0, below_0);
  check_range("AdamW::beta1", &AdamW::beta1, share, no_share);
  check_range("AdamW::beta2", &AdamW::beta2, share, no_share);
  check_range("AdamW::epsilon", &AdamW::epsilon, {1e-30}, {0, -0.0, -1, 1e-60});
  check_range("AdamW::weight_decay", &AdamW::weight_decay, from_0, below_0);
  check_range("Lion::lr", &Lion::lr, from_0, below_0);
  check_range("Lion::beta1", &Lion::beta1, share, no_share);
  check_range("Lion::beta2", &Lion::beta2, share, no_share);
  check_range("Lion::weight_decay", &Lion::weight_decay, from_0, below_0);
  check_range("Muon::lr", &Muon::lr, from_0, below_0);
  check_range("Muon::momentum", &Muon::momentum, share, no_share);
  check_range("Muon::weight_decay", &Muon::weight_decay, from_0, below_0);
  check_range("Muon::iterations", &Muon::iterations, {0, 5}, {-1, 101});
  for (const auto& [name, field] : {std::pair("Muon::a", &Muon::a), {"Muon::b", &Muon::b}, {"Muon::c", &Muon::c}}) {
    check_range(name, field, {-5, 0, 5}, {});
  }
  check_range("Muon::scale", &Muon::scale, from_0, below_0);
  check_range("Muon::matrix_epsilon", &Muon::matrix_epsilon, {1e-7}, {0, -1});
  check_range("Muon::beta1", &Muon::beta1, share, no_share);
  check_range("Muon::beta2", &Muon::beta2, share, no_share);
  check_range("Muon::adamw_rate", &Muon::adamw_rate, from_0, below_0);
  check_range("Muon::epsilon", &Muon::epsilon, {1e-30}, {0, -1, 1e-60});

  const auto refused = [](const auto& optimizer, const char* name) {
    check_message<OptionError>([&] { optimizer.check(); }, name, "must be a number of 0 or more, found");
  };
  refused(AdamW{.rates = {.norm = -1}}, "AdamW::rates: that of norm");
  refused(AdamW{.decays = {.table = std::numeric_limits<double>::infinity()}}, "AdamW::decays: that of table");
  refused(Lion{.rates = {.feed_forward = -1e-30}}, "Lion::rates: that of feed-forward");
  refused(Muon{.decays = {.embedding = std::nan("")}}, "Muon::decays: that of embedding");
  // A step may not take more than a whole weight, for Muon by the rate that trains the part.
  const auto too_much = [](const auto& optimizer, const char* name) {
    check_message<OptionError>([&] { optimizer.check(); }, name, "makes a step take 1.8 of a weight");
  };
  too_much(AdamW{.lr = 2e-2, .rates = {.table = 6}, .decays = {.table = 150}}, "AdamW::decays: that of table");
  too_much(Lion{.lr = 0.1, .weight_decay = 0.5, .decays = {.head = 36}}, "Lion::decays: that of head");
  too_much(Muon{.lr = 2e-2, .adamw_rate = 0.25, .decays = {.attention = 900}}, "Muon::decays: that of attention");
  CHECK_NOTHROW(Muon{.lr = 2e-2, .adamw_rate = 0.25, .rates = {.table = 6}, .decays = {.table = 150}}.check());
  CHECK_NOTHROW(Muon{.rates = {.router = 0}, .decays = {.head = 1e3}}.check());

  check_range("Constant::warmup", &Constant::warmup, {0, 5}, {-1});
  check_range("WarmupCosine::warmup", &WarmupCosine::warmup, {0, 5}, {-1});
  check_range("WarmupCosine::steps", &WarmupCosine::steps, {0, 5}, {-1});
  check_range("WarmupCosine::floor", &WarmupCosine::floor, fraction, no_fraction);
  check_range("OneCycle::warmup", &OneCycle::warmup, fraction, no_fraction);
  check_range("OneCycle::steps", &OneCycle::steps, {0, 5}, {-1});
  check_range("OneCycle::start_divisor", &OneCycle::start_divisor, {1, 25}, {0, 0.5, -1});
  check_range("OneCycle::end_divisor", &OneCycle::end_divisor, {1, 25}, {0, 0.5, -1});
  check_range("WarmupStableDecay::warmup", &WarmupStableDecay::warmup, {0, 5}, {-1});
  check_range("WarmupStableDecay::decay", &WarmupStableDecay::decay, fraction, no_fraction);
  check_range("WarmupStableDecay::floor", &WarmupStableDecay::floor, fraction, no_fraction);
  check_range("WarmupStableDecay::steps", &WarmupStableDecay::steps, {0, 5}, {-1});

  const auto fit = [](const char* name, auto FitOptions::*field, const auto& right, const auto& wrong) {
    check_range<Fit>(name, static_cast<std::remove_reference_t<decltype(Fit{}.*field)> Fit::*>(field), right, wrong);
  };
  fit("FitOptions::batch", &FitOptions::batch, std::vector<double>{1, 9}, std::vector<double>{0, -1, 1e9});
  fit("FitOptions::time", &FitOptions::time, std::vector<double>{0, 9}, std::vector<double>{-1, 1e9});
  fit("FitOptions::accumulation", &FitOptions::accumulation, std::vector<double>{1}, std::vector<double>{0, -1, 65537});
  fit("FitOptions::steps", &FitOptions::steps, std::vector<double>{0, 1}, std::vector<double>{-1});
  fit("FitOptions::minutes", &FitOptions::minutes, std::vector<double>{1e-9, 5}, below_0);
  fit("FitOptions::clip", &FitOptions::clip, from_0, below_0);
  fit("FitOptions::average", &FitOptions::average, share, no_share);
  fit("FitOptions::evaluate_every", &FitOptions::evaluate_every, std::vector<double>{0, 1}, std::vector<double>{-1});
  fit("FitOptions::evaluate_minutes", &FitOptions::evaluate_minutes, from_0, below_0);
  fit("FitOptions::checkpoint_every", &FitOptions::checkpoint_every, std::vector<double>{0, 1},
      std::vector<double>{-1});
  fit("FitOptions::checkpoint_minutes", &FitOptions::checkpoint_minutes, from_0, below_0);
  check_range("StepOptions::clip", &StepOptions::clip, from_0, below_0);
  check_range("StepOptions::fraction", &StepOptions::fraction, {0, 0.5, 1.5}, below_0);

  check_range("FeedOptions::batch", &FeedOptions::batch, {}, {0, -1});
  check_range("FeedOptions::time", &FeedOptions::time, {1}, {0, -1});
  check_range("SampleOptions::temperature", &SampleOptions::temperature, from_0, below_0);
  check_range("SampleOptions::top_k", &SampleOptions::top_k, {0, 5}, {-1});
  check_range("SampleOptions::min_p", &SampleOptions::min_p, fraction, no_fraction);
  check_range("SampleOptions::typical_p", &SampleOptions::typical_p, {1e-6, 1}, {0, -0.0, -1, 1.1});
  check_range("SampleOptions::top_p", &SampleOptions::top_p, {1e-6, 1}, {0, -0.0, -1, 1.1});
  check_range("SampleOptions::repetition_penalty", &SampleOptions::repetition_penalty, {0.5, 2}, {0, -1});
  check_range("SampleOptions::tokens", &SampleOptions::tokens, {0, 5}, {-1});
  check_range("SessionOptions::sequences", &SessionOptions::sequences, {1, 5}, {0, -1, 1e9});
  check_range("UpcycleOptions::noise", &UpcycleOptions::noise, from_0, below_0);
  check_range("TokenizerTraining::threads", &TokenizerTraining::threads, {0, 5}, {-1, 5000});
  check_range("TokenizerTraining::least_count", &TokenizerTraining::least_count, {0, 5}, {-1});
  for (const Setting* setting : tinymoe::detail::stored_settings<Tiny>()) {
    for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL, -1.0, 1e39}) {
      check_message<OptionError>([&] { Settings{* setting = value}.check(); }, setting->name);
    }
    CHECK_FALSE(std::signbit(Settings{* setting = -0.0}[*setting]));
  }
  check_message<OptionError>([] { Cpu(-1); }, "Cpu::threads", "found -1");
}

TEST_CASE("A range says what it asks for, and why a number is outside", "[options]") {
  using namespace tinymoe::detail::range;
  CHECK(above_0.refusal(std::nan("")) == " must be a number above 0, found nan");
  CHECK(above_0.refusal(1e-60) == " must be a number above 0, found 1e-60, which is 0 as a float");
  CHECK(from_0_below_1.refusal(0.99999999) ==
        " must be at least 0 and below 1, found 0.99999999, which is 1 as a float");
  CHECK(from_0_to_1.refusal(-1) == " must be between 0 and 1, found -1");
  CHECK(whole(1, 1 << 20).refusal(2e6) == " must be a whole number of 1 or more, at most 1048576, found 2000000");
  CHECK(whole(0).refusal(0.5) == " must be a whole number of 0 or more, found 0.5");
  CHECK(whole(0).allows(0x1p127));
  CHECK_FALSE(whole(0).allows(0x1p128));
  CHECK(whole(0).refusal(1e39) == " must be a whole number of 0 or more, found 1e+39, which is inf as a float");
  CHECK(any.refusal(-HUGE_VAL) == " must be a finite number, found -inf");
}

TEST_CASE("Wrong numbers are refused before any work, wherever they come from", "[options]") {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{1});
  const double nan = std::nan("");
  check_message<OptionError>([&] { Trainer(model, AdamW{.lr = nan}); }, "AdamW::lr", "found nan");
  check_message<OptionError>([&] { AnyOptimizer<Cpu>(Lion{.beta2 = 1}); }, "Lion::beta2", "found 1");
  check_message<OptionError>([&] { Trainer(model, AdamW{}, WarmupCosine{.floor = nan}); }, "WarmupCosine::floor");
  check_message<OptionError>([&] { AnySchedule(OneCycle{.start_divisor = 0}); }, "OneCycle::start_divisor");
  // A user's own schedule is asked at each step.
  Trainer trainer(model, AdamW{}, [](Progress at) { return at.step == 1 ? std::nan("") : 1.0; });
  const auto tokens = random_tokens(32, 260);
  trainer.train_step(tokens, tokens, 2, 16);
  const auto before = weights_of(model);
  check_message<OptionError>([&] { trainer.train_step(tokens, tokens, 2, 16); }, "learning rate of step 2",
                             "found nan");
  check_message<OptionError>([&] { trainer.train_step(tokens, tokens, 2, 16, {.clip = nan}); }, "StepOptions::clip");
  check_message<OptionError>([&] { trainer.average(nan); }, "average", "found nan");
  check_message<OptionError>([&] { trainer.fit(tiny_data(), {.steps = 1, .minutes = nan}); }, "FitOptions::minutes");
  CHECK(same_bits(weights_of(model), before));
  CHECK(trainer.step() == 1);
}

TEST_CASE("Contradictory options are refused before the first step", "[trainer]") {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{1});
  Trainer trainer(model);
  const auto before = weights_of(model);
  const auto fit = [&](const TokenData& data, FitOptions options) {
    return [&trainer, data, options] { trainer.fit(data, options); };
  };
  check_message<TrainingError>(fit(tiny_data(), {}), "steps", "minutes");
  check_message<OptionError>(fit(tiny_data(), {.accumulation = 0, .steps = 1}), "FitOptions::accumulation");
  check_message<TrainingError>(fit(tiny_data(), {.steps = 1, .checkpoint = "nowhere"}), "nowhere", "tokenizer");
  check_message<TrainingError>(fit(tiny_data(), {.steps = 1, .best = "nowhere"}), "nowhere", "tokenizer");
  check_message<TrainingError>(fit(tiny_data(), {.steps = 1, .best = "nowhere", .tokenizer = &tiny_tokenizer()}),
                               "nowhere", "validation");
  check_message<TrainingError>(fit(tiny_data(), {.steps = 1,
                                                 .validation = &tiny_data(),
                                                 .checkpoint = "nowhere",
                                                 .best_weights = "nowhere",
                                                 .tokenizer = &tiny_tokenizer()}),
                               "nowhere", "a folder each");
  check_message<TrainingError>(fit(tiny_data(), {.batching = Batching::padded, .steps = 1}), "padded", "tokenizer");
  check_message<OptionError>(fit(tiny_data(), {.steps = 1, .average = 1}), "average", "found 1");
  check_message<ShapeError>(fit(tiny_data(), {.time = 17, .steps = 1}), "17", "context of 16");
  check_message<OptionError>(fit(tiny_data(), {.batch = 0, .steps = 1}), "FitOptions::batch", "found 0");
  const auto few = random_tokens(16, 260);
  check_message<TrainingError>(fit(TokenData::from_tokens(few, 260), {.steps = 1}), "17 tokens", "found 16");
  check_message<MismatchError>(fit(TokenData::from_tokens(few, 261), {.steps = 1}), "261", "vocabulary of 260");
  check_message<FileError>(fit(tiny_data(), {.steps = 1, .metrics = "/dev/null/all.csv"}), "/dev/null/all.csv");
  const auto foreign = TokenData::from_tokens(random_tokens(40, 260), 261);
  check_message<MismatchError>(fit(tiny_data(), {.steps = 1, .validation = &foreign}), "261", "vocabulary of 260");
  const auto one = TokenData::from_tokens(random_tokens(1, 260), 260);
  check_message<TrainingError>(fit(tiny_data(), {.steps = 1, .validation = &one}), "2 tokens", "found 1");
  const auto large = tokenizer_of({{"t", "h"}, {"th", "e"}, {" ", "the"}, {"a", "t"}});
  const TemporaryFolder folder;
  check_message<MismatchError>(fit(tiny_data(), {.steps = 1, .checkpoint = folder / "run", .tokenizer = &large}), "261",
                               "vocabulary of 260");
  // The model has room for the tokens of all, but they are of two vocabularies.
  const auto smaller = TokenData::from_tokens(random_tokens(40, 200), 200);
  check_message<MismatchError>(fit(tiny_data(), {.steps = 1, .validation = &smaller}), "validation data", "200", "260");
  check_message<MismatchError>(fit(smaller, {.steps = 1, .tokenizer = &tiny_tokenizer()}), "the tokenizer", "260",
                               "200");
  const auto alike = tokenizer_of({{"t", "h"}, {"th", "e"}, {"a", "t"}});
  const StoryList stories = {"the cat sat on the mat", "the dog sat on the log"};
  const auto own = TokenData::encode(stories, tiny_tokenizer()), of_other = TokenData::encode(stories, alike);
  check_message<MismatchError>(fit(own, {.batch = 1, .steps = 1, .validation = &of_other}), "validation data",
                               "another vocabulary");
  check_message<MismatchError>(fit(of_other, {.batch = 1, .steps = 1, .tokenizer = &tiny_tokenizer()}), "the tokenizer",
                               "another vocabulary");
  // A save would fail, after all steps.
  const Tokenizer unsaved = unsaved_tokenizer();
  check_message<TextError>(fit(tiny_data(), {.steps = 1, .checkpoint = folder / "run", .tokenizer = &unsaved}),
                           "token 259 is not UTF-8", "cannot be saved in a checkpoint");
  check_message<TextError>(
      fit(tiny_data(),
          {.steps = 1, .checkpoint = folder / "run", .tokenizer = &tiny_tokenizer(), .recipe = Json("\xff")}),
      "FitOptions::recipe", "UTF-8");
  for (const char* name : {"trainer.json", "model.safetensors", "../run/config.json"}) {
    check_message<TrainingError>(fit(tiny_data(), {.steps = 1,
                                                   .checkpoint = folder / "run",
                                                   .tokenizer = &tiny_tokenizer(),
                                                   .metrics = folder / "run" / name}),
                                 name, "checkpoint's file");
  }
  // The model learns a new end of texts only once a run begins.
  model.special_tokens().config = SpecialTokens{.end = {7}};
  write_bytes(folder / "notes", "mine");
  check_message<FileError>(fit(tiny_data(), {.steps = 1, .tokenizer = &tiny_tokenizer(), .metrics = folder / "notes"}),
                           "notes", "replace");
  CHECK(model.special_tokens().config->end == std::vector<Token>{7});
  std::filesystem::remove(folder / "notes");
  CHECK(entries_in(folder.path()) == 0);
  CHECK(trainer.step() == 0);
  CHECK(same_bits(weights_of(model), before));
}

TEST_CASE("A run ends by steps, by minutes and by `stop`", "[trainer]") {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{1});
  Index reports = 0, evaluations = 0;
  {
    Trainer trainer(model);
    auto watch = on_each_step([&](const StepReport&) { ++reports; });
    watch.evaluation = [&](const StepReport& at, const EvaluationReport&) {
      CHECK((at.step == 3 || at.step == 6 || at.step == 7));
      ++evaluations;
    };
    const auto report = trainer.fit(
        tiny_data(),
        {.batch = 1, .time = 8, .steps = 7, .evaluate_every = 3, .validation = &tiny_data(), .observers = {&watch}});
    CHECK(report.step == 7);
    CHECK(report.tokens == 56);
    CHECK(report.fraction == 1);
    CHECK(report.seconds > 0);
    CHECK(report.tokens_per_second > 0);
    CHECK(reports == 7);
    CHECK(evaluations == 3);
  }
  {
    Trainer trainer(model);
    const auto report = trainer.fit(tiny_data(), {.batch = 1, .time = 8, .minutes = 0.0005});
    CHECK(report.step > 0);
    CHECK(report.seconds >= 0.03);
    CHECK(report.fraction >= 1);
  }
  {  // asked for during an evaluation: no step follows it; after the last one, the budget is spent
    for (const Index at : {3, 6}) {
      Trainer trainer(model);
      bool stop = false;
      Callbacks watch;
      watch.evaluation = [&](const StepReport& last, const auto&) { stop = last.step == at; };
      const auto report = trainer.fit(tiny_data(), {.batch = 1,
                                                    .time = 8,
                                                    .steps = 6,
                                                    .evaluate_every = 3,
                                                    .validation = &tiny_data(),
                                                    .observers = {&watch},
                                                    .stop = [&] { return stop; }});
      CHECK(report.step == at);
    }
  }
  {
    Trainer trainer(model);
    Callbacks watch;
    watch.evaluation = [](const auto&, const auto&) { FAIL("stopped"); };
    const auto report = trainer.fit(tiny_data(), {.batch = 1,
                                                  .time = 8,
                                                  .steps = 100,
                                                  .minutes = 5,
                                                  .validation = &tiny_data(),
                                                  .observers = {&watch},
                                                  .stop = [&] { return trainer.step() == 4; }});
    CHECK(report.step == 4);
  }
}

TEST_CASE("A loss that is not a number ends the run and names step and checkpoint", "[trainer]") {
  const TemporaryFolder root;
  const auto path = root / "checkpoint";
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{1});
  Trainer trainer(model);
  std::vector<float> saved;
  auto poison = on_each_step([&](const StepReport& report) {
    if (report.step == 4) saved = weights_of(model);
    if (report.step == 5) model.weights().norm.weight.data[7] = std::numeric_limits<float>::quiet_NaN();
  });
  FitOptions options{.batch = 2,
                     .steps = 9,
                     .checkpoint_every = 2,
                     .checkpoint = path,
                     .tokenizer = &tiny_tokenizer(),
                     .observers = {&poison}};
  check_message<TrainingError>([&] { trainer.fit(tiny_data(), options); }, "step 6", path.string(), "step 4", "nan");
  Model<Tiny, Cpu> restored(backend, Seed{2});
  Trainer next(restored);
  next.resume(path);
  CHECK(next.step() == 4);
  CHECK(same_bits(weights_of(restored), saved));
  options.observers = {};
  CHECK(next.fit(tiny_data(), options).step == 9);

  // A step by hand leaves the weights, and says so without a checkpoint; so does a run that has none yet.
  const auto before = weights_of(model);
  const auto tokens = random_tokens(16, 260);
  check_message<TrainingError>([&] { trainer.train_step(tokens, tokens, 1, 16); }, "step 6");
  CHECK(same_bits(weights_of(model), before));
  Trainer fresh(model);
  check_message<TrainingError>([&] { fresh.fit(tiny_data(), {.batch = 2, .steps = 9}); }, "step 1", "none yet");
}

TEST_CASE("A gradient that is not finite leaves the weights as they were", "[trainer]") {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{1});
  Trainer trainer(model);
  const auto tokens = random_tokens(16, 260);
  const auto before = weights_of(model);
  // Stands for a gradient that overflows although the loss does not.
  trainer.gradients().data[3] = std::numeric_limits<float>::infinity();
  check_message<TrainingError>([&] { trainer.train_step(tokens, tokens, 1, 16); }, "step 1", "gradient");
  CHECK(same_bits(weights_of(model), before));
  CHECK(trainer.step() == 0);
  CHECK(trainer.train_step(tokens, tokens, 1, 16).step == 1);  // the bad gradients are gone
  CHECK(std::isfinite(trainer.train_step(tokens, tokens, 1, 16).loss));
}

TEST_CASE("Evaluation scores every token once, in nats and in bits per byte", "[evaluation]") {
  Reference<double> backend;
  Model<Tiny, Reference<double>> model(backend, Seed{4});
  Trainer trainer(model);
  const auto tokens = random_tokens(41, Tiny::vocab, 9);  // 40 targets: windows of 3 x 5 are padded at the end
  const auto data = TokenData::from_tokens(tokens, Tiny::vocab, 123);
  const auto before = weights_of(model);
  const auto report = trainer.evaluate(data, 3, 5);
  CHECK(same_bits(weights_of(model), before));

  // By hand: each window of 5 by itself, without the trainer; one of 40 / 5 = 8 windows at a time.
  using B = Reference<double>;
  const Pass pass{.batch = 1, .time = 5};
  Activations<Tiny, B> saved(backend, Plan::Purpose::training, pass);
  double total = 0;
  std::vector<std::vector<Index>> loads(2, std::vector<Index>(4));
  for (std::size_t first = 0; first < 40; first += 5) {
    Tiny::forward(backend, pass, model.weights(), View<const Token>(tokens.data() + first, 1, 5), *saved);
    std::vector<double> logits(5 * 260);
    Tiny::logits(backend, model.weights(), saved->normed(5), View<double>(logits.data(), 5, 260));
    for (std::size_t t = 0; t < 5; ++t) {
      double sum = 0;
      for (std::size_t v = 0; v < 260; ++v) sum += std::exp(logits[t * 260 + v]);
      total += std::log(sum) - logits[t * 260 + static_cast<std::size_t>(tokens[first + t + 1])];
    }
  }
  CHECK(report.tokens == 40);
  CHECK(report.loss == Approx(total / 40).epsilon(1e-12));
  CHECK(report.bits_per_byte == Approx(total / std::log(2.0) / 123).epsilon(1e-12));
  REQUIRE(report.loads.size() == 2);
  for (const auto& layer : report.loads) {
    REQUIRE(layer.size() == 4);
    CHECK(std::accumulate(layer.begin(), layer.end(), Index{0}) == 40 * 2);  // K = 2; pads at the end count nowhere
  }
  // Another shape, the same tokens: windows of the same length.
  CHECK(trainer.evaluate(data, 8, 5).loss == Approx(report.loss).epsilon(1e-12));
  // Without text there are no bits per byte.
  CHECK(trainer.evaluate(TokenData::from_tokens(tokens, Tiny::vocab), 3, 5).bits_per_byte == 0);
  CHECK_THROWS_AS(trainer.evaluate(data, 1, 17), ShapeError);
  CHECK_THROWS_AS(trainer.evaluate(TokenData::from_tokens(std::span(tokens).first(1), Tiny::vocab), 1, 5),
                  TrainingError);
  CHECK_THROWS_AS(trainer.evaluate(TokenData::from_tokens(tokens, 300), 1, 5), MismatchError);
}

TEST_CASE("The spread of the loads is deviation over mean", "[evaluation]") {
  CHECK(EvaluationReport::coefficient_of_variation({5, 5, 5}) == 0);
  CHECK(EvaluationReport::coefficient_of_variation({0, 4}) == 1);
  CHECK(EvaluationReport::coefficient_of_variation({1, 3}) == 0.5);
  CHECK(EvaluationReport::coefficient_of_variation({0, 0}) == 0);
  CHECK(EvaluationReport::coefficient_of_variation({}) == 0);
  const EvaluationReport report{.loads = {{0, 4}, {1, 3}}};
  CHECK(report.load_variation() == 0.75);
  CHECK(EvaluationReport{}.load_variation() == 0);
}

TEST_CASE("Training and evaluation in turn use their own shapes", "[trainer]") {
  Cpu backend(2);
  Model<Tiny, Cpu> model(backend, Seed{1}), other(backend, Seed{1});
  Trainer trainer(model), alone(other);
  const auto small = random_tokens(12, 260, 1), large = random_tokens(64, 260, 2);
  for (int i = 0; i < 2; ++i) {
    trainer.train_step(small, small, 2, 6);
    trainer.evaluate(tiny_data(), 5, 13);
    trainer.train_step(large, large, 4, 16);
    alone.train_step(small, small, 2, 6);
    alone.train_step(large, large, 4, 16);
  }
  CHECK(same_bits(weights_of(model), weights_of(other)));
  CHECK(trainer.state_bytes() == 3 * sizeof(float) * static_cast<std::size_t>(Model<Tiny, Cpu>::size));
  CHECK(trainer.activation_bytes() > 0);
}

TEST_CASE("The loads of a step are those of all its micro-batches", "[trainer]") {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{1});
  Trainer trainer(model);
  CHECK(trainer.loads().empty());
  const auto tokens = random_tokens(96, 260);
  const auto report = trainer.train_step(tokens, tokens, 2, 16);
  REQUIRE(trainer.loads().size() == 2);
  double variation = 0;
  for (const auto& layer : trainer.loads()) {
    REQUIRE(layer.size() == 4);
    CHECK(std::accumulate(layer.begin(), layer.end(), Index{0}) == 96 * 2);
    variation += EvaluationReport::coefficient_of_variation(layer) / 2;
  }
  CHECK(report.load_variation == Approx(variation));
  const auto kept = trainer.loads();
  Model<Tiny, Cpu> other(backend, Seed{1});
  Trainer again(other);
  again.train_step(tokens, tokens, 6, 16);
  CHECK(again.loads() == kept);  // however it is cut
  trainer.train_step(std::span(tokens).first(32), std::span(tokens).first(32), 2, 16);
  CHECK(std::accumulate(trainer.loads()[0].begin(), trainer.loads()[0].end(), Index{0}) == 64);
}

namespace {

/// An architecture that moves a weight after each step, as a balancing bias is moved.
struct Moving : Tiny {
  static inline std::vector<Index> steps, loads;
  template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
  static void after_step(B&, const Pass& pass, const Parameters<T>& weights, const Parameters<M>& masters,
                         Saved<T, M>& saved) {
    steps.push_back(pass.step);
    for_each_mixture(saved, [&](auto& mixture, Index) {
      const auto& routing = mixture.routing();
      loads.push_back(std::accumulate(routing.loads.data, routing.loads.data + routing.loads.cols, Index{0}));
    });
    CHECK(weights.norm.weight.data == masters.norm.weight.data);  // on this backend they are one
    masters.norm.weight.data[0] = 7;
  }
};

}  // namespace

TEST_CASE("An architecture may change its weights after a step", "[trainer]") {
  Cpu backend(1);
  Model<Moving, Cpu> model(backend, Seed{1});
  Model<Tiny, Cpu> still(backend, Seed{1});
  Trainer trainer(model);
  Trainer other(still);
  const auto tokens = random_tokens(64, 260);
  trainer.train_step(tokens, tokens, 2, 16);
  other.train_step(tokens, tokens, 2, 16);
  CHECK(model.weights().norm.weight.data[0] == 7);
  model.weights().norm.weight.data[0] = still.weights().norm.weight.data[0];
  CHECK(same_bits(weights_of(model), weights_of(still)));
  trainer.train_step(tokens, tokens, 2, 16);
  CHECK(Moving::steps == std::vector<Index>{0, 1});
  CHECK(Moving::loads == std::vector<Index>(4, 64));  // of the last micro-batch
}

}  // namespace tinymoe_test::trainer
