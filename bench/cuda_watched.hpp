#pragma once
/// @file
/// A watched Cuda backend, with its optional capabilities and its clock.

#include <cstddef>
#include <cstdint>
#include <functional>

#include "tinymoe/backend/cuda.hpp"
#include "watched.hpp"

namespace bench {

template <class B>
class WatchedCuda : public Watched<B> {
 public:
  using typename Watched<B>::Scalar;
  using Recording = typename B::Recording;
  static constexpr std::size_t logit_bytes = B::logit_bytes;
  static constexpr Index max_recorded_pairs = B::max_recorded_pairs, max_fused_pairs = B::max_fused_pairs;

  using Watched<B>::Watched;

  void upload(void* to, const void* from, std::size_t bytes) { backend_->upload(to, from, bytes); }
  double milliseconds(const std::function<void()>& work) { return backend_->milliseconds(work); }

  template <class F>
  void replay(Recording& recording, F&& work) {
    if (what_ == Watch::operations) return work();
    if (what_ == Watch::nothing) return backend_->replay(recording, work);
    replays_.push_back(backend_->milliseconds([&] { backend_->replay(recording, work); }));
  }

  template <class Choose>
  void route(View<const Scalar> x, View<const Scalar> w, View<const Scalar> bias, View<Scalar> logits,
             const Choose& choose, View<const std::int32_t> selected, tinymoe::Dispatch& dispatch) {
    this->run(
        [&] {
          return this->product("logits, choices and sort", bytes_of(x) + bytes_of(w) + bytes_of(logits), x, w.rows);
        },
        [&] { backend_->route(x, w, bias, logits, choose, selected, dispatch); });
  }
  template <class Rotate, class Attend>
  bool rotate_and_attend(const Rotate& rotate, const Attend& attend) {
    if (!backend_->rotate_and_attend(rotate, attend)) return false;  // nothing was done
    if (what_ != Watch::operations) return true;
    this->run([] { return Work{"turn, store and attend to the cache"}; },
              [&] { backend_->rotate_and_attend(rotate, attend); });
    return true;
  }

 private:
  using Watched<B>::backend_;
  using Watched<B>::what_;
  using Watched<B>::replays_;
};

static_assert(tinymoe::Backend<WatchedCuda<tinymoe::Cuda>> && tinymoe::Backend<WatchedCuda<tinymoe::CudaBfloat16>>);
// A watched backend must have the optional capabilities of the backend inside.
static_assert(tinymoe::UploadingBackend<WatchedCuda<tinymoe::Cuda>> &&
              tinymoe::RecordingBackend<WatchedCuda<tinymoe::Cuda>> &&
              tinymoe::RoutingBackend<WatchedCuda<tinymoe::Cuda>> &&
              tinymoe::LogitChunkBackend<WatchedCuda<tinymoe::Cuda>> &&
              tinymoe::RotatingAttentionBackend<WatchedCuda<tinymoe::Cuda>>);

}  // namespace bench
