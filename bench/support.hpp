#pragma once
/// @file
/// What the benchmark programs share: medians, peak memory, random tokens, rows of the table that scripts/bench.sh
/// gathers, and AdamW's pass by itself.

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "limits.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/train/optimizer.hpp"

namespace bench {

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// The greatest memory that this process has held, in bytes, as the kernel counts it (VmHWM); 0 where it does not say.
inline double peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    double kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return 1024 * kilobytes;
  }
  return 0;
}

/// Tokens that no cache and no branch can foresee.
inline std::vector<tinymoe::Token> random_tokens(Index count, Index vocabulary, std::uint64_t seed) {
  const tinymoe::RandomStream stream(tinymoe::Seed{seed}, 0, tinymoe::RandomSite::batches);
  std::vector<tinymoe::Token> tokens(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<tinymoe::Token>(tinymoe::random_below(stream, i, static_cast<std::uint64_t>(vocabulary)));
  }
  return tokens;
}

/// One row of the table of results. scripts/bench.sh finds it by its first character and reads its columns:
/// | figure | measured | limit | share |
inline void print_row(const std::string& figure, double measured, const char* unit, double limit = 0,
                      int decimals = 1) {
  std::printf("| %s | %.*f %s |", figure.c_str(), decimals, measured, unit);
  if (limit > 0) {
    std::printf(" %.*f %s | %.0f %% |\n", decimals, limit, unit, 100 * measured / limit);
  } else {
    std::printf(" | |\n");
  }
  std::fflush(stdout);
}

/// The same for a duration, of which less is better.
inline void print_time_row(const std::string& figure, double measured, const char* unit, double limit = 0,
                           int decimals = 1) {
  std::printf("| %s | %.*f %s |", figure.c_str(), decimals, measured, unit);
  if (limit > 0) {
    std::printf(" %.*f %s | %.0f %% |\n", decimals, limit, unit, 100 * limit / measured);
  } else {
    std::printf(" | |\n");
  }
  std::fflush(stdout);
}

/// The pass of AdamW over weights, gradients and moments, apart from any model.
class OptimizerPass {
 public:
  OptimizerPass(tinymoe::Cpu& cpu, Index size, const std::vector<tinymoe::Chunk>& chunks) : cpu_(&cpu), size_(size) {
    using tinymoe::Memory;
    for (Memory& memory : arrays_) {
      memory = cpu.allocate(static_cast<std::size_t>(size) * sizeof(float));
      cpu.launch((size + block - 1) / block, Touch{memory.as<float>().data, size});
    }
    chunks_ = cpu.allocate(chunks.size() * sizeof(tinymoe::Chunk));
    cpu.copy_to_device(chunks_.bytes(), chunks.data(), chunks.size() * sizeof(tinymoe::Chunk));
    norms_ = cpu.allocate((chunks.size() + 2) * sizeof(float));
    at_.weights = row(0), at_.gradients = row(1), at_.moments = {row(2), row(3)};
    at_.chunks = {chunks_.as<tinymoe::Chunk>().data, 1, std::ssize(chunks)};
    at_.clip = {norms_.as<float>().data, 1, 2};
    at_.rate = 1e-4;
  }

  /// The norm of all gradients and the factor that clips it.
  void norm() {
    float* norms = norms_.as<float>().data;
    cpu_->launch(at_.chunks.cols, tinymoe::kernels::SquaredSum<float>{row(1).data, at_.chunks.data, norms + 2});
    cpu_->launch(1, tinymoe::kernels::ClipScale<float>{norms + 2, at_.chunks.cols, 1.0, norms});
  }
  void step() {
    tinymoe::AdamW{}.step(*cpu_, at_);
    ++at_.step;
  }

  /// Weights, gradients and two moments, each read and written.
  static constexpr double step_bytes = 32;
  static constexpr double norm_bytes = 4;
  Index size() const { return size_; }

 private:
  static constexpr Index block = tinymoe::Chunk::largest;
  struct Touch {
    float* data;
    Index size;
    template <class Group>
    void operator()(Group, Index part) const {
      std::fill(data + part * block, data + std::min(size, (part + 1) * block), 1e-3f);
    }
  };
  tinymoe::View<float> row(std::size_t i) const { return {arrays_[i].as<float>().data, 1, size_}; }

  tinymoe::Cpu* cpu_;
  Index size_;
  std::array<tinymoe::Memory, 4> arrays_;
  tinymoe::Memory chunks_, norms_;
  tinymoe::OptimizerStep<tinymoe::Cpu> at_;
};

}  // namespace bench
