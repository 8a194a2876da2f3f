// Harnesses of what chooses by numbers, against plain implementations: the sampler's filters, the sort by expert, and
// every kind of router, against the reference backend too.

#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "fuzz/harness.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/layers/router.hpp"
#include "tinymoe/sample/sampler.hpp"

namespace tinymoe_fuzz {

namespace numbers {

constexpr float infinity = std::numeric_limits<float>::infinity();

// The sampler

/// Each filter by its definition, over all tokens in their order by score. Where a threshold or the draw lies within
/// `slack` of a token's border, the neighbours are possible, too; `certain` is false where a filter's own border is.
struct PlainSampler {
  struct Candidate {
    Token token;
    double weight;
  };
  static constexpr double slack = 1e-4;

  const SampleOptions& options;
  bool certain = true;

  std::vector<Candidate> kept(const std::vector<float>& scores, float max) {
    std::vector<Candidate> all;
    for (std::size_t v = 0; v < scores.size(); ++v) {
      const double weight = std::exp(static_cast<double>((scores[v] - max) / options.temperature));
      all.push_back({static_cast<Token>(v), weight});
    }
    std::stable_sort(all.begin(), all.end(), [&](const Candidate& a, const Candidate& b) {
      return scores[static_cast<std::size_t>(a.token)] > scores[static_cast<std::size_t>(b.token)];
    });
    if (options.top_k > 0 && std::ssize(all) > options.top_k) all.resize(static_cast<std::size_t>(options.top_k));
    for (const Candidate& one : all) certain = certain && std::abs(one.weight - options.min_p) > slack * options.min_p;
    std::erase_if(all, [&](const Candidate& one) { return one.weight < options.min_p; });
    if (options.typical_p < 1) keep_typical(all);
    cut(all, options.top_p);
    return all;
  }

  static double sum(const std::vector<Candidate>& all) {
    return std::accumulate(all.begin(), all.end(), 0.0, [](double s, const Candidate& c) { return s + c.weight; });
  }

  /// Keeps the first tokens that together reach a share.
  void cut(std::vector<Candidate>& all, double share) {
    if (share == 1) return;
    const double total = sum(all);
    double reached = 0;
    std::size_t count = 0;
    while (count < all.size() && (count == 0 || reached < share * total)) {
      reached += all[count++].weight;
      certain = certain && std::abs(reached - share * total) > slack * total;
    }
    all.resize(count);
  }

