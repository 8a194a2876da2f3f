// What is found out about experts: kinds of token, profiles, what each expert is worth, and smaller models.

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <tuple>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/analysis/expert_profile.hpp"
#include "tinymoe/analysis/expert_worth.hpp"
#include "tinymoe/analysis/inspect.hpp"
#include "train/own_router.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::expert_tests {

namespace {

/// The kinds of pieces, "|" for a special token, as one letter each.
std::string kinds_of(const std::vector<std::string>& pieces) {
  std::vector<bool> special;
  for (const auto& piece : pieces) special.push_back(piece == "|");
  std::string letters;
  for (const TokenKind kind : token_kinds_of(pieces, special)) letters += "wcfndps|"[static_cast<int>(kind)];
  return letters;
}

double sum_of(const std::array<Index, token_kinds>& kinds) {
  double sum = 0;
  for (const Index kind : kinds) sum += double(kind);
  return sum;
}

/// Mixtures with a gated shared expert.
template <Index E>
using Gated3 =
    Transformer<Vocab<20>, Context<8>, Width<8>,
                Layers<3, MoEBlock<RmsNorm, Attention<Heads<2>>, Router<E, 2, NoisyTopK, Bias, BalanceBias>,
                                   Expert<SwiGlu, Hidden<8>>, Shared<Expert<SwiGlu, Hidden<5>>, tinymoe::Gated>>>>;

}  // namespace

TEST_CASE("The kinds of tokens follow from the text around them", "[experts]") {
  CHECK(kinds_of({"Once", " upon", " a", " time", ",", " T", "im", " had", " 12", " cats", "."}) == "wwfwpncfdwp");
  CHECK(kinds_of({"T", "im", " ran", ".", " L", "ily", " saw", " Tim", "!", "|", "Tom", " sat"}) == "wcwpwcwnp|ww");
  // A word that is a function word only in part is none; contractions belong to the word.
  CHECK(kinds_of({" the", "re", " the", "me", " I", "'m", " don", "'t", " can", "'", "t"}) == "fcwcfcwcfcc");
  CHECK(kinds_of({" the", " dogs", "'", " bed", " '", "tis"}) == "fwpwpw");  // between letters alone
  // Quotes begin sentences, and do not hide the end of one.
  CHECK(kinds_of({"She", " said", ",", " \"", "Come", " Ben", ".\"", " Then", " Ben"}) == "fwppwnpfn");
  CHECK(kinds_of({"\xE2\x80\x9C", "Come", " Ben", ".", "\xE2\x80\x9D", " Ann", " \xC2\xAB", "So"}) == "pwnppwpf");
  CHECK(kinds_of({" ", "\n", "\n\n", "Ben", "\t!"}) == "ssswp");
  // Beyond ASCII: letters, cut or whole; a typographic apostrophe.
  CHECK(kinds_of({" caf", "\xC3", "\xA9", " \xE7\x8C\xAB", " it", "\xE2\x80\x99s", "\xF0\x9F\x90\xB1"}) == "wccwfcp");
  CHECK(kinds_of({}) == "");
  CHECK(kinds_of({"", "|", ""}) == "s|s");
  CHECK(std::is_sorted(std::begin(tinymoe::detail::function_words), std::end(tinymoe::detail::function_words)));
}

