#pragma once
/// @file
/// A hash table that numbers byte strings. It holds the vocabulary, the pieces that training counts, and the encoder's
/// cache.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"

namespace tinymoe::inline v0_1::detail {

/// A fast hash of bytes, eight at a time. It depends on the machine's byte order and is never stored.
inline std::uint64_t hash_bytes(std::string_view bytes) {
  constexpr std::uint64_t odd = 0x9e3779b97f4a7c15u;
  std::uint64_t hash = bytes.size() * odd;
  const auto mix = [&](std::uint64_t word) {
    hash = (hash ^ word) * odd;
    hash ^= hash >> 32;
  };
  std::size_t at = 0;
  std::uint64_t word = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    std::memcpy(&word, bytes.data() + at, 8);
    mix(word);
  }
  if (at < bytes.size()) {
    word = 0;
    std::memcpy(&word, bytes.data() + at, bytes.size() - at);
    mix(word);
  }
  return hash;
}

/// Distinct byte strings, numbered 0, 1, 2… in the order they came.
class PieceTable {
 public:
  /// The number of a piece, and whether it is new. Throws TextError beyond 2^32 - 2 pieces.
  std::pair<std::uint32_t, bool> insert(std::string_view piece) {
    if (2 * (size() + 1) > slots_.size()) grow();
    const std::uint64_t hash = hash_bytes(piece);
    const std::size_t at = probe(piece, hash);
    if (slots_[at].number != 0) return {slots_[at].number - 1, false};
    if (size() >= std::numeric_limits<std::uint32_t>::max() - 1)
      fail<TextError>("the text has too many distinct pieces");
    text_.append(piece);
    ends_.push_back(text_.size());
    slots_[at] = {tag(hash), static_cast<std::uint32_t>(size())};
    return {static_cast<std::uint32_t>(size() - 1), true};
  }

  /// The number of a piece that has been inserted.
  std::optional<std::uint32_t> find(std::string_view piece) const {
    if (slots_.empty()) return std::nullopt;
    const std::size_t at = probe(piece, hash_bytes(piece));
    return slots_[at].number != 0 ? std::optional(slots_[at].number - 1) : std::nullopt;
  }

  /// The piece of a number below `size()`; valid until the next insertion.
  std::string_view operator[](std::size_t number) const {
    const std::size_t begin = number == 0 ? 0 : ends_[number - 1];
    return {text_.data() + begin, ends_[number] - begin};
  }

  std::size_t size() const { return ends_.size(); }
  /// Bytes of all pieces together.
  std::size_t bytes() const { return text_.size(); }

  void clear() {
    std::fill(slots_.begin(), slots_.end(), Slot{});
    ends_.clear();
    text_.clear();
  }

 private:
  struct Slot {
    std::uint32_t tag = 0;     // the upper half of the hash
    std::uint32_t number = 0;  // of the piece plus one; 0 is a free slot
  };

  static std::uint32_t tag(std::uint64_t hash) { return static_cast<std::uint32_t>(hash >> 32); }

  /// The slot of a piece, or the free one where it belongs.
  std::size_t probe(std::string_view piece, std::uint64_t hash) const {
    std::size_t at = hash & (slots_.size() - 1);
    while (slots_[at].number != 0 && (slots_[at].tag != tag(hash) || (*this)[slots_[at].number - 1] != piece)) {
      at = (at + 1) & (slots_.size() - 1);
    }
    return at;
  }

  void grow() {
    std::vector<Slot> slots(std::max<std::size_t>(256, slots_.size() * 2));
    slots.swap(slots_);
    for (const Slot& old : slots) {
      if (old.number == 0) continue;
      std::size_t at = hash_bytes((*this)[old.number - 1]) & (slots_.size() - 1);
      while (slots_[at].number != 0) at = (at + 1) & (slots_.size() - 1);
      slots_[at] = old;
    }
  }

  std::vector<Slot> slots_;  // a power of two, at most half full
  std::vector<std::size_t> ends_;
  std::string text_;
};

}  // namespace tinymoe::inline v0_1::detail
