#pragma once
/// @file
/// The decoders of a tokenizer.json: the names of tokens become text. The package writes U+FFFD for bytes that are not
/// UTF-8; here they stay the bytes that they are, so that text can be decoded piece by piece.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/byte_level/byte_alphabet.hpp"
#include "tinymoe/text/pipeline/metaspace.hpp"
#include "tinymoe/text/pipeline/normalizer.hpp"
#include "tinymoe/text/pipeline/pattern.hpp"
#include "tinymoe/text/pipeline/unicode_properties.hpp"
#include "tinymoe/text/tokenizer_json.hpp"

namespace tinymoe::inline v0_1::detail {

/// One of them.
class Decoder {
 public:
  /// Throws FileError that names `file`. Not for Sequence.
  [[gnu::cold]] Decoder(const Json& component, const std::string& file) {
    const auto type = json_field<std::string>(component, "type", file);
    struct Known {
      const char* name;
      Kind kind;
    };
    const Known known[] = {{"ByteLevel", Kind::byte_level}, {"Metaspace", Kind::metaspace},
                           {"BPEDecoder", Kind::suffix},    {"Fuse", Kind::fuse},
                           {"Strip", Kind::strip},          {"Replace", Kind::replace},
                           {"ByteFallback", Kind::bytes},   {"WordPiece", Kind::prefix}};
    const auto* found =
        std::find_if(std::begin(known), std::end(known), [&](const Known& k) { return type == k.name; });
    if (found == std::end(known)) {
      fail<FileError>(file,
                      ": expected the decoders ByteLevel, Metaspace, BPEDecoder, WordPiece, Fuse, Strip, Replace, "
                      "ByteFallback or a Sequence of them, found ",
                      in_quotes(type));
    }
    kind_ = found->kind;
    if (kind_ == Kind::metaspace) {
      MetaspaceFields fields(component, file);
      content_ = std::move(fields.mark);
      on_ = fields.prepends != Prepending::never;
    }
    if (kind_ == Kind::suffix) content_ = json_field<std::string>(component, "suffix", file);
    if (kind_ == Kind::prefix) {
      content_ = json_field<std::string>(component, "prefix", file);
      on_ = json_field<bool>(component, "cleanup", file);
    }
    if (kind_ == Kind::strip) {
      content_ = one_character(json_field<std::string>(component, "content", file), "content", file);
      start_ = json_field<std::size_t>(component, "start", file);
      stop_ = json_field<std::size_t>(component, "stop", file);
    }
    if (kind_ == Kind::replace) {
      pattern_ = Pattern(json_member(component, "pattern", file), file);
      content_ = json_field<std::string>(component, "content", file);
    }
  }

  /// Whether it changes each token by itself and adds nothing between two.
  bool is_byte_level() const { return kind_ == Kind::byte_level; }

  /// What it makes of the tokens before it, for `decode_locally`.
  enum class Reach : std::uint8_t { each, runs, all };
  Reach reach() const {
    if (kind_ == Kind::byte_level || kind_ == Kind::fuse) return Reach::all;
    return kind_ == Kind::bytes ? Reach::runs : Reach::each;
  }
  /// Whether it changes at most the beginning of a token.
  bool is_at_start() const { return kind_ == Kind::strip && stop_ == 0; }
  /// Whether a token is the name of a byte.
  static bool is_byte(std::string_view token) { return byte_of(token).has_value(); }

  /// Throws TextError if the tokens become more than `most` bytes together.
  void operator()(std::vector<std::string>& tokens, std::size_t most) const {
    change(tokens, most);
    std::size_t bytes = 0;
    for (const std::string& token : tokens) bytes += token.size();
    check_form(bytes, most);
  }

  /// A token in the byte alphabet as its bytes; another token as it is.
  static std::string bytes_of(const std::string& token) {
    auto bytes = unspelled(token);
    return bytes ? std::move(*bytes) : token;
  }

 private:
  enum class Kind : std::uint8_t { byte_level, metaspace, suffix, prefix, fuse, strip, replace, bytes };

