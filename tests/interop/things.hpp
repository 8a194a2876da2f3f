#pragma once
/// @file
/// How judges exchange things with their testers: files that have the bytes of each thing after their number, u32.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>

namespace tinymoe_interop {

/// Calls f(bytes, put) for each thing of a file; `put` writes one to another file.
template <class F>
void for_each_thing(const char* from, const char* to, F&& f) {
  std::ifstream in(from, std::ios::binary);
  const std::string all{std::istreambuf_iterator<char>(in), {}};
  std::ofstream out(to, std::ios::binary);
  if (!in || !out) throw std::runtime_error(std::string("cannot open ") + from + " or " + to);
  const auto put = [&](const auto& values) {
    const auto bytes = static_cast<std::uint32_t>(values.size() * sizeof(values[0]));
    out.write(reinterpret_cast<const char*>(&bytes), sizeof bytes);
    out.write(reinterpret_cast<const char*>(values.data()), bytes);
  };
  for (std::size_t at = 0; at < all.size();) {
    std::uint32_t size = 0;
    std::memcpy(&size, all.data() + at, sizeof size);
    f(std::string_view(all).substr(at + sizeof size, size), put);
    at += sizeof size + size;
  }
}

}  // namespace tinymoe_interop
