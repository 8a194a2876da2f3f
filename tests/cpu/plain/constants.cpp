// Row kernels in a program whose author gave none of the flags that g++ 12 needs (tests/core/compiler.cpp).

#include <algorithm>
#include <array>
#include <cstring>
#include <initializer_list>

#include "support/catch.hpp"
#include "tinymoe/cpu/launch.hpp"

namespace tinymoe_test::constants {

using namespace tinymoe;

namespace {

/// Copies a constant to two places: its first half is ones, the rest zeros.
template <class T, std::size_t size>
struct Copy {
  std::array<T, size>*one, *other;
  template <class Group>
  void operator()(Group, Index) const {
    std::array<T, size> constant = {};
    for (std::size_t i = 0; i < size / 2; ++i) constant[i] = 1;
    std::memcpy(one, &constant, sizeof constant);
    std::memcpy(other, &constant, sizeof constant);
  }
};

/// The same with a list, as an author writes it.
struct CopyList {
  std::array<double, 4>*one, *other;
  template <class Group>
  void operator()(Group, Index) const {
    const double constant[4] = {1, 1, 0, 0};
    std::memcpy(one, constant, sizeof constant);
    std::memcpy(other, constant, sizeof constant);
  }
};

template <class T, std::size_t size, class Kernel = Copy<T, size>>
bool is_right(CpuInstructions set) {
  std::array<T, size> one{}, other{}, expected{};
  std::fill_n(expected.begin(), size / 2, T(1));
  detail::cpu::run_rows(detail::cpu::set_of_rows(set), Kernel{&one, &other}, 0, 1);
  return one == expected && other == expected;
}

}  // namespace

TEST_CASE("a row kernel copies a constant as it is, by each instruction set", "[cpu]") {
  for (const auto set : {CpuInstructions::baseline, CpuInstructions::avx2, CpuInstructions::avx512}) {
    if (!detail::cpu::usable(set)) continue;
    CAPTURE(detail::cpu::name_of(set));
    CHECK(is_right<double, 4, CopyList>(set));
    CHECK(is_right<double, 4>(set));
    CHECK(is_right<float, 8>(set));
    CHECK(is_right<float, 16>(set));
  }
}

}  // namespace tinymoe_test::constants