  void keep_typical(std::vector<Candidate>& all) {
    const double total = sum(all);
    double entropy = 0;
    for (const Candidate& one : all) {
      if (one.weight > 0) entropy -= one.weight / total * std::log(one.weight / total);
    }
    std::vector<std::pair<double, std::size_t>> distances;
    for (std::size_t i = 0; i < all.size(); ++i) {
      distances.push_back({std::abs(std::log(all[i].weight / total) + entropy), i});
    }
    std::sort(distances.begin(), distances.end());
    double reached = 0;
    std::size_t count = 0;
    while (count < distances.size() && (count == 0 || reached < options.typical_p * total)) {
      reached += all[distances[count++].second].weight;
      certain = certain && std::abs(reached - options.typical_p * total) > slack * total;
    }
    // Two tokens at one distance, of which one is kept.
    if (count < distances.size()) {
      certain = certain && distances[count].first - distances[count - 1].first > slack;
    }
    std::vector<bool> keeps(all.size());
    for (std::size_t i = 0; i < count; ++i) keeps[distances[i].second] = true;
    std::vector<Candidate> typical;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (keeps[i]) typical.push_back(all[i]);
    }
    all = std::move(typical);
  }
};

void sampler(std::string_view input) {
  Bytes bytes(input);
  SampleOptions options;
  constexpr float temperatures[] = {0, 0.01f, 0.5f, 0.8f, 1, 3, 1000, 1e-40f};
  constexpr float penalties[] = {1, 1.3f, 2, 0.5f, 1e-38f, 1e38f};
  options.temperature = temperatures[bytes.below(std::size(temperatures))];
  options.top_k = static_cast<Index>(bytes.below(12));
  options.min_p = static_cast<float>(bytes.below(2) * bytes.below(256)) / 255.0f;
  options.typical_p = bytes.below(2) == 0 ? 1 : static_cast<float>(1 + bytes.below(255)) / 256.0f;
  options.top_p = bytes.below(2) == 0 ? 1 : static_cast<float>(1 + bytes.below(255)) / 256.0f;
  options.repetition_penalty = penalties[bytes.below(std::size(penalties))];
  options.seed = Seed{bytes.take<std::uint16_t>()};
  Sampler drawn(options);
  const auto seen_count = bytes.below(8);
  std::vector<Token> seen;
  for (std::size_t i = 0; i < seen_count; ++i) seen.push_back(bytes.take<std::uint8_t>());
  for (const Token token : seen) drawn.saw(token);
  std::vector<float> logits;
  const bool any_bits = bytes.below(4) == 0;
  while (!bytes.empty() && logits.size() < 300) {
    logits.push_back(any_bits ? bytes.take<float>() : static_cast<float>(bytes.take<std::int8_t>()) / 8);
    if (!any_bits && logits.back() == -16) logits.back() = logits.size() % 2 == 0 ? -infinity : std::nanf("");
  }

  std::vector<float> scores = logits;
  for (std::size_t v = 0; v < scores.size(); ++v) {
    if (std::isnan(scores[v])) scores[v] = -infinity;
    if (std::find(seen.begin(), seen.end(), static_cast<Token>(v)) == seen.end()) continue;
    scores[v] = scores[v] > 0 ? scores[v] / options.repetition_penalty : scores[v] * options.repetition_penalty;
  }
  const auto best = std::max_element(scores.begin(), scores.end());
  const bool none = best == scores.end() || *best == -infinity;
  PlainSampler plain{options};
  std::vector<PlainSampler::Candidate> kept;  // the same at each position
  if (!none && options.temperature > 0 && !std::isinf(*best)) kept = plain.kept(scores, *best);
  for (Index position = 0; position < 4; ++position) {
    Token token = -1;
    const bool found = accepts([&] { token = drawn(logits, position); });
    expect(found == !none, "a draw without a token, or of none");
    if (none) continue;
    expect(token >= 0 && token < std::ssize(logits), "a token that is none");
    if (options.temperature == 0 || std::isinf(*best)) {
      expect(token == best - scores.begin(), "the most likely token is another one");
      continue;
    }
    expect(scores[static_cast<std::size_t>(token)] > -infinity, "a token of probability 0");
    if (!plain.certain) continue;
    const RandomStream stream(options.seed, options.story, random_site::sampling);
    const auto words = tinymoe::detail::random_words(stream, static_cast<std::uint64_t>(position));
    const double share = (words[0] + words[1] * 0x1p-32) * 0x1p-32, total = PlainSampler::sum(kept);
    double sum = 0;
    bool possible = false;
    for (const auto& one : kept) {
      const double begin = sum - PlainSampler::slack * total;
      sum += one.weight;
      if (one.token == token) possible = share * total >= begin && share * total <= sum + PlainSampler::slack * total;
    }
    if (!possible) throw Fault("token " + std::to_string(token) + " is drawn, which no plain sampler draws");
  }
}

void sampler_seeds(const TakeSeed& take) {
  // Temperature 1 and each filter by itself, then all of them, with one token seen.
  const std::string logits("\x08\xfc\x10\x00\x0c\xe8\x02\x10\x80\x0f\x04", 11);
  const auto seed = [&](std::string_view head) { take(std::string(head).append(logits)); };
  using namespace std::string_view_literals;
  seed("\x04\x00\x00\x00\x00\x00\x00\x07\x00\x00\x01"sv);
  seed("\x04\x03\x00\x00\x00\x00\x00\x07\x00\x00\x01"sv);
  seed("\x04\x00\x01\x40\x00\x00\x00\x07\x00\x00\x01"sv);
  seed("\x04\x00\x00\x01\x80\x00\x00\x07\x00\x00\x01"sv);
  seed("\x04\x00\x00\x00\x01\x80\x00\x07\x00\x00\x01"sv);
  seed("\x04\x05\x01\x10\x01\xc0\x01\xd0\x01\x09\x00\x01\x02\x01"sv);
  seed("\x00\x00\x00\x00\x00\x00\x02\x07\x00\x01\x02\x01"sv);
}

/// A backend is made once: its memory of a megabyte takes longer than most inputs.
template <class B>
B& backend_of() {
  static B one;
  return one;
}

// The sort by expert

template <class B>
void check_sort(const std::vector<std::int32_t>& selected, Index n, Index k, Index e) {
  constexpr std::int32_t guard = -77;
  B& sorts = backend_of<B>();
  std::vector<std::int32_t> offsets(static_cast<std::size_t>(e + 2), guard), slots(selected.size() + 1, guard),
      pairs(selected.size() + 1, guard);
  Dispatch dispatch(View<std::int32_t>(offsets.data(), 1, e + 1), View<std::int32_t>(slots.data(), n, k),
                    View<std::int32_t>(pairs.data(), 1, n * k));
  std::vector<std::int32_t> order;
  for (std::size_t pair = 0; pair < selected.size(); ++pair) {
    if (selected[pair] >= 0) order.push_back(static_cast<std::int32_t>(pair));
  }
  const auto expert_of = [&](std::int32_t pair) { return selected[static_cast<std::size_t>(pair)]; };
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return expert_of(a) < expert_of(b); });
  std::vector<std::int32_t> slot_of(selected.size(), -1), begins(static_cast<std::size_t>(e + 1), 0);
  for (std::size_t slot = 0; slot < order.size(); ++slot) {
    slot_of[static_cast<std::size_t>(order[slot])] = static_cast<std::int32_t>(slot);
    ++begins[static_cast<std::size_t>(expert_of(order[slot]) + 1)];
  }
  std::partial_sum(begins.begin(), begins.end(), begins.begin());
  for (int run = 0; run < 2; ++run) {
    sorts.sort_by_expert(View<const std::int32_t>(selected.data(), n, k), dispatch);
    expect(std::equal(order.begin(), order.end(), pairs.begin()), "pairs are in another order");
    expect(std::equal(slot_of.begin(), slot_of.end(), slots.begin()), "a pair has another slot");
    expect(std::equal(begins.begin(), begins.end(), offsets.begin()), "an expert begins elsewhere");
    expect(offsets.back() == guard && slots.back() == guard && pairs.back() == guard, "it writes behind its outputs");
    expect(dispatch.rows == std::ssize(order), "another number of rows");
  }
}

