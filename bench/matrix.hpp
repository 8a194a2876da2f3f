#pragma once
/// @file
/// Matrices of small random numbers on the host, for products by themselves.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "tinymoe/backend/host_memory.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"

namespace bench {

template <class T>
class Matrix {
 public:
  using Index = tinymoe::Index;

  Matrix(Index rows, Index cols)
      : memory_(tinymoe::detail::allocate_host_memory(static_cast<std::size_t>(rows * cols) * sizeof(T))),
        view_(memory_.as<T>().data, rows, cols) {
    const tinymoe::RandomStream stream(tinymoe::Seed{static_cast<std::uint64_t>(rows * 7919 + cols)}, 0,
                                       tinymoe::RandomSite{});
    for (Index i = 0; i < view_.size(); i += 4) {
      const auto words = tinymoe::detail::random_words(stream, static_cast<std::uint64_t>(i));
      for (Index j = i; j < std::min(i + 4, view_.size()); ++j) {
        view_.data[j] = T((float(words[static_cast<std::size_t>(j - i)]) * 0x1p-32f - 0.5f) * 0.25f);
      }
    }
  }
  operator tinymoe::View<T>() const { return view_; }
  operator tinymoe::View<const T>() const { return view_; }
  tinymoe::View<T> view() const { return view_; }

 private:
  tinymoe::Memory memory_;
  tinymoe::View<T> view_;
};

}  // namespace bench
