#pragma once
/// @file
/// Numbers on the command line. The programs take a number by `add_number` alone, so that every one is read and checked
/// in the same way, in any locale.

#include <CLI/CLI.hpp>
#include <charconv>
#include <concepts>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>
#include <tinymoe/core/number_range.hpp>
#include <tinymoe/core/platform.hpp>

namespace programs {

using tinymoe::detail::NumberRange;
namespace range = tinymoe::detail::range;

/// Reads all of `text` as a number in decimal; false if it is none, or does not fit T.
template <class T>
bool read_number(std::string_view text, T& number) {
  const char* end = text.data() + text.size();
  const auto [last, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && last == end && !text.empty();
}

/// " must be a whole number of 0 or more, found "1e3"": the end of a sentence that begins with the option's name.
inline std::string no_number(std::string_view text, const NumberRange& range) {
  return " must be " + range.expected() + ", found \"" + std::string(text) + "\"";
}

/// Sets `field` to the number in `text`. Throws tinymoe::OptionError that begins with `name`.
template <class T>
void take_number(std::string_view name, std::string_view text, T& field, const NumberRange& range) {
  T number{};
  if (!read_number(text, number)) tinymoe::fail<tinymoe::OptionError>(name, no_number(text, range));
  tinymoe::detail::check_option(name, static_cast<double>(number), range);
  field = static_cast<T>(number + T{});  // a negative zero becomes 0
}

/// Adds an option that calls f(number). A text that is no number, and a number outside the range, is an error that
/// names the option.
template <class T, class F>
CLI::Option* add_number_function(CLI::App& app, const std::string& name, const std::string& about,
                                 const NumberRange& range, F&& f) {
  const auto take = [name, range, f](const std::string& text) {
    T number{};
    if (!read_number(text, number)) throw CLI::ConversionError(name + no_number(text, range));
    if (!range.allows(static_cast<double>(number))) {
      throw CLI::ValidationError(name + range.refusal(static_cast<double>(number)));
    }
    f(static_cast<T>(number + T{}));  // a negative zero becomes 0
  };
  return app.add_option_function<std::string>(name, take, about)->type_name(std::integral<T> ? "INT" : "FLOAT");
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
