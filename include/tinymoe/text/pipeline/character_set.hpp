#pragma once
/// @file
/// The sets of characters that an expression names: `[a-z]`, `\p{L}`, `\s`, and unions of them.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/utf8.hpp"
#include "tinymoe/text/pipeline/unicode_data.hpp"
#include "tinymoe/text/pipeline/unicode_properties.hpp"
#include "tinymoe/text/unicode.hpp"

namespace tinymoe::inline v0_1::detail {

/// A union of ranges, general categories, scripts, words and spaces, or what is outside of it.
class CharacterSet {
 public:
  enum class Kind : std::uint8_t { range, categories, word, class_word, space, both };

  struct Item {
    Kind kind = Kind::range;
    bool outside = false;                                      // what the item does not have
    std::uint32_t first = 0, last = 0;                         // of a range
    std::uint32_t categories = 0;                              // one bit for each
    std::shared_ptr<const CharacterSet> one = {}, other = {};  // of both: what each has, or `one` if there is no other

    bool has(char32_t c) const {
      bool inside = false;
      if (kind == Kind::range) inside = c >= first && c <= last;
      if (kind == Kind::categories) inside = (categories >> static_cast<unsigned>(general_category(c)) & 1u) != 0;
      if (kind == Kind::word) inside = is_expression_word(c);
      if (kind == Kind::class_word) inside = is_class_word(c);
      if (kind == Kind::space) inside = is_space(c);
      if (kind == Kind::both) inside = one->has(c) && (other == nullptr || other->has(c));
      return inside != outside;
    }
  };

  void add(const Item& item) { items_.push_back(item); }
  void add(char32_t first, char32_t last) { items_.push_back({.first = first, .last = last}); }
  /// Adds a finished set.
  void add(CharacterSet set) { add({.kind = Kind::both, .one = std::make_shared<const CharacterSet>(std::move(set))}); }
  void invert() { inverted_ = !inverted_; }

  /// This set, on which nothing else may be called but `has`.
  [[gnu::cold]] CharacterSet finished() {
    for (char32_t c = 0; c < ascii_.size(); ++c) ascii_[c] = look_up(c);
    std::size_t items = 0;
    for (const Item& item : items_) {
      ++items;
      for (const auto& part : {item.one, item.other}) items += part == nullptr ? 0 : 16 * part->weight_;
    }
    weight_ = 1 + items / 16;
    return std::move(*this);
  }

  /// What a call of `has` counts for in a limit of steps.
  std::size_t weight() const { return weight_; }

  bool has(char32_t c) const { return c < ascii_.size() ? ascii_[c] : look_up(c); }

 private:
  bool look_up(char32_t c) const {
    for (const Item& item : items_) {
      if (item.has(c)) return !inverted_;
    }
    return inverted_;
  }

  std::vector<Item> items_;
  bool inverted_ = false;
  std::size_t weight_ = 1;
  std::array<bool, 128> ascii_{};
};

/// The set of a name in \p{…}: a general category, short or long, or a script. Nothing for another name.
[[gnu::cold]] inline std::optional<CharacterSet> property_set(std::string_view name) {
  std::string key;
  for (const char c : name) {
    if (c != '_' && c != ' ' && c != '-') key.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c);
  }
  struct Name {
    const char *brief, *full;
    std::uint32_t categories;
  };
  const auto bits = [](auto... categories) { return ((1u << static_cast<unsigned>(categories)) | ...); };
  using enum GeneralCategory;
  const std::array names = {
      Name{"l", "letter", bits(lu, ll, lt, lm, lo)},
      Name{"m", "mark", bits(mn, mc, me)},
      Name{"n", "number", bits(nd, nl, no)},
      Name{"p", "punctuation", bits(pc, pd, ps, pe, pi, pf, po)},
      Name{"s", "symbol", bits(sm, sc, sk, so)},
      Name{"z", "separator", bits(zs, zl, zp)},
      Name{"c", "other", bits(cc, cf, co, cn)},
      Name{"lu", "uppercaseletter", bits(lu)},
      Name{"ll", "lowercaseletter", bits(ll)},
      Name{"lt", "titlecaseletter", bits(lt)},
      Name{"lm", "modifierletter", bits(lm)},
      Name{"lo", "otherletter", bits(lo)},
      Name{"mn", "nonspacingmark", bits(mn)},
      Name{"mc", "spacingmark", bits(mc)},
      Name{"me", "enclosingmark", bits(me)},
      Name{"nd", "decimalnumber", bits(nd)},
      Name{"nl", "letternumber", bits(nl)},
      Name{"no", "othernumber", bits(no)},
      Name{"pc", "connectorpunctuation", bits(pc)},
      Name{"pd", "dashpunctuation", bits(pd)},
      Name{"ps", "openpunctuation", bits(ps)},
      Name{"pe", "closepunctuation", bits(pe)},
      Name{"pi", "initialpunctuation", bits(pi)},
      Name{"pf", "finalpunctuation", bits(pf)},
      Name{"po", "otherpunctuation", bits(po)},
      Name{"sm", "mathsymbol", bits(sm)},
      Name{"sc", "currencysymbol", bits(sc)},
      Name{"sk", "modifiersymbol", bits(sk)},
      Name{"so", "othersymbol", bits(so)},
      Name{"zs", "spaceseparator", bits(zs)},
      Name{"zl", "lineseparator", bits(zl)},
      Name{"zp", "paragraphseparator", bits(zp)},
      Name{"cc", "control", bits(cc)},
      Name{"cf", "format", bits(cf)},
      Name{"co", "privateuse", bits(co)},
      Name{"cn", "unassigned", bits(cn)},
  };
  CharacterSet set;
  for (const Name& known : names) {
    if (key != known.brief && key != known.full) continue;
    set.add({.kind = CharacterSet::Kind::categories, .categories = known.categories});
    return set;
  }
  bool found = false;
  for (const ScriptRange& script : script_ranges) {
    if (key != script.script) continue;
    set.add(script.range.first, script.range.last);
    found = true;
  }
  return found ? std::optional(set) : std::nullopt;
}

}  // namespace tinymoe::inline v0_1::detail
