#pragma once
/// @file
/// A random order of many things that needs no array.

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdint>
#include <utility>

#include "tinymoe/core/random.hpp"

namespace tinymoe::inline v0_1::detail {

/// A pseudo-random permutation of 0 … size - 1 that stores nothing: a Feistel network over the next power of four,
/// walked until it falls inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
class RandomPermutation {
 public:
  RandomPermutation(RandomStream stream, std::uint64_t size) : stream_(stream), size_(size) {
    assert(size > 0);
    half_bits_ = std::max(1, static_cast<int>(std::bit_width(size - 1) + 1) / 2);
  }

  std::uint64_t operator()(std::uint64_t i) const {
    assert(i < size_);
    do i = encipher(i);
    while (i >= size_);
    return i;
  }

 private:
  std::uint64_t encipher(std::uint64_t value) const {
    const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
    std::uint64_t left = value >> half_bits_, right = value & mask;
    for (std::uint64_t round = 0; round < 6; ++round) {
      const auto words = detail::random_words(stream_, (round << 56) | right);
      left = std::exchange(right, (left ^ words[0] ^ (std::uint64_t{words[1]} << 32)) & mask);
    }
    return (left << half_bits_) | right;
  }

  RandomStream stream_;
  std::uint64_t size_ = 1;
  int half_bits_ = 1;
};

}  // namespace tinymoe::inline v0_1::detail
