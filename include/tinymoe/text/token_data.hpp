#pragma once
/// @file
/// A data set: all stories as one row of tokens, each followed by the end of a story, in a mapped file or in memory.
/// Over 300 lines: it is one class.

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/files/paths.hpp"
#include "tinymoe/text/corpus.hpp"
#include "tinymoe/text/encode_stories.hpp"
#include "tinymoe/text/merge_dropout.hpp"
#include "tinymoe/text/story_source.hpp"
#include "tinymoe/text/text_identity.hpp"
#include "tinymoe/text/token_file.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1 {

/// Encoded stories, read-only. Copies share the data; threads may use one object at the same time.
class TokenData {
 public:
  /// Maps a token file and reads it once. Throws FileError if it is missing, cut or corrupt, MismatchError if another
  /// tokenizer made it.
  static TokenData open(const std::filesystem::path& token_file, const Tokenizer& tokenizer) {
    auto file = std::make_shared<const MappedFile>(token_file);
    detail::TokenFileView view;
    if (const auto wrong = detail::read_token_file(file->bytes(), view); !wrong.empty()) {
      fail<FileError>(token_file, ": ", wrong);
    }
    if (view.header.fingerprint != tokenizer.fingerprint()) {
      fail<MismatchError>(token_file, ": was encoded by another tokenizer");
    }
    return TokenData(std::move(file), view, token_file.string());
  }

  /// Maps `token_file` if it was made of this text by this tokenizer, else encodes the text into it first, on all cores
  /// (`threads` 0) and in bounded memory but for two bytes or so a story; a crash leaves the old file or the new one.
  ///
  /// The token file is never stale. It stores the hash of all bytes of the text (not its name or time), the tokenizer's
  /// fingerprint, where too long stories are cut, its format's version, and a hash of itself. All are compared and
  /// computed anew at each call; where one differs, the text is encoded again.
  ///
  /// Throws FileError if the text cannot be read, is not UTF-8, has no story or changes meanwhile, if the token file
  /// cannot be written or is replaced by another process, or if `token_file` exists and is no token file.
  template <std::same_as<TextCorpus> Corpus = TextCorpus>  // so that only programs that call it compile it
  static TokenData open_or_encode(const std::filesystem::path& text, const Tokenizer& tokenizer,
                                  const std::filesystem::path& token_file, int threads = 0,
                                  const MergeDropout& dropout = {}) {
    return open_or_encode(Corpus(text), tokenizer, token_file, threads, dropout);
  }

  /// The same for stories of other files, or a part of them (`StoryFiles`, `SelectedStories`): the token file is made
  /// again where one of the files, its format, or the part is another. With dropout, some merges are left out, once for
  /// all: each text has the tokens that the seed decides, and other dropout is another token file.
  template <IdentifiedStories Stories>
  static TokenData open_or_encode(const Stories& stories, const Tokenizer& tokenizer,
                                  const std::filesystem::path& token_file, int threads = 0,
                                  const MergeDropout& dropout = {}) {
    return open_or_write(
        stories, tokenizer, token_file,
        [&](std::size_t token_bytes, auto& put) {
          return detail::encode_stories(stories, tokenizer, token_bytes, threads, dropout, put);
        },
        dropout);
  }

  /// The same for stories that are tokens already: `TokenFiles`, or a part of them. `tokenizer` is the one that made
  /// them.
  template <IdentifiedStories Stories>
  static TokenData open_or_import(const Stories& stories, const Tokenizer& tokenizer,
                                  const std::filesystem::path& token_file) {
    return open_or_write(stories, tokenizer, token_file, [&](std::size_t token_bytes, auto& put) {
      return detail::import_stories(stories, tokenizer, token_bytes, put);
    });
  }

