#pragma once
/// @file
/// What a model's experts do on stories: loads, gates, confidence of the routers, kinds of token and typical tokens of
/// each expert, and the experts of each token of some stories. Opt-in: model.hpp does not include it.
///
/// Over 300 lines: the counts and what is made of them stand together.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tinymoe/analysis/expert_findings.hpp"
#include "tinymoe/analysis/token_kinds.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/activations.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/sample/expert_trace.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/text/token_pieces.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "tinymoe/train/evaluation.hpp"
#include "tinymoe/train/reports.hpp"

namespace tinymoe::inline v0_1 {

/// How much `profile_experts` reads, and how much it tells.
struct ProfileOptions {
  Index tokens = 1 << 17;                                       // of the data, the first; 0: all
  Index batch = 8;                                              // sequences of a pass, each as long as the context
  Index stories = 3;                                            // traced, the first
  Index typical = 8;                                            // tokens of each expert
  Index least_pairs = 10;                                       // that an expert got of a token, for it to be typical
  Index contexts = 3;                                           // of each typical token, from the first 65,536 tokens
  std::function<void(Index done, Index all)> on_progress = {};  // tokens

  /// Throws OptionError, naming the option.
  void check() const {
    using namespace detail::range;
    detail::check_options("ProfileOptions", {{"tokens", tokens, whole(0)},
                                             {"batch", batch, whole(1, 1 << 16)},
                                             {"stories", stories, whole(0)},
                                             {"typical", typical, whole(0)},
                                             {"least_pairs", least_pairs, whole(1)},
                                             {"contexts", contexts, whole(0)}});
  }
};

namespace detail {

/// The text that tokens add, and their kinds.
class TokenTexts {
 public:
  explicit TokenTexts(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  bool is_special(Token token) const {
    return token >= 0 && token < tokenizer_->vocabulary_size() && tokenizer_->is_special(token);
  }
  /// The text of tokens[i] behind those before it; of a special token its name, of one that the tokenizer does not know
  /// nothing.
  std::string piece(std::span<const Token> tokens, std::size_t i) const {
    const Token token = tokens[i];
    if (token < 0 || token >= tokenizer_->vocabulary_size()) return {};
    if (tokenizer_->is_special(token)) return std::string(tokenizer_->bytes(token));
    return token_piece(*tokenizer_, tokens, i);
  }
  std::vector<std::string> pieces(std::span<const Token> tokens) const {
    std::vector<std::string> all;
    for (std::size_t i = 0; i < tokens.size(); ++i) all.push_back(piece(tokens, i));
    return all;
  }
  std::vector<TokenKind> kinds(std::span<const Token> tokens, std::span<const std::string> pieces) const {
    std::vector<bool> special;
    for (const Token token : tokens) special.push_back(is_special(token));
    return token_kinds_of(pieces, special);
  }

 private:
  const Tokenizer* tokenizer_;
};

/// −Σ p ln p of parts of a whole, as a share of its max; 0 of a whole of one part.
template <class Parts>
double even_share(const Parts& parts) {
  double total = 0, entropy = 0;
  for (const auto part : parts) total += static_cast<double>(part);
  if (parts.size() < 2 || !(total > 0)) return 0;
  for (const auto part : parts) {
    const double p = static_cast<double>(part) / total;
    if (p > 0) entropy -= p * std::log(p);
  }
  return entropy / std::log(static_cast<double>(parts.size()));
}

/// The counts of one mixture.
class MixtureCounts {
 public:
  MixtureCounts(Index vocabulary, const ExpertChoices& of) : vocabulary_(vocabulary) {
    found_.layer = of.layer, found_.experts = of.experts, found_.choices = of.choices;
    found_.expert.resize(static_cast<std::size_t>(of.experts));
    gates_.resize(found_.expert.size());
    pairs_.resize(found_.expert.size() * static_cast<std::size_t>(vocabulary));
    totals_.resize(static_cast<std::size_t>(vocabulary));
  }

