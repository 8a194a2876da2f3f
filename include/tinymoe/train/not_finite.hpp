#pragma once
/// @file
/// Where the numbers of a failed step stop being finite. It is looked for after the step, and costs nothing before.

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/files/stored_type.hpp"

namespace tinymoe::inline v0_1::detail {

/// Whether all numbers of a view on a backend are finite. Adds their squares to `squares`.
template <class T, Backend B>
[[gnu::cold]] bool all_finite(B& backend, View<T> x, double& squares) {
  using Number = std::remove_const_t<T>;
  const bool one_piece = x.stride == x.cols;
  const Index all = one_piece ? x.rows * x.cols : x.cols;
  std::vector<Number> piece(static_cast<std::size_t>(std::min(all, Index{1} << 18)));
  for (Index row = 0; row < (one_piece ? std::min<Index>(1, x.rows) : x.rows); ++row) {
    for (Index at = 0; at < all; at += std::ssize(piece)) {
      const auto count = static_cast<std::size_t>(std::min(std::ssize(piece), all - at));
      backend.copy_to_host(piece.data(), x.data + row * x.stride + at, count * sizeof(Number));
      for (std::size_t i = 0; i < count; ++i) {
        const auto number = static_cast<double>(piece[i]);
        if (!is_finite(number)) return false;
        squares += number * number;
      }
    }
  }
  return true;
}

/// The first result of a forward pass that is not finite, in words. Give it to `Transformer::forward_and_look`.
template <Backend B>
class FirstFault {
 public:
  explicit FirstFault(B& backend) : backend_(&backend) {}

  /// `layer`: the number of the layer; negative: the operation is in none.
  template <class T>
  [[gnu::cold]] void operator()(const char* operation, Index layer, View<T> result) {
    double squares = 0;
    if (!place_.empty() || all_finite(*backend_, result, squares)) return;
    place_ = operation;
    if (layer >= 0) place_ += sentence_of({" of model.layers.", layer});
  }

  /// "the attention of model.layers.2"; empty: all was finite.
  const std::string& place() const { return place_; }

 private:
  B* backend_;
  std::string place_;
};

/// The first gradient that is not finite, in the order of backward: "the gradient of model.norm.weight". Empty if all
/// are, and the sum of their squares.
template <class Weights, Backend B>
[[gnu::cold]] std::string fault_of_gradients(B& backend, View<typename B::Master> gradients) {
  double squares = 0;
  const auto tensors = disk_tensors<Weights>();  // in the order of the layers
  for (std::size_t i = tensors.size(); i-- > 0;) {
    const View<typename B::Master> values{gradients.data + tensors[i].offset, 1, tensors[i].size};
    if (!all_finite(backend, values, squares)) return "the gradient of " + tensors[i].name;
  }
  const bool fits = squares <= static_cast<double>(std::numeric_limits<typename B::Master>::max());
  return fits ? "" : "the sum of the gradients' squares";
}

}  // namespace tinymoe::inline v0_1::detail
