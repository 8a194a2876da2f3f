#pragma once
/// @file
/// Stories from files as people have them: text, JSON lines, JSON arrays and Parquet, gzipped, in folders.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/byte_reader.hpp"
#include "tinymoe/text/corpora/json_stories.hpp"
#include "tinymoe/text/corpora/story_paths.hpp"
#include "tinymoe/text/corpora/story_text.hpp"
#include "tinymoe/text/corpus.hpp"
#include "tinymoe/text/text_identity.hpp"

namespace tinymoe::inline v0_1 {

/// Opens a compressed file (`open_gzip` of files/gzip.hpp): what its bytes `file` hold. `path` names it in errors.
using OpenCompressed = std::unique_ptr<ByteReader> (*)(std::unique_ptr<ByteReader> file,
                                                       const std::filesystem::path& path);
/// Reads a table's file: calls `visit` with the text of each row, in their order. `field` names the column; empty:
/// "text" or "story".
using ReadTable = void (*)(const std::filesystem::path& path, const std::string& field,
                           const detail::StoryVisitor& visit);

/// How `StoryFiles` reads.
struct StoryFileOptions {
  std::string field = {};         // of JSON and tables: where the story is; empty: in "text" or "story"
  OpenCompressed gzip = nullptr;  // `open_gzip`; without it gzipped files are refused
  ReadTable parquet = nullptr;    // a reader of Parquet; without it such files are refused
  CorpusOptions text = {};        // of texts, and the longest story of all formats
};

/// The stories of files, in the order of the files. A path is a file, a folder, or a pattern with *, ? and [ ]; the
/// files of a folder (those below it whose names say that they have stories) and of a pattern are in the order of their
/// names' bytes. A file's name says its format, its first bytes whether it is gzipped:
///
///     .txt, any other           a text: stories ended by "<|endoftext|>"
///     .json, .jsonl, .ndjson    a value in each line, or an array of values; a value is an object with the story
///     .parquet                  a table with the story in a column
///
/// In all formats white space around a story and empty stories are dropped, "<|endoftext|>" ends a story, and one that
/// is too long comes in parts. Memory is bounded by the options and by the longest value of a JSON file, of 64 MiB at
/// most.
class StoryFiles {
 public:
  /// Throws FileError if there is no such file, or for token files, which are no text.
  explicit StoryFiles(const std::filesystem::path& path, StoryFileOptions options = {})
      : StoryFiles(std::vector{path}, std::move(options)) {}
  explicit StoryFiles(const std::vector<std::filesystem::path>& paths, StoryFileOptions options = {})
      : files_(detail::story_paths(paths)), options_(std::move(options)) {
    if (detail::are_token_files(files_)) fail<FileError>(name(), ": has tokens; expected stories as text");
    for (const auto& file : files_) static_cast<void>(FileReader(file, expected));
  }

  /// Calls `f(std::string_view story)` for each story, in their order. Throws FileError for a file that is cut, corrupt
  /// or of another format, naming the line, row or byte.
  template <class F>
  void for_each_story(F&& f) const {
    const detail::StoryVisitor visit = [&f](std::string_view story) { f(story); };
    for (const auto& file : files_) pass(file, visit);
  }

  const std::vector<std::filesystem::path>& files() const { return files_; }

  /// What errors call the stories: the first file.
  std::string name() const { return detail::name_of(files_); }
  /// What tells these stories from others: the content and format of the files, and the options that choose or cut
  /// stories. Of one text it is that of `TextCorpus`. Reads all files. Throws FileError.
  [[gnu::cold]] detail::TextIdentity identity() const {
    auto one = detail::identify_text(files_.front(), options_.text.longest_story);
    if (files_.size() == 1 && detail::story_format(files_.front()) == detail::StoryFormat::text) return one;
    detail::IdentityHash hash;
    hash.text("story files 1");
    hash.text(options_.field);
    std::uint64_t bytes = 0;
    for (const auto& file : files_) {
      if (&file != &files_.front()) one = detail::identify_text(file, options_.text.longest_story);
      hash.number(static_cast<std::uint64_t>(detail::story_format(file)));
      hash.identity(one);
      bytes += one.bytes;
    }
    return {.bytes = bytes, .hash = hash.value(), .longest_story = options_.text.longest_story};
  }

 private:
  static constexpr const char* expected = "a text file";

  /// The bytes of a file, unpacked.
  std::unique_ptr<ByteReader> open(const std::filesystem::path& path) const {
    auto file = std::make_unique<detail::PeekedReader>(std::make_unique<FileReader>(path, expected));
    const bool named = path.extension() == ".gz", gzipped = file->first().starts_with("\x1f\x8b");
    if (named && !gzipped) fail<FileError>(path, ": expected a gzipped file, found another");
    if (!gzipped) return file;
    if (options_.gzip == nullptr) {
      fail<FileError>(path,
                      ": is gzipped, and this program was built without zlib; gunzip the file, or build with zlib ",
                      "(StoryFileOptions::gzip)");
    }
    return options_.gzip(std::move(file), path);
  }

  void pass(const std::filesystem::path& path, const detail::StoryVisitor& f) const {
    const detail::StoryText text(path, options_.text.longest_story);
    const auto format = detail::story_format(path);
    const std::size_t chunk = std::max<std::size_t>(options_.text.chunk, 1);
    const detail::StoryVisitor pass_text = [&](std::string_view story) { text.pass_text(story, f); };
    if (format == detail::StoryFormat::parquet) {
      if (options_.parquet == nullptr) {
        fail<FileError>(path, ": is a Parquet file, and this program was built without Arrow's library; turn it into ",
                        "JSON lines, or build with Arrow (StoryFileOptions::parquet)");
      }
      return options_.parquet(path, options_.field, pass_text);
    }
    auto peeked = std::make_unique<detail::PeekedReader>(open(path));
    if (peeked->first() == "PAR1") fail<FileError>(path, ": is a Parquet file; name it .parquet");
    if (format == detail::StoryFormat::json) {
      return detail::JsonStories(*peeked, path, options_.field, chunk).pass(pass_text);
    }
    const std::string_view begin = peeked->first();
    if (const auto first = begin.find_first_not_of(detail::white_space);
        first != begin.npos && (begin[first] == '{' || begin[first] == '[')) {
      refuse_json(path, chunk);
    }
    text.pass_file(*peeked, chunk, f);
  }

  /// Throws FileError for a text that has its stories as JSON does: they would be learnt with all their quotes.
  [[gnu::cold]] void refuse_json(const std::filesystem::path& path, std::size_t chunk) const {
    std::string begin(chunk, '\0');
    const auto reader = open(path);
    std::size_t size = 0;
    while (const std::size_t count = size < chunk ? reader->read(std::span(begin).subspan(size)) : 0) size += count;
    begin.resize(size);
    if (!detail::begins_as_json_stories(begin, options_.field)) return;
    fail<FileError>(path, ": begins as JSON; name it .jsonl or .json");
  }

  std::vector<std::filesystem::path> files_;
  StoryFileOptions options_;
};

static_assert(IdentifiedStories<StoryFiles>);

}  // namespace tinymoe::inline v0_1