struct Serial : Reference<float> {};
struct OneThread : Cpu {
  OneThread() : Cpu(1) {}
};

void dispatch(std::string_view input) {
  Bytes bytes(input);
  const auto k = static_cast<Index>(1 + bytes.below(8)), e = static_cast<Index>(1 + bytes.below(130));
  const std::string_view rest = bytes.rest();
  const Index n = std::ssize(rest) / k;
  if (n == 0) return;
  std::vector<std::int32_t> selected;
  for (Index i = 0; i < n * k; ++i) {
    selected.push_back(
        static_cast<unsigned char>(rest[static_cast<std::size_t>(i)]) % static_cast<std::int32_t>(e + 1) - 1);
  }
  check_sort<Serial>(selected, n, k, e), check_sort<OneThread>(selected, n, k, e);
}

void dispatch_seeds(const TakeSeed& take) {
  take(
      "\x01\x03"
      "\x01\x02\x03\x00\x01\x01\x02\x03\x04\x04");
  take(
      "\x00\x00"
      "abcdefghij");
  take(
      "\x07\x7f"
      "The quick brown fox jumps over the lazy dog.");
}

// Routers

constexpr Index router_width = 8;

/// What a router decided for N tokens, and its gradient.
struct Decision {
  std::vector<std::int32_t> selected, kept;
  std::vector<double> gate, losses, dx;
};

