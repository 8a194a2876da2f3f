#pragma once
/// @file
/// Stories in JSON: a value in each line (JSON lines), or an array of values. A value is a story, or an object with it.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/byte_reader.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/json_value.hpp"

namespace tinymoe::inline v0_1::detail {

using StoryVisitor = std::function<void(std::string_view)>;

/// The members that have the story where no other is named.
inline constexpr std::string_view usual_story_fields[] = {"text", "story"};

/// The text of a story in a value. `field` names the member; empty: "text" or "story", or the value is a string.
/// Throws FileError that begins with `where`.
[[gnu::noinline]] inline const std::string& json_story(const Json& value, const std::string& field,
                                                       const std::string& where) {
  if (field.empty() && value.is_string()) return value.string();
  if (!value.is_object()) {
    fail<FileError>(where, ": expected an object with the story, found ", value.is_null() ? "" : "a ", value.kind());
  }
  std::string_view name = field;
  if (field.empty()) {
    for (const std::string_view usual : usual_story_fields) {
      if (!value.contains(usual)) continue;
      if (!name.empty()) {
        fail<FileError>(where, ": has the fields \"text\" and \"story\"; name the one that has the story");
      }
      name = usual;
    }
  }
  const Json* story = value.find(name);
  if (story == nullptr) {
    std::string found;
    constexpr std::size_t shown = 8;
    for (std::size_t i = 0; i < std::min(value.size(), shown); ++i) {
      found += (i > 0 ? ", \"" : "\"") + value.members()[i].key.substr(0, 40) + "\"";
    }
    if (value.size() > shown) found += ", …";
    fail<FileError>(where, ": expected the field ", field.empty() ? "\"text\" or \"story\"" : '"' + field + '"',
                    ", found ", found.empty() ? "no field" : found);
  }
  if (!story->is_string()) {
    fail<FileError>(where, ": expected the story as a string in \"", name, "\", found ", story->kind());
  }
  return story->string();
}

/// Reads the values of a file one by one, in chunks: memory is bounded by the longest value, and that by
/// `longest_value`.
class JsonStories {
 public:
  static constexpr std::size_t longest_value = std::size_t{64} << 20;  // in bytes

  /// `path` names the file in errors.
  JsonStories(ByteReader& reader, std::filesystem::path path, std::string field, std::size_t chunk)
      : reader_(reader), path_(std::move(path)), field_(std::move(field)), chunk_(std::max<std::size_t>(chunk, 1)) {}

  /// Calls `f` with the text of each story. Throws FileError that names the line, and in an array the number of the
  /// value, if the file is cut, is no JSON, or if a value has no story.
  void pass(const StoryVisitor& f) {
    constexpr std::string_view order_mark = "\xef\xbb\xbf";
    while (at_ < order_mark.size() && more() && buffer_[at_] == order_mark[at_]) ++at_;
    if (at_ < order_mark.size()) at_ = 0;
    skip_space();
    if (!more()) return;
    if (buffer_[at_] == '[') {
      pass_array(f);
    } else {
      pass_lines(f);
    }
  }

 private:
  /// Whether there is a byte at `at_`; reads on where needed.
  bool more() {
    if (at_ < buffer_.size()) return true;
    const std::size_t size = buffer_.size();
    buffer_.resize(size + chunk_);
    const std::size_t count = reader_.read(std::span(buffer_).subspan(size));
    buffer_.resize(size + count);
    return count > 0;
  }
  /// Forgets what lies before `at_`, when it is enough to be worth moving the rest.
  void forget() {
    if (at_ < std::min(chunk_, buffer_.size())) return;
    buffer_.erase(0, at_);
    at_ = 0;
  }
  void skip_space() {
    for (; more() && std::string_view(" \t\r\n").find(buffer_[at_]) != std::string_view::npos; ++at_) {
      if (buffer_[at_] == '\n') ++line_;
      forget();
    }
  }

