#pragma once
/// @file
/// The one validator of options that are numbers, for the library and the programs: which numbers an option may be, and
/// the sentence that refuses another.

#include <charconv>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>

#include "tinymoe/core/error.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// The numbers that an option may be. NaN and the infinities are in no range. Kernels compute in float, so a real
/// number must be in the range as a float too: 1e-60 is not above 0, 1e60 is not finite, and 0.99999999 is not below 1.
/// A whole number must be finite as a float. Negative zero is 0.
struct NumberRange {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool above = false, below = false;  // without `least` itself, without `most` itself
  bool whole = false;

  bool allows(double number) const {
    const auto rounded = static_cast<float>(number);
    return contains(number) && (whole ? std::trunc(number) == number && std::isfinite(rounded) : contains(rounded));
  }

  /// What it asks for, in words: "a number above 0".
  [[gnu::noinline, gnu::cold]] std::string expected() const {
    if (least == 0 && most == 1) {
      if (whole) return "0 or 1";
      if (!above && !below) return "between 0 and 1";
      return std::string(above ? "above 0" : "at least 0") + (below ? " and below 1" : " and at most 1");
    }
    if (std::isinf(least)) return "a finite number";
    std::string words = whole ? "a whole number" : "a number";
    words += above ? " above " + text_of(least) : " of " + text_of(least) + " or more";
    if (!std::isinf(most)) words += (below ? ", below " : ", at most ") + text_of(most);
    return words;
  }

  /// " must be a number above 0, found nan": the end of a sentence that begins with the option's name.
  [[gnu::noinline, gnu::cold]] std::string refusal(double number) const {
    std::string sentence = " must be " + expected() + ", found " + text_of(number);
    const auto rounded = static_cast<float>(number);
    if (contains(number) && (!whole || std::isinf(rounded))) {
      sentence += ", which is " + text_of(rounded) + " as a float";
    }
    return sentence;
  }

 private:
  bool contains(double number) const {
    return std::isfinite(number) && (above ? number > least : number >= least) &&
           (below ? number < most : number <= most);
  }

  /// Six digits, or as many as it takes to see why the number is refused.
  std::string text_of(double number) const {
    char digits[32];
    auto end = std::to_chars(digits, std::end(digits), number, std::chars_format::general, 6).ptr;
    double read = number;
    std::from_chars(digits, end, read);
    if (read != number && (whole || contains(read) || contains(number)))
      end = std::to_chars(digits, std::end(digits), number).ptr;
    const bool counts = whole && std::abs(number) < 0x1p63 && std::trunc(number) == number;
    if (counts) end = std::to_chars(digits, std::end(digits), static_cast<std::int64_t>(number)).ptr;
    return {digits, end};
  }
};

/// The max number of threads that an option may ask for.
inline constexpr int max_threads = 4096;

/// The ranges of most options.
namespace range {
inline constexpr NumberRange any{};
inline constexpr NumberRange above_0{.least = 0, .above = true};
inline constexpr NumberRange from_0{.least = 0};
inline constexpr NumberRange from_1{.least = 1};
inline constexpr NumberRange from_0_to_1{.least = 0, .most = 1};
inline constexpr NumberRange from_0_below_1{.least = 0, .most = 1, .below = true};
inline constexpr NumberRange above_0_to_1{.least = 0, .most = 1, .above = true};
/// Whole numbers from `least` to `most`.
constexpr NumberRange whole(double least, double most = std::numeric_limits<double>::infinity()) {
  return {.least = least, .most = most, .whole = true};
}
}  // namespace range

/// Throws OptionError that begins with `name` if the number is outside the range.
inline void check_option(std::string_view name, double number, const NumberRange& range) {
  if (!range.allows(number)) fail<OptionError>(name, range.refusal(number));
}

/// An option of a struct, its value and its range.
struct CheckedOption {
  template <class Number>
  requires std::is_arithmetic_v<Number> CheckedOption(std::string_view option, Number number, NumberRange allowed)
      : name(option), value(static_cast<double>(number)), range(allowed) {}
  std::string_view name;
  double value;
  NumberRange range;
};

/// Throws OptionError that names the first option outside its range, "AdamW::lr must be …".
inline void check_options(std::string_view of, std::initializer_list<CheckedOption> options) {
  for (const CheckedOption& option : options) {
    if (!option.range.allows(option.value)) {
      fail<OptionError>(of, "::", option.name, option.range.refusal(option.value));
    }
  }
}

}  // namespace detail

/// An optimizer or a schedule that knows the ranges of its options. `check()` throws OptionError, and the trainer calls
/// it before it allocates memory.
template <class O>
concept CheckedOptions = requires(const O options) {
  { options.check() } -> std::same_as<void>;
};

namespace detail {

/// Calls `check()` where there is one.
template <class O>
void check_if_it_can(const O& options) {
  static_assert(
      CheckedOptions<O> || !requires { &O::check; },
      "tinymoe: an optimizer's or schedule's `check` must be void check() const");
  if constexpr (CheckedOptions<O>) options.check();
}

}  // namespace detail

}  // namespace tinymoe::inline v0_1
