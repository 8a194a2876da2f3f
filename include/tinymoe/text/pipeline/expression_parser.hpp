#pragma once
/// @file
/// Regular expressions as the package tokenizers reads them (Oniguruma's syntax), as steps for the matcher of
/// expression.hpp. What is not understood is an error, never another meaning.
///
/// There are: alternatives, groups, classes, `\p{…}`, `\s \d \w \h` and their opposites, `. ^ $ \A \z \Z \b \B`,
/// lookahead, lookbehind of one character, atomic groups, (?i) for ASCII letters, greedy, lazy and possessive repeats.
/// There are no references to groups, no conditions.
/// Over 300 lines: it is one grammar.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/text/pipeline/character_set.hpp"
#include "tinymoe/text/pipeline/unicode_properties.hpp"
#include "tinymoe/text/tokenizer_json.hpp"

namespace tinymoe::inline v0_1::detail {

/// A step of a compiled expression. Targets are relative to the step, so that steps can be copied.
struct ExpressionStep {
  enum class Kind : std::uint8_t {
    set,          // a character of set `a`
    span,         // `low` to `high` characters of set `a`, as many as there are, given back one by one
    split,        // goes on at `a`, or else at `b`
    jump,         // goes on at `a`
    look_ahead,   // the steps up to `a` match here (`negative`: do not)
    look_behind,  // a character of set `a` stands before (`negative`: does not)
    atomic,       // the steps up to `a`, of which nothing is given back
    line_begin,
    line_end,
    text_begin,
    text_end,       // `negative`: or before a last newline
    word_boundary,  // `negative`: none
    accept
  };
  static constexpr std::uint32_t no_limit = std::numeric_limits<std::uint32_t>::max();

  Kind kind = Kind::accept;
  bool negative = false;
  std::int32_t a = 0, b = 0;
  std::uint32_t low = 0, high = no_limit;
};

struct ExpressionProgram {
  std::vector<ExpressionStep> steps;
  std::vector<CharacterSet> sets;
};

class ExpressionParser {
 public:
  /// Throws FileError that names `file` for what is wrong or not understood.
  [[gnu::cold]] ExpressionParser(std::string_view pattern, std::string file)
      : pattern_(pattern), file_(std::move(file)) {
    if (find_invalid_utf8(pattern) != std::string_view::npos) refuse("bytes that are not UTF-8");
  }

  [[gnu::cold]] ExpressionProgram operator()() {
    Part whole = alternatives(0);
    if (!at_end()) refuse("a ) without its (");
    whole.steps.push_back({.kind = Kind::accept});
    return {std::move(whole.steps), std::move(sets_)};
  }

 private:
  using Kind = ExpressionStep::Kind;
  using Steps = std::vector<ExpressionStep>;
  static constexpr int deepest = 50;
  static constexpr std::size_t most_parts = 50;
  static constexpr std::size_t most_steps = 100'000, most_work = 4'000'000;

  /// What a piece of the pattern became.
  struct Part {
    Steps steps;
    bool may_be_empty = true;
  };

  [[noreturn, gnu::cold]] void refuse(const std::string& what) const {
    fail<FileError>(file_, ": the expression ", in_quotes(pattern_), " has ", what,
                    ", which tinymoe does not match; the file cannot be used here");
  }