TEST_CASE("A profile counts what inspection finds, in passes of any size", "[experts]") {
  Cpu backend(2);
  const Model<Tiny, Cpu> model(backend, Seed{3});
  const auto& data = tiny_data();
  const Index tokens = 16 * 5 + 7;
  const ExpertProfile found = profile_experts(
      model, tiny_tokenizer(), data, {.tokens = tokens, .batch = 3, .stories = 2, .typical = 4, .least_pairs = 3});
  CHECK(found.tokens == tokens);
  REQUIRE(found.mixtures.size() == 2);
  for (std::size_t m = 0; m < 2; ++m) {
    const MixtureFindings& mixture = found.mixtures[m];
    INFO("mixture " << m);
    CHECK(mixture.layer == static_cast<Index>(m));
    CHECK(mixture.experts == 4);
    CHECK(mixture.tokens == tokens);
    CHECK(mixture.pairs == 2 * tokens);
    // The same by another way: sequence by sequence.
    std::vector<Index> loads(4);
    std::vector<double> gates(4);
    double top = 0;
    std::map<Token, std::array<Index, 5>> by_token;
    std::set<std::tuple<std::size_t, Token, std::string>> places;  // expert, token and what is before it in its story
    std::vector<Token> before;
    for (Index first = 0; first < tokens; first += 16) {
      const auto count = static_cast<std::size_t>(std::min<Index>(16, tokens - first));
      auto ids = xt::xtensor<Token, 2>::from_shape({1, count});
      data.copy(first, {ids.data(), count});
      const auto inspected = inspect(model, ids);
      const RoutingArrays& routing = inspected.routing[m];
      for (std::size_t n = 0; n < count; ++n) {
        const std::string left =
            tiny_tokenizer().decode(std::span(before).last(std::min<std::size_t>(10, before.size())));
        before.push_back(ids(0, n));
        if (ids(0, n) == tiny_tokenizer().end_of_story()) before.clear();
        float best = 0;
        for (std::size_t e = 0; e < 4; ++e) best = std::max(best, routing.probability(n, e));
        top += double(best);
        for (std::size_t k = 0; k < 2; ++k) {
          const auto e = static_cast<std::size_t>(routing.selected(n, k).expert());
          ++loads[e], gates[e] += double(routing.gate(n, k));
          ++by_token[ids(0, n)][e], ++by_token[ids(0, n)][4];
          places.insert({e, ids(0, n), left});
        }
      }
    }
    CHECK(mixture.confidence.mean_top == Approx(top / double(tokens)).epsilon(1e-5));
    CHECK(std::accumulate(mixture.confidence.top.begin(), mixture.confidence.top.end(), Index{0}) == tokens);
    CHECK(mixture.confidence.mean_entropy > 0.3);
    CHECK(mixture.confidence.mean_entropy < 1);
    CHECK(mixture.load_entropy > 0.5);
    CHECK(mixture.load_variation == Approx(EvaluationReport::coefficient_of_variation(loads)));
    CHECK(mixture.dead == std::count(loads.begin(), loads.end(), 0));
    CHECK(sum_of(mixture.kinds) == double(2 * tokens));
    CHECK(mixture.kinds[static_cast<std::size_t>(TokenKind::special)] > 0);
    for (std::size_t e = 0; e < 4; ++e) {
      const ExpertFindings& expert = mixture.expert[e];
      CHECK(expert.pairs == loads[e]);
      CHECK(sum_of(expert.kinds) == double(loads[e]));
      if (loads[e] == 0) continue;
      CHECK(expert.share == Approx(double(loads[e]) / double(2 * tokens)));
      CHECK(expert.mean_gate == Approx(gates[e] / double(loads[e])).epsilon(1e-5));
      double last = INFINITY;
      for (const TypicalToken& typical : expert.typical) {
        const auto& counts = by_token[typical.token];
        CHECK(typical.pairs == counts[e]);
        CHECK(typical.pairs >= 3);
        CHECK(typical.share == Approx(double(counts[e]) / double(counts[4])));
        CHECK(typical.lift == Approx(typical.share / expert.share));
        CHECK(typical.lift > 1);
        CHECK(typical.lift <= last);
        last = typical.lift;
        REQUIRE(typical.contexts.size() == 3);
        for (const TokenContext& context : typical.contexts) {
          CHECK(context.piece == typical.piece);
          CHECK(places.contains({e, typical.token, context.before}));
          const std::string text =
              context.before + (typical.piece == "<|endoftext|>" ? "" : context.piece) + context.after;
          CHECK(std::string("the cat dog owl sat on the mat. log. bed. rug.").size() > text.size() / 2);
          CHECK_FALSE(text.empty());
        }
      }
    }
  }
  // Stories begin after the end of a story, as generation does.
  REQUIRE(found.stories_traced.size() == 2);
  const TracedStory& story = found.stories_traced[1];
  CHECK(story.ids.size() == 15);  // a context of 16
  std::string text;
  for (const auto& piece : story.pieces) text += piece;
  CHECK(std::string("the dog sat on the rug.").starts_with(text));
  CHECK(story.kinds.size() == 15);
  auto ids = xt::xtensor<Token, 2>::from_shape({1, 16});
  ids(0, 0) = tiny_tokenizer().end_of_story();
  std::copy(story.ids.begin(), story.ids.end(), ids.begin() + 1);
  const auto inspected = inspect(model, ids);
  REQUIRE(story.experts.size() == 2);
  CHECK(std::equal(story.experts[1].selected.begin(), story.experts[1].selected.end(),
                   inspected.routing[1].selected.begin() + 2));
  CHECK(story.experts[1].gate.size() == 30);
  CHECK(story.experts[1].logit.size() == 60);
}

