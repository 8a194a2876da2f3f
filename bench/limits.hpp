#pragma once
/// @file
/// The limits of this machine. Each program measures them itself before it prints shares of them, because machines are
/// noisy and limits measured earlier may be wrong.
///
/// - `fma`: float32 multiply-adds in registers, in enough independent chains to hide their latency; two operations
/// each.
/// - `bfloat16`: the matrix unit's products of tiles that it loads from the first-level cache (AMX). Without one,
/// numbers become float32 and the limit is `fma`'s.
/// - `integers`: products of bytes, added to sums of 32 bits (VNNI), where the processor has them.
/// - `read`: the sum of a buffer; bytes read.
/// - `triad`: a = b + s·c, as STREAM (McCalpin 1995); two reads and a write, without the reads that caches do for a
/// write.
/// - `update`: four arrays, each read and written, the memory traffic of AdamW; bytes read and bytes written.
///
/// The buffer is far larger than the last-level cache, which may have hundreds of megabytes. Each figure is the best of
/// several tries, because a limit is the speed of an undisturbed machine. The loops exist for each instruction set and
/// the best one is chosen at run time, so that a program's own flags change no limit.

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "programs/measure.hpp"
#include "tinymoe/backend/host_memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/cpu/amx_tiles.hpp"
#include "tinymoe/cpu/instructions.hpp"
#include "tinymoe/cpu/vectors.hpp"
#include "tinymoe/cpu/vnni.hpp"

namespace bench {

using tinymoe::Index;

/// The minimum of `tries` durations of f().
template <class F>
double best_seconds(int tries, F&& f) {
  double best = programs::seconds_of(f);
  for (int i = 1; i < tries; ++i) best = std::min(best, programs::seconds_of(f));
  return best;
}

/// Calls f(thread) on each of so many threads at once.
template <class F>
void on_all_threads(int threads, F&& f) {
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back([&f, thread] { f(thread); });
  f(0);
  for (std::thread& other : others) other.join();
}

namespace detail {

namespace cpu = tinymoe::detail::cpu;

/// Keeps the compiler from removing the computation of `value`.
inline void keep(float value) {
  [[maybe_unused]] static thread_local volatile float sink;
  sink = value;
}

template <int lanes>
TINYMOE_INLINE float horizontal_sum(const cpu::Floats<lanes>& v) {
  float total = 0;
  for (int i = 0; i < lanes; ++i) total += v[i];
  return total;
}

/// `rounds` multiply-adds in each chain. Two units with a latency of four or five cycles need ten chains. Two registers
/// stay free for the factors, so that no chain is spilled.
template <int lanes, int chains>
TINYMOE_INLINE float multiply_adds_of(Index rounds, float factor, float summand) {
  const cpu::Floats<lanes> a = cpu::Floats<lanes>{} + factor, b = cpu::Floats<lanes>{} + summand;
  cpu::Floats<lanes> x[chains];
#pragma GCC unroll 20
  for (int c = 0; c < chains; ++c) x[c] = b * static_cast<float>(c);
  for (Index r = 0; r < rounds; ++r) {
#pragma GCC unroll 20
    for (int c = 0; c < chains; ++c) x[c] = x[c] * a + b;
  }
  cpu::Floats<lanes> total{};
#pragma GCC unroll 20
  for (int c = 0; c < chains; ++c) total += x[c];
  return horizontal_sum<lanes>(total);
}

/// The sum of n floats, read in `streams` places at once.
template <int lanes, int streams>
TINYMOE_INLINE float sum_of(const float* data, Index n) {
  const Index part = n / streams / (4 * lanes) * (4 * lanes);
  cpu::Floats<lanes> total[streams * 4] = {}, one;
  for (Index i = 0; i < part; i += 4 * lanes) {
#pragma GCC unroll 4
    for (int s = 0; s < streams; ++s) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        cpu::load<lanes>(one, data + s * part + i + j * lanes);
        total[s * 4 + j] += one;
      }
    }
  }
  cpu::Floats<lanes> all{};
  for (const auto& each : total) all += each;
  return horizontal_sum<lanes>(all);
}