  /// Adds some tokens; row i of `choices` is token i.
  void add(std::span<const Token> tokens, std::span<const TokenKind> kinds, const ExpertChoices& choices) {
    const auto k = static_cast<std::size_t>(found_.choices), experts = found_.expert.size();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      ++found_.tokens;
      const auto token = static_cast<std::size_t>(tokens[i]), kind = static_cast<std::size_t>(kinds[i]);
      for (std::size_t pair = i * k; pair < (i + 1) * k; ++pair) {
        if (!choices.selected[pair].taken()) continue;
        const auto e = static_cast<std::size_t>(choices.selected[pair].expert());
        ++found_.pairs, ++found_.expert[e].pairs;
        ++found_.kinds[kind], ++found_.expert[e].kinds[kind];
        gates_[e] += static_cast<double>(choices.gate[pair]);
        ++pairs_[e * static_cast<std::size_t>(vocabulary_) + token], ++totals_[token];
      }
      add_scores(std::span(choices.score).subspan(i * experts, experts));
    }
    if (kept_ < kept_tokens) {
      const std::size_t rows = std::min(tokens.size(), kept_tokens - kept_);
      selected_.insert(selected_.end(), choices.selected.begin(),
                       choices.selected.begin() + static_cast<std::ptrdiff_t>(rows * k));
      kept_ += rows;
    }
  }

  /// The findings, but for contexts; nothing is added after that.
  MixtureFindings finish(const ProfileOptions& options) {
    std::vector<Index> loads;
    for (std::size_t e = 0; e < found_.expert.size(); ++e) {
      ExpertFindings& expert = found_.expert[e];
      loads.push_back(expert.pairs);
      if (expert.pairs == 0) {
        ++found_.dead;
        continue;
      }
      expert.share = static_cast<double>(expert.pairs) / static_cast<double>(found_.pairs);
      expert.mean_gate = gates_[e] / static_cast<double>(expert.pairs);
      expert.typical = typical(e, options);
    }
    found_.load_variation = EvaluationReport::coefficient_of_variation(loads);
    found_.load_entropy = even_share(loads);
    if (scored_ > 0) {
      found_.confidence.mean_top /= static_cast<double>(scored_);
      found_.confidence.mean_entropy /= static_cast<double>(scored_);
    }
    return std::move(found_);
  }

  static constexpr std::size_t kept_tokens = std::size_t{1} << 16;
  /// Whether the i-th token, of the first `kept_tokens`, went to an expert.
  bool went_to(std::size_t i, std::size_t expert, Index choices) const {
    const auto k = static_cast<std::size_t>(choices);
    return std::find(selected_.begin() + static_cast<std::ptrdiff_t>(i * k),
                     selected_.begin() + static_cast<std::ptrdiff_t>((i + 1) * k),
                     ChosenExpert(static_cast<std::int32_t>(expert))) !=
           selected_.begin() + static_cast<std::ptrdiff_t>((i + 1) * k);
  }

 private:
  void add_scores(std::span<const float> scores) {
    double total = 0, top = 0;
    for (const float score : scores) total += double(score), top = std::max(top, double(score));
    if (!(total > 0)) return;  // a router that gives no scores
    RouterConfidence& confidence = found_.confidence;
    top /= total;
    ++scored_;
    confidence.mean_top += top;
    confidence.mean_entropy += even_share(scores);
    const auto bin = static_cast<std::size_t>(top * static_cast<double>(RouterConfidence::bins));
    ++confidence.top[std::min(bin, RouterConfidence::bins - 1)];
  }