TEST_CASE("A profile refuses other tokens, and is empty without mixtures", "[experts]") {
  Cpu backend(1);
  using Dense = Transformer<Vocab<260>, Context<8>, Width<8>,
                            Layers<1, DenseBlock<RmsNorm, Attention<Heads<2>>, Expert<SwiGlu, Hidden<8>>>>>;
  Model<Dense, Cpu> dense(backend);
  CHECK(profile_experts(dense, tiny_tokenizer(), tiny_data()).mixtures.empty());
  const ExpertWorths worths = measure_experts(dense, tiny_data().first(60));
  CHECK(worths.loss > 0);
  CHECK(worths.experts.empty());
  const Model<TinyOf<100>, Cpu> small(backend);
  check_message<MismatchError>([&] { profile_experts(small, tiny_tokenizer(), tiny_data()); }, "260", "100");
  const Model<Tiny, Cpu> model(backend);
  check_message<OptionError>([&] { profile_experts(model, tiny_tokenizer(), tiny_data(), {.batch = 0}); }, "batch");
  const TemporaryFolder folder;
  const Tokenizer other = tokenizer_of({{"t", "h"}, {"th", "e"}, {"e", " "}});  // as many tokens
  const TokenData others = TokenData::encode_to_file(StoryList{"the cat", "the dog"}, other, folder / "a.tokens", 1);
  CHECK(profile_experts(model, other, others).mixtures.size() == 2);
  check_message<MismatchError>([&] { profile_experts(model, tiny_tokenizer(), others); },
                               "the data were encoded by another tokenizer");
}

TEST_CASE("What an expert is worth is the loss without it, and curves take the least worthy out", "[experts]") {
  Cpu backend(2);
  Model<Tiny, Cpu> model(backend, Seed{3});
  const TokenData data = tiny_data().first(200);
  model.limit_experts({.choices = 1});
  Index calls = 0, last = 0;
  const ExpertWorths worths = measure_experts(model, data, {.batch = 4, .on_progress = [&](Index done, Index all) {
                                                              ++calls, last = done;
                                                              CHECK(all == 1 + 8 + 2 + 1);
                                                            }});
  CHECK(calls == 12);
  CHECK(last == 12);
  CHECK(model.expert_limits() == ExpertLimits{.choices = 1});  // its own again
  const auto loss = [&](const ExpertLimits& limits) {
    model.limit_experts(limits);
    return evaluate(model, data, 4).loss;
  };
  CHECK(worths.loss == loss({}));
  CHECK(worths.tokens == 199);
  REQUIRE(worths.experts.size() == 8);
  for (const ExpertWorth& expert : worths.experts) {
    CHECK(expert.loss == loss({.left_out = {{expert.layer, expert.expert}}}));
    CHECK(expert.worth == expert.loss - worths.loss);
    CHECK(expert.worth != 0);
  }
  REQUIRE(worths.by_experts.size() == 3);
  REQUIRE(worths.by_choices.size() == 2);
  CHECK(worths.by_experts[0].loss == worths.loss);
  const auto leave = least_worthy(worths.experts, 2);
  REQUIRE(leave.size() == 4);
  for (const LayerExpert& gone : leave) {
    const auto worth = [&](Index e) { return worths.experts[static_cast<std::size_t>(gone.layer * 4 + e)].worth; };
    Index above = 0;
    for (Index e = 0; e < 4; ++e) above += worth(e) > worth(gone.expert) ? 1 : 0;
    CHECK(above >= 2);
  }
  CHECK(worths.by_experts[2].experts == 2);
  CHECK(worths.by_experts[2].loss == loss({.left_out = leave}));
  CHECK(worths.by_choices[1].choices == 1);
  CHECK(worths.by_choices[1].loss == loss({.choices = 1}));
  // Parameters are those of the architectures.
  using Six = Transformer<
      Vocab<260>, Context<16>, Width<16>,
      Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Router<3, 2>, Expert<SwiGlu, Hidden<24>>>>>;
  CHECK(worths.by_experts[0].total == count<Tiny>().total);
  CHECK(worths.by_experts[0].active == count<Tiny>().active);
  CHECK(worths.by_experts[1].total == count<Six>().total);
  CHECK(worths.by_experts[1].active == count<Six>().active);
  CHECK(worths.by_choices[1].total == count<Tiny>().total);
  CHECK(worths.by_choices[1].active == count<Tiny>().active - 2 * 3 * 16 * 24);
  FewerExperts fewer{.experts = 3, .choices = 2};
  tinymoe::detail::count_fewer<Gated3<5>>(fewer);
  CHECK(fewer.total == count<Gated3<3>>().total);
  CHECK(fewer.active == count<Gated3<3>>().active);
}

