#pragma once
/// @file
/// Learning a tokenizer from stories: byte-pair encoding (Sennrich et al. 2016) over GPT-2's pieces. The pair of
/// neighbouring tokens that occurs most often becomes a token, until the vocabulary is full.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/text/byte_level/byte_alphabet.hpp"
#include "tinymoe/text/byte_level/pre_tokenizer.hpp"
#include "tinymoe/text/byte_level/tokenizer.hpp"
#include "tinymoe/text/byte_level/tokenizer_file.hpp"
#include "tinymoe/text/merge_table.hpp"
#include "tinymoe/text/ordered_workers.hpp"
#include "tinymoe/text/piece_table.hpp"
#include "tinymoe/text/story_source.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1 {

/// How `train_tokenizer` learns.
struct TokenizerTraining {
  Index vocabulary = 2048;  // tokens in all: 256 bytes, the merges, "<|endoftext|>"
  int threads = 0;          // that count pieces; 0: one per core
  Index least_count = 2;    // a pair must occur this often to become a token
  bool or_fewer = false;    // a text too small for the vocabulary gives a smaller one, not an error
  std::function<void(Index done, Index all)> on_progress = {};  // tokens learnt, when the text has been read

  /// Throws OptionError, naming the option.
  void check() const {
    using namespace detail::range;
    detail::check_options("TokenizerTraining", {{"threads", threads, whole(0, detail::max_threads)},
                                                {"least_count", least_count, whole(0)}});
  }
};

namespace detail {

/// How often each piece occurs.
class PieceCounts {
 public:
  void add(std::string_view piece, std::int64_t count = 1) {
    const auto [number, fresh] = pieces_.insert(piece);
    if (fresh) counts_.push_back(0);
    counts_[number] += count;
  }

  /// A piece beyond 1,024 bytes is counted in parts, so that a merge in a long run of letters does not cost its length.
  void add_story(std::string_view story) {
    constexpr std::size_t longest = 1024;
    for_each_piece(story, [&](std::string_view piece) {
      for (; piece.size() > longest; piece.remove_prefix(longest)) add(piece.substr(0, longest));
      add(piece);
    });
  }

  void add_all(const PieceCounts& other) {
    for (std::size_t i = 0; i < other.size(); ++i) add(other.pieces_[i], other.counts_[i]);
  }

  std::size_t size() const { return counts_.size(); }
  std::string_view piece(std::size_t i) const { return pieces_[i]; }
  std::int64_t count(std::size_t i) const { return counts_[i]; }

 private:
  PieceTable pieces_;
  std::vector<std::int64_t> counts_;
};

/// Counts the pieces of all stories; the result does not depend on the number of threads.
template <StorySource Stories>
PieceCounts count_pieces(const Stories& stories, int threads) {
  std::vector<std::unique_ptr<PieceCounts>> counts;
  const auto make_work = [&]() -> OrderedWorkers::Work {
    auto* own = counts.emplace_back(std::make_unique<PieceCounts>()).get();
    return [own](StoryBlock& block) {
      block.stories.for_each_story([&](std::string_view story) { own->add_story(story); });
    };
  };
  OrderedWorkers workers(threads, make_work, [](StoryBlock&) {});
  for_each_block(stories, [&](StoryList&& block) { workers.push(std::move(block)); });
  workers.drain();
  for (std::size_t i = 1; i < counts.size(); ++i) counts[0]->add_all(*counts[i]);
  return std::move(*counts[0]);
}

/// The distinct pieces as tokens, how often each pair of neighbouring tokens occurs, and in which pieces.
class PairStatistics {
 public:
  explicit PairStatistics(const PieceCounts& pieces) {
    std::array<Token, 256> token_of{};
    for (std::size_t i = 0; i < 256; ++i) token_of[byte_alphabet.in_order[i]] = static_cast<Token>(i);
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      if (pieces.piece(i).size() < 2) continue;
      words_.push_back({tokens_.size(), pieces.piece(i).size(), pieces.count(i)});
      for (const char byte : pieces.piece(i)) tokens_.push_back(token_of[static_cast<unsigned char>(byte)]);
      for (std::size_t at = words_.back().begin; at + 1 < tokens_.size(); ++at) {
        add(tokens_[at], tokens_[at + 1], static_cast<std::uint32_t>(words_.size() - 1));
      }
    }
    push_risen();
  }

  /// The most frequent pair, if it occurs at least `least` times. Of equally frequent ones it is the smallest.
  std::optional<Merge> best(std::int64_t least) {
    while (!heap_.empty()) {
      const Candidate top = heap_.top();
      const auto found = pairs_.find(top.pair);
      const std::int64_t count = found != pairs_.end() ? found->second.count : 0;
      if (count == top.count) {
        if (count < least) return std::nullopt;
        return Merge{static_cast<Token>(top.pair >> 32), static_cast<Token>(top.pair & 0xffffffffu)};
      }
      heap_.pop();  // a count that rose was pushed again; one that fell is pushed with what is left
      if (count > 0) heap_.push({count, top.pair});
    }
    return std::nullopt;
  }