/// The logits and how they are made into choices.
struct RouterCase {
  Index n = 0;
  bool training = false;
  double mass = 0.5;
  std::vector<double> logits, offset, dgate;  // (N, width), (E), (N, K)
};

/// A router whose logits are its inputs: its matrix is the identity.
template <class R, class B>
Decision decide(const RouterCase& given, bool decodes = false) {
  using T = typename B::Scalar;
  using Layer = typename R::template Layer<router_width>;
  using Parameters = typename Layer::template Parameters<T>;
  B& backend = backend_of<B>();
  std::vector<T> weights(static_cast<std::size_t>(buffer_size<Parameters>())), slopes(weights.size());
  Parameters p, gradients;
  bind_parameters(p, weights.data()), bind_parameters(gradients, slopes.data());
  for (Index e = 0; e < R::experts; ++e) {
    p.weight.view()(e, e) = 1;
    const T offset = static_cast<T>(given.offset[static_cast<std::size_t>(e)]);
    if constexpr (R::balance_bias) p.offset.view()(0, e) = offset;
    if constexpr (R::expert_choice) p.threshold.view()(0, e) = offset;
  }
  std::vector<T> x(given.logits.begin(), given.logits.end()), dx(x.size()),
      dgate(given.dgate.begin(), given.dgate.end());
  dgate.resize(static_cast<std::size_t>(given.n * R::choices));
  Pass pass{.time = given.n};
  pass.training = given.training;
  pass.settings = {setting::routing_mass = given.mass, setting::balance_weight = 0.5, setting::z_weight = 0.25};

  typename Layer::template Saved<T, T> saved;
  Dispatch sorted;
  const auto plan = [&](Plan& memory) {
    saved.plan(memory, pass);
    sorted = {memory.keep<std::int32_t>(1, R::experts + 1), memory.keep<std::int32_t>(given.n, R::choices),
              memory.keep<std::int32_t>(1, given.n * R::choices)};
  };
  Plan measure(Plan::Purpose::training);
  plan(measure);
  const Memory memory = backend.allocate(measure.bytes());
  Plan place(Plan::Purpose::training, memory.bytes(), measure);
  plan(place);
  saved.routing.resize(given.n);
  const View<const T> from(x.data(), given.n, router_width);
  Decision made;
  if (decodes) {
    Layer::decode(backend, pass, p, from, sorted, saved);
  } else {
    Layer::forward(backend, pass, p, from, saved);
    backend.sort_by_expert(saved.routing.selected, sorted);
    Layer::losses(backend, pass, sorted, saved);
    made.losses = {static_cast<double>(saved.routing.losses.data[0]),
                   static_cast<double>(saved.routing.losses.data[1])};
    if constexpr (R::has_capacity) {
      const auto kept = Layer::within_capacity(backend, pass, sorted, saved);
      made.kept = {kept.data, kept.data + kept.size()};
    }
    if (!R::has_capacity) {
      Layer::backward(backend, pass, p, View<const T>(dgate.data(), given.n, R::choices),
                      View<T>(dx.data(), given.n, router_width), saved, gradients);
      made.dx.assign(dx.begin(), dx.end());
    }
  }
  const auto selected = saved.routing.selected;
  const auto gate = saved.routing.gate;
  made.selected = {selected.data, selected.data + selected.size()};
  made.gate = {gate.data, gate.data + gate.size()};
  // What holds for every router.
  for (Index token = 0; token < given.n; ++token) {
    double sum = 0;
    for (Index i = 0; i < R::choices; ++i) {
      const std::int32_t expert = selected(token, i);
      expect(expert >= -1 && expert < R::experts, "an expert that is none");
      expect(std::isfinite(gate(token, i)), "a gate that is not finite");
      if (expert < 0) expect(gate(token, i) == 0, "a gate of no expert");
      for (Index j = 0; j < i; ++j) expect(expert < 0 || selected(token, j) != expert, "an expert is chosen twice");
      sum += static_cast<double>(gate(token, i));
    }
    if (R::gates_sum_to_one) expect(std::abs(sum - 1) < 1e-5, "gates do not sum to one");
  }
  return made;
}

