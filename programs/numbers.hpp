#pragma once
/// @file
/// Numbers on the command line. The programs take a number by `add_number` alone, so that every one is read and checked
/// in the same way, in any locale.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>
#include <tinymoe/core/error.hpp>
#include <tinymoe/core/number_range.hpp>
#include <type_traits>
#include <vector>

namespace programs {

using tinymoe::detail::NumberRange;
namespace range = tinymoe::detail::range;

/// What a number of type T is read as. A float is read as a double, since NumberRange tells what it is as a float.
template <class T>
using ReadAs = std::conditional_t<std::floating_point<T>, double, T>;

/// Reads all of `text` as a number in decimal. Else `invalid_argument`: it is none; `result_out_of_range`: it does not
/// fit the type.
template <class T>
std::errc read_number(std::string_view text, T& number) {
  const char* end = text.data() + text.size();
  const auto [last, error] = std::from_chars(text.data(), end, number);
  return last == end && !text.empty() ? error : std::errc::invalid_argument;
}

/// " must be a whole number of 0 or more, found "1e3"": the end of a sentence that begins with the option's name, for a
/// text that is no number of type T.
template <class T>
std::string no_number(std::string_view text, const NumberRange& range, std::errc error) {
  std::string sentence = " must be " + range.expected() + ", found \"" + std::string(text) + "\"";
  if (error != std::errc::result_out_of_range) return sentence;
  return sentence + ", which does not fit a " +
         (std::integral<T> ? std::to_string(8 * sizeof(T)) + "-bit integer" : std::string("double"));
}

/// Sets `field` to the number in `text`. Throws tinymoe::OptionError that begins with `name`.
template <class T>
void take_number(std::string_view name, std::string_view text, T& field, const NumberRange& range) {
  ReadAs<T> number{};
  if (const auto error = read_number(text, number); error != std::errc()) {
    tinymoe::fail<tinymoe::OptionError>(name, no_number<T>(text, range, error));
  }
  tinymoe::detail::check_option(name, static_cast<double>(number), range);
  field = static_cast<T>(number + ReadAs<T>{});  // a negative zero becomes 0
}

/// Adds an option that calls f(number). A text that is no number, and a number outside the range, is an error that
/// names the option.
template <class T, class F>
CLI::Option* add_number_function(CLI::App& app, const std::string& name, const std::string& about,
                                 const NumberRange& range, F&& f) {
  const auto take = [name, range, f](const std::string& text) {
    ReadAs<T> number{};
    if (const auto error = read_number(text, number); error != std::errc()) {
      throw CLI::ConversionError(name + no_number<T>(text, range, error));
    }
    if (!range.allows(static_cast<double>(number))) {
      throw CLI::ValidationError(name + range.refusal(static_cast<double>(number)));
    }
    f(static_cast<T>(number + ReadAs<T>{}));  // a negative zero becomes 0
  };
  return app.add_option_function<std::string>(name, take, about)->type_name(std::integral<T> ? "INT" : "FLOAT");
}

/// Adds an option that takes numbers with commas between, at least one.
template <class T>
CLI::Option* add_numbers(CLI::App& app, const std::string& name, std::vector<T>& fields, const std::string& about,
                         const NumberRange& range) {
  const auto take = [name, range, &fields](const std::string& text) {
    fields.clear();
    for (std::size_t at = 0; at <= text.size();) {
      const std::size_t comma = std::min(text.find(',', at), text.size());
      try {
        take_number(name, std::string_view(text).substr(at, comma - at), fields.emplace_back(), range);
      } catch (const tinymoe::OptionError& error) {
        throw CLI::ValidationError(error.what());
      }
      at = comma + 1;
    }
  };
  return app.add_option_function<std::string>(name, take, about)->type_name(std::integral<T> ? "INT,…" : "FLOAT,…");
}

/// Adds an option that sets `field`, and shows its default in --help unless told otherwise.
template <class T>
CLI::Option* add_number(CLI::App& app, const std::string& name, T& field, const std::string& about,
                        const NumberRange& range, bool show_default = true) {
  auto* option = add_number_function<T>(app, name, about, range, [&field](T number) { field = number; });
  if (show_default) {
    char digits[32];
    option->default_str({digits, std::to_chars(digits, std::end(digits), field).ptr});
  }
  return option;
}

}  // namespace programs
