#pragma once
/// @file
/// Measuring in the example programs and benchmarks: time, memory, and random tokens as input.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <tinymoe/core/platform.hpp>
#include <tinymoe/core/random.hpp>
#include <vector>

namespace programs {

using tinymoe::Index;

/// Seconds that f() takes.
template <class F>
double seconds_of(F&& f) {
  const auto started = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
}

/// The median of one value or more.
inline double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// The peak memory of this process in bytes, as the kernel counts it (VmHWM); 0 where the kernel does not say.
inline Index peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    Index kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return 1024 * kilobytes;
  }
  return 0;
}

/// Random tokens, so that neither caches nor branch prediction profit from a pattern.
inline std::vector<tinymoe::Token> random_tokens(Index count, Index vocabulary, std::uint64_t seed) {
  const tinymoe::RandomStream stream(tinymoe::Seed{seed}, 0, tinymoe::RandomSite::named("programs: random tokens"));
  std::vector<tinymoe::Token> tokens(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<tinymoe::Token>(tinymoe::random_below(stream, i, static_cast<std::uint64_t>(vocabulary)));
  }
  return tokens;
}

}  // namespace programs