void expect_near(const std::vector<double>& one, const std::vector<double>& other, const std::string& what) {
  if (one.size() != other.size()) throw Fault(what + ": other sizes");
  for (std::size_t i = 0; i < one.size(); ++i) {
    const double difference = std::abs(one[i] - other[i]);
    if (difference <= 2e-4 * std::max(1.0, std::abs(other[i]))) continue;
    throw Fault(what + " differ: " + std::to_string(one[i]) + " and " + std::to_string(other[i]));
  }
}

/// The scores of a token and, with the bias of the selection, its keys.
template <class R>
std::vector<double> keys_of(const RouterCase& given, Index token, bool with_bias) {
  std::vector<double> keys;
  double total = 0;
  for (Index e = 0; e < R::experts; ++e) {
    const double logit = given.logits[static_cast<std::size_t>(token * router_width + e)];
    keys.push_back(R::Scores::sigmoid ? 1 / (1 + std::exp(-logit)) : std::exp(logit));
    total += keys.back();
  }
  for (std::size_t e = 0; e < keys.size(); ++e) {
    if (!R::Scores::sigmoid) keys[e] /= total;
    if (with_bias && R::balance_bias) keys[e] += given.offset[e];
  }
  return keys;
}

/// Whether rounding may decide: scores that differ by less than float tells.
template <class R>
bool is_close(const RouterCase& given) {
  constexpr double near = 1e-5;
  for (Index token = 0; token < given.n; ++token) {
    auto keys = keys_of<R>(given, token, true);
    const auto scores = keys_of<R>(given, token, false);
    for (std::size_t a = 0; a < keys.size(); ++a) {
      if (R::expert_choice && std::abs(scores[a] - given.offset[a]) < near) return true;
      for (std::size_t b = 0; b < a; ++b) {
        const bool tie = scores[a] == scores[b] && (!R::balance_bias || given.offset[a] == given.offset[b]);
        if (!tie && std::abs(keys[a] - keys[b]) < near) return true;
      }
    }
    if (R::dynamic) {
      std::sort(keys.rbegin(), keys.rend());
      double sum = 0;
      for (const double key : keys) {
        sum += key;
        if (std::abs(sum - given.mass) < near) return true;
      }
    }
    // Tokens that compete for an expert.
    for (Index other = 0; R::expert_choice && other < token; ++other) {
      const auto theirs = keys_of<R>(given, other, true);
      for (std::size_t e = 0; e < keys.size(); ++e) {
        const auto row = given.logits.begin() + token * router_width, its = given.logits.begin() + other * router_width;
        if (!std::equal(row, row + router_width, its) && std::abs(theirs[e] - scores[e]) < near) return true;
      }
    }
  }
  return false;
}

/// The choices of a token by their definition. Not of ExpertChoice.
template <class R>
std::vector<std::int32_t> plain_choices(const RouterCase& given, Index token) {
  const auto keys = keys_of<R>(given, token, true), scores = keys_of<R>(given, token, false);
  std::vector<std::int32_t> order(keys.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return keys[static_cast<std::size_t>(a)] > keys[static_cast<std::size_t>(b)];
  });
  double sum = 0;
  std::vector<std::int32_t> chosen(static_cast<std::size_t>(R::choices), -1);
  for (std::size_t i = 0; i < chosen.size() && (!R::dynamic || i == 0 || sum < given.mass); ++i) {
    chosen[i] = order[i];
    sum += scores[static_cast<std::size_t>(order[i])];
  }
  return chosen;
}

