#pragma once
/// @file
/// What Split and Replace look for: a string, or a regular expression. GPT-2's, and those of GPT-4, Llama 3 and Qwen,
/// are matched by scanners of their own.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/byte_level/pre_tokenizer.hpp"
#include "tinymoe/text/pipeline/expression.hpp"
#include "tinymoe/text/pipeline/known_expressions.hpp"
#include "tinymoe/text/pipeline/pieces.hpp"
#include "tinymoe/text/tokenizer_json.hpp"

namespace tinymoe::inline v0_1::detail {

/// Immutable, so threads share it.
class Pattern {
 public:
  Pattern() = default;
  /// From {"String": …} or {"Regex": …}. Throws FileError that names `file`.
  [[gnu::cold]] Pattern(const Json& pattern, const std::string& file) {
    const Json *string = pattern.find("String"), *expression = pattern.find("Regex");
    if (pattern.size() != 1 || (string == nullptr && expression == nullptr)) {
      fail<FileError>(file, ": \"pattern\": expected {\"String\": …} or {\"Regex\": …}, found ", pattern.kind());
    }
    text_ = json_value<std::string>(string != nullptr ? *string : *expression, "pattern", file);
    if (text_.size() > longest) {
      fail<FileError>(file, ": the pattern ", in_quotes(text_), " has ", text_.size(), " bytes, expected at most ",
                      longest);
    }
    if (string != nullptr && !text_.empty()) return;
    scanner_ = known_expression(text_);
    if (!scanner_) expression_ = std::make_shared<Expression>(text_, file);
  }

  /// Calls f(TextRange) for each match, from left to right. In an empty text nothing matches, not even an empty match.
  template <class F>
  void for_each_match(std::string_view text, F&& f) const {
    if (text.empty()) return;
    if (scanner_) {
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = scanner_->end_of_piece(text, at);
        f(TextRange{at, end});
        at = end;
      }
    } else if (expression_ != nullptr) {
      expression_->for_each_match(text, f);
    } else {
      for (std::size_t at = text.find(text_); at != std::string_view::npos; at = text.find(text_, at + text_.size())) {
        f(TextRange{at, at + text_.size()});
      }
    }
  }

  /// The matches in a text, and what lies between them.
  void find(std::string_view text, std::vector<PieceRange>& segments) const {
    segments.clear();
    std::size_t before = 0;
    for_each_match(text, [&](TextRange match) {
      if (before != match.begin) segments.push_back({before, match.begin, false});
      segments.push_back({match.begin, match.end, true});
      before = match.end;
    });
    if (before != text.size()) segments.push_back({before, text.size(), false});
  }

 private:
  static constexpr std::size_t longest = 65'536;

  std::string text_;
  std::optional<KnownExpression> scanner_;
  std::shared_ptr<const Expression> expression_;
};

}  // namespace tinymoe::inline v0_1::detail