  std::vector<TypicalToken> typical(std::size_t e, const ProfileOptions& options) const {
    std::vector<TypicalToken> all;
    for (std::size_t token = 0; token < totals_.size(); ++token) {
      const Index pairs = pairs_[e * totals_.size() + token];
      if (pairs < options.least_pairs) continue;
      const double share = static_cast<double>(pairs) / static_cast<double>(totals_[token]);
      const double lift = share / found_.expert[e].share;
      if (lift > 1) all.push_back({static_cast<Token>(token), {}, pairs, share, lift});
    }
    const auto count = std::min(all.size(), static_cast<std::size_t>(options.typical));
    std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count), all.end(),
                      [](const TypicalToken& a, const TypicalToken& b) {
                        if (a.lift != b.lift) return a.lift > b.lift;
                        return a.pairs != b.pairs ? a.pairs > b.pairs : a.token < b.token;
                      });
    all.resize(count);
    return all;
  }

  Index vocabulary_;
  MixtureFindings found_;
  std::vector<double> gates_;
  std::vector<std::uint32_t> pairs_, totals_;  // (E, V), (V)
  std::vector<ChosenExpert> selected_;         // of the first tokens
  std::size_t kept_ = 0;
  Index scored_ = 0;
};

/// Collects what passes over some data give.
class ProfileCounts {
 public:
  ProfileCounts(const Tokenizer& tokenizer, const TokenData& data, std::span<const ExpertChoices> mixtures)
      : texts_(tokenizer), data_(&data) {
    for (const auto& mixture : mixtures) mixtures_.emplace_back(data.vocabulary_size(), mixture);
  }

  /// Adds the tokens `first` to `first + count − 1`, which follow those of the last call.
  void add(Index first, Index count, std::span<const ExpertChoices> choices) {
    // A word's kind depends on the whole word and on what is before it.
    constexpr Index beside = 24;
    const Index from = std::max<Index>(0, first - beside), to = std::min(data_->size(), first + count + beside);
    std::vector<Token> tokens(static_cast<std::size_t>(to - from));
    data_->copy(from, tokens);
    const auto kinds = texts_.kinds(tokens, texts_.pieces(tokens));
    const auto skip = static_cast<std::size_t>(first - from), size = static_cast<std::size_t>(count);
    const auto added = std::span(tokens).subspan(skip, size);
    for (std::size_t m = 0; m < mixtures_.size(); ++m) {
      mixtures_[m].add(added, std::span(kinds).subspan(skip, size), choices[m]);
    }
    const std::size_t room = MixtureCounts::kept_tokens - std::min(kept_.size(), MixtureCounts::kept_tokens);
    kept_.insert(kept_.end(), added.begin(), added.begin() + static_cast<std::ptrdiff_t>(std::min(size, room)));
  }

  std::vector<MixtureFindings> finish(const ProfileOptions& options) {
    std::vector<MixtureFindings> found;
    index_places();
    for (auto& mixture : mixtures_) {
      found.push_back(mixture.finish(options));
      for (std::size_t e = 0; e < found.back().expert.size(); ++e) {
        for (TypicalToken& token : found.back().expert[e].typical) {
          add_contexts(token, mixture, e, found.back().choices, options.contexts);
        }
      }
    }
    return found;
  }

  const TokenTexts& texts() const { return texts_; }

 private:
  void index_places() {
    places_.resize(static_cast<std::size_t>(data_->vocabulary_size()));
    Index story = 0;
    for (std::size_t i = 0; i < kept_.size(); ++i) {
      places_[static_cast<std::size_t>(kept_[i])].push_back(static_cast<std::uint32_t>(i));
      story_.push_back(static_cast<std::uint32_t>(story));
      if (texts_.is_special(kept_[i])) ++story;
    }
  }

  void add_contexts(TypicalToken& token, const MixtureCounts& mixture, std::size_t expert, Index choices,
                    Index count) const {
    const auto& places = places_[static_cast<std::size_t>(token.token)];
    std::vector<std::uint32_t> chosen, stories;
    for (const bool same_story : {false, true}) {  // best one of each story
      for (const std::uint32_t place : places) {
        if (std::ssize(chosen) == count) break;
        if (std::find(chosen.begin(), chosen.end(), place) != chosen.end()) continue;
        if (!same_story && std::find(stories.begin(), stories.end(), story_[place]) != stories.end()) continue;
        if (!mixture.went_to(place, expert, choices)) continue;
        chosen.push_back(place), stories.push_back(story_[place]);
      }
    }
    for (const std::uint32_t place : chosen) token.contexts.push_back(context(place));
    if (token.contexts.empty()) {
      const Token alone[] = {token.token};
      token.piece = texts_.piece(alone, 0);
    } else {
      token.piece = token.contexts[0].piece;
    }
  }

