#pragma once
/// @file
/// The instruction sets that the CPU's kernels are written for, and the one place that chooses among them at run time:
/// an option of `Cpu`, else the environment variable TINYMOE_CPU, else the best that processor and system have.
///
/// A kernel of a wider set is a function with TINYMOE_TARGET_AVX2 or TINYMOE_TARGET_AVX512 before it, so one program
/// without `-march` has all of them. They are defined where there are such sets: for GCC and Clang on x86-64.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "tinymoe/core/error.hpp"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__)) && !defined(__CUDACC__)
#define TINYMOE_AVX2_FEATURES "avx2,fma,f16c"
#define TINYMOE_TARGET_AVX2 __attribute__((target(TINYMOE_AVX2_FEATURES)))
// AVX-512 with more features of a processor (",…", or "").
#define TINYMOE_AVX512_FEATURES(MORE) TINYMOE_AVX2_FEATURES ",avx512f,avx512bw,avx512dq,avx512vl,avx512cd" MORE
#if defined(__clang__)
#define TINYMOE_TARGET_AVX512_AND(MORE) __attribute__((target(TINYMOE_AVX512_FEATURES(MORE)), min_vector_width(512)))
#else
#define TINYMOE_TARGET_AVX512_AND(MORE) \
  __attribute__((target(TINYMOE_AVX512_FEATURES(MORE) ",prefer-vector-width=512")))
#endif
#define TINYMOE_TARGET_AVX512 TINYMOE_TARGET_AVX512_AND("")
#define TINYMOE_TARGET_VNNI TINYMOE_TARGET_AVX512_AND(",avx512vnni")
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace tinymoe::inline v0_1 {

/// Instruction sets of a CPU, each with all of those before it. `baseline` is what the compiler was told to use, SSE2
/// on x86-64 without `-march`. `avx2` has FMA and F16C, `avx512` has F, BW, DQ, VL and CD, `vnni` AVX-512's products of
/// bytes, and `amx` the bfloat16 and int8 tiles.
enum class CpuInstructions { baseline, avx2, avx512, vnni, amx };

namespace detail::cpu {

/// What the compiler may use everywhere in this program: no kernel runs below it, and none is compiled for less.
#if defined(TINYMOE_TARGET_AVX512) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__) && defined(__AVX512CD__)
inline constexpr CpuInstructions compiled_for = CpuInstructions::avx512;
#elif defined(TINYMOE_TARGET_AVX2) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
inline constexpr CpuInstructions compiled_for = CpuInstructions::avx2;
#else
inline constexpr CpuInstructions compiled_for = CpuInstructions::baseline;
#endif

/// All of them, in their order.
inline constexpr CpuInstructions every_set[] = {CpuInstructions::baseline, CpuInstructions::avx2,
                                                CpuInstructions::avx512, CpuInstructions::vnni, CpuInstructions::amx};

constexpr const char* name_of(CpuInstructions set) {
  constexpr const char* names[] = {"baseline", "AVX2", "AVX-512", "AVX-512 VNNI", "AMX"};
  return names[static_cast<int>(set)];
}

/// The word for TINYMOE_CPU.
constexpr const char* word_of(CpuInstructions set) {
  constexpr const char* words[] = {"baseline", "avx2", "avx512", "vnni", "amx"};
  return words[static_cast<int>(set)];
}

/// The name of a CPU whose products use one set, and its row kernels perhaps another.
[[gnu::noinline, gnu::cold]] inline std::string cpu_name_of(CpuInstructions products, CpuInstructions rows) {
  const bool alike = std::min(products, CpuInstructions::avx512) == rows;
  return std::string("cpu, ") + name_of(products) + (alike ? "" : std::string(", row kernels ") + name_of(rows));
}

#if defined(TINYMOE_TARGET_AVX512)

/// The registers a, b, c and d that CPUID fills; zeros for a leaf that the processor does not know.
struct CpuId {
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
  CpuId(std::uint32_t leaf, std::uint32_t subleaf) {
    std::uint32_t last = 0;
    asm("cpuid" : "=a"(last), "=b"(b), "=c"(c), "=d"(d) : "a"(0), "c"(0));
    a = b = c = d = 0;
    if (leaf <= last) asm("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(subleaf));
  }
};

/// Whether the processor has AMX's tiles, bfloat16 and int8, and AVX512-BF16 beside them, and the system saves them.
inline bool has_amx() {
#if defined(__linux__)
  constexpr std::uint32_t has_xgetbv = 1u << 27, has_bfloat16 = 1u << 5;
  constexpr std::uint32_t instructions = 1u << 22 | 1u << 24 | 1u << 25, state = 3u << 17;
  if ((CpuId(1, 0).c & has_xgetbv) == 0 || (CpuId(7, 0).d & instructions) != instructions) return false;
  if ((CpuId(7, 1).a & has_bfloat16) == 0) return false;
  std::uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & state) == state;
#else
  return false;
#endif
}

/// Whether this process may use the tiles, for which Linux wants to be asked (Documentation/arch/x86/xstate.rst). It
/// asks once, and only for a backend that executes them: a process that has the permission needs larger signal stacks.
[[gnu::noinline, gnu::cold]] inline bool may_use_tiles() {
#if defined(__linux__)
  constexpr long request_permission = 0x1023, tile_data = 18;
  static const bool granted = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return granted;
#else
  return false;
#endif
}

/// The best set that the processor has and the system supports.
[[gnu::noinline]] inline CpuInstructions of_processor() {
  static const CpuInstructions found = [] {
    __builtin_cpu_init();
    constexpr std::uint32_t f16c = 1u << 29;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || (CpuId(1, 0).c & f16c) == 0) {
      return CpuInstructions::baseline;
    }
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512cd")) {
      return CpuInstructions::avx2;
    }
    constexpr std::uint32_t vnni = 1u << 11;
    if ((CpuId(7, 0).c & vnni) == 0) return CpuInstructions::avx512;
    return has_amx() ? CpuInstructions::amx : CpuInstructions::vnni;
  }();
  return found;
}

