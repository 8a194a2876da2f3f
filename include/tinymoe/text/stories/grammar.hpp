#pragma once
/// @file
/// The small language of the embedded stories, and the code that turns it into a story.
///
/// A pattern is plain prose with two kinds of marks:
///
///     [one|two|three]  one of these at random, each time anew; they nest, and an alternative may be empty
///     {name}           what the scene holds under that name: {hero}, {his}, {friend.he};
///                      {a name} puts "a" or "an" before it, and a capital, {Hero} or {A name}, makes its first letter
///                      one
///
/// A line break in a pattern is a space, and a blank line starts a paragraph.

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "tinymoe/core/random.hpp"

namespace tinymoe::inline v0_1::random_site {
/// The stories that are made up.
inline constexpr RandomSite stories{3};
}  // namespace tinymoe::inline v0_1::random_site

namespace tinymoe::inline v0_1::detail {

/// The random choices of one story, in the order in which they are made: pure in (seed, index).
class Dice {
 public:
  Dice(Seed seed, std::uint64_t index) : seed_(seed), index_(index) {}

  /// A number in [0, bound).
  std::uint32_t below(std::size_t bound) {
    assert(bound > 0);
    if (used_ == 4) {
      words_ = detail::random_words(RandomStream(seed_, block_++, random_site::stories), index_);
      used_ = 0;
    }
    outcomes_ *= static_cast<double>(bound);
    return static_cast<std::uint32_t>((std::uint64_t{words_[used_++]} * bound) >> 32);
  }
  std::string_view pick(std::span<const std::string_view> from) { return from[below(from.size())]; }
  /// One over the probability of the choices made so far.
  double outcomes() const { return outcomes_; }
  /// Forgets the choices made since `outcomes()` had this value: they led to nothing.
  void disregard_since(double outcomes) { outcomes_ = outcomes; }

 private:
  Seed seed_;
  std::uint64_t index_;
  std::array<std::uint32_t, 4> words_{};
  std::uint32_t block_ = 0, used_ = 4;
  double outcomes_ = 1;
};

/// Rows of values that belong together (a place and its hiding spots); a scene takes one row.
struct Table {
  std::span<const std::string_view> columns;
  std::span<const std::string_view> cells;  // (rows, columns)

  std::size_t rows() const { return columns.empty() ? 0 : cells.size() / columns.size(); }
  std::span<const std::string_view> row(std::size_t r) const {
    return cells.subspan(r * columns.size(), columns.size());
  }
};

constexpr bool is_vowel(char c) { return std::string_view("aeiouAEIOU").find(c) != std::string_view::npos; }

/// Whether English says "an" before this word: by its first letter, but for the few that sound otherwise.
constexpr bool wants_an(std::string_view word) {
  for (std::string_view silent : {"hour", "honest", "heir"})
    if (word.starts_with(silent)) return true;
  for (std::string_view spoken : {"uni", "use", "one", "eu"})
    if (word.starts_with(spoken)) return false;
  return !word.empty() && is_vowel(word.front());
}

constexpr char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }
constexpr char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

/// Who, what and where of one story. A value that is itself a pattern is settled when it is set, so that a red ball
/// stays red; values are views of the static tables or of text that the scene holds.
class Scene {
 public:
  Scene() = default;
  Scene(const Scene&) = delete;  // its values may be views of its own text
  Scene& operator=(const Scene&) = delete;

  void set(std::string_view name, std::string_view value, Dice& dice) {
    assert(size_ < entries_.size());
    Entry& entry = entries_[size_];
    entry.name = name;
    entry.value = value;
    if (value.find_first_of("[{") != std::string_view::npos) {
      entry.settled.clear();
      expand(value, dice, entry.settled);
      entry.value = entry.settled;
    }
    ++size_;
  }

  /// Sets every column of a row, in order: a later one may speak of an earlier one.
  void set_row(const Table& table, std::size_t row, Dice& dice, std::string_view prefix = {}) {
    const auto cells = table.row(row);
    for (std::size_t c = 0; c < cells.size(); ++c)
      if (prefix.empty() || table.columns[c].starts_with(prefix)) set(table.columns[c], cells[c], dice);
  }
  void set_any_row(const Table& table, Dice& dice) {
    if (table.rows() > 0) set_row(table, dice.below(table.rows()), dice);
  }