  void change(std::vector<std::string>& tokens, std::size_t most) const {
    switch (kind_) {
      case Kind::byte_level: {
        std::string text;
        for (const std::string& token : tokens) text += bytes_of(token);
        tokens.assign(1, std::move(text));
        return;
      }
      case Kind::fuse: {
        std::string text;
        for (const std::string& token : tokens) text += token;
        tokens.assign(1, std::move(text));
        return;
      }
      case Kind::metaspace:
        for (std::size_t i = 0; i < tokens.size(); ++i) {
          tokens[i] = replaced_string(tokens[i], content_, i == 0 && on_ ? "" : " ");
        }
        return;
      case Kind::suffix:
        for (std::size_t i = 0; i < tokens.size(); ++i) {
          tokens[i] = replaced_string(tokens[i], content_, i + 1 == tokens.size() ? "" : " ");
        }
        return;
      case Kind::prefix:
        for (std::size_t i = 0; i < tokens.size(); ++i) {
          std::string& token = tokens[i];
          if (i > 0) token = token.starts_with(content_) ? token.substr(content_.size()) : " " + token;
          if (on_) clean_up(token);
        }
        return;
      case Kind::strip:
        for (std::string& token : tokens) strip(token);
        return;
      case Kind::replace:
        for (std::string& token : tokens) {
          NormalizedText text{std::move(token)};
          replace_matches(text, pattern_, content_, most);
          check_form(text.text.size(), most);
          most -= text.text.size();
          token = std::move(text.text);
        }
        return;
      case Kind::bytes:
        return fall_back(tokens);
    }
  }

  static std::string replaced_string(std::string_view text, std::string_view from, std::string_view to) {
    if (from.empty()) return std::string(text);
    std::string result;
    std::size_t at = 0;
    for (std::size_t found = text.find(from); found != std::string_view::npos; found = text.find(from, at)) {
      result.append(text.substr(at, found - at)).append(to);
      at = found + from.size();
    }
    return result.append(text.substr(at));
  }

  static void clean_up(std::string& token) {
    constexpr std::pair<const char*, const char*> changes[] = {
        {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
        {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (const auto& [from, to] : changes) token = replaced_string(token, from, to);
  }

  void strip(std::string& token) const {
    std::string_view rest = token;
    for (std::size_t i = 0; i < start_ && rest.starts_with(content_); ++i) rest.remove_prefix(content_.size());
    // The package looks at the end of all of the token, so a token that is all `content` may be cut twice.
    for (std::size_t i = 0; i < stop_ && rest.ends_with(content_); ++i) rest.remove_suffix(content_.size());
    token = std::string(rest);
  }

  static void fall_back(std::vector<std::string>& tokens) {
    std::vector<std::string> result;
    bool after_byte = false;
    for (std::string& token : tokens) {
      const auto byte = byte_of(token);
      if (!byte) {
        result.push_back(std::move(token));
      } else if (after_byte) {
        result.back().push_back(*byte);
      } else {
        result.emplace_back(1, *byte);
      }
      after_byte = byte.has_value();
    }
    tokens = std::move(result);
  }

  /// The byte of a token <0xHH>, in either case.
  static std::optional<char> byte_of(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
    unsigned value = 0;
    for (const char c : token.substr(3, 2)) {
      const char lower = c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c;
      const std::size_t digit = std::string_view("0123456789abcdef").find(lower);
      if (digit == std::string_view::npos) return std::nullopt;
      value = value * 16 + static_cast<unsigned>(digit);
    }
    return static_cast<char>(static_cast<unsigned char>(value));
  }

  Kind kind_ = Kind::fuse;
  bool on_ = false;  // Metaspace leaves out the first mark; WordPiece cleans up
  std::size_t start_ = 0, stop_ = 0;
  std::string content_;
  Pattern pattern_;
};

/// Whether what a token adds to a text depends, besides on it, on some first tokens and some last ones alone: each
/// token is changed by itself, then runs of bytes are joined, then all, and then only the beginning changes.
[[gnu::cold]] inline bool decode_locally(const std::vector<Decoder>& decoders) {
  auto joined = Decoder::Reach::each;
  for (const Decoder& decoder : decoders) {
    const bool starts = joined == Decoder::Reach::all && decoder.is_at_start();
    if (joined != Decoder::Reach::each && decoder.reach() <= joined && !starts) return false;
    joined = std::max(joined, decoder.reach());
  }
  return true;
}

}  // namespace tinymoe::inline v0_1::detail
