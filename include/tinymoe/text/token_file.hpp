#pragma once
/// @file
/// The file of encoded stories:
///
///     TokenFileHeader | tokens, two or four bytes each | TokenFileCounts
///
/// all little-endian. The header says what the file was made of; the counts, known only when all is encoded, come last.

#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/text/fingerprint.hpp"
#include "tinymoe/text/ordered_workers.hpp"
#include "tinymoe/text/story_source.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1 {

static_assert(std::endian::native == std::endian::little, "tinymoe: token files are read as they lie in memory");

/// What tells a text file from an edited one: its size, its time, and a hash of its first and last megabyte.
struct TextIdentity {
  std::uint64_t bytes = 0;
  std::int64_t modified = 0;  // nanoseconds since 1970
  std::uint64_t hash = 0;
  friend bool operator==(const TextIdentity&, const TextIdentity&) = default;
};

/// The identity of a file as it is now. Throws FileError if it is not a regular file or cannot be opened.
inline TextIdentity identify_text(const std::filesystem::path& path) {
  const MappedFile file(path);
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) fail<FileError>(path.string(), ": cannot be read: ", std::strerror(errno));
  const std::size_t part = std::min<std::size_t>(file.size(), std::size_t{1} << 20);
  detail::Fnv1a hash;
  hash.text(file.text().substr(0, part));
  hash.text(file.text().substr(file.size() - part));
  return {file.size(), status.st_mtim.tv_sec * std::int64_t{1000000000} + status.st_mtim.tv_nsec, hash.value()};
}

namespace detail {

struct TokenFileHeader {
  char magic[16] = {'t', 'i', 'n', 'y', 'm', 'o', 'e', ' ', 't', 'o', 'k', 'e', 'n', 's', '\n', '\0'};
  std::uint32_t version = 1;
  std::uint32_t token_bytes = 2;  // 2 if the vocabulary is at most 65536, else 4
  std::uint64_t vocabulary = 0;
  std::uint64_t fingerprint = 0;  // of the tokenizer
  TextIdentity text;
};
static_assert(sizeof(TokenFileHeader) == 64);

struct TokenFileCounts {
  std::uint64_t tokens = 0;
  std::uint64_t text_bytes = 0;  // of the stories, without what was trimmed and the markers
  std::uint64_t stories = 0;
};

inline TokenFileHeader token_file_header(const Tokenizer& tokenizer, const TextIdentity& text) {
  TokenFileHeader header;
  header.vocabulary = static_cast<std::uint64_t>(tokenizer.vocabulary_size());
  header.token_bytes = header.vocabulary <= 65536 ? 2 : 4;
  header.fingerprint = tokenizer.fingerprint();
  header.text = text;
  return header;
}

/// A token file as it was found: not yet believed.
struct TokenFileView {
  TokenFileHeader header;
  TokenFileCounts counts;
  std::span<const std::byte> tokens;
};

/// Whether a file starts as a token file of any version does.
inline bool is_token_file(std::span<const std::byte> file) {
  const TokenFileHeader expected;
  return file.size() >= sizeof expected.magic && std::memcmp(file.data(), expected.magic, sizeof expected.magic) == 0;
}

/// Reads header and counts; what is wrong with them, or nothing. The tokens themselves are checked as they are used.
inline std::string read_token_file(std::span<const std::byte> file, TokenFileView& view) {
  if (!is_token_file(file)) return "expected a tinymoe token file";
  constexpr std::size_t least = sizeof(TokenFileHeader) + sizeof(TokenFileCounts);
  if (file.size() < least) return "expected at least " + std::to_string(least) + " bytes of a token file, it is cut";
  std::memcpy(&view.header, file.data(), sizeof view.header);
  std::memcpy(&view.counts, file.data() + file.size() - sizeof view.counts, sizeof view.counts);
  view.tokens = file.subspan(sizeof view.header, file.size() - least);
  const auto& [header, counts, tokens] = view;
  const TokenFileHeader current;
  if (header.version != current.version) {
    return "expected a token file of version " + std::to_string(current.version) + ", found " +
           std::to_string(header.version);
  }
  if (header.token_bytes != (header.vocabulary <= 65536 ? 2u : 4u) || header.vocabulary > (std::uint64_t{1} << 31)) {
    return "its token width and vocabulary do not belong together";
  }
  if (counts.tokens != tokens.size() / header.token_bytes || tokens.size() % header.token_bytes != 0) {
    return "its size does not agree with its count of " + std::to_string(counts.tokens) +
           " tokens; it is cut or corrupt";
  }
  if (counts.tokens == 0 || counts.stories > counts.tokens || counts.text_bytes >> 62 != 0) {
    return "its counts of tokens, stories and bytes do not belong together";
  }
  return {};
}

/// Encodes stories on threads and gives the tokens, two or four bytes each, to `sink(std::span<const std::byte>)` in
/// the order of the stories, each followed by the end of a story. Throws TextError if there is no story.
template <StorySource Stories, class Sink>
TokenFileCounts encode_stories(const Stories& stories, const Tokenizer& tokenizer, std::size_t token_bytes, int threads,
                               Sink&& sink) {
  struct Block {
    StoryList stories;
    std::vector<std::byte> tokens;
  };
  TokenFileCounts counts;
  const auto make_work = [&] {
    return [encoder = Encoder(tokenizer), end = tokenizer.end_of_story(), token_bytes,
            tokens = std::vector<Token>()](Block& block) mutable {
      tokens.clear();
      block.stories.for_each_story([&](std::string_view story) {
        encoder.encode(story, tokens);
        tokens.push_back(end);
      });
      block.tokens.resize(tokens.size() * token_bytes);
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        std::memcpy(block.tokens.data() + i * token_bytes, &tokens[i], token_bytes);  // the lower bytes come first
      }
    };
  };
  const auto finish = [&](Block& block) {
    counts.tokens += block.tokens.size() / token_bytes;
    counts.text_bytes += block.stories.bytes();
    counts.stories += static_cast<std::uint64_t>(block.stories.size());
    sink(std::span<const std::byte>(block.tokens));
  };
  OrderedWorkers<Block> workers(thread_count(threads), make_work, finish);
  for_each_block(stories, [&](StoryList&& block) { workers.push({std::move(block), {}}); });
  workers.drain();
  if (counts.stories == 0) fail<TextError>("expected at least one story, found none");
  return counts;
}

}  // namespace detail
}  // namespace tinymoe::inline v0_1