TEST_CASE("The worth of experts is measured as far as it is asked for, and of finite losses", "[experts]") {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{3});
  const TokenData data = tiny_data().first(60);
  const auto measured = [&](bool experts, bool curves) {
    Index calls = 0;
    const auto counts = [&](Index, Index all) {
      ++calls;
      CHECK(calls <= all);
    };
    const ExpertWorths worths =
        measure_experts(model, data, {.batch = 4, .experts = experts, .curves = curves, .on_progress = counts});
    CHECK(worths.loss > 0);
    return std::tuple(calls, worths.experts.size(), worths.by_experts.size(), worths.by_choices.size());
  };
  CHECK(measured(false, false) == std::tuple(1, 0, 0, 0));
  CHECK(measured(true, false) == std::tuple(9, 8, 0, 0));
  CHECK(measured(false, true) == std::tuple(12, 8, 3, 2));  // the curves need the worth of each
  CHECK(measured(true, true) == std::tuple(12, 8, 3, 2));
  auto spoilt = weights_of(model);
  std::fill(spoilt.begin(), spoilt.end(), std::numeric_limits<float>::quiet_NaN());
  set_weights(model, spoilt);
  check_message<TrainingError>([&] { measure_experts(model, data, {.batch = 4}); }, "the validation loss is nan",
                               "the embedding");
}

TEST_CASE("A router of one's own is profiled, and leaves no experts out unless it says that it can", "[experts]") {
  Cpu backend(1);
  using Own = Transformer<Vocab<260>, Context<8>, Width<8>,
                          Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>>, SharingRouter, Expert<SwiGlu, Hidden<8>>>>>;
  Model<Own, Cpu> model(backend);
  const ExpertProfile profile =
      profile_experts(model, tiny_tokenizer(), tiny_data(), {.tokens = 72, .batch = 9, .stories = 1});
  REQUIRE(profile.mixtures.size() == 1);
  CHECK(profile.mixtures[0].load_variation == 0);
  CHECK(profile.mixtures[0].expert[1].mean_gate == Approx(0.5));
  CHECK(profile.mixtures[0].confidence.mean_top == Approx(1.0 / 3));
  CHECK(profile.stories_traced.at(0).experts[0].logit.empty());
  check_message<OptionError>([&] { measure_experts(model, tiny_data().first(60)); }, "the router of layer 0",
                             "limits_experts");
}

TEST_CASE("Of equally worthy experts the higher number leaves", "[experts]") {
  const std::vector<ExpertWorth> worths = {{0, 0, 1, 0.5}, {0, 1, 1, 0.2}, {0, 2, 1, 0.2}, {3, 0, 1, -1}, {3, 1, 1, 2}};
  CHECK(least_worthy(worths, 2) == std::vector<LayerExpert>{{0, 2}});
  CHECK(least_worthy(worths, 1) == std::vector<LayerExpert>{{0, 2}, {0, 1}, {3, 0}});
  CHECK(least_worthy(worths, 5).empty());
}

}  // namespace tinymoe_test::expert_tests
