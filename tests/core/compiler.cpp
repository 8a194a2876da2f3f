// The compiler's flags of this project, which come with tinymoe::tinymoe, must not break this.

#include <cstring>

#include "support/catch.hpp"
#include "tinymoe/cpu/amx_tiles.hpp"
#include "tinymoe/cpu/instructions.hpp"

namespace {

// Each copies one constant to two places, as std::vector does when it is built from a list twice.
#define TINYMOE_TEST_COPY(NAME, TARGET)                      \
  [[gnu::noinline]] TARGET void NAME(double* a, double* b) { \
    const double constant[4] = {90, 90, 0, 0};               \
    std::memcpy(a, constant, sizeof constant);               \
    std::memcpy(b, constant, sizeof constant);               \
  }
TINYMOE_TEST_COPY(copy_constant, )
#ifdef TINYMOE_TARGET_AVX512
TINYMOE_TEST_COPY(copy_by_avx2, TINYMOE_TARGET_AVX2)
TINYMOE_TEST_COPY(copy_by_avx512, TINYMOE_TARGET_AVX512)
TINYMOE_TEST_COPY(copy_by_vnni, TINYMOE_TARGET_VNNI)
#endif
#ifdef TINYMOE_AMX
TINYMOE_TEST_COPY(copy_by_amx, TINYMOE_TARGET_AMX)
#endif

void check(void (*copy)(double*, double*)) {
  double a[4], b[4];
  copy(a, b);
  for (const double* copied : {a, b}) {
    CHECK(copied[0] == 90);
    CHECK(copied[1] == 90);
    CHECK(copied[2] == 0);
    CHECK(copied[3] == 0);
  }
}

}  // namespace

// g++ 12.2 at -O2, where it may move 32 bytes at once: without -mmove-max=128 -mstore-max=128 it is 90, 90, 90, 90.
TEST_CASE("the compiler copies a constant as it is", "[compiler]") {
  using tinymoe::CpuInstructions;
  using tinymoe::detail::cpu::usable;
  check(copy_constant);
#ifdef TINYMOE_TARGET_AVX512
  if (usable(CpuInstructions::avx2)) check(copy_by_avx2);
  if (usable(CpuInstructions::avx512)) check(copy_by_avx512);
  if (usable(CpuInstructions::vnni)) check(copy_by_vnni);
#endif
#ifdef TINYMOE_AMX
  if (usable(CpuInstructions::amx)) check(copy_by_amx);
#endif
}
