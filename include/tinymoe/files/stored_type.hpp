#pragma once
/// @file
/// The element types of weight files, and conversions between them and the floating-point types of the program.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

static_assert(std::endian::native == std::endian::little, "tinymoe: weight files are little-endian, so is the machine");

/// The type of a tensor's elements in a file.
enum class StoredType : std::uint8_t {
  boolean,
  uint8,
  int8,
  float8_e5m2,
  float8_e4m3,
  uint16,
  int16,
  float16,
  bfloat16,
  uint32,
  int32,
  float32,
  uint64,
  int64,
  float64
};

namespace detail {

struct StoredTypeFacts {
  std::string_view name;  // in a safetensors header
  std::size_t bytes;      // of one element
};

/// In the order of StoredType.
inline constexpr StoredTypeFacts stored_type_facts[] = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"U16", 2}, {"I16", 2}, {"F16", 2},
    {"BF16", 2}, {"U32", 4}, {"I32", 4}, {"F32", 4},     {"U64", 8},     {"I64", 8}, {"F64", 8}};

}  // namespace detail

/// The name of a type in a safetensors header: "F32", "BF16", ...
constexpr std::string_view stored_type_name(StoredType type) {
  return detail::stored_type_facts[static_cast<std::size_t>(type)].name;
}

/// The bytes of one element.
constexpr std::size_t stored_type_bytes(StoredType type) {
  return detail::stored_type_facts[static_cast<std::size_t>(type)].bytes;
}

/// The type with this name in a safetensors header, if tinymoe knows it.
constexpr std::optional<StoredType> stored_type_named(std::string_view name) {
  for (std::size_t type = 0; type < std::size(detail::stored_type_facts); ++type) {
    if (detail::stored_type_facts[type].name == name) return static_cast<StoredType>(type);
  }
  return std::nullopt;
}

/// The type that stores a `T` as it is in memory.
template <class T>
constexpr StoredType stored_type_of() {
  if constexpr (std::is_same_v<T, bool>)
    return StoredType::boolean;
  else if constexpr (std::is_same_v<T, bfloat16>)
    return StoredType::bfloat16;
  else if constexpr (std::is_same_v<T, float>)
    return StoredType::float32;
  else if constexpr (std::is_same_v<T, double>)
    return StoredType::float64;
  else {
    static_assert(std::is_integral_v<T>, "tinymoe::stored_type_of: expected a number, bfloat16 or bool");
    constexpr StoredType is_signed[] = {StoredType::int8, StoredType::int16, StoredType::int32, StoredType::int64};
    constexpr StoredType is_unsigned[] = {StoredType::uint8, StoredType::uint16, StoredType::uint32,
                                          StoredType::uint64};
    constexpr auto size = std::bit_width(sizeof(T)) - 1;
    return std::is_signed_v<T> ? is_signed[size] : is_unsigned[size];
  }
}

namespace detail {

/// IEEE 754 half precision as it lies in a file.
struct StoredHalf {
  std::uint16_t bits;
  operator float() const { return float_from_half(bits); }
};

/// Calls `f` with a value of the type that a floating-point StoredType stores; false for the other types.
template <class F>
bool with_floating_type(StoredType type, F&& f) {
  switch (type) {
    case StoredType::float32:
      return f(float{}), true;
    case StoredType::float64:
      return f(double{}), true;
    case StoredType::bfloat16:
      return f(bfloat16{}), true;
    case StoredType::float16:
      return f(StoredHalf{}), true;
    default:
      return false;
  }
}

/// Reads elements of type `From`, at any alignment, as `To`.
template <class From, class To>
void convert_elements(const std::byte* from, To* to, std::size_t count) {
  if constexpr (std::is_same_v<From, To>) {
    if (count != 0) std::memcpy(to, from, count * sizeof(To));
  } else {
    for (std::size_t i = 0; i < count; ++i) {
      From value;
      std::memcpy(&value, from + i * sizeof(From), sizeof(From));
      if constexpr (std::is_same_v<From, double>)
        to[i] = static_cast<To>(value);
      else
        to[i] = static_cast<To>(static_cast<float>(value));
    }
  }
}

/// Whether a number is neither infinite nor NaN. It looks at the bits, because -ffast-math assumes that all are finite.
inline bool is_finite(float value) { return (~std::bit_cast<std::uint32_t>(value) & 0x7f800000u) != 0; }
inline bool is_finite(double value) { return (~std::bit_cast<std::uint64_t>(value) & 0x7ff0000000000000u) != 0; }

/// The index of the first value that is infinite or NaN, or the number of values.
template <class T>
std::size_t first_not_finite(std::span<const T> values) {
  constexpr std::size_t block = 1024;  // counted without a branch, so that the loop is vectorised
  for (std::size_t begin = 0; begin < values.size(); begin += block) {
    const auto part = values.subspan(begin, std::min(block, values.size() - begin));
    std::uint32_t bad = 0;
    for (const T value : part) bad += is_finite(value) ? 0u : 1u;
    if (bad == 0) continue;
    std::size_t index = begin;
    while (is_finite(values[index])) ++index;
    return index;
  }
  return values.size();
}

}  // namespace detail

}  // namespace tinymoe::inline v0_1
