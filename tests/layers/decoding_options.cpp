// Decoding with a KV cache, for what cached.cpp and the tests of sessions leave out: normalised queries and keys,
// shared experts, and routers that choose by mass, by threshold or with a bias, or that do more in training.

#include <algorithm>
#include <iterator>
#include <set>

#include "layers/decoder.hpp"
#include "tinymoe/sample/session.hpp"

namespace tinymoe_test::decoding_options {

namespace {

constexpr Index V = 13;

using Feed = Expert<SwiGlu, Hidden<5>>;
/// A router of each kind. Noise, jitter and capacity must not act: in decoding a token is in another row, beside other
/// tokens.
template <class... Window>
using Mixed = Transformer<
    Vocab<V>, Context<24>, Width<8>, HeadBias,
    Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, QkNormAcrossHeads, Window...>,
                       Router<4, 3, DynamicTopK, Capacity<1, 2>>, Feed, Shared<Expert<Gelu, Hidden<3>, Bias>, Gated>>>,
    Layers<2, MoEBlock<LayerNorm, Attention<Heads<2>, KvHeads<1>, QkNorm, Bias, Window...>, Router<5, 1, ExpertChoice>,
                       Feed, Shared<Feed>>>,
    Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>, HeadDim<6>, PartialRope<2, 3>, QkNorm, Window...>,
                       Router<5, 2, SigmoidScores, BalanceBias, Bias, NoisyTopK, Jitter, GateScale<3, 2>>, Feed>>>;
/// Rolling caches, with a sequence of any length; caches of the whole context.
using Rolling = Mixed<SlidingWindow<3>>;
using Whole = Mixed<>;
using Double = Reference<double>;

/// Not the defaults, which a pass would have if it forgot the settings.
const Settings settings{setting::norm_epsilon = 1e-2, setting::rope_theta = 50, setting::jitter = 0.3,
                        setting::routing_mass = 0.7};

/// A model with random weights, whose thresholds and balancing biases decide.
template <class Arch, class B>
struct Evaluated : ModelTrial<Arch, B> {
  using Base = ModelTrial<Arch, B>;
  using T = typename B::Scalar;
  Evaluated(B& backend, Index batch, Index time) : Base(backend, {.batch = batch, .time = time, .settings = settings}) {
    this->model.settings() = settings;
    Index offset = 0;
    Arch::template Parameters<T>::for_each(Path{}, [&](const ParameterInfo& info) {
      const std::string name = full_name(info);
      const auto is = [&](const char* end) { return name.ends_with(end); };
      for (Index i = 0; i < info.size(); ++i) {
        const double number = normal_number(11, offset + i);
        T& value = this->model.buffer().data[offset + i];
        // Low in one layer, where more experts would take a token than may, and high in the next.
        const double threshold = name.find("layers.2.") != std::string::npos ? 0.17 : 0.32;
        if (is("threshold")) value = T(static_cast<float>(threshold + 0.03 * number));
        if (is("e_score_correction_bias")) value = T(static_cast<float>(0.3 * number));
        if (is("_norm.weight")) value = T(static_cast<float>(1 + 0.3 * number));
      }
      offset += aligned_size(info.size());
    });
    this->forward();
  }

  /// What each mixture chose for rows `first` … of the last pass.
  std::vector<std::vector<ChosenExpert>> selected(Index first, Index count) {
    std::vector<std::vector<ChosenExpert>> result;
    Arch::for_each_mixture(*this->activations, [&](auto& mixture, Index) {
      const auto& all = mixture.routing().selected;
      result.emplace_back();
      std::transform(all.row(first), all.row(first) + count * all.cols, std::back_inserter(result.back()),
                     [](std::int32_t number) { return ChosenExpert(number); });
    });
    return result;
  }
};

/// Two sequences of `time` tokens have the logits of full forward when they are read by chunks.
template <class Arch, class B>
void check_two(B& backend, Index time, double tolerance) {
  Evaluated<Arch, B> trial(backend, 2, time);
  for (const auto& chunks : chunkings) check_decoding(trial, chunks, tolerance);
}

/// The difference of one row of a session's logits, which are floats, from row `n` of full forward.
double difference(std::span<const float> found, Index row, const std::vector<double>& expected, Index n) {
  const auto from = found.begin() + row * V;
  return absolute_error({from, from + V}, rows_of(expected, V, n, 1));
}

}  // namespace

TEST_CASE("the options that decoding is tested with have an effect", "[decoding]") {
  Double backend;
  Evaluated<Whole, Double> trial(backend, 2, 24);
  Index number = 0;
  Whole::for_each_mixture(*trial.activations, [&](auto& mixture, Index) {
    const auto& routing = mixture.routing();
    const Index experts = routing.probability.cols;
    const double* threshold = std::get<1>(trial.model.weights().layers)[number == 3].network.gate.threshold.data;
    std::set<Index> taken;
    Index not_the_best = 0, most_above = 0;
    for (Index n = 0; n < 48; ++n) {
      const auto* chosen = routing.selected.row(n);
      taken.insert(std::count_if(chosen, chosen + routing.selected.cols, [](auto e) { return e >= 0; }));
      const auto* p = routing.probability.row(n);
      not_the_best += chosen[0] != std::max_element(p, p + experts) - p;
      Index above = 0;
      for (Index e = 0; e < experts && (number == 2 || number == 3); ++e) above += p[e] >= threshold[e];
      most_above = std::max(most_above, above);
    }
    INFO("layer " << number);
    if (number < 2) CHECK(taken == std::set<Index>{1, 2, 3});  // the mass
    if (number == 2) CHECK(most_above > 2);                    // two of those whose thresholds are reached
    if (number == 3) CHECK(taken == std::set<Index>{0, 1, 2});
    if (number == 4) CHECK(not_the_best > 4);  // the balancing bias
    ++number;
  });
}

TEST_CASE("every kind of router, shared experts and normalised heads decode as full forward", "[decoding]") {
  Double oracle;
  check_two<Rolling>(oracle, 40, 1e-12);  // past the context
  check_two<Whole>(oracle, 24, 1e-12);    // up to it
  Cpu backend(1);
  check_two<Rolling>(backend, 40, 1e-4);
}

TEST_CASE("a session of them gives the logits and experts of full forward", "[decoding]") {
  Double backend;
  constexpr Index time = 24, batch = 3;
  Evaluated<Whole, Double> trial(backend, batch, time);
  const auto expected = trial.logits();
  Session session(trial.model, {.sequences = batch, .trace = true});
  const auto check_experts = [&](Index row, Index first, Index count) {
    const auto chosen = trial.selected(first, count);
    REQUIRE(session.experts().size() == chosen.size());
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      const auto& experts = session.experts()[i];
      const auto from = experts.selected.begin() + row * experts.choices;
      CHECK(std::equal(chosen[i].begin(), chosen[i].end(), from));
    }
  };
  // Prompts of another length each, then all of them together, the last one first.
  const std::vector<Index> members = {2, 0, 1};
  std::vector<Index> position = {7, 1, 4};
  for (Index b = 0; b < batch; ++b) {
    const Index count = position[static_cast<std::size_t>(b)];
    const auto logits = session.feed(std::span(trial.tokens).subspan(std::size_t(b * time), std::size_t(count)), b);
    CHECK(difference(logits, 0, expected, b * time + count - 1) < 1e-6);
    check_experts(0, b * time, count);
  }
  while (position[0] < time) {
    std::vector<Token> tokens;
    for (const Index b : members) {
      tokens.push_back(trial.tokens[static_cast<std::size_t>(b * time + position[static_cast<std::size_t>(b)])]);
    }
    const auto logits = session.step(members, tokens);
    for (Index row = 0; row < batch; ++row) {
      const Index b = members[static_cast<std::size_t>(row)], n = b * time + position[static_cast<std::size_t>(b)]++;
      CHECK(difference(logits, row, expected, n) < 1e-6);
      check_experts(row, n, 1);
    }
  }
}