  /// A token with some before and after it of its story.
  TokenContext context(std::size_t place) const {
    constexpr std::size_t beside = 10;
    TokenContext found{{}, texts_.piece(kept_, place), {}};
    std::size_t first = place, last = place + 1;
    while (first > 0 && place - first < beside && !texts_.is_special(kept_[first - 1])) --first;
    if (texts_.is_special(kept_[place])) last = kept_.size();
    for (std::size_t i = first; i < place; ++i) found.before += texts_.piece(kept_, i);
    for (; last < kept_.size() && last - place <= beside && !texts_.is_special(kept_[last]); ++last) {
      found.after += texts_.piece(kept_, last);
    }
    return found;
  }

  TokenTexts texts_;
  const TokenData* data_;
  std::vector<MixtureCounts> mixtures_;
  std::vector<Token> kept_;  // the first tokens
  std::vector<std::uint32_t> story_;
  std::vector<std::vector<std::uint32_t>> places_;
};

/// Runs one model over tokens without a KV cache, in memory as for an evaluation, and traces its experts.
template <class Arch, class B, class W>
class TracedPasses {
 public:
  TracedPasses(const Model<Arch, B, W>& model, Index batch)
      : model_(&model),
        rows_(batch * Arch::context),
        activations_(model.backend(), Plan::Purpose::training, Pass{.batch = batch, .time = Arch::context}),
        trace_(model.backend(), activations_, rows_),
        ids_(model.backend().allocate(static_cast<std::size_t>(rows_) * sizeof(Token))) {}

  /// The experts of `tokens`, in sequences of `time` tokens; the last one may be shorter.
  std::span<const ExpertChoices> operator()(std::span<const Token> tokens, Index time) {
    auto& backend = model_->backend();
    const Index count = std::ssize(tokens), batch = (count + time - 1) / time;
    padded_.assign(tokens.begin(), tokens.end());
    padded_.resize(static_cast<std::size_t>(batch * time), pad_token);
    backend.copy_to_device(ids_.bytes(), padded_.data(), padded_.size() * sizeof(Token));
    const View<const Token> ids(ids_.template as<Token>().data, 1, batch * time);
    Pass pass{.batch = batch, .time = time, .settings = model_->settings(), .losses = false};
    pass.pads = batch * time - count;
    if (pass.pads > 0) pass.tokens = ids;
    pass.limits = model_->limits_by_layer();
    Arch::forward(backend, pass, model_->weights(), ids, *activations_);
    trace_.restart(count);
    to_.resize(tokens.size());
    std::iota(to_.begin(), to_.end(), Index{0});
    trace_.record(backend, to_);
    return trace_.choices();
  }
  std::span<const ExpertChoices> mixtures() const { return trace_.choices(); }

 private:
  const Model<Arch, B, W>* model_;
  Index rows_;
  Activations<Arch, B> activations_;
  ExpertTrace<Arch, B> trace_;
  Memory ids_;
  std::vector<Token> padded_;
  std::vector<Index> to_;
};

/// Removes the first row of all choices.
[[gnu::cold]] inline void drop_first_row(std::vector<ExpertChoices>& all) {
  const auto drop = [](auto& values, Index cols) {
    if (!values.empty()) values.erase(values.begin(), values.begin() + cols);
  };
  for (auto& choices : all) {
    drop(choices.selected, choices.choices), drop(choices.gate, choices.choices);
    drop(choices.score, choices.experts), drop(choices.logit, choices.experts);
  }
}

