#pragma once
/// @file
/// Counter-based random numbers: a number is a pure function of (seed, step, site, index), so that it is the same on
/// every backend and thread count, needs no stored state, and a resumed run continues its stream.
///
/// Philox-4x32-10: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

/// The seed of a run; every random choice of initialisation, batches, dropout and sampling follows from it.
struct Seed {
  std::uint64_t value = 0;
};

/// What a random number is for: uses that must not share numbers have different sites. A part that draws numbers
/// declares its sites beside itself. The library's are in `random_site`, each with its own number (a test checks this).
/// A user makes one with `RandomSite::named`.
struct RandomSite {
  std::uint32_t number = 0;

  /// The n-th site of the library, 1 ≤ n < 2048. Each layer of a model has its own part of it.
  static consteval RandomSite in_layers(std::uint32_t n) { return {n << 20}; }

  /// A user's site, by its name. Each of up to 4096 layers has its own part of it. It never equals a site of the
  /// library, whose numbers are below 2^31. Two names collide in one of 2^19 cases.
  static consteval RandomSite named(std::string_view name) {
    std::uint32_t hash = 2166136261u;  // FNV-1a
    for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
    return {1u << 31 | ((hash ^ hash >> 19) & 0x7ffffu) << 12};
  }

  friend constexpr bool operator==(RandomSite, RandomSite) = default;
};

/// One stream of random numbers; `index` counts within it.
struct RandomStream {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  std::uint32_t site = 0;

  constexpr RandomStream() = default;
  TINYMOE_EVERYWHERE constexpr RandomStream(Seed key, std::uint32_t in_step, RandomSite at, std::uint32_t part = 0)
      : seed(key.value), step(in_step), site(at.number + part) {}
};

namespace detail {

/// Four independent uniform words for one 128-bit counter and 64-bit key (Salmon et al. 2011, ten rounds).
TINYMOE_EVERYWHERE constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                                                 std::uint64_t seed) {
  std::uint32_t key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key0, static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key1, static_cast<std::uint32_t>(product0)};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// The four random words number `index` of a stream.
TINYMOE_EVERYWHERE constexpr std::array<std::uint32_t, 4> random_words(RandomStream stream, std::uint64_t index) {
  return detail::philox(
      {static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), stream.step, stream.site},
      stream.seed);
}

}  // namespace detail

/// Uniform in [0, 1), with 24 random bits.
TINYMOE_EVERYWHERE constexpr float random_uniform(RandomStream stream, std::uint64_t index) {
  return static_cast<float>(detail::random_words(stream, index)[0] >> 8) * 0x1p-24f;
}

/// A whole number in [0, bound), bound > 0; the bias is below bound / 2^64.
TINYMOE_EVERYWHERE constexpr std::uint64_t random_below(RandomStream stream, std::uint64_t index, std::uint64_t bound) {
  const auto words = detail::random_words(stream, index);
  const std::uint64_t high = words[0], low = words[1];
  // The upper 64 bits of (high·2^32 + low)·bound, without 128-bit arithmetic.
  const std::uint64_t bound_high = bound >> 32, bound_low = bound & 0xffffffffu;
  const std::uint64_t middle = high * bound_low + ((low * bound_low) >> 32);
  return high * bound_high + (middle >> 32) + ((low * bound_high + (middle & 0xffffffffu)) >> 32);
}

/// Standard normal, by Box and Muller.
TINYMOE_EVERYWHERE inline double random_normal(RandomStream stream, std::uint64_t index) {
  const auto words = detail::random_words(stream, index);
  const double radius_uniform = (words[0] + 1.0) * 0x1p-32, angle_uniform = words[1] * 0x1p-32;
  return std::sqrt(-2.0 * std::log(radius_uniform)) * std::cos(6.283185307179586 * angle_uniform);
}

}  // namespace tinymoe::inline v0_1
