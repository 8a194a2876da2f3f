#pragma once
/// @file
/// The file of encoded stories:
///
///     TokenFileHeader | tokens, two or four bytes each | TokenFileCounts
///
/// all little-endian. The header says what the file was made of; the counts, known only when all is encoded, come last.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "tinymoe/text/text_identity.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1::detail {

static_assert(std::endian::native == std::endian::little, "tinymoe: token files are read as they lie in memory");

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

/// A token file as it was found, not yet checked.
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

/// Reads header and counts. Returns what is wrong with them, or an empty string. Tokens are checked when they are used.
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

}  // namespace tinymoe::inline v0_1::detail