  bool at_end() const { return at_ == pattern_.size(); }
  bool starts_with(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  bool skip(std::string_view text) {
    if (!starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  char32_t take() {
    if (at_end()) refuse("an end in the middle");
    const DecodedCodePoint next = decode_utf8(pattern_, at_);
    at_ += next.length;
    return next.value;
  }

  static std::int32_t distance(const Steps& steps) { return static_cast<std::int32_t>(steps.size()); }
  void append(Steps& to, const Steps& steps) {
    work(steps.size());
    to.insert(to.end(), steps.begin(), steps.end());
  }
  /// Counts what parsing does: repeats of repeats make much of a short pattern, even where nothing is left of it.
  void work(std::size_t count) {
    if ((work_ += count) > most_work) refuse("too many steps");
  }
  void check_size(const Steps& steps) const {
    if (steps.size() > most_steps) refuse("too many repeats");
  }

  Part set_part(CharacterSet set) {
    sets_.push_back(set.finished());
    return {{{.kind = Kind::set, .a = static_cast<std::int32_t>(sets_.size()) - 1}}, false};
  }
  static Part assertion(Kind kind, bool negative = false) { return {{{.kind = kind, .negative = negative}}, true}; }

  [[gnu::cold]] Part alternatives(int depth) {
    if (depth > deepest) refuse("groups nested too deeply");
    const bool folding = fold_;
    Part whole = sequence(depth);
    if (starts_with("|")) {
      std::vector<Part> parts{std::move(whole)};
      while (skip("|")) parts.push_back(sequence(depth));
      whole = either(parts);
    }
    fold_ = folding;
    return whole;
  }

  /// The first of some parts that matches.
  [[gnu::cold]] Part either(const std::vector<Part>& parts) {
    std::size_t length = 2 * (parts.size() - 1);
    for (const Part& part : parts) length += part.steps.size();
    if (length > most_steps) refuse("too many steps");
    Part whole{.steps = {}, .may_be_empty = false};
    for (const Part& part : parts) {
      const bool last = &part == &parts.back();
      if (!last) whole.steps.push_back({.kind = Kind::split, .a = 1, .b = distance(part.steps) + 2});
      append(whole.steps, part.steps);
      if (!last) {
        const auto to_end = static_cast<std::int32_t>(length - whole.steps.size());
        whole.steps.push_back({.kind = Kind::jump, .a = to_end});
      }
      whole.may_be_empty = whole.may_be_empty || part.may_be_empty;
    }
    return whole;
  }

  [[gnu::cold]] Part sequence(int depth) {
    Part whole;
    last_folded_ = 0;
    while (!at_end() && !starts_with("|") && !starts_with(")")) {
      if (skip("(?i)")) {  // to the end of the group, alternatives and all
        fold_ = true;
        Part rest = alternatives(depth + 1);
        fold_ = true;
        append(whole.steps, rest.steps);
        whole.may_be_empty = whole.may_be_empty && rest.may_be_empty;
        continue;
      }
      const Part part = repeated(atom(depth));
      append(whole.steps, part.steps);
      whole.may_be_empty = whole.may_be_empty && part.may_be_empty;
      check_size(whole.steps);
    }
    return whole;
  }

  /// A part with the repeats that follow it.
  [[gnu::cold]] Part repeated(Part part) {
    for (int repeats = 0;; ++repeats) {
      std::uint32_t low = 0, high = ExpressionStep::no_limit;
      bool counted = false;
      if (skip("*")) {
      } else if (skip("+")) {
        low = 1;
      } else if (skip("?")) {
        high = 1;
      } else if (const auto counts = interval()) {
        std::tie(low, high) = *counts;
        counted = true;
      } else {
        return part;
      }
      if (repeats == deepest) refuse("more than 50 repeats of one part");
      last_folded_ = 0;
      bool lazy = false, possessive = false;
      if (counted && low == high) {  // {2}? is ({2})?, and {2}+ is ({2})+
      } else if (skip("?")) {
        lazy = true;
      } else if (!counted && skip("+")) {
        possessive = true;
      }
      part = repeat(std::move(part), low, high, lazy);
      if (!possessive) continue;
      Steps steps{{.kind = Kind::atomic, .a = distance(part.steps) + 2}};
      append(steps, part.steps);
      steps.push_back({.kind = Kind::accept});
      part.steps = std::move(steps);
    }
  }

  [[gnu::cold]] Part repeat(Part part, std::uint32_t low, std::uint32_t high, bool lazy) {
    const bool one = part.steps.size() == 1 && part.steps[0].kind == Kind::set;
    if (one && !lazy) {
      part.steps[0].kind = Kind::span;
      part.steps[0].low = low, part.steps[0].high = high;
      return {std::move(part.steps), low == 0};
    }
    if (part.may_be_empty && high == ExpressionStep::no_limit) refuse("a repeat without end of what may be empty");
    Steps steps;
    for (std::uint32_t i = 0; i < low; ++i, check_size(steps)) append(steps, part.steps);
    const auto choice = [&](std::int32_t in, std::int32_t out) {
      steps.push_back({.kind = Kind::split, .a = lazy ? out : in, .b = lazy ? in : out});
    };
    const std::int32_t length = distance(part.steps);
    if (high == ExpressionStep::no_limit) {
      choice(1, length + 2);
      append(steps, part.steps);
      steps.push_back({.kind = Kind::jump, .a = -length - 1});
    } else {
      const std::uint64_t optional = high - low;
      if (optional * static_cast<std::uint64_t>(length + 1) > most_steps) refuse("too many repeats");
      for (std::uint64_t left = optional; left > 0; --left) {
        choice(1, static_cast<std::int32_t>(left) * (length + 1));
        append(steps, part.steps);
      }
    }
    check_size(steps);
    return {std::move(steps), part.may_be_empty || low == 0};
  }

  /// {n}, {n,}, {n,m} or {,m}; a { that begins none of them is a character.
  [[gnu::cold]] std::optional<std::pair<std::uint32_t, std::uint32_t>> interval() {
    if (!starts_with("{")) return std::nullopt;
    std::size_t next = at_ + 1;
    const auto number = [&]() -> std::optional<std::uint32_t> {
      std::uint32_t value = 0;
      const std::size_t begin = next;
      while (next < pattern_.size() && pattern_[next] >= '0' && pattern_[next] <= '9') {
        value = std::min<std::uint32_t>(value * 10 + static_cast<std::uint32_t>(pattern_[next++] - '0'), 1'000'000);
      }
      return next > begin ? std::optional(value) : std::nullopt;
    };
    const auto low = number();
    auto high = low;
    if (next < pattern_.size() && pattern_[next] == ',') {
      ++next;
      high = number();
      if (!low && !high) return std::nullopt;
      if (!high) high = ExpressionStep::no_limit;
    }
    if (!high || next >= pattern_.size() || pattern_[next] != '}') return std::nullopt;
    if (low.value_or(0) > 1000 || (*high > 1000 && *high != ExpressionStep::no_limit)) refuse("more than 1000 repeats");
    if (low.value_or(0) > *high) refuse("a repeat whose limits are the wrong way about");
    at_ = next + 1;
    return std::pair(low.value_or(0), *high);
  }

  [[gnu::cold]] Part atom(int depth) {
    const std::size_t begin = at_;
    const char32_t c = take();
    const char32_t previous = std::exchange(last_folded_, 0);
    if (c == U'(') return group(depth);
    if (c == U'[') return set_part(character_class(0));
    if (c == U'^') return assertion(Kind::line_begin);
    if (c == U'$') return assertion(Kind::line_end);
    if (c == U'*' || c == U'+' || c == U'?') refuse("a repeat of nothing");
    if (c == U'.') return set_part(newline_set(true));
    if (c == U'\\') {
      if (skip("A")) return assertion(Kind::text_begin);
      if (skip("z")) return assertion(Kind::text_end);
      if (skip("Z")) return assertion(Kind::text_end, true);
      if (skip("b")) return assertion(Kind::word_boundary);
      if (skip("B")) return assertion(Kind::word_boundary, true);
      if (skip("N")) return set_part(newline_set(true));
      if (auto set = escaped_set()) return set_part(std::move(*set));
      at_ = begin + 1;
      return character(escaped_character(), previous);
    }
    return character(c, previous);
  }

  /// A literal character, and with (?i) what folds to it. Strings that fold to one character are not understood.
  [[gnu::cold]] Part character(char32_t c, char32_t previous) {
    CharacterSet set;
    add_range(set, c, c);
    if (fold_ && c < 0x80) {
      last_folded_ = c | 0x20u;
      const std::u32string both{previous, last_folded_};
      for (const char32_t* pair : {U"ss", U"ff", U"fi", U"fl", U"st"}) {
        if (both == pair) refuse("(?i) with a pair of letters that is also a ligature");
      }
    }
    return set_part(std::move(set));
  }

  /// Adds a range, with (?i) in both cases; U+017F folds to s, U+212A to k.
  [[gnu::cold]] void add_range(CharacterSet& set, char32_t first, char32_t last) {
    set.add(first, last);
    if (!fold_) return;
    for (char32_t c = first; c <= last && c < 0x80; ++c) {
      if ((c | 0x20u) < U'a' || (c | 0x20u) > U'z') continue;
      set.add(c ^ 0x20u, c ^ 0x20u);
      if ((c | 0x20u) == U's') set.add(0x17f, 0x17f);
      if ((c | 0x20u) == U'k') set.add(0x212a, 0x212a);
    }
    for (char32_t c = std::max<char32_t>(first, 0x80); c <= last; ++c) {
      work(1);
      const GeneralCategory category = general_category(c);
      if (category < GeneralCategory::lm || category == GeneralCategory::mn || category == GeneralCategory::nl ||
          category == GeneralCategory::so) {
        refuse("(?i) with letters outside of ASCII");
      }
    }
  }

  static CharacterSet newline_set(bool outside) {
    CharacterSet set;
    set.add({.kind = CharacterSet::Kind::range, .outside = outside, .first = '\n', .last = '\n'});
    return set;
  }

  [[gnu::cold]] Part group(int depth) {
    const bool folding = fold_;
    Kind kind = Kind::accept;
    bool negative = false, behind = false;
    if (skip("?")) {
      if (skip(":")) {
      } else if (skip("=")) {
        kind = Kind::look_ahead;
      } else if (skip("!")) {
        kind = Kind::look_ahead, negative = true;
      } else if (skip(">")) {
        kind = Kind::atomic;
      } else if (skip("<=")) {
        behind = true;
      } else if (skip("<!")) {
        behind = negative = true;
      } else if (skip("i:")) {
        fold_ = true;
      } else if (skip("-i:")) {
        fold_ = false;
      } else if (skip("<")) {
        while (take() != U'>') {
        }
      } else {
        refuse("the group (?" + std::string(pattern_.substr(at_, 1)));
      }
    }
    Part body = alternatives(depth + 1);
    if (!skip(")")) refuse("a ( without its )");
    fold_ = folding;
    last_folded_ = 0;
    if (behind) {
      if (body.steps.size() != 1 || body.steps[0].kind != Kind::set) refuse("a lookbehind of more than one character");
      return {{{.kind = Kind::look_behind, .negative = negative, .a = body.steps[0].a}}, true};
    }
    if (kind == Kind::accept) return body;
    Steps steps{{.kind = kind, .negative = negative, .a = distance(body.steps) + 2}};
    append(steps, body.steps);
    steps.push_back({.kind = Kind::accept});
    return {std::move(steps), kind == Kind::look_ahead || body.may_be_empty};
  }

  /// The set of an escape, after its backslash; nothing if it is a character's.
  [[gnu::cold]] std::optional<CharacterSet> escaped_set(CharacterSet::Kind word = CharacterSet::Kind::word) {
    const char32_t c = take();
    using Set = CharacterSet;
    const auto digits = 1u << static_cast<unsigned>(GeneralCategory::nd);
    Set set;
    switch (c) {
      case U's':
      case U'S':
        set.add({.kind = Set::Kind::space, .outside = c == U'S'});
        return set;
      case U'd':
      case U'D':
        set.add({.kind = Set::Kind::categories, .outside = c == U'D', .categories = digits});
        return set;
      case U'w':
      case U'W':
        set.add({.kind = word, .outside = c == U'W'});
        return set;
      case U'h':
      case U'H':
        for (const std::string_view range : {"09", "af", "AF"})
          set.add(static_cast<char32_t>(range[0]), static_cast<char32_t>(range[1]));
        break;
      case U'p':
      case U'P': {
        if (!skip("{")) refuse("\\p without {");
        const bool outside = (c == U'P') != skip("^");
        const std::size_t end = pattern_.find('}', at_);
        if (end == std::string_view::npos) refuse("\\p{ without }");
        const std::string name(pattern_.substr(at_, end - at_));
        const auto found = property_set(name);
        if (!found) refuse("the property " + in_quotes(name));
        at_ = end + 1;
        if (!outside) return found;
        set = *found;
        set.invert();
        return set;
      }
      default:
        return std::nullopt;
    }
    if (c == U'H') set.invert();
    return set;
  }

  /// The character of an escape, after its backslash.
  [[gnu::cold]] char32_t escaped_character() {
    const char32_t c = take();
    switch (c) {
      case U't':
        return U'\t';
      case U'n':
        return U'\n';
      case U'r':
        return U'\r';
      case U'f':
        return U'\f';
      case U'v':
        return U'\v';
      case U'a':
        return U'\a';
      case U'e':
        return 0x1b;
      case U'x':
        return skip("{") ? hexadecimal(8, true) : hexadecimal(2, false);
      case U'u':
        return hexadecimal(4, false);
      default:
        break;
    }
    const bool letter = (c | 0x20u) >= U'a' && (c | 0x20u) <= U'z';
    if (letter || (c >= U'0' && c <= U'9')) refuse("the escape \\" + std::string(1, static_cast<char>(c)));
    return c;
  }

  [[gnu::cold]] char32_t hexadecimal(int digits, bool braces) {
    char32_t value = 0;
    int count = 0;
    for (; count < digits && !at_end(); ++count) {
      const char c = pattern_[at_];
      const std::size_t digit =
          std::string_view("0123456789abcdef").find(static_cast<char>(c >= 'A' && c <= 'F' ? c + 32 : c));
      if (digit == std::string_view::npos) break;
      value = value * 16 + static_cast<char32_t>(digit);
      ++at_;
    }
    const bool closed = braces ? count > 0 && skip("}") : count == digits;
    if (!closed || value > 0x10ffff || (!braces && digits == 2 && value > 0x7f))
      refuse("an escape of a character's number");
    return value;
  }

  /// A class, after its [.
  [[gnu::cold]] CharacterSet character_class(int depth) {
    if (depth > deepest) refuse("classes nested too deeply");
    CharacterSet set;
    std::vector<CharacterSet> parts;  // of an intersection
    const bool inverted = skip("^");
    for (bool first = true; first || !starts_with("]"); first = false) {
      if (at_end()) refuse("a [ without its ]");
      if (skip("&&")) {
        if (parts.size() == most_parts) refuse("more than 50 && in a class");  // each one nests a set
        parts.push_back(std::exchange(set, {}));
        continue;
      }
      if (skip("[:")) {
        set.add(posix_set().finished());
        continue;
      }
      if (skip("[")) {
        set.add(character_class(depth + 1).finished());
        continue;
      }
      const std::size_t begin = at_;
      if (skip("\\")) {
        if (auto found = escaped_set(CharacterSet::Kind::class_word)) {
          if (fold_ && !closed_under_case(pattern_.substr(begin, at_ - begin))) refuse("a property within (?i)");
          set.add(found->finished());
          continue;
        }
        at_ = begin;
      }
      const char32_t low = class_character();
      char32_t high = low;
      if (starts_with("-") && !starts_with("-]")) {
        ++at_;
        if (starts_with("[") || starts_with("&&")) refuse("a range that ends in a class");
        high = class_character();
        if (high < low) refuse("a range that ends before it begins");
      }
      add_range(set, low, high);
    }
    skip("]");
    for (CharacterSet& part : parts) {
      CharacterSet both;
      both.add({.kind = CharacterSet::Kind::both,
                .one = std::make_shared<const CharacterSet>(part.finished()),
                .other = std::make_shared<const CharacterSet>(set.finished())});
      set = std::move(both);
    }
    if (inverted) set.invert();
    return set;
  }

  [[gnu::cold]] char32_t class_character() {
    if (!skip("\\")) return take();
    if (skip("b")) return U'\b';
    const std::size_t begin = at_;
    if (escaped_set()) refuse("a range that ends in a class");
    at_ = begin;
    return escaped_character();
  }

  static bool closed_under_case(std::string_view escape) {
    return escape.size() == 2 || escape == "\\p{L}" || escape == "\\p{N}" || escape == "\\p{P}" || escape == "\\p{M}";
  }

  [[gnu::cold]] CharacterSet posix_set() {
    if (skip("digit:]")) return *property_set("Nd");
    CharacterSet set;
    if (skip("space:]")) {
      set.add({.kind = CharacterSet::Kind::space});
    } else if (skip("word:]")) {
      set.add({.kind = CharacterSet::Kind::class_word});
    } else if (skip("punct:]")) {
      for (const char* name : {"P", "S"}) set.add(property_set(name)->finished());
    } else {
      refuse("a class [:…:] other than digit, space, word and punct");
    }
    return set;
  }

  std::string_view pattern_;
  std::string file_;
  std::size_t at_ = 0, work_ = 0;
  std::vector<CharacterSet> sets_;
  bool fold_ = false;         // within (?i)
  char32_t last_folded_ = 0;  // the literal before, within (?i)
};

}  // namespace tinymoe::inline v0_1::detail