  /// Encodes stories into a token file, whatever is in it. Throws FileError if the file cannot be written, TextError if
  /// there is no story.
  template <StorySource Stories>
  static TokenData encode_to_file(const Stories& stories, const Tokenizer& tokenizer,
                                  const std::filesystem::path& token_file, int threads = 0,
                                  const MergeDropout& dropout = {}) {
    write(tokenizer, token_file, {}, [&](std::size_t token_bytes, auto& put) {
      return detail::encode_stories(stories, tokenizer, token_bytes, threads, dropout, put);
    });
    return open(token_file, tokenizer);
  }

  /// Encodes stories into memory. Throws TextError if there is no story.
  template <StorySource Stories>
  static TokenData encode(const Stories& stories, const Tokenizer& tokenizer, int threads = 0,
                          const MergeDropout& dropout = {}) {
    detail::TokenFileView view;
    view.header = detail::token_file_header(tokenizer, {});
    auto bytes = std::make_shared<std::vector<std::byte>>();
    const auto [counts, sizes] = detail::encode_stories(
        stories, tokenizer, view.header.token_bytes, threads, dropout,
        [&](std::span<const std::byte> tokens) { bytes->insert(bytes->end(), tokens.begin(), tokens.end()); });
    bytes->insert(bytes->end(), sizes.begin(), sizes.end());
    view.counts = counts;
    view.tokens = std::span(*bytes).first(bytes->size() - sizes.size());
    view.sizes = std::span(*bytes).last(sizes.size());
    return TokenData(std::move(bytes), view, "token data in memory");
  }

  /// A copy of tokens of a vocabulary of the given size. Throws TextError if one is outside it.
  static TokenData from_tokens(std::span<const Token> tokens, Index vocabulary, Index text_bytes = 0,
                               Index stories = 0) {
    for (const Token token : tokens) {
      if (token < 0 || token >= vocabulary) {
        fail<TextError>("expected tokens from 0 to ", vocabulary - 1, ", found ", token);
      }
    }
    const auto raw = std::as_bytes(tokens);
    auto bytes = std::make_shared<std::vector<std::byte>>(raw.begin(), raw.end());
    detail::TokenFileView view;
    view.header.vocabulary = static_cast<std::uint64_t>(vocabulary);
    view.header.token_bytes = sizeof(Token);
    view.counts.tokens = tokens.size();
    view.counts.text_bytes = static_cast<std::uint64_t>(text_bytes);
    view.counts.stories = static_cast<std::uint64_t>(stories);
    view.tokens = *bytes;
    TokenData data(std::move(bytes), view, "token data in memory");
    data.tokenizer_fingerprint_.reset();
    return data;
  }

  /// The first `count` tokens, which share this object's storage. Unless they are all, their stories and bytes are not
  /// counted, and an evaluation has no bits per byte: for whole stories use `stories_between`. Throws ShapeError if
  /// there are not so many.
  TokenData first(Index count) const {
    if (count < 0 || count > size_) fail<ShapeError>(name_, ": expected ", size_, " tokens or less, found ", count);
    TokenData part = *this;
    if (count == size_) return part;
    part.size_ = count;
    part.text_bytes_ = part.stories_ = 0;
    part.sizes_ = {};
    return part;
  }

  /// The tokens `first` to `first + count − 1`, which are whole stories, with their number and bytes counted; they
  /// share this object's storage. The bytes are those of the stories' texts, whatever `tokenizer`, which encoded them,
  /// adds or changes. Where the texts are not known (`from_tokens`), they are those that the tokens decode to.
  /// Throws ShapeError if there are not so many tokens.
  TokenData stories_between(Index first, Index count, const Tokenizer& tokenizer) const {
    if (first < 0 || count < 0 || first > size_ || count > size_ - first) {
      fail<ShapeError>(name_, ": expected tokens within 0 to ", size_, ", found ", count, " from ", first, " on");
    }
    TokenData part = *this;
    part.tokens_ += first * static_cast<Index>(token_bytes_);
    part.size_ = count;
    part.stories_ = part.count_ends(count, tokenizer.end_of_story());
    const bool last = first + count == size_;
    const Index before = last ? stories_ - part.stories_ : count_ends(first, tokenizer.end_of_story());
    auto sizes = sizes_;
    std::uint64_t skipped = 0, bytes = 0;
    bool known =
        !sizes.empty() && before >= 0 && detail::take_sizes(sizes, static_cast<std::uint64_t>(before), skipped);
    part.sizes_ = sizes;
    known = known && detail::take_sizes(sizes, static_cast<std::uint64_t>(part.stories_), bytes);
    part.sizes_ = known ? part.sizes_.first(part.sizes_.size() - sizes.size()) : std::span<const std::byte>();
    part.text_bytes_ = known ? static_cast<Index>(bytes) : part.decoded_bytes(tokenizer);
    return part;
  }