  std::string where() const {
    std::string name = path_.string() + ": line " + std::to_string(line_);
    if (value_ > 0) name += ", value " + std::to_string(value_) + " of the array";
    return name;
  }
  void expect_length(std::size_t size) const {
    if (size <= longest_value) return;
    fail<FileError>(where(), ": expected a value of at most ", longest_value >> 20, " MiB");
  }
  void pass_value(std::string_view text, const StoryVisitor& f) const {
    const std::string name = where();
    f(json_story(parse_json(text, name), field_, name));
  }

  void pass_lines(const StoryVisitor& f) {
    while (more()) {
      std::size_t end = std::string::npos;
      for (std::size_t searched = at_;;) {
        end = buffer_.find('\n', searched);
        if (end != std::string::npos) break;
        searched = buffer_.size();
        expect_length(searched - at_);
        const std::size_t begin = std::exchange(at_, searched);
        const bool read = more();
        at_ = begin;
        if (!read) break;
      }
      const std::string_view line = std::string_view(buffer_).substr(at_, std::min(end, buffer_.size()) - at_);
      if (line.find_first_not_of(" \t\r") != std::string_view::npos) pass_value(line, f);
      at_ += line.size() + (end != std::string::npos ? 1 : 0);
      ++line_;
      forget();
    }
  }

  void pass_array(const StoryVisitor& f) {
    ++at_;
    skip_space();
    value_ = 1;
    if (more() && buffer_[at_] == ']') {
      ++at_;
    } else {
      for (bool last = false; !last; ++value_) last = pass_item(f);
    }
    value_ = 0;
    skip_space();
    if (more()) fail<FileError>(where(), ": expected the end of the file behind the array");
  }

  /// The next value of the array, up to its comma or the array's end. Returns whether it was the last.
  bool pass_item(const StoryVisitor& f) {
    skip_space();
    forget();
    const std::size_t begin = at_;
    std::uint64_t lines = 0;
    int depth = 0;
    bool in_string = false;
    for (;; ++at_) {
      if (!more()) {
        fail<FileError>(where(), ": JSON is cut: expected ", in_string ? "the end of a string" : "',' or ']'",
                        ", found the end of the file");
      }
      const char byte = buffer_[at_];
      if (in_string) {
        if (byte == '"') in_string = false;
        if (byte == '\\') {
          ++at_;
          if (!more()) continue;
        }
        if (byte == '\n') ++lines;
      } else if (byte == '"') {
        in_string = true;
      } else if (byte == '{' || byte == '[') {
        ++depth;
      } else if (depth > 0 && (byte == '}' || byte == ']')) {
        --depth;
      } else if (depth == 0 && (byte == ',' || byte == ']')) {
        break;
      } else if (byte == '\n') {
        ++lines;
      }
      if (at_ - begin > longest_value) expect_length(at_ - begin);
    }
    pass_value(std::string_view(buffer_).substr(begin, at_ - begin), f);
    line_ += lines;
    return buffer_[at_++] == ']';
  }

  ByteReader& reader_;
  std::filesystem::path path_;
  std::string field_, buffer_;
  std::size_t chunk_ = 0, at_ = 0;
  std::uint64_t line_ = 1, value_ = 0;  // where the next value begins; 0: in no array
};

/// Whether a text begins as JSON does: with an object that has a story, by itself or in an array.
[[gnu::cold]] inline bool begins_as_json_stories(std::string_view text, const std::string& field) {
  constexpr std::string_view space = " \t\r\n";
  const std::size_t first = std::min(text.find_first_not_of(space), text.size());
  const std::size_t object = text.substr(first).starts_with('[') ? text.find_first_not_of(space, first + 1) : first;
  if (object >= text.size() || text[object] != '{') return false;
  class Reader final : public ByteReader {
   public:
    explicit Reader(std::string_view text) : text_(text) {}
    std::size_t read(std::span<char> to) override {
      const std::size_t count = text_.copy(to.data(), to.size());
      text_.remove_prefix(count);
      return count;
    }

   private:
    std::string_view text_;
  };
  struct Found {};
  Reader reader(text);
  try {
    JsonStories(reader, {}, field, text.size()).pass([](std::string_view) { throw Found(); });
  } catch (const Found&) {
    return true;
  } catch (const FileError&) {
  }
  return false;
}

}  // namespace tinymoe::inline v0_1::detail