template <int lanes>
TINYMOE_INLINE void triad_of(float* a, const float* b, const float* c, Index n, float s) {
  cpu::Floats<lanes> x, y;
  for (Index i = 0; i + lanes <= n; i += lanes) {
    cpu::load<lanes>(x, b + i), cpu::load<lanes>(y, c + i);
    cpu::store<lanes>(a + i, x + s * y);
  }
}

template <int lanes>
TINYMOE_INLINE void update_of(float* a, float* b, float* c, float* d, Index n, float s) {
  cpu::Floats<lanes> w, x, y, z;
  for (Index i = 0; i + lanes <= n; i += lanes) {
    cpu::load<lanes>(w, a + i), cpu::load<lanes>(x, b + i), cpu::load<lanes>(y, c + i), cpu::load<lanes>(z, d + i);
    const cpu::Floats<lanes> sum = (w + x) + (y + z);
    cpu::store<lanes>(a + i, sum * s);
    cpu::store<lanes>(b + i, sum);
    cpu::store<lanes>(c + i, sum - s);
    cpu::store<lanes>(d + i, sum + s);
  }
}

/// The loops above for one instruction set.
struct LimitKernels {
  double round_operations;  // of a round of multiply_adds
  float (*multiply_adds)(Index rounds, float factor, float summand);
  float (*sum)(const float* data, Index n);
  float (*sum_of_four)(const float* data, Index n);  // in four places at once
  void (*triad)(float* a, const float* b, const float* c, Index n, float s);
  void (*update)(float* a, float* b, float* c, float* d, Index n, float s);
};

#define BENCH_LIMIT_KERNELS(NAME, TARGET, LANES, CHAINS)                                                     \
  struct NAME {                                                                                              \
    TARGET static float multiply_adds(Index rounds, float factor, float summand) {                           \
      return multiply_adds_of<LANES, CHAINS>(rounds, factor, summand);                                       \
    }                                                                                                        \
    TARGET static float sum(const float* data, Index n) { return sum_of<LANES, 1>(data, n); }                \
    TARGET static float sum_of_four(const float* data, Index n) { return sum_of<LANES, 4>(data, n); }        \
    TARGET static void triad(float* a, const float* b, const float* c, Index n, float s) {                   \
      triad_of<LANES>(a, b, c, n, s);                                                                        \
    }                                                                                                        \
    TARGET static void update(float* a, float* b, float* c, float* d, Index n, float s) {                    \
      update_of<LANES>(a, b, c, d, n, s);                                                                    \
    }                                                                                                        \
    static constexpr LimitKernels all{2.0 * LANES * CHAINS, multiply_adds, sum, sum_of_four, triad, update}; \
  };

#if defined(__aarch64__)
BENCH_LIMIT_KERNELS(BaselineLimits, , 4, 20)
#else
BENCH_LIMIT_KERNELS(BaselineLimits, , 4, 12)
#endif
#ifdef TINYMOE_TARGET_AVX512
BENCH_LIMIT_KERNELS(Avx2Limits, TINYMOE_TARGET_AVX2, 8, 12)
BENCH_LIMIT_KERNELS(Avx512Limits, TINYMOE_TARGET_AVX512, 16, 20)
#endif
#undef BENCH_LIMIT_KERNELS

/// Those of the instruction set that the backends use, whatever the program was compiled for.
inline const LimitKernels& limit_kernels() {
#ifdef TINYMOE_TARGET_AVX512
  const auto set = cpu::chosen({});
  if (set >= tinymoe::CpuInstructions::avx512) return Avx512Limits::all;
  if (set == tinymoe::CpuInstructions::avx2) return Avx2Limits::all;
#endif
  return BaselineLimits::all;
}