struct Oracle : Reference<double> {};

template <class R>
void route(const RouterCase& given) {
  const Decision ours = decide<R, OneThread>(given), oracle = decide<R, Oracle>(given);
  if (is_close<R>(given)) return;
  expect(ours.selected == oracle.selected, "the processor chooses other experts than the reference");
  expect_near(ours.gate, oracle.gate, "gates");
  expect_near(ours.losses, oracle.losses, "losses");
  expect_near(ours.dx, oracle.dx, "gradients of x");
  expect(ours.kept == oracle.kept, "other pairs are within the capacity");
  if constexpr (!R::expert_choice) {
    for (Index token = 0; token < given.n; ++token) {
      const auto plain = plain_choices<R>(given, token);
      expect(std::equal(plain.begin(), plain.end(), oracle.selected.begin() + token * R::choices),
             "the reference chooses other experts than its definition says");
    }
  }
  if (given.training) return;
  const Decision decoded = decide<R, OneThread>(given, true);
  expect(decoded.selected == ours.selected, "decoding chooses other experts");
  expect_near(decoded.gate, ours.gate, "gates in decoding");
}

void router(std::string_view input) {
  Bytes bytes(input);
  const std::size_t kind = bytes.below(10);
  RouterCase given;
  given.training = bytes.below(2) == 1;
  given.mass = static_cast<double>(1 + bytes.below(255)) / 256;
  const float scale = bytes.below(2) == 0 ? 4 : 32;
  for (Index e = 0; e < router_width; ++e) given.offset.push_back(static_cast<double>(bytes.take<std::int8_t>()) / 128);
  const std::string_view rest = bytes.rest();
  given.n = std::min<Index>(std::ssize(rest) / router_width, 24);
  if (given.n == 0) return;
  for (Index i = 0; i < given.n * router_width; ++i) {
    const auto byte = static_cast<signed char>(rest[static_cast<std::size_t>(i)]);
    given.logits.push_back(std::round(static_cast<float>(byte) / 4) / scale * 2);
    given.dgate.push_back(static_cast<double>(byte % 5) / 4);
  }
  switch (kind) {
    case 0:
      return route<Router<8, 2>>(given);
    case 1:
      return route<Router<5, 1>>(given);
    case 2:
      return route<Router<3, 3>>(given);
    case 3:
      return route<Router<8, 3, SigmoidScores, BalanceBias, GateScale<5, 2>>>(given);
    case 4:
      return route<Router<7, 4, DynamicTopK>>(given);
    case 5:
      return route<Router<4, 2, ExpertChoice>>(given);
    case 6:
      return route<Router<6, 2, Capacity<1>, GShardBalance>>(given);
    case 7:
      return route<Router<8, 2, ScoreGates, CvBalance>>(given);
    case 8:
      return route<Router<4, 2, SigmoidScores, ExpertChoice>>(given);
    default:
      return route<Router<1, 1>>(given);
  }
}

void router_seeds(const TakeSeed& take) {
  std::string rows;
  for (int i = 0; i < 5 * router_width; ++i) rows += static_cast<char>((i * 37 + i / 8 * 11) % 200 - 100);
  rows += std::string(router_width, '\x10');  // all equal
  for (int kind = 0; kind < 10; ++kind) {
    for (const char training : {'\0', '\1'}) {
      const std::string head = {static_cast<char>(kind), training, '\x7f', '\0'};
      take(head + std::string("\x05\xf0\x20\x00\x11\x40\x03\xc1", 8) + rows);
    }
  }
}

constexpr Harness harnesses[] = {
    {"sampler", sampler, sampler_seeds, 1 << 7, 64},
    {"dispatch", dispatch, dispatch_seeds, 1 << 8, 64},
    {"router", router, router_seeds, 1 << 8, 256},
};

}  // namespace numbers

std::span<const Harness> numbers_harnesses() { return numbers::harnesses; }

}  // namespace tinymoe_fuzz
