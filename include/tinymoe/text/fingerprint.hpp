#pragma once
/// @file
/// The hashes that files store, the same on every machine: FNV-1a for small things, xxHash for whole files.

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace tinymoe::inline v0_1::detail {

/// 64-bit FNV-1a (Fowler, Noll, Vo).
class Fnv1a {
 public:
  constexpr void text(std::string_view bytes) {
    for (const char byte : bytes) mix(static_cast<unsigned char>(byte));
  }
  /// A number, as eight bytes, the lowest first.
  constexpr void number(std::uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) mix(static_cast<unsigned char>(value >> shift));
  }
  constexpr std::uint64_t value() const { return value_; }

 private:
  constexpr void mix(unsigned char byte) { value_ = (value_ ^ byte) * 0x100000001b3u; }

  std::uint64_t value_ = 0xcbf29ce484222325u;
};

/// XXH64 with seed 0 (Collet, xxHash specification), of bytes that come in pieces: about 5 GB a second.
class Xxh64 {
 public:
  void bytes(std::span<const std::byte> piece) {
    size_ += piece.size();
    if (held_ > 0) {
      const std::size_t taken = std::min(stripe_.size() - held_, piece.size());
      std::copy_n(piece.data(), taken, stripe_.data() + held_);
      held_ += taken;
      piece = piece.subspan(taken);
      if (held_ < stripe_.size()) return;
      mix(stripe_.data(), stripe_.size());
    }
    const std::size_t whole = piece.size() / stripe_.size() * stripe_.size();
    mix(piece.data(), whole);
    piece = piece.subspan(whole);
    std::copy(piece.begin(), piece.end(), stripe_.begin());
    held_ = piece.size();
  }

  std::uint64_t value() const {
    std::uint64_t value = prime5;
    if (size_ >= stripe_.size()) {
      value = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
      for (const std::uint64_t lane : lanes_) value = (value ^ round(0, lane)) * prime1 + prime4;
    }
    value += size_;
    const std::byte* at = stripe_.data();
    const std::byte* const end = at + held_;
    for (; end - at >= 8; at += 8) {
      value = std::rotl(value ^ round(0, word<std::uint64_t>(at)), 27) * prime1 + prime4;
    }
    for (; end - at >= 4; at += 4) {
      value = std::rotl(value ^ (word<std::uint32_t>(at) * prime1), 23) * prime2 + prime3;
    }
    for (; at != end; ++at) value = std::rotl(value ^ (std::to_integer<std::uint64_t>(*at) * prime5), 11) * prime1;
    value = (value ^ (value >> 33)) * prime2;
    value = (value ^ (value >> 29)) * prime3;
    return value ^ (value >> 32);
  }

 private:
  static constexpr std::uint64_t prime1 = 0x9e3779b185ebca87u, prime2 = 0xc2b2ae3d27d4eb4fu,
                                 prime3 = 0x165667b19e3779f9u, prime4 = 0x85ebca77c2b2ae63u,
                                 prime5 = 0x27d4eb2f165667c5u;

  static constexpr std::uint64_t round(std::uint64_t lane, std::uint64_t input) {
    return std::rotl(lane + input * prime2, 31) * prime1;
  }
  template <class Word>
  static std::uint64_t word(const std::byte* from) {
    static_assert(std::endian::native == std::endian::little);
    Word word;
    std::memcpy(&word, from, sizeof word);
    return word;
  }
  /// Whole stripes of 32 bytes.
  void mix(const std::byte* from, std::size_t size) {
    auto lanes = lanes_;
    for (const std::byte* const end = from + size; from != end; from += 32) {
      for (std::size_t i = 0; i < 4; ++i) lanes[i] = round(lanes[i], word<std::uint64_t>(from + 8 * i));
    }
    lanes_ = lanes;
  }

  std::array<std::uint64_t, 4> lanes_ = {prime1 + prime2, prime2, 0, 0 - prime1};
  std::array<std::byte, 32> stripe_{};  // bytes that wait for the next piece
  std::size_t held_ = 0;                // how many
  std::uint64_t size_ = 0;              // of all pieces
};

}  // namespace tinymoe::inline v0_1::detail