  /// Replaces a pair by a token wherever it occurs.
  void merge(Merge pair, Token result) {
    const std::uint64_t key = pair_key(pair.left, pair.right);
    const auto places = std::move(pairs_[key].words);
    for (const std::uint32_t place : places) merge_word(place, pair, result);
    pairs_.erase(key);
    push_risen();
  }

 private:
  struct Word {
    std::size_t begin = 0, size = 0;  // in tokens_
    std::int64_t count = 0;
  };
  struct Pair {
    std::int64_t count = 0;
    std::vector<std::uint32_t> words;  // where it has been seen; may be stale, may repeat
  };
  struct Candidate {
    std::int64_t count = 0;
    std::uint64_t pair = 0;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  void add(Token left, Token right, std::uint32_t word) {
    const std::uint64_t key = pair_key(left, right);
    Pair& pair = pairs_[key];
    pair.count += words_[word].count;
    if (pair.words.empty() || pair.words.back() != word) pair.words.push_back(word);
    risen_.push_back(key);
  }

  void remove(Token left, Token right, std::uint32_t word) {
    pairs_[pair_key(left, right)].count -= words_[word].count;
  }

  void push_risen() {
    std::sort(risen_.begin(), risen_.end());
    risen_.erase(std::unique(risen_.begin(), risen_.end()), risen_.end());
    for (const std::uint64_t key : risen_) {
      if (const auto found = pairs_.find(key); found != pairs_.end()) heap_.push({found->second.count, key});
    }
    risen_.clear();
  }

  /// Merges from left to right. Counts are brought up to date after each single merge.
  void merge_word(std::uint32_t number, Merge pair, Token result) {
    Word& word = words_[number];
    Token* tokens = tokens_.data() + word.begin;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < word.size; ++i, ++kept) {
      tokens[kept] = tokens[i];
      if (i + 1 == word.size || tokens[i] != pair.left || tokens[i + 1] != pair.right) continue;
      tokens[kept] = result;
      ++i;
      if (kept > 0) {
        remove(tokens[kept - 1], pair.left, number);
        add(tokens[kept - 1], result, number);
      }
      if (i + 1 < word.size) {
        remove(pair.right, tokens[i + 1], number);
        add(result, tokens[i + 1], number);
      }
    }
    word.size = kept;
  }

  std::vector<Token> tokens_;
  std::vector<Word> words_;
  std::unordered_map<std::uint64_t, Pair> pairs_;
  std::vector<std::uint64_t> risen_;  // pairs whose count may have grown since they were pushed
  std::priority_queue<Candidate> heap_;
};

}  // namespace detail

/// Learns a tokenizer. The order of tokens is GPT-2's: the bytes, the merges as they were learnt, "<|endoftext|>" last.
/// The result depends only on the stories, `vocabulary` and `least_count`. Of pairs that are equally frequent, the one
/// of the smaller tokens comes first. Memory grows with the number of distinct pieces, not with the text.
template <StorySource Stories>
Tokenizer train_tokenizer(const Stories& stories, TokenizerTraining training = {}) {
  training.check();
  if (training.vocabulary < 257 || training.vocabulary > (Index{1} << 30)) {
    fail<TextError>("expected a vocabulary of at least 257 tokens (256 bytes and the end of a story), found ",
                    training.vocabulary);
  }
  detail::PairStatistics statistics(detail::count_pieces(stories, detail::thread_count(training.threads)));
  detail::TokenizerParts parts;
  detail::PieceTable known;
  const auto add_token = [&](std::string bytes) {
    const auto [number, fresh] = known.insert(bytes);
    if (fresh) parts.vocabulary.push_back({std::move(bytes), false});
    return static_cast<Token>(number);
  };
  for (const unsigned char byte : detail::byte_alphabet.in_order) add_token(std::string(1, static_cast<char>(byte)));
  std::unordered_set<std::uint64_t> merged;
  while (std::ssize(parts.vocabulary) + 1 < training.vocabulary) {
    const auto pair = statistics.best(std::max<Index>(training.least_count, 1));
    if (!pair) {
      if (training.or_fewer) break;
      fail<TextError>("the text is too small for a vocabulary of ", training.vocabulary,
                      ": with pairs that occur at least ", training.least_count, " times it fills one of ",
                      parts.vocabulary.size() + 1, "; ask for that or give more text");
    }
    // Two merges may give the same bytes, and a pair may come back where the second one has acted.
    const Token result = add_token(parts.vocabulary[static_cast<std::size_t>(pair->left)].bytes +
                                   parts.vocabulary[static_cast<std::size_t>(pair->right)].bytes);
    if (merged.insert(detail::pair_key(pair->left, pair->right)).second) parts.merges.push_back(*pair);
    statistics.merge(*pair, result);
    if (training.on_progress) training.on_progress(std::ssize(parts.vocabulary) + 1, training.vocabulary);
  }
  parts.vocabulary.push_back({std::string(end_of_story_text), true});
  return Tokenizer(ByteLevelBpe(std::move(parts)));
}

}  // namespace tinymoe::inline v0_1
