#pragma once
/// @file
/// The hash that files store: 64-bit FNV-1a (Fowler, Noll, Vo), the same on every machine.

#include <cstdint>
#include <string_view>

namespace tinymoe::inline v0_1::detail {

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

}  // namespace tinymoe::inline v0_1::detail