  /// Number of tokens, the ends of stories among them.
  Index size() const { return size_; }
  /// Bytes of the stories, without trimmed white space and markers: the divisor of bits per byte.
  Index text_bytes() const { return text_bytes_; }
  /// Number of stories.
  Index stories() const { return stories_; }
  /// Size of the vocabulary; tokens are below it.
  Index vocabulary_size() const { return vocabulary_; }
  /// The fingerprint of the tokenizer that encoded the stories; none for `from_tokens`.
  std::optional<std::uint64_t> tokenizer_fingerprint() const { return tokenizer_fingerprint_; }

  /// The token at `i` in [0, size()). Throws FileError if the file holds one outside the vocabulary.
  Token operator[](Index i) const {
    Token token = 0;
    copy(i, std::span(&token, 1));
    return token;
  }

  /// Copies the tokens `first` to `first + out.size() - 1`.
  /// Throws ShapeError if they are not all there, FileError if the file holds one outside the vocabulary.
  void copy(Index first, std::span<Token> out) const {
    if (first < 0 || first > size_ || std::ssize(out) > size_ - first) {
      fail<ShapeError>(name_, ": expected tokens within 0 to ", size_, ", found ", out.size(), " from ", first, " on");
    }
    if (token_bytes_ == 2) {
      copy_as<std::uint16_t>(first, out);
    } else {
      copy_as<std::uint32_t>(first, out);
    }
  }

 private:
  TokenData(std::shared_ptr<const void> storage, const detail::TokenFileView& view, std::string name)
      : storage_(std::move(storage)),
        tokens_(view.tokens.data()),
        sizes_(view.sizes),
        token_bytes_(view.header.token_bytes),
        size_(static_cast<Index>(view.counts.tokens)),
        text_bytes_(static_cast<Index>(view.counts.text_bytes)),
        stories_(static_cast<Index>(view.counts.stories)),
        vocabulary_(static_cast<Index>(view.header.vocabulary)),
        tokenizer_fingerprint_(view.header.fingerprint),
        name_(std::move(name)) {}

  /// The token file of these stories, which `encode(token_bytes, put)` writes if it is another's.
  template <class Stories, class Encode>
  static TokenData open_or_write(const Stories& stories, const Tokenizer& tokenizer,
                                 const std::filesystem::path& token_file, Encode&& encode,
                                 const MergeDropout& dropout = {}) {
    const std::string name = stories.name();
    const auto identify = [&] { return with_dropout(stories.identity(), dropout); };
    const detail::TextIdentity identity = identify();
    if (auto data = reuse(token_file, tokenizer, identity)) return *std::move(data);
    detail::naming_file(name, [&] { write(tokenizer, token_file, identity, encode); });
    if (identify() != identity) {
      std::error_code ignored;
      std::filesystem::remove(token_file, ignored);
      fail<FileError>(name, ": was changed while it was being encoded");
    }
    if (auto data = reuse(token_file, tokenizer, identity)) return *std::move(data);
    fail<FileError>(token_file, ": was replaced by another process; give each run a token file of its own");
  }

