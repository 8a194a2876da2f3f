#pragma once
/// @file
/// What is found out about a model's experts, as plain values: for reports, whatever the model's type.
/// `profile_experts` (expert_profile.hpp) and `measure_experts` (expert_worth.hpp) fill it.

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/layers/routing.hpp"

namespace tinymoe::inline v0_1 {

/// What a token is, as a reader sees it. A name is a word with a capital that does not begin a sentence. The tokens of
/// a word but its first are its continuation; the first one's kind is the word's.
enum class TokenKind { word_start, word_continuation, function_word, name, digits, punctuation, space, special };
/// How many kinds of token there are.
inline constexpr std::size_t token_kinds = 8;
/// Their names, for people.
inline constexpr std::array<std::string_view, token_kinds> token_kind_names = {
    "word start", "word continuation", "function word", "name", "digits", "punctuation", "white space", "special"};

/// A place of a token in a story. Pieces are bytes as the tokenizer has them: they may be cut within a character.
struct TokenContext {
  std::string before, piece, after;
};

/// A token that an expert gets more often than the others do.
struct TypicalToken {
  Token token = 0;
  std::string piece = {};
  Index pairs = 0;   // of this token, that went to the expert
  double share = 0;  // of the pairs of this token in the mixture: 1 where no other expert gets it
  double lift = 0;   // `share` / the expert's share of all pairs: 1 where it gets the token as often as any
  std::vector<TokenContext> contexts = {};  // a few, from different stories where there are
};

/// One expert of a mixture. Pairs are (token, choice) pairs.
struct ExpertFindings {
  Index pairs = 0;                            // that it got
  double share = 0;                           // of the mixture's pairs
  double mean_gate = 0;                       // over its pairs; 0 for a dead expert
  std::array<Index, token_kinds> kinds = {};  // its pairs by TokenKind
  std::vector<TypicalToken> typical = {};     // by falling lift
};

/// How sure a router is, over all tokens. Scores are divided by their sum, which for softmax is 1.
struct RouterConfidence {
  static constexpr std::size_t bins = 20;
  double mean_top = 0;               // mean of a token's highest probability
  double mean_entropy = 0;           // mean of −Σ p ln p, as a share of its max ln E: 0 is sure, 1 is undecided
  std::array<Index, bins> top = {};  // tokens by their highest probability, from 0 to 1 in bins of equal width
};

/// One mixture.
struct MixtureFindings {
  Index layer = 0;                 // its number in the model
  Index experts = 0, choices = 0;  // E, K: the experts of a token, at most or on average
  Index tokens = 0, pairs = 0;
  double load_variation = 0;  // deviation / mean of the experts' pairs: 0 is even
  double load_entropy = 0;    // −Σ share ln share, as a share of its max ln E: 1 is even
  Index dead = 0;             // experts without a pair
  RouterConfidence confidence = {};
  std::array<Index, token_kinds> kinds = {};  // all pairs by TokenKind
  std::vector<ExpertFindings> expert = {};    // (E)
};

/// A story's tokens, and the experts that they took.
struct TracedStory {
  std::vector<Token> ids = {};
  std::vector<std::string> pieces = {};  // the text of each token; all together are the story
  std::vector<TokenKind> kinds = {};
  std::vector<ExpertChoices> experts = {};  // for each mixture in order, row i has experts and gates of token i
};

/// What `profile_experts` returns.
struct ExpertProfile {
  Index tokens = 0, stories = 0;               // that were read
  std::vector<MixtureFindings> mixtures = {};  // in order
  std::vector<TracedStory> stories_traced = {};
};

/// A model without one expert. A token that would have gone to it goes to its next best.
struct ExpertWorth {
  Index layer = 0, expert = 0;
  double loss = 0;   // validation, nats per token; infinite for the only expert of a mixture
  double worth = 0;  // `loss` − that of the whole model; below 0 the model is better without the expert
};

/// A model with fewer experts or a smaller K.
struct FewerExperts {
  Index experts = 0, choices = 0;      // of each mixture, where it has more
  Index total = 0, active = 0;         // parameters that are left, and those that a token uses
  double loss = 0, bits_per_byte = 0;  // bits per byte: 0 if the text's bytes are not known
};

/// What `measure_experts` returns.
struct ExpertWorths {
  Index tokens = 0;                           // that were scored
  double loss = 0, bits_per_byte = 0;         // of the whole model
  std::vector<ExpertWorth> experts = {};      // by layer, then expert
  std::vector<FewerExperts> by_experts = {};  // from all experts down, the least worthy leave first
  std::vector<FewerExperts> by_choices = {};  // from K down to 1, with all experts
};

}  // namespace tinymoe::inline v0_1
