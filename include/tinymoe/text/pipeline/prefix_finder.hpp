#pragma once
/// @file
/// Which of many strings a text begins with, by one binary search.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tinymoe::inline v0_1::detail {

/// Some strings, in order. It takes as much memory as they do.
class PrefixFinder {
 public:
  PrefixFinder() = default;
  /// Strings in ascending order, none twice; an empty one is never found.
  [[gnu::cold]] explicit PrefixFinder(std::vector<std::string> strings)
      : strings_(std::move(strings)), shorter_(strings_.size(), none) {
    for (std::size_t i = 0; i < strings_.size(); ++i) {
      auto before = i == 0 ? none : static_cast<std::uint32_t>(i - 1);
      while (before != none && !strings_[i].starts_with(strings_[before])) before = shorter_[before];
      shorter_[i] = before;
      if (!strings_[i].empty()) ++ends_[static_cast<unsigned char>(strings_[i][0])];
    }
    if (!strings_.empty() && strings_[0].empty()) begin_ = 1;
    std::size_t end = begin_;
    for (std::size_t& count : ends_) count = end += count;
  }

  std::size_t size() const { return strings_.size(); }
  const std::string& operator[](std::size_t number) const { return strings_[number]; }

  /// Calls f(number) for each string that `text` begins with, the longest first, until it gives false.
  template <class F>
  void for_each(std::string_view text, F&& f) const {
    if (text.empty()) return;
    const auto lead = static_cast<unsigned char>(text[0]);
    const auto first = lead == 0 ? begin_ : ends_[lead - 1u];
    const auto begin = strings_.begin() + static_cast<std::ptrdiff_t>(first);
    const auto after = std::upper_bound(begin, strings_.begin() + static_cast<std::ptrdiff_t>(ends_[lead]), text);
    if (after == begin) return;
    // All that `text` begins with begin the last one before it, too.
    auto number = static_cast<std::uint32_t>(after - strings_.begin() - 1);
    const std::string_view last = strings_[number];
    const auto differs = std::mismatch(last.begin(), last.end(), text.begin(), text.end()).first;
    const auto common = static_cast<std::size_t>(differs - last.begin());
    while (number != none && strings_[number].size() > common) number = shorter_[number];
    for (; number != none && !strings_[number].empty(); number = shorter_[number]) {
      if (!f(std::size_t{number})) return;
    }
  }

 private:
  static constexpr std::uint32_t none = 0xffffffff;

  std::vector<std::string> strings_;
  std::vector<std::uint32_t> shorter_;   // the longest other one that begins each, or `none`
  std::size_t begin_ = 0;                // of the strings that are not empty
  std::array<std::size_t, 256> ends_{};  // of the strings of each first byte
};

}  // namespace tinymoe::inline v0_1::detail
