#pragma once
/// @file
/// Matching a regular expression: depth first, alternatives in their order, as Oniguruma does.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/text/pipeline/character_set.hpp"
#include "tinymoe/text/pipeline/expression_parser.hpp"
#include "tinymoe/text/pipeline/unicode_properties.hpp"
#include "tinymoe/text/tokenizer_json.hpp"

namespace tinymoe::inline v0_1::detail {

/// A part of a text: bytes `begin` to `end`.
struct TextRange {
  std::size_t begin = 0, end = 0;
};

/// A compiled expression. Immutable, so threads share it.
class Expression {
 public:
  /// Throws FileError that names `file` for an expression that tinymoe cannot match exactly.
  [[gnu::cold]] Expression(std::string pattern, const std::string& file)
      : pattern_(std::move(pattern)), program_(ExpressionParser(pattern_, file)()) {}

  /// Calls f(TextRange) for each match, from left to right. An empty match right after the one before is none.
  /// Throws TextError if that takes more than `most_steps`.
  template <class F>
  void for_each_match(std::string_view text, F&& f) const {
    std::vector<Choice> choices;
    std::uint64_t left = most_steps(text.size());
    std::optional<std::size_t> last;
    for (std::size_t from = 0; from <= text.size();) {
      const auto found = find(text, from, choices, left);
      if (!found) return;
      if (found->begin == found->end && last == found->end) {
        from += from < text.size() ? decode_utf8(text, from).length : 1;
        continue;
      }
      f(*found);
      last = from = found->end;
    }
  }

  /// How many steps and characters may be tried on a text of `bytes`. Usual expressions that look ahead take a square
  /// of them, which does no harm where a text is short.
  static constexpr std::uint64_t most_steps(std::uint64_t bytes) {
    const std::uint64_t few = std::min<std::uint64_t>(bytes, 1 << 16);
    return 16'384 + 1024 * bytes + std::min<std::uint64_t>(4 * few * few, 20'000'000);
  }

 private:
  using Kind = ExpressionStep::Kind;

  /// Where to go on if what follows fails: at step `step` and byte `at`, or at one of those from `low` on.
  struct Choice {
    std::size_t step = 0, at = 0, low = 0;
  };

  std::optional<TextRange> find(std::string_view text, std::size_t from, std::vector<Choice>& choices,
                                std::uint64_t& left) const {
    for (std::size_t begin = from;;) {
      if (const auto end = run(text, 0, begin, choices, left)) return TextRange{begin, *end};
      if (begin >= text.size()) return std::nullopt;
      begin += decode_utf8(text, begin).length;
    }
  }

  static std::size_t before(std::string_view text, std::size_t at) {
    std::size_t start = at - 1;
    while (start > 0 && at - start < 4 && continues_character(text[start])) --start;
    return start + decode_utf8(text, start).length == at ? start : at - 1;
  }
  static bool word_at(std::string_view text, std::size_t at) {
    return at < text.size() && is_expression_word(decode_utf8(text, at).value);
  }

  [[noreturn, gnu::cold]] void give_up() const {
    fail<TextError>("the expression ", in_quotes(pattern_), " takes too long on this text");
  }

  /// The end of the match of the steps from `step` to their `accept`, at byte `at`.
  std::optional<std::size_t> run(std::string_view text, std::size_t step, std::size_t at, std::vector<Choice>& choices,
                                 std::uint64_t& left) const {
    const std::size_t bottom = choices.size();
    const auto* steps = program_.steps.data();
    const auto go = [&](std::int32_t by) { step = static_cast<std::size_t>(static_cast<std::int64_t>(step) + by); };
    const auto spend = [&](std::uint64_t count) {
      if (left < count) give_up();
      left -= count;
    };
    for (;;) {
      spend(1);
      const ExpressionStep& now = steps[step];
      bool matches = true;
      switch (now.kind) {
        case Kind::set: {
          matches = at < text.size();
          if (!matches) break;
          const DecodedCodePoint next = decode_utf8(text, at);
          const CharacterSet& set = program_.sets[static_cast<std::size_t>(now.a)];
          spend(set.weight());
          matches = set.has(next.value);
          at += next.length;
          ++step;
          break;
        }
        case Kind::span: {
          const CharacterSet& set = program_.sets[static_cast<std::size_t>(now.a)];
          std::uint32_t count = 0;
          std::size_t low = at;
          while (count < now.high && at < text.size()) {
            const DecodedCodePoint next = decode_utf8(text, at);
            if (!set.has(next.value)) break;
            at += next.length;
            if (++count == now.low) low = at;
          }
          spend((count + std::uint64_t{1}) * set.weight());
          matches = count >= now.low;
          ++step;
          if (matches && at > low) choices.push_back({step, at, low});
          break;
        }
        case Kind::split: {
          const auto other = static_cast<std::size_t>(static_cast<std::int64_t>(step) + now.b);
          if (choices.size() > 16'384 + 64 * text.size()) give_up();  // they take memory
          choices.push_back({other, at, at});
          go(now.a);
          break;
        }
        case Kind::jump:
          go(now.a);
          break;
        case Kind::look_ahead: {
          matches = run(text, step + 1, at, choices, left).has_value() != now.negative;
          go(now.a);
          break;
        }
        case Kind::look_behind:
          matches =
              at > 0 && program_.sets[static_cast<std::size_t>(now.a)].has(decode_utf8(text, before(text, at)).value);
          matches = matches != now.negative;
          ++step;
          break;
        case Kind::atomic: {
          const auto end = run(text, step + 1, at, choices, left);
          matches = end.has_value();
          at = end.value_or(at);
          go(now.a);
          break;
        }
        case Kind::line_begin:
          matches = at == 0 || (text[at - 1] == '\n' && at < text.size());
          ++step;
          break;
        case Kind::line_end:
          matches = at == text.size() || text[at] == '\n';
          ++step;
          break;
        case Kind::text_begin:
          matches = at == 0;
          ++step;
          break;
        case Kind::text_end:
          matches = at == text.size() || (now.negative && at + 1 == text.size() && text[at] == '\n');
          ++step;
          break;
        case Kind::word_boundary:
          matches = ((at > 0 && word_at(text, before(text, at))) != word_at(text, at)) != now.negative;
          ++step;
          break;
        case Kind::accept:
          choices.resize(bottom);
          return at;
      }
      if (matches) continue;
      if (choices.size() == bottom) return std::nullopt;
      Choice& choice = choices.back();
      step = choice.step;
      if (choice.low < choice.at) {
        at = choice.at = before(text, choice.at);
        if (choice.low == choice.at) choices.pop_back();
      } else {
        at = choice.at;
        choices.pop_back();
      }
    }
  }

  std::string pattern_;
  ExpressionProgram program_;
};

}  // namespace tinymoe::inline v0_1::detail