#ifdef TINYMOE_AMX
/// `rounds` steps of a product with 32 x 32 sums: four tiles of operands are loaded and multiplied with each other.
/// `operands`: 32 KB, which stay in the first-level cache.
TINYMOE_TARGET_AMX inline void multiply_tiles(Index rounds, const std::byte* operands) {
  namespace amx = cpu::amx;
  const amx::TileUse use;
  amx::set_zero<0>(), amx::set_zero<1>(), amx::set_zero<2>(), amx::set_zero<3>();
  for (Index r = 0; r < rounds; ++r) {
    const std::byte* at = operands + r % 8 * 4 * amx::tile_bytes;
    amx::load<4>(at, amx::line);
    amx::load<6>(at + amx::tile_bytes, amx::line);
    amx::multiply_add<0, 4, 6>();
    amx::load<7>(at + 2 * amx::tile_bytes, amx::line);
    amx::multiply_add<1, 4, 7>();
    amx::load<5>(at + 3 * amx::tile_bytes, amx::line);
    amx::multiply_add<2, 5, 6>();
    amx::multiply_add<3, 5, 7>();
  }
}
#endif

#ifdef TINYMOE_TARGET_AVX512
/// `rounds` times 64 products of bytes in each chain.
inline constexpr int byte_chains = 20;
TINYMOE_TARGET_VNNI inline float multiply_bytes(Index rounds) {
  using Words = cpu::SimdVector<std::int32_t, 16>::Type;
  const Words factors = Words{} + 0x01010101;
  Words sums[byte_chains] = {};
  for (Index r = 0; r < rounds; ++r) {
#pragma GCC unroll 20
    for (int c = 0; c < byte_chains; ++c) asm volatile("vpdpbusd %1, %1, %0" : "+v"(sums[c]) : "v"(factors));
  }
  Words total{};
#pragma GCC unroll 20
  for (int c = 0; c < byte_chains; ++c) total += sums[c];
  return static_cast<float>(total[0]);
}
#endif

/// Four times the last cache, but at least 1 GiB and at most 2 GiB or a quarter of the memory.
inline Index buffer_bytes() {
  constexpr Index gib = Index{1} << 30;
  Index bytes = gib;
#ifdef _SC_LEVEL3_CACHE_SIZE
  bytes = std::max(bytes, 4 * static_cast<Index>(::sysconf(_SC_LEVEL3_CACHE_SIZE)));
#endif
  const Index memory = static_cast<Index>(::sysconf(_SC_PHYS_PAGES)) * static_cast<Index>(::sysconf(_SC_PAGESIZE));
  return std::min({bytes, 2 * gib, std::max(memory / 4, gib)});
}

}  // namespace detail

/// Operations a second of all threads together: the sum over the threads of the best burst of about a millisecond,
/// while the other threads work too. A single long run would be as slow as the most disturbed thread. burst() does
/// `operations`.
template <class F>
double best_rate(int threads, double operations, F&& burst, int bursts = 60) {
  std::vector<double> seconds(static_cast<std::size_t>(threads));
  on_all_threads(threads, [&](int thread) { seconds[static_cast<std::size_t>(thread)] = best_seconds(bursts, burst); });
  double rate = 0;
  for (const double best : seconds) rate += operations / best;
  return rate;
}

inline double measure_fma(int threads) {
  constexpr Index rounds = 1 << 18;
  volatile float factor = 0.5f, summand = 1.0f;  // volatile: the compiler must not know them; x stays below 50
  const float a = factor, b = summand;
  const auto& kernels = detail::limit_kernels();
  return best_rate(threads, kernels.round_operations * double(rounds),
                   [&] { detail::keep(kernels.multiply_adds(rounds, a, b)); });
}

