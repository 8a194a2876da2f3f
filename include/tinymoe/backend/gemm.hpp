#pragma once
/// @file
/// Eigen's blocked matrix product, called on row-major blocks with packing memory that is allocated once.
///
/// Eigen's expressions would allocate their packing buffers in every product; its kernel takes them from outside.

#include <Eigen/Core>
#include <cassert>
#include <cstdint>
#include <vector>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1::detail {

/// Whether an operand is used as it lies in memory or transposed.
enum class Use { plain, transposed };

/// The packing buffers and block sizes of one thread's products. A block of the packed left operand, `mc` × `kc`,
/// should stay in the second-level cache while the right operand streams through the first.
class Packing : public Eigen::internal::level3_blocking<float, float> {
 public:
  static constexpr Index max_rows = 480, max_cols = 1024, max_depth = 256;

  Packing() : left_(max_rows * max_depth + 16), right_(max_cols * max_depth + 16) {
    this->m_blockA = aligned(left_);
    this->m_blockB = aligned(right_);
  }
  Packing(const Packing&) = delete;

  /// Cuts each size into equal blocks of limited size, so that the last block is not much smaller than the others.
  void set(Index rows, Index cols, Index depth) {
    this->m_mc = block(rows, max_rows, 48);
    this->m_nc = block(cols, max_cols, 4);
    this->m_kc = block(depth, max_depth, 8);
  }

 private:
  static Index block(Index size, Index most, Index multiple) {
    const Index pieces = (size + most - 1) / most;
    const Index even = (size + pieces - 1) / pieces;
    return (even + multiple - 1) / multiple * multiple;
  }
  static float* aligned(std::vector<float>& memory) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    return reinterpret_cast<float*>((address + 63) / 64 * 64);
  }

  std::vector<float> left_, right_;
};

/// c (M, N) += alpha · op(a) op(b), op(a) (M, K), op(b) (K, N); one thread. All row-major with strides.
template <Use use_a, Use use_b>
void gemm(float alpha, View<const float> a, View<const float> b, View<float> c, Packing& packing) {
  const Index depth = use_a == Use::plain ? a.cols : a.rows;
  assert((use_a == Use::plain ? a.rows : a.cols) == c.rows);
  assert((use_b == Use::plain ? b.cols : b.rows) == c.cols);
  assert((use_b == Use::plain ? b.rows : b.cols) == depth);
  if (c.rows == 0 || c.cols == 0 || depth == 0) return;
  // Eigen's kernel writes column-major: cᵀ = op(b)ᵀ op(a)ᵀ, where a row-major matrix is its own transpose.
  constexpr int order_a = use_a == Use::plain ? Eigen::ColMajor : Eigen::RowMajor;
  constexpr int order_b = use_b == Use::plain ? Eigen::ColMajor : Eigen::RowMajor;
  using Product = Eigen::internal::general_matrix_matrix_product<Index, float, order_b, false, float, order_a, false,
                                                                 Eigen::ColMajor, 1>;
  packing.set(c.cols, c.rows, depth);
  Product::run(c.cols, c.rows, depth, b.data, b.stride, a.data, a.stride, c.data, 1, c.stride, alpha, packing, nullptr);
}

}  // namespace tinymoe::inline v0_1::detail