/// The experts of the first stories, as far as the context goes: `run(tokens)` gives those of tokens.
template <class Run>
std::vector<TracedStory> trace_stories(const TokenTexts& texts, const TokenData& data, Index tokens, Token begin,
                                       Token end, Index context, Index count, Run&& run) {
  std::vector<TracedStory> stories;
  for (Index at = 0; at < tokens && std::ssize(stories) < count; ++at) {
    TracedStory story;
    for (; at < tokens && data[at] != end; ++at) story.ids.push_back(data[at]);
    if (story.ids.empty()) continue;
    std::vector<Token> read = story.ids;
    const bool begun = read[0] == begin || context < 2;
    if (!begun) read.insert(read.begin(), begin);
    read.resize(std::min(read.size(), static_cast<std::size_t>(context)));
    story.ids.resize(read.size() - (begun ? 0 : 1));
    const auto choices = run(std::span<const Token>(read));
    story.experts.assign(choices.begin(), choices.end());
    if (!begun) drop_first_row(story.experts);
    story.pieces = texts.pieces(story.ids);
    story.kinds = texts.kinds(story.ids, story.pieces);
    for (std::size_t i = 0; i < story.ids.size(); ++i) {
      if (texts.is_special(story.ids[i])) story.pieces[i].clear();  // it is nothing in a text
    }
    stories.push_back(std::move(story));
  }
  return stories;
}

}  // namespace detail

/// Runs a model over the first tokens of `data`, in sequences as long as its context, and over the first stories by
/// themselves; nothing is noisy or dropped, and the model's limits (`limit_experts`) hold. `tokenizer` encoded the
/// data. A model without mixtures has no findings. Memory is bounded, but for a count for each token of the vocabulary
/// and each expert. Scores of a router of one's own that writes none leave its confidence at 0, and logits are those of
/// `Router` alone.
///
/// Throws OptionError, MismatchError for data of another vocabulary or tokenizer, DeviceError without memory.
template <class Arch, class B, class W>
ExpertProfile profile_experts(const Model<Arch, B, W>& model, const Tokenizer& tokenizer, const TokenData& data,
                              const ProfileOptions& options = {}) {
  options.check();
  detail::check_vocabulary<Arch>(data);
  if (data.tokenizer_fingerprint().value_or(tokenizer.fingerprint()) != tokenizer.fingerprint()) {
    fail<MismatchError>("the data were encoded by another tokenizer; encode them with the model's");
  }
  ExpertProfile profile;
  profile.tokens = options.tokens > 0 ? std::min(options.tokens, data.size()) : data.size();
  if (!Arch::has_mixtures || profile.tokens == 0) return profile;
  const Index time = Arch::context, batch = std::min(options.batch, (profile.tokens + time - 1) / time);
  detail::TracedPasses<Arch, B, W> passes(model, batch);
  detail::ProfileCounts counts(tokenizer, data, passes.mixtures());
  std::vector<Token> tokens;
  for (Index first = 0; first < profile.tokens; first += batch * time) {
    tokens.resize(static_cast<std::size_t>(std::min(batch * time, profile.tokens - first)));
    data.copy(first, tokens);
    for (const Token token : tokens) profile.stories += token == tokenizer.end_of_story() ? 1 : 0;
    counts.add(first, std::ssize(tokens), passes(tokens, time));
    if (options.on_progress) options.on_progress(first + std::ssize(tokens), profile.tokens);
  }
  profile.mixtures = counts.finish(options);
  const auto special = model.special_tokens().with(tokenizer.begin_of_text(), tokenizer.end_of_story());
  profile.stories_traced = detail::trace_stories(
      counts.texts(), data, profile.tokens, *special.begin, tokenizer.end_of_story(), time, options.stories,
      [&](std::span<const Token> story) { return passes(story, std::ssize(story)); });
  return profile;
}

}  // namespace tinymoe::inline v0_1
