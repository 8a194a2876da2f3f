#pragma once
/// @file
/// The activations of a model's passes: what `Saved` plans, in one block of a backend's memory.

#include <cstddef>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/layers/pass.hpp"

namespace tinymoe::inline v0_1 {

/// The activations of passes of up to (batch, time), in one block planned at once.
template <class Arch, Backend B>
class Activations {
 public:
  using Saved = typename Arch::template Saved<typename B::Scalar, typename B::Master>;

  Activations(B& backend, Plan::Purpose purpose, const Pass& largest) {
    Plan measure(purpose);
    saved_.plan(measure, largest, backend);
    memory_ = backend.allocate(measure.bytes());
    Plan place(purpose, memory_.bytes(), measure);
    saved_.plan(place, largest, backend);
  }

  Saved& operator*() { return saved_; }
  Saved* operator->() { return &saved_; }
  std::size_t bytes() const { return memory_.size(); }

 private:
  Memory memory_;
  Saved saved_;
};

}  // namespace tinymoe::inline v0_1
