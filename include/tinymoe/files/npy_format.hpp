#pragma once
/// @file
/// How NumPy's .npy files begin (NumPy Enhancement Proposal 1), for writers of arrays that are no xtensor's.

#include <complex>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "tinymoe/core/error.hpp"

namespace tinymoe::inline v0_1::detail {

inline constexpr std::string_view npy_magic = "\x93NUMPY";

/// NumPy's name for a `T`, such as "<f4".
template <class T>
std::string npy_type() {
  constexpr bool complex = std::is_same_v<T, std::complex<float>> || std::is_same_v<T, std::complex<double>>;
  static_assert(std::is_arithmetic_v<T> || complex, "tinymoe: .npy files hold numbers, bool or complex numbers");
  const char kind = std::is_same_v<T, bool>       ? 'b'
                    : std::is_floating_point_v<T> ? 'f'
                    : complex                     ? 'c'
                    : std::is_signed_v<T>         ? 'i'
                                                  : 'u';
  return std::string{sizeof(T) == 1 ? '|' : '<', kind} + std::to_string(sizeof(T));
}

/// What stands before the data of a row-major array in a .npy file of format 1.0. Throws FileError for an array of too
/// many dimensions; `name` is the file's.
[[gnu::cold]] inline std::string npy_begin(const std::string& type, std::span<const std::size_t> extents,
                                           const std::string& name) {
  std::string shape;
  for (const auto extent : extents) shape += std::to_string(extent) + ", ";
  if (extents.size() > 1) shape.resize(shape.size() - 2);  // "(3, 4)", but "(3, )"
  std::string header = "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" + shape + "), }";
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');  // data begin at a multiple of 64
  header += '\n';
  if (header.size() > UINT16_MAX) fail<FileError>(name, ": too many dimensions for .npy");
  std::string begin(npy_magic);
  begin += {1, 0, static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  return begin + header;
}

}  // namespace tinymoe::inline v0_1::detail
