#pragma once
/// @file
/// The normal forms NFC, NFD, NFKC and NFKD of text (Unicode Standard Annex 15), of the version of Unicode that the
/// package tokenizers has for them. Bytes that are not UTF-8 stay as they are.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/utf8.hpp"
#include "tinymoe/text/pipeline/unicode_data.hpp"
#include "tinymoe/text/pipeline/unicode_properties.hpp"

namespace tinymoe::inline v0_1::detail {

enum class NormalForm : std::uint8_t { nfc, nfd, nfkc, nfkd };

class Normalizing {
 public:
  explicit Normalizing(NormalForm form)
      : composes_(form == NormalForm::nfc || form == NormalForm::nfkc),
        compatible_(form == NormalForm::nfkc || form == NormalForm::nfkd) {}

  std::string operator()(std::string_view text) const {
    if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; })) {
      return std::string(text);
    }
    std::string result;
    std::vector<Character> all;
    for_each_code_point(text, [&](char32_t value, std::string_view bytes) {
      if (value < 0x80) {
        all.push_back({value, 0});
      } else if (value == invalid_code_point) {
        all.push_back({invalid_code_point + static_cast<unsigned char>(bytes[0]), 0});
      } else {
        decompose(value, all);
      }
    });
    for (auto begin = all.begin(); begin != all.end();) {
      if (begin->order == 0) {
        ++begin;
        continue;
      }
      const auto end = std::find_if(begin, all.end(), [](Character c) { return c.order == 0; });
      std::stable_sort(begin, end, [](Character a, Character b) { return a.order < b.order; });
      begin = end;
    }
    if (composes_) compose(all);
    for (const Character c : all) {
      if (c.value > invalid_code_point) {
        result.push_back(static_cast<char>(c.value - invalid_code_point));
      } else {
        append_utf8(result, c.value);
      }
    }
    return result;
  }

 private:
  struct Character {
    char32_t value = 0;
    std::uint8_t order = 0;  // the combining class
  };
  // Hangul's syllables are counted (Unicode Standard, section 3.12).
  static constexpr char32_t syllables = 0xac00, leads = 0x1100, vowels = 0x1161, trails = 0x11a7;
  static constexpr char32_t lead_count = 19, vowel_count = 21, trail_count = 28;
  static constexpr char32_t syllable_count = lead_count * vowel_count * trail_count;

  static std::uint8_t combining_class(char32_t value) {
    const auto after = std::upper_bound(std::begin(combining_classes), std::end(combining_classes), value,
                                        [](char32_t v, const CombiningClass& run) { return v < run.first; });
    if (after == std::begin(combining_classes) || std::prev(after)->last < value) return 0;
    return std::prev(after)->number;
  }

  /// Where each decomposition begins in `decomposed`.
  static const std::vector<std::uint16_t>& begins() {
    static const std::vector<std::uint16_t> found = [] {
      std::vector<std::uint16_t> made;
      std::uint32_t at = 0;
      for (const std::uint32_t entry : decompositions) {
        made.push_back(static_cast<std::uint16_t>(at));
        at += (entry & 0xffu) >> 1;
      }
      return made;
    }();
    return found;
  }

  void decompose(char32_t value, std::vector<Character>& to) const {
    if (value - syllables < syllable_count) {
      const char32_t index = value - syllables;
      to.push_back({leads + index / (vowel_count * trail_count), 0});
      to.push_back({vowels + index / trail_count % vowel_count, 0});
      if (index % trail_count != 0) to.push_back({trails + index % trail_count, 0});
      return;
    }
    const auto* entry = std::lower_bound(std::begin(decompositions), std::end(decompositions), value << 8);
    const std::uint32_t* chosen = nullptr;
    for (; entry != std::end(decompositions) && *entry >> 8 == value; ++entry) {
      if (compatible_ || (*entry & 1u) == 0) chosen = entry;
    }
    if (chosen == nullptr) {
      to.push_back({value, combining_class(value)});
      return;
    }
    const std::uint32_t* part = decomposed + begins()[static_cast<std::size_t>(chosen - decompositions)];
    for (std::uint32_t left = (*chosen & 0xffu) >> 1; left > 0; --left, ++part) {
      to.push_back({*part, combining_class(*part)});
    }
  }

  /// The code point that two compose to; 0 if there is none.
  static char32_t composition(char32_t first, char32_t second) {
    if (first - leads < lead_count && second - vowels < vowel_count) {
      return syllables + ((first - leads) * vowel_count + (second - vowels)) * trail_count;
    }
    if (first - syllables < syllable_count && (first - syllables) % trail_count == 0 && second > trails &&
        second < trails + trail_count) {
      return first + (second - trails);
    }
    const auto found = std::lower_bound(std::begin(compositions), std::end(compositions), std::pair(first, second),
                                        [](const Composition& entry, std::pair<char32_t, char32_t> pair) {
                                          return std::pair<char32_t, char32_t>(entry.first, entry.second) < pair;
                                        });
    if (found == std::end(compositions) || found->first != first || found->second != second) return 0;
    return found->composed;
  }

  /// Each character composes with the last starter, unless one between them blocks it.
  static void compose(std::vector<Character>& all) {
    std::size_t kept = 0, starter = all.size();  // none yet
    std::uint8_t last = 0;                       // the class of the last one kept after the starter
    for (const Character next : all) {
      if (starter < kept) {
        const bool adjacent = starter + 1 == kept;
        const bool blocked = !adjacent && last >= next.order;
        if (const char32_t made = blocked ? 0 : composition(all[starter].value, next.value); made != 0) {
          all[starter].value = made;
          continue;
        }
      }
      if (next.order == 0) starter = kept;
      last = next.order;
      all[kept++] = next;
    }
    all.resize(kept);
  }

  bool composes_ = false, compatible_ = false;
};

}  // namespace tinymoe::inline v0_1::detail
