#pragma once
/// @file
/// The limits of this machine. Each program measures them itself before it prints shares of them, because machines are
/// noisy and limits measured earlier may be wrong.
///
/// - `fma`: float32 multiply-adds in registers, in enough independent chains to hide their latency; two operations
/// each.
/// - `read`: the sum of a buffer; bytes read.
/// - `triad`: a = b + s·c, as STREAM (McCalpin 1995); two reads and a write, without the reads that caches do for a
/// write.
/// - `update`: four arrays, each read and written, the memory traffic of AdamW; bytes read and bytes written.
///
/// The buffer is far larger than the last-level cache, which may have hundreds of megabytes. Each figure is the best of
/// several tries, because a limit is the speed of an undisturbed machine.

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "programs/measure.hpp"
#include "tinymoe/backend/cpu.hpp"

namespace bench {

using tinymoe::Index;

/// The minimum of `tries` durations of f().
template <class F>
double best_seconds(int tries, F&& f) {
  double best = programs::seconds_of(f);
  for (int i = 1; i < tries; ++i) best = std::min(best, programs::seconds_of(f));
  return best;
}

/// Calls f(thread) on as many threads as tinymoe's backend uses, so that the limit is of the same hardware.
template <class F>
void on_all_threads(int threads, F&& f) {
#pragma omp parallel for schedule(static, 1) num_threads(threads)
  for (int thread = 0; thread < threads; ++thread) f(thread);
}

namespace detail {

// The widest vector that this program was compiled for, as GCC and Clang spell it on every machine.
#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64, vector_registers = 32;
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32, vector_registers = 16;
#elif defined(__aarch64__)
inline constexpr int vector_bytes = 16, vector_registers = 32;
#else
inline constexpr int vector_bytes = 16, vector_registers = 16;
#endif
using Vector = float __attribute__((vector_size(vector_bytes)));
inline constexpr Index lanes = vector_bytes / static_cast<int>(sizeof(float));

inline Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, __builtin_assume_aligned(from, vector_bytes), sizeof v);
  return v;
}
inline void store(float* to, Vector v) { std::memcpy(__builtin_assume_aligned(to, vector_bytes), &v, sizeof v); }

/// Keeps the compiler from removing the computation of `value`.
inline void keep(float value) {
  [[maybe_unused]] static thread_local volatile float sink;
  sink = value;
}

inline float horizontal_sum(Vector v) {
  float total = 0;
  for (Index i = 0; i < lanes; ++i) total += v[i];
  return total;
}

/// `rounds` multiply-adds in each chain. Two units with a latency of four or five cycles need ten chains. Two registers
/// stay free for the factors, so that no chain is spilled.
inline constexpr int chains = vector_registers == 32 ? 20 : 12;
inline float multiply_adds(Index rounds, float factor, float summand) {
  const Vector a = Vector{} + factor, b = Vector{} + summand;
  Vector x[chains];
#pragma GCC unroll 20
  for (int c = 0; c < chains; ++c) x[c] = b * static_cast<float>(c);
  for (Index r = 0; r < rounds; ++r) {
#pragma GCC unroll 20
    for (int c = 0; c < chains; ++c) x[c] = x[c] * a + b;
  }
  Vector total{};
#pragma GCC unroll 20
  for (int c = 0; c < chains; ++c) total += x[c];
  return horizontal_sum(total);
}

/// The sum of n floats, read in `streams` places at once.
template <int streams>
float sum_of(const float* data, Index n) {
  const Index part = n / streams / (4 * lanes) * (4 * lanes);
  Vector total[streams * 4] = {};
  for (Index i = 0; i < part; i += 4 * lanes) {
    for (int s = 0; s < streams; ++s) {
      for (int j = 0; j < 4; ++j) total[s * 4 + j] += load(data + s * part + i + j * lanes);
    }
  }
  Vector all{};
  for (const Vector& v : total) all += v;
  return horizontal_sum(all);
}

inline void triad(float* a, const float* b, const float* c, Index n, float s) {
  for (Index i = 0; i + lanes <= n; i += lanes) store(a + i, load(b + i) + s * load(c + i));
}

inline void update(float* a, float* b, float* c, float* d, Index n, float s) {
  for (Index i = 0; i + lanes <= n; i += lanes) {
    const Vector sum = (load(a + i) + load(b + i)) + (load(c + i) + load(d + i));
    store(a + i, sum * s);
    store(b + i, sum);
    store(c + i, sum - s);
    store(d + i, sum + s);
  }
}

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

/// float32 multiply-adds of all threads, in operations a second: the sum over the threads of the best burst of about a
/// millisecond, while the other threads work too. A single long run would be as slow as the most disturbed thread.
inline double measure_fma(int threads, int bursts = 60) {
  constexpr Index rounds = 1 << 18;
  volatile float factor = 0.5f, summand = 1.0f;  // volatile: the compiler must not know them; x stays below 50
  const float a = factor, b = summand;
  std::vector<double> seconds(static_cast<std::size_t>(threads));
  on_all_threads(threads, [&](int thread) {
    seconds[static_cast<std::size_t>(thread)] =
        best_seconds(bursts, [&] { detail::keep(detail::multiply_adds(rounds, a, b)); });
  });
  double rate = 0;
  for (const double best : seconds) rate += 2.0 * double(rounds) * detail::chains * double(detail::lanes) / best;
  return rate;
}

/// Bytes a second of all threads together.
struct MemoryLimits {
  double read = 0, triad = 0, update = 0;
};

inline MemoryLimits measure_memory(tinymoe::Cpu& cpu, int tries = 4, Index bytes = detail::buffer_bytes()) {
  const int threads = cpu.threads();
  // Each thread touches its own part first. Thirds and quarters of a part are aligned.
  const Index part = bytes / static_cast<Index>(sizeof(float)) / threads / 3072 * 3072, total = part * threads;
  const auto memory = cpu.allocate(static_cast<std::size_t>(total) * sizeof(float));
  float* const data = memory.as<float>().data;
  const auto for_each_part = [&](auto f) { on_all_threads(threads, [&](int thread) { f(data + thread * part); }); };
  for_each_part([&](float* p) { std::fill(p, p + part, 1.0f); });
  const double size = double(total) * sizeof(float);
  MemoryLimits limits;
  const double one =
      best_seconds(tries, [&] { for_each_part([&](float* p) { detail::keep(detail::sum_of<1>(p, part)); }); });
  const double four =
      best_seconds(tries, [&] { for_each_part([&](float* p) { detail::keep(detail::sum_of<4>(p, part)); }); });
  limits.read = size / std::min(one, four);
  const Index third = part / 3, quarter = part / 4;
  limits.triad = size / best_seconds(tries, [&] {
                   for_each_part([&](float* p) { detail::triad(p, p + third, p + 2 * third, third, 0.5f); });
                 });
  limits.update = 2 * size / best_seconds(tries, [&] {
                    for_each_part([&](float* p) {
                      detail::update(p, p + quarter, p + 2 * quarter, p + 3 * quarter, quarter, 0.25f);
                    });
                  });
  return limits;
}

}  // namespace bench