/// How the backends multiply numbers of bfloat16 here: on AMX tiles, or as float32.
inline const char* bfloat16_unit() {
  return detail::cpu::chosen({}) == tinymoe::CpuInstructions::amx ? "AMX" : "float32 multiply-adds";
}
/// Operations a second of bfloat16 products with float32 sums. `fma`: of float32, the limit where there is no AMX.
inline double measure_bfloat16([[maybe_unused]] int threads, double fma) {
#ifdef TINYMOE_AMX
  if (detail::cpu::chosen({}) == tinymoe::CpuInstructions::amx) {
    namespace amx = detail::cpu::amx;
    constexpr Index rounds = 1 << 15;
    struct alignas(64) Operands {
      std::byte tiles[32 * amx::tile_bytes];
    };
    const auto operands = std::make_unique<Operands>();
    constexpr double operations = 4.0 * 2 * amx::tile_rows * amx::tile_rows * amx::tile_depth;
    return best_rate(threads, operations * double(rounds), [&] { detail::multiply_tiles(rounds, operands->tiles); });
  }
#endif
  return fma;
}

/// How the backends multiply integer weights here.
inline const char* integer_unit() {
#ifdef TINYMOE_TARGET_AVX512
  if (detail::cpu::chosen({}) >= tinymoe::CpuInstructions::vnni) return "VNNI";
#endif
  return "float32 multiply-adds";
}
/// Operations a second of products of bytes; `fma`: the limit where there is no VNNI.
inline double measure_integers([[maybe_unused]] int threads, double fma) {
#ifdef TINYMOE_TARGET_AVX512
  if (detail::cpu::chosen({}) >= tinymoe::CpuInstructions::vnni) {
    constexpr Index rounds = 1 << 18;
    return best_rate(threads, 2.0 * 64 * detail::byte_chains * double(rounds),
                     [&] { detail::keep(detail::multiply_bytes(rounds)); });
  }
#endif
  return fma;
}

/// All of them, each the best that was found in this process.
struct ProductLimits {
  double fma = 0, bfloat16 = 0, integers = 0;

  /// Measures them, and keeps what is better.
  void measure(int threads) {
    fma = std::max(fma, measure_fma(threads));
    bfloat16 = std::max(bfloat16, measure_bfloat16(threads, fma));
    integers = std::max(integers, measure_integers(threads, fma));
  }
  /// The limit of products of numbers of type T.
  template <class T>
  double of() const {
    return std::is_same_v<T, float> ? fma : bfloat16;
  }
};

/// Bytes a second of all threads together.
struct MemoryLimits {
  double read = 0, triad = 0, update = 0;
};

inline MemoryLimits measure_memory(int threads, int tries = 4, Index bytes = detail::buffer_bytes()) {
  const auto& kernels = detail::limit_kernels();
  // Each thread touches its own part first. Thirds and quarters of a part are aligned.
  const Index part = bytes / static_cast<Index>(sizeof(float)) / threads / 3072 * 3072, total = part * threads;
  const auto memory = tinymoe::detail::allocate_host_memory(static_cast<std::size_t>(total) * sizeof(float));
  float* const data = memory.as<float>().data;
  const auto for_each_part = [&](auto f) { on_all_threads(threads, [&](int thread) { f(data + thread * part); }); };
  for_each_part([&](float* p) { std::fill(p, p + part, 1.0f); });
  const double size = double(total) * sizeof(float);
  MemoryLimits limits;
  const double one = best_seconds(tries, [&] { for_each_part([&](float* p) { detail::keep(kernels.sum(p, part)); }); });
  const double four =
      best_seconds(tries, [&] { for_each_part([&](float* p) { detail::keep(kernels.sum_of_four(p, part)); }); });
  limits.read = size / std::min(one, four);
  const Index third = part / 3, quarter = part / 4;
  limits.triad = size / best_seconds(tries, [&] {
                   for_each_part([&](float* p) { kernels.triad(p, p + third, p + 2 * third, third, 0.5f); });
                 });
  limits.update = 2 * size / best_seconds(tries, [&] {
                    for_each_part([&](float* p) {
                      kernels.update(p, p + quarter, p + 2 * quarter, p + 3 * quarter, quarter, 0.25f);
                    });
                  });
  return limits;
}

}  // namespace bench