  /// The value of a name; empty if there is none.
  std::string_view get(std::string_view name) const {
    for (std::size_t e = 0; e < size_; ++e)
      if (entries_[e].name == name) return entries_[e].value;
    return {};
  }

  /// Appends the pattern with every mark resolved; an unknown name stays as it stands, for the tests to find.
  void expand(std::string_view pattern, Dice& dice, std::string& out) const {
    while (!pattern.empty()) {
      const std::size_t mark = pattern.find_first_of("[{");
      out.append(pattern.substr(0, mark));
      if (mark == std::string_view::npos) return;
      const bool choice = pattern[mark] == '[';
      pattern.remove_prefix(mark + 1);
      const std::size_t end = choice ? expand_choice(pattern, dice, out) : expand_name(pattern, out);
      pattern.remove_prefix(end);
    }
  }

 private:
  struct Entry {
    std::string_view name, value;
    std::string settled;
  };

  /// `pattern` starts after '['; returns where it goes on after the matching ']'.
  std::size_t expand_choice(std::string_view pattern, Dice& dice, std::string& out) const {
    std::array<std::size_t, 33> bars;
    std::size_t alternatives = 0, depth = 1, at = 0;
    bars[0] = 0;
    for (; at < pattern.size(); ++at) {
      const char c = pattern[at];
      if (c == '[') ++depth;
      if (c == ']' && --depth == 0) break;
      if (c == '|' && depth == 1) {
        bars[++alternatives] = at + 1;
        assert(alternatives + 2 < bars.size());
      }
    }
    assert(at < pattern.size());
    bars[++alternatives] = at + 1;
    const std::uint32_t chosen = dice.below(alternatives);
    std::string_view alternative = pattern.substr(bars[chosen], bars[chosen + 1] - bars[chosen] - 1);
    while (alternative.ends_with('\n')) alternative.remove_suffix(1);  // the break before '|' is layout
    expand(alternative, dice, out);
    // A line that came out empty leaves no blank line behind.
    const bool gone =
        alternative.empty() && pattern.substr(at + 1).starts_with('\n') && !pattern.substr(at + 1).starts_with("\n\n");
    return at + (gone ? 2 : 1);
  }

  /// `pattern` starts after '{'; returns where it goes on after '}'.
  std::size_t expand_name(std::string_view pattern, std::string& out) const {
    const std::size_t end = pattern.find('}');
    assert(end != std::string_view::npos);
    std::string_view name = pattern.substr(0, end);
    const bool article = name.starts_with("a ") || name.starts_with("A ");
    const bool capital = name.front() != lower(name.front());
    if (article) name.remove_prefix(2);
    std::array<char, 32> letters{};
    assert(name.size() <= letters.size());
    name.copy(letters.data(), letters.size());
    letters[0] = lower(letters[0]);
    const std::string_view value = get({letters.data(), name.size()});
    const std::size_t start = out.size();
    if (value.empty()) {
      out.append("{").append(name).append("}");
    } else {
      if (article) out.append(wants_an(value) ? "an " : "a ");
      out.append(value);
      if (capital) out[start] = upper(out[start]);
    }
    return end + 1;
  }

  std::array<Entry, 64> entries_;
  std::size_t size_ = 0;
};

/// Makes every run of blanks one space, and one line break where it holds a blank line; none at the ends.
inline void tidy_blanks(std::string& text) {
  std::size_t kept = 0, breaks = 0;
  bool blank = false;
  for (const char c : text) {
    if (c == ' ' || c == '\n') {
      blank = true;
      breaks += c == '\n';
      continue;
    }
    if (blank && kept > 0) text[kept++] = breaks >= 2 ? '\n' : ' ';
    blank = false;
    breaks = 0;
    text[kept++] = c;
  }
  text.resize(kept);
}

}  // namespace tinymoe::inline v0_1::detail