  /// The identity of stories that are encoded with dropout: their own without.
  static detail::TextIdentity with_dropout(detail::TextIdentity identity, const MergeDropout& dropout) {
    if (dropout.rate == 0) return identity;
    detail::IdentityHash hash;
    hash.identity(identity);
    hash.text("dropout of merges");
    hash.number(std::bit_cast<std::uint64_t>(dropout.rate));
    hash.number(dropout.seed.value);
    identity.hash = hash.value();
    return identity;
  }

  /// Writes a token file; `identity` is what `reuse` compares.
  template <class Encode>
  static void write(const Tokenizer& tokenizer, const std::filesystem::path& token_file,
                    const detail::TextIdentity& identity, Encode&& encode) {
    write_file_atomically(token_file, [&](FileWriter& file) {
      detail::Xxh64 hash;
      const auto put = [&](std::span<const std::byte> bytes) {
        hash.bytes(bytes);
        file.write(bytes);
      };
      const auto header = detail::token_file_header(tokenizer, identity);
      put(std::as_bytes(std::span(&header, 1)));
      auto [counts, sizes] = encode(header.token_bytes, put);
      put(sizes);
      hash.bytes(std::as_bytes(std::span(&counts, 1)).first(offsetof(detail::TokenFileCounts, hash)));
      counts.hash = hash.value();
      file.write(std::as_bytes(std::span(&counts, 1)));
    });
  }

  /// The token file if it is whole, and of this text and tokenizer.
  static std::optional<TokenData> reuse(const std::filesystem::path& token_file, const Tokenizer& tokenizer,
                                        const detail::TextIdentity& identity) {
    if (!detail::is_there(token_file)) return std::nullopt;
    auto file = std::make_shared<const MappedFile>(token_file);
    if (!detail::is_token_file(file->bytes()) && !detail::is_cut_token_file(file->bytes())) {
      fail<FileError>(token_file, ": expected a tinymoe token file or none, and will not replace another file");
    }
    detail::TokenFileView view;
    const bool whole = detail::read_token_file(file->bytes(), view).empty();
    if (!whole || view.header.fingerprint != tokenizer.fingerprint() || view.header.text != identity) {
      return std::nullopt;
    }
    return TokenData(std::move(file), view, token_file.string());
  }

  /// How many of the first `count` tokens are `end`.
  Index count_ends(Index count, Token end) const {
    Index ends = 0;
    for (Index i = 0; i < count; ++i) ends += (*this)[i] == end ? 1 : 0;
    return ends;
  }

  /// The bytes of the text of each story's tokens, added up.
  Index decoded_bytes(const Tokenizer& tokenizer) const {
    std::vector<Token> story;
    Index bytes = 0;
    for (Index i = 0; i < size_; ++i) {
      story.push_back((*this)[i]);
      if (story.back() != tokenizer.end_of_story() && i + 1 < size_) continue;
      bytes += std::ssize(tokenizer.decode(story));
      story.clear();
    }
    return bytes;
  }

  template <class Stored>
  void copy_as(Index first, std::span<Token> out) const {
    const std::byte* from = tokens_ + first * static_cast<Index>(sizeof(Stored));
    Stored largest = 0;
    for (Token& token : out) {
      Stored stored;
      std::memcpy(&stored, from, sizeof stored);
      from += sizeof stored;
      token = static_cast<Token>(stored);
      largest = std::max(largest, stored);
    }
    if (static_cast<Index>(largest) < vocabulary_) return;
    fail<FileError>(name_, ": expected tokens from 0 to ", vocabulary_ - 1, ", found ", largest, " between ", first,
                    " and ", first + std::ssize(out) - 1);
  }

  std::shared_ptr<const void> storage_;
  const std::byte* tokens_ = nullptr;
  std::span<const std::byte> sizes_;  // of the stories' texts; empty: not known
  std::size_t token_bytes_ = 2;
  Index size_ = 0, text_bytes_ = 0, stories_ = 0, vocabulary_ = 0;
  std::optional<std::uint64_t> tokenizer_fingerprint_;
  std::string name_;
};

}  // namespace tinymoe::inline v0_1
