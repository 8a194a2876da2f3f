#pragma once
/// @file
/// The activations that a model's passes keep: `Saved` plans them in one block of a backend's memory.

#include <cstddef>
#include <utility>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/layers/pass.hpp"

namespace tinymoe::inline v0_1 {

/// The activations of passes up to the size of `largest`, in one block that is planned and allocated at once.
template <class Arch, Backend B>
class Activations {
 public:
  using Saved = typename Arch::template Saved<typename B::Scalar, typename B::Master>;

  /// `memory`: a block to use where it is large enough; else it is freed before a new one is allocated.
  Activations(B& backend, Plan::Purpose purpose, const Pass& largest, Memory memory = {}) : memory_(std::move(memory)) {
    Plan measure(purpose);
    saved_.plan(measure, largest, backend);
    if (memory_.size() < measure.bytes()) {
      memory_ = {};
      memory_ = backend.allocate(measure.bytes());
    } else {
      backend.zero(memory_.bytes(), measure.bytes());  // as allocated memory is
    }
    Plan place(purpose, memory_.bytes(), measure);
    saved_.plan(place, largest, backend);
  }

  Saved& operator*() { return saved_; }
  const Saved& operator*() const { return saved_; }
  Saved* operator->() { return &saved_; }
  std::size_t bytes() const { return memory_.size(); }
  /// Gives the block up, for other activations.
  Memory release() { return std::move(memory_); }

 private:
  Memory memory_;
  Saved saved_;
};

}  // namespace tinymoe::inline v0_1