#else
inline CpuInstructions of_processor() { return CpuInstructions::baseline; }
inline bool may_use_tiles() { return false; }
#endif

/// The set, or the next lesser one where it is AMX and the system refuses it. Only for AMX is `ask` called.
template <class Ask>
CpuInstructions permitted(CpuInstructions set, Ask ask) {
  return set == CpuInstructions::amx && !ask() ? CpuInstructions::vnni : set;
}

/// The best set that can be used here. Without `tiles` the kernels of AMX are those of VNNI, and no permission is asked
/// for.
inline CpuInstructions best(bool tiles = true) {
  return tiles ? permitted(of_processor(), may_use_tiles) : of_processor();
}

/// Whether kernels for the set can run here.
inline bool usable(CpuInstructions set) { return set <= best(set == CpuInstructions::amx); }

/// The set to use: `asked`, else what TINYMOE_CPU says, else the best one, for a backend that executes AMX's tiles or
/// does not. Throws OptionError for another word, and for a set that cannot be used here.
[[gnu::noinline, gnu::cold]] inline CpuInstructions chosen(std::optional<CpuInstructions> asked, bool tiles = true) {
  std::string_view asker = "CpuOptions::instructions";
  if (!asked) {
    const char* variable = std::getenv("TINYMOE_CPU");
    const std::string_view word = variable == nullptr ? "" : variable;
    if (word.empty()) return best(tiles);
    for (const auto set : every_set) {
      if (word == word_of(set)) asked = set;
    }
    asker = "TINYMOE_CPU";
    if (!asked) fail<OptionError>("TINYMOE_CPU must be baseline, avx2, avx512, vnni or amx, found \"", word, "\"");
  }
  if (*asked > best(tiles && *asked == CpuInstructions::amx)) {
    fail<OptionError>(asker, " asks for ", name_of(*asked), ", which this processor or system lacks; ask for ",
                      word_of(best(tiles)), " or less");
  }
  return *asked;
}

}  // namespace detail::cpu

}  // namespace tinymoe::inline v0_1
