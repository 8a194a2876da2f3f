#pragma once
/// @file
/// Token files of other projects: nanoGPT's train.bin, llm.c's, and llama2.c's pretokenized shards.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/byte_reader.hpp"
#include "tinymoe/text/corpora/story_paths.hpp"
#include "tinymoe/text/text_identity.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1 {

/// The stories of token files, which `TokenData::open_or_import` takes: each story is passed as the bytes of its tokens
/// (`Token`s as they lie in memory), without the tokens that begin and end it. A path is a file, a folder or a pattern,
/// in the order of `StoryFiles`. A file is, by its first bytes,
///
///     nanoGPT, llama2.c   tokens of two bytes; with Llama's tokenizer each story begins with <s>, as llama2.c has it
///     llm.c               256 numbers of four bytes, the first 20240520 (GPT-2: tokens of two bytes, version 1) or
///                         20240801 (Llama 3: of four, version 7), the third the number of tokens, and the tokens
///
/// all little-endian. The tokenizer's end of a story, and the token that begins a text, separate the stories, wherever
/// a project puts them; a file without them is one story. One of more than a million tokens comes in parts.
class TokenFiles {
 public:
  static constexpr std::size_t longest_story = std::size_t{1} << 20;  // in tokens

  /// `tokenizer` is the one that made the files. Throws FileError if there is no such file.
  TokenFiles(const std::vector<std::filesystem::path>& paths, Tokenizer tokenizer)
      : files_(detail::story_paths(paths)), tokenizer_(std::move(tokenizer)) {
    for (const auto& file : files_) static_cast<void>(FileReader(file, expected));
  }

  /// Calls `f` for each story. Throws FileError, naming the byte, for a file that is cut, holds no tokens, or has one
  /// outside the vocabulary.
  template <class F>
  void for_each_story(F&& f) const {
    const std::function<void(std::string_view)> visit = [&f](std::string_view story) { f(story); };
    for (const auto& file : files_) pass(file, visit);
  }

  std::string name() const { return detail::name_of(files_); }
  /// What tells these stories from others: the content of the files.
  [[gnu::cold]] detail::TextIdentity identity() const {
    detail::IdentityHash hash;
    hash.text("token files 1");
    std::uint64_t bytes = 0;
    for (const auto& file : files_) {
      const auto one = detail::identify_text(file, longest_story);
      hash.identity(one);
      bytes += one.bytes;
    }
    return {.bytes = bytes, .hash = hash.value(), .longest_story = longest_story};
  }

 private:
  static constexpr const char* expected = "a token file";

  /// How a file stores its tokens.
  struct Form {
    std::size_t header = 0, width = 2;         // in bytes
    std::optional<std::uint64_t> tokens = {};  // that it says to have
  };

  /// The form of a file that begins so. Throws FileError for what is no token file.
  [[gnu::cold]] static Form form_of(const std::filesystem::path& path, std::string_view begin) {
    const auto printable = [](char c) { return (c >= ' ' && c <= '~') || c == '\n' || c == '\r' || c == '\t'; };
    if (begin.size() >= 16 && std::all_of(begin.begin(), begin.end(), printable)) {
      fail<FileError>(path, ": has text; expected tokens of two bytes; name it .txt or .jsonl");
    }
    if (begin.starts_with("\x1f\x8b\x08")) fail<FileError>(path, ": is gzipped; gunzip it");
    if (begin.starts_with("tinymoe tokens")) {
      fail<FileError>(path, ": is a token file of tinymoe's, made of a text; name the text");
    }
    std::array<std::int32_t, 3> numbers{};
    std::memcpy(numbers.data(), begin.data(), std::min(begin.size(), sizeof numbers));
    const auto [magic, version, tokens] = numbers;
    constexpr std::int32_t gpt2 = 20240520, llama3 = 20240801;
    if (magic != gpt2 && magic != llama3) return {};
    constexpr std::size_t header = 256 * sizeof(std::int32_t);
    if (begin.size() < header) {
      fail<FileError>(path, ": is cut: expected a header of llm.c of ", header, " bytes, found ", begin.size());
    }
    const std::int32_t known = magic == gpt2 ? 1 : 7;
    if (version != known) {
      fail<FileError>(path, ": expected a token file of llm.c of version ", known, ", found ", version);
    }
    if (tokens < 0) fail<FileError>(path, ": its header is corrupt: says that it has ", tokens, " tokens");
    return {.header = header, .width = magic == gpt2 ? 2u : 4u, .tokens = static_cast<std::uint64_t>(tokens)};
  }