TEST_CASE("in evaluation no router looks at later tokens, nor at other sequences", "[decoding]") {
  const auto check = [](auto&& trial, double tolerance) {
    const Index time = trial.pass.time;
    const auto before = trial.logits();
    for (const Index t : {Index{0}, Index{1}, time / 2, time - 1}) {
      INFO("token " << t);
      auto& token = trial.tokens[static_cast<std::size_t>(t)];
      const Token kept = token;
      token = (token + 3) % V;
      trial.forward();
      const auto after = trial.logits();
      CHECK(absolute_error(rows_of(after, V, 0, t), rows_of(before, V, 0, t)) <= tolerance);
      CHECK(absolute_error(rows_of(after, V, t, 1), rows_of(before, V, t, 1)) > 1e-4);
      CHECK(absolute_error(rows_of(after, V, time, time), rows_of(before, V, time, time)) <= tolerance);
      token = kept;
    }
  };
  Double oracle;
  Cpu backend(1);
  check(Evaluated<Whole, Double>(oracle, 2, 17), 0);
  check(Evaluated<Rolling, Double>(oracle, 2, 17), 0);
  check(Evaluated<Rolling, Cpu>(backend, 2, 17), 1e-5);  // rows move within products, which rounds them otherwise
}

TEST_CASE("a sequence alone has the logits that it has among others, whatever its router", "[decoding]") {
  const auto check = [](auto&& backend, double tolerance) {
    using Trial = Evaluated<Rolling, std::remove_cvref_t<decltype(backend)>>;
    Trial together(backend, 3, 15), alone(backend, 1, 15);
    const auto all = together.logits();
    for (Index b = 0; b < 3; ++b) {
      std::copy_n(together.tokens.begin() + b * 15, 15, alone.tokens.begin());
      alone.forward();
      CHECK(absolute_error(alone.logits(), rows_of(all, V, b * 15, 15)) <= tolerance);
      // And a beginning that of the whole.
      Trial part(backend, 1, 8);
      std::copy_n(together.tokens.begin() + b * 15, 8, part.tokens.begin());
      part.forward();
      CHECK(absolute_error(part.logits(), rows_of(all, V, b * 15, 8)) <= tolerance);
    }
  };
  check(Double(), 0);
  check(Cpu(1), 1e-5);
}

TEST_CASE("decoding leaves routers' losses and loads as they were", "[cached]") {
  Reference<double> backend;
  ModelTrial<Whole, Double> trial(backend, {.batch = 1, .time = 4});
  Decoder<Whole, Double> decoder(backend, 1, 4);
  const auto each = [](auto& saved, auto f) {
    Whole::for_each_mixture(saved, [&](auto& mixture, Index) { f(mixture.routing()); });
  };
  const auto mark = [](const auto& routing) { routing.losses.data[1] = -7, routing.loads.data[0] = -7; };
  const auto marked = [](const auto& routing) { return routing.losses.data[1] == -7 && routing.loads.data[0] == -7; };
  each(*decoder.activations, mark);
  each(*trial.activations, mark);
  decoder.read(trial.model, trial.tokens, trial.pass);
  trial.forward();
  Index decoding = 0, full = 0;
  each(*decoder.activations, [&](const auto& routing) { decoding += marked(routing); });
  each(*trial.activations, [&](const auto& routing) { full += marked(routing); });
  CHECK(decoding == Whole::layers);
  CHECK(full == 0);
}

}  // namespace tinymoe_test::decoding_options
