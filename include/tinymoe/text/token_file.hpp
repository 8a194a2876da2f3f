#pragma once
/// @file
/// The file of encoded stories:
///
///     TokenFileHeader | tokens, two or four bytes each | each story's bytes, as LEB128 | TokenFileCounts
///
/// all little-endian. The header says what the file was made of; the counts, known only when all is encoded, come last,
/// with a hash of all before it.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "tinymoe/text/fingerprint.hpp"
#include "tinymoe/text/text_identity.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1::detail {

static_assert(std::endian::native == std::endian::little, "tinymoe: token files are read as they lie in memory");

struct TokenFileHeader {
  char magic[16] = {'t', 'i', 'n', 'y', 'm', 'o', 'e', ' ', 't', 'o', 'k', 'e', 'n', 's', '\n', '\0'};
  std::uint32_t version = 2;
  std::uint32_t token_bytes = 2;  // 2 if the vocabulary is at most 65536, else 4
  std::uint64_t vocabulary = 0;
  std::uint64_t fingerprint = 0;  // of the tokenizer
  TextIdentity text;              // all zero where the stories were not read from a file
};
static_assert(sizeof(TokenFileHeader) == 64);

struct TokenFileCounts {
  std::uint64_t tokens = 0;
  std::uint64_t text_bytes = 0;  // of the stories, without what was trimmed and the markers
  std::uint64_t stories = 0;
  std::uint64_t size_bytes = 0;  // of the stories' sizes
  std::uint64_t hash = 0;        // XXH64 of all bytes before it
};
static_assert(sizeof(TokenFileCounts) == 40);

/// Appends a story's size, seven bits a byte, the lowest first: two bytes for most stories.
inline void append_size(std::vector<std::byte>& sizes, std::uint64_t size) {
  for (; size >= 0x80; size >>= 7) sizes.push_back(static_cast<std::byte>(size | 0x80));
  sizes.push_back(static_cast<std::byte>(size));
}

/// Takes the first `count` sizes from `sizes` and adds them to `total`; false if there are not so many.
inline bool take_sizes(std::span<const std::byte>& sizes, std::uint64_t count, std::uint64_t& total) {
  for (; count > 0; --count) {
    std::uint64_t size = 0, byte = 0x80;
    for (int shift = 0; byte >= 0x80; shift += 7) {
      if (sizes.empty() || shift > 56) return false;
      byte = std::to_integer<std::uint64_t>(sizes.front());
      sizes = sizes.subspan(1);
      size |= (byte & 0x7f) << shift;
    }
    total += size;
  }
  return true;
}

inline TokenFileHeader token_file_header(const Tokenizer& tokenizer, const TextIdentity& text) {
  TokenFileHeader header;
  header.vocabulary = static_cast<std::uint64_t>(tokenizer.vocabulary_size());
  header.token_bytes = header.vocabulary <= 65536 ? 2 : 4;
  header.fingerprint = tokenizer.fingerprint();
  header.text = text;
  return header;
}

/// A token file as it was found, not yet checked.
struct TokenFileView {
  TokenFileHeader header;
  TokenFileCounts counts;
  std::span<const std::byte> tokens, sizes;
};

/// Whether a file starts as a token file of any version does.
inline bool is_token_file(std::span<const std::byte> file) {
  const TokenFileHeader expected;
  return file.size() >= sizeof expected.magic && std::memcmp(file.data(), expected.magic, sizeof expected.magic) == 0;
}
/// Whether a file is empty or a piece of a token file's first line: nothing is lost with it.
inline bool is_cut_token_file(std::span<const std::byte> file) {
  const TokenFileHeader expected;
  return file.size() < sizeof expected.magic &&
         (file.empty() || std::memcmp(file.data(), expected.magic, file.size()) == 0);
}

/// Reads header and counts, and all bytes for their hash. Returns what is wrong, or an empty string. That tokens are
/// in the vocabulary is checked when they are used.
inline std::string read_token_file(std::span<const std::byte> file, TokenFileView& view) {
  if (!is_token_file(file)) return "expected a tinymoe token file";
  constexpr std::size_t least = sizeof(TokenFileHeader) + sizeof(TokenFileCounts);
  if (file.size() < least) return "expected at least " + std::to_string(least) + " bytes of a token file, it is cut";
  std::memcpy(&view.header, file.data(), sizeof view.header);
  std::memcpy(&view.counts, file.data() + file.size() - sizeof view.counts, sizeof view.counts);
  const auto content = file.subspan(sizeof view.header, file.size() - least);
  const std::size_t size_bytes = std::min<std::size_t>(view.counts.size_bytes, content.size());
  view.tokens = content.first(content.size() - size_bytes);
  view.sizes = content.last(size_bytes);
  const auto& [header, counts, tokens, sizes] = view;
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
  auto rest = sizes;
  std::uint64_t text_bytes = 0;
  if (!take_sizes(rest, counts.stories, text_bytes) || !rest.empty() || text_bytes != counts.text_bytes) {
    return "its counts of tokens, stories and bytes do not belong together";
  }
  Xxh64 hash;
  hash.bytes(file.first(file.size() - sizeof counts.hash));
  if (hash.value() != counts.hash) return "its bytes do not agree with their hash; it is corrupt";
  return {};
}

}  // namespace tinymoe::inline v0_1::detail