  void pass(const std::filesystem::path& path, const std::function<void(std::string_view)>& f) const {
    FileReader reader(path, expected);
    std::string buffer(std::size_t{1} << 20, '\0');
    std::size_t held = 0;
    const auto fill = [&] {
      const std::size_t before = held;
      while (const std::size_t count = held < buffer.size() ? reader.read(std::span(buffer).subspan(held)) : 0) {
        held += count;
      }
      return held > before;
    };
    fill();
    constexpr std::size_t looked_at = 1024;
    const Form form = form_of(path, std::string_view(buffer).substr(0, std::min(held, looked_at)));
    std::uint64_t offset = form.header;  // of the next token in the file
    std::vector<Token> story;
    std::size_t at = form.header;
    do {
      for (; at + form.width <= held; at += form.width, offset += form.width) {
        std::uint32_t token = 0;
        std::memcpy(&token, buffer.data() + at, form.width);
        take(path, token, offset, offset == form.header, story, f);
      }
      std::copy(buffer.begin() + static_cast<std::ptrdiff_t>(at), buffer.begin() + static_cast<std::ptrdiff_t>(held),
                buffer.begin());
      held -= at;
      at = 0;
    } while (fill());
    if (held != 0) {
      fail<FileError>(path, ": is cut or no token file: expected ", form.width, " bytes a token, found ", offset + held,
                      " bytes");
    }
    if (const std::uint64_t tokens = (offset - form.header) / form.width; form.tokens && tokens != *form.tokens) {
      fail<FileError>(path,
                      tokens < *form.tokens ? ": is cut at byte " : ": has other bytes behind its tokens, up to byte ",
                      offset, ": its header says that it has ", *form.tokens, " tokens, found ", tokens);
    }
    if (!story.empty()) pass_story(story, f);
  }

  void take(const std::filesystem::path& path, std::uint32_t token, std::uint64_t offset, bool first,
            std::vector<Token>& story, const std::function<void(std::string_view)>& f) const {
    if (token >= static_cast<std::uint64_t>(tokenizer_.vocabulary_size())) {
      fail<FileError>(path, ": expected tokens from 0 to ", tokenizer_.vocabulary_size() - 1, ", found ", token,
                      " at offset ", offset, "; was it made with another tokenizer?");
    }
    const auto id = static_cast<Token>(token);
    const Token end = tokenizer_.end_of_story();
    const std::optional<Token> begin = tokenizer_.begin_of_text();
    if (first && begin == end && id != end) {
      fail<FileError>(path, ": expected a story that begins with the token ", end, ", found ", id,
                      "; was it made with another tokenizer?");
    }
    const bool separates = id == end || id == begin;
    if (!separates) story.push_back(id);
    if (!story.empty() && (separates || story.size() == longest_story)) pass_story(story, f);
  }

  static void pass_story(std::vector<Token>& story, const std::function<void(std::string_view)>& f) {
    f({reinterpret_cast<const char*>(story.data()), story.size() * sizeof(Token)});
    story.clear();
  }

  std::vector<std::filesystem::path> files_;
  Tokenizer tokenizer_;
};

static_assert(IdentifiedStories<TokenFiles>);

}  // namespace tinymoe::inline v0_1
