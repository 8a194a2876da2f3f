#pragma once
/// @file
/// Shared by the benchmark programs: rows of the table that scripts/bench.sh collects, and AdamW's pass alone.

#include <array>
#include <cstddef>
#include <cstdio>
#include <iterator>
#include <string>
#include <type_traits>
#include <vector>

#include "limits.hpp"
#include "tinymoe/train/optimizer.hpp"

namespace bench {

/// One row of the table of results. scripts/bench.sh finds it by its first character and reads its columns:
/// | figure | measured | limit | share |. The share of a duration is limit / measured.
inline void print_row(const std::string& figure, double measured, const char* unit, double limit = 0, int decimals = 1,
                      bool duration = false) {
  std::printf("| %s | %.*f %s |", figure.c_str(), decimals, measured, unit);
  if (limit > 0) {
    std::printf(" %.*f %s | %.0f %% |\n", decimals, limit, unit,
                100 * (duration ? limit / measured : measured / limit));
  } else {
    std::printf(" | |\n");
  }
  std::fflush(stdout);
}
inline void print_time_row(const std::string& figure, double measured, const char* unit, double limit = 0,
                           int decimals = 1) {
  print_row(figure, measured, unit, limit, decimals, true);
}

/// The type of a backend's activations, as figures name it.
template <class B>
constexpr const char* type_name() {
  return std::is_same_v<typename B::Scalar, float> ? "float32" : "bfloat16";
}

/// The pass of AdamW over weights, gradients and moments, without a model. If layers read a narrower type, it writes
/// their copy too.
template <class B>
class OptimizerPass {
 public:
  using Scalar = typename B::Scalar;
  static constexpr bool has_copy = !std::is_same_v<Scalar, float>;

  OptimizerPass(B& backend, Index size, const std::vector<tinymoe::Chunk>& chunks) : backend_(&backend), size_(size) {
    using tinymoe::Memory;
    using Fill = tinymoe::kernels::Fill<float>;
    for (Memory& memory : arrays_) {
      memory = backend.allocate(static_cast<std::size_t>(size) * sizeof(float));
      backend.launch(tinymoe::kernels::chunk_count<Fill>(size), Fill{memory.template as<float>().data, size, 1e-3f});
    }
    if constexpr (has_copy) {
      copy_ = backend.allocate(static_cast<std::size_t>(size) * sizeof(Scalar));
      at_.copy = {copy_.template as<Scalar>().data, 1, size};
    }
    chunks_ = backend.allocate(chunks.size() * sizeof(tinymoe::Chunk));
    backend.copy_to_device(chunks_.bytes(), chunks.data(), chunks.size() * sizeof(tinymoe::Chunk));
    norms_ = backend.allocate((chunks.size() + 2) * sizeof(float));
    at_.weights = row(0), at_.gradients = row(1), at_.moments = {row(2), row(3)};
    at_.chunks = {chunks_.template as<tinymoe::Chunk>().data, 1, std::ssize(chunks)};
    at_.clip = {norms_.template as<float>().data, 1, 2};
    at_.rate = 1e-4;
  }

  /// The norm of all gradients and the factor that clips it.
  void norm() {
    float* norms = norms_.template as<float>().data;
    backend_->launch(at_.chunks.cols, tinymoe::kernels::SquaredSum<float>{row(1).data, at_.chunks.data, norms + 2});
    backend_->launch(1, tinymoe::kernels::ClipScale<float>{norms + 2, at_.chunks.cols, 1.0, norms});
  }
  void step() {
    tinymoe::AdamW{}.step(*backend_, at_);
    ++at_.step;
  }

  /// Weights, gradients and two moments, each read and written, and the copy written.
  static constexpr double step_bytes = 32 + (has_copy ? sizeof(Scalar) : 0);
  static constexpr double norm_bytes = 4;
  Index size() const { return size_; }

 private:
  tinymoe::View<float> row(std::size_t i) const { return {arrays_[i].template as<float>().data, 1, size_}; }

  B* backend_;
  Index size_;
  std::array<tinymoe::Memory, 4> arrays_;
  tinymoe::Memory copy_, chunks_, norms_;
  tinymoe::OptimizerStep<B> at_;
};

}  // namespace bench
