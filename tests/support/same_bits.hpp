#pragma once
// Equality of results to the last bit.

#include <cstring>
#include <vector>

namespace tinymoe_test {

/// Whether two results are the same to the last bit.
template <class T>
[[gnu::noinline]] bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace tinymoe_test
