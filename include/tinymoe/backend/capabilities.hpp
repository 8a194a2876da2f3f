#pragma once
/// @file
/// Optional capabilities of a backend. Each is a concept. Beside it is the function by which the library uses the
/// capability or does without. Nothing else asks a backend for an optional member.
///
/// | concept | what it has |
/// |---|---|
/// | UploadingBackend | `upload`: a copy from the host that does not wait |
/// | SynchronisingBackend | `synchronise`: waits until all work is done |
/// | RecordingBackend | `Recording`, `replay`, `max_recorded_pairs`: work that is recorded and started as one |
/// | FewTokenBackend | `max_fused_pairs`: mixtures of few pairs decode in few, larger kernels |
/// | RoutingBackend | `route`, with that: a router's logits, choices and sort at once |
/// | RotatingAttentionBackend | `rotate_and_attend`: rotation, store and attention to a cache at once |
/// | CacheAttentionBackend | `attend_to_cache`, `cache_attention_scratch`: attention of many queries of one sequence to a KV cache |
/// | LogitChunkBackend | `logit_bytes`: the head computes logits in chunks of at most so many bytes |
///
/// A member with one of these names and another signature does not compile as a Backend. A misspelt name cannot be
/// noticed, so a backend states its capabilities below its class: `static_assert(UploadingBackend<Mine>)`.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

struct AttentionShape;

namespace detail {

/// Stands for any softmax of a CacheAttentionBackend.
struct AnyCacheSoftmax {
  template <class M>
  AnyRowKernel operator()(Index, View<M>) const;
};

}  // namespace detail

/// Copies `bytes` from the host without waiting, in order with the operations before and after. `from` may be reused on
/// return. Operations that were launched before do not see the copy.
template <class B>
concept UploadingBackend = requires(B& backend, void* to, const void* from, std::size_t bytes) {
  { backend.upload(to, from, bytes) } -> std::same_as<void>;
};

/// Waits until all that was enqueued is done.
template <class B>
concept SynchronisingBackend = requires(B& backend) {
  { backend.synchronise() } -> std::same_as<void>;
};

/// `replay(recording, work)` runs `work`, which enqueues the same operations on the same addresses each time. The first
/// call runs it; later calls may enqueue a recording of it instead. An inference pass can be recorded if its layers
/// send at most `max_recorded_pairs` (token, choice) pairs to experts.
template <class B>
concept RecordingBackend = std::default_initializable<typename B::Recording> && std::movable<typename B::Recording> &&
    requires(B& backend, typename B::Recording& recording, void (&work)()) {
  { backend.replay(recording, work) } -> std::same_as<void>;
  { B::max_recorded_pairs } -> std::convertible_to<Index>;
};

/// For few tokens, a launch costs more than the work. In inference, a mixture that sends at most `max_fused_pairs`
/// pairs to experts gathers, activates and combines within two kernels (layers/few_experts.hpp).
template <class B>
concept FewTokenBackend = requires {
  { B::max_fused_pairs } -> std::convertible_to<Index>;
};

/// Computes logits = x wᵀ + bias, runs `choose(group, n)` for each token n, which fills row n of `selected`, and sorts
/// `selected` by expert. It is called for at most `max_fused_pairs` pairs, with each type of w that the backend takes.
template <class B, class Weights = View<const typename B::Scalar>>
concept RoutingBackend = FewTokenBackend<B> &&
    requires(B& backend, View<const typename B::Scalar> x, const Weights& w, View<typename B::Scalar> logits,
             detail::AnyRowKernel choose, View<const std::int32_t> selected, Dispatch& dispatch) {
  { backend.route(x, w, x, logits, choose, selected, dispatch) } -> std::same_as<void>;
};

/// Runs the kernel `rotate` for each token and `attend` for each of its heads, where each sequence has one new token.
/// Returns false and does nothing if the shapes do not suit it.
template <class B>
concept RotatingAttentionBackend = requires(B& backend, detail::AnyRowKernel rotate, detail::AnyRowKernel attend) {
  { backend.rotate_and_attend(rotate, attend) } -> std::same_as<bool>;
};

/// Computes y = softmax(q kᵀ) v for each head of one sequence, as layers/cached_attention.hpp defines it: q and y
/// (T, H·d) are of positions `first_position` …, key and value (C, G·d) are its part of the cache, of which only rows
/// below first_position + T may be read. `softmax(t, logits)` is a kernel with the row i of which the logits
/// (rows, keys) of query t + i against the first rows of the cache become probabilities. `scratch` has the elements
/// that `cache_attention_scratch` asks for where the shape's time is C.
template <class B>
concept CacheAttentionBackend = requires(B& backend, const AttentionShape& shape, Index first_position,
                                         View<const typename B::Scalar> x, View<typename B::Scalar> y,
                                         detail::AnyCacheSoftmax softmax, View<typename B::Master> scratch) {
  { backend.attend_to_cache(shape, first_position, x, x, x, y, softmax, scratch) } -> std::same_as<void>;
  { backend.cache_attention_scratch(shape) } -> std::convertible_to<Index>;
};

/// The head computes its logits in chunks of at most `logit_bytes` bytes and 4096 rows (layers/loss.hpp).
template <class B>
concept LogitChunkBackend = std::integral<std::remove_cvref_t<decltype(B::logit_bytes)>>;

/// Waits until a backend has done all work. If it has no `synchronise`, its operations return when they are done.
template <class B>
void synchronise(B& backend) {
  if constexpr (SynchronisingBackend<B>) backend.synchronise();
}

namespace detail {

/// Copies `bytes` from the host; `from` may be reused on return.
template <class B>
void upload(B& backend, void* to, const void* from, std::size_t bytes) {
  if constexpr (UploadingBackend<B>) {
    backend.upload(to, from, bytes);
  } else {
    backend.copy_to_device(to, from, bytes);
  }
}

/// The most pairs with which an inference pass can be recorded; 0: none can.
template <class B>
inline constexpr Index max_recorded_pairs = 0;
template <RecordingBackend B>
inline constexpr Index max_recorded_pairs<B> = B::max_recorded_pairs;

/// Work that enqueues the same operations on the same addresses each time, but for some values of the host: its `Key`.
/// A recording backend starts its recording while the key stays the same, and records anew when it changes. Other
/// backends just run the work.
template <class B, std::equality_comparable Key>
class Repeated {
 public:
  template <class Work>
  void operator()(B& backend, const Key& key, Work&& work) {
    if constexpr (RecordingBackend<B>) {
      if (key_ != key) recording_.recording = {};
      key_ = key;
      backend.replay(recording_.recording, work);
    } else {
      work();
    }
  }

 private:
  template <class>
  struct RecordingOf {};
  template <RecordingBackend R>
  struct RecordingOf<R> {
    typename R::Recording recording = {};
  };

  std::optional<Key> key_;
  RecordingOf<B> recording_;
};

/// The most pairs with which a mixture decodes in fused kernels; 0: it never does.
template <class B>
inline constexpr Index max_fused_pairs = 0;
template <FewTokenBackend B>
inline constexpr Index max_fused_pairs<B> = B::max_fused_pairs;

/// A router's logits = x wᵀ + bias, its choices and their sort, for few tokens.
template <class B, class Weights, RowKernel Choose>
void route(B& backend, View<const typename B::Scalar> x, const Weights& w, View<const typename B::Scalar> bias,
           View<typename B::Scalar> logits, const Choose& choose, View<const std::int32_t> selected,
           Dispatch& dispatch) {
  if constexpr (RoutingBackend<B, Weights>) {
    backend.route(x, w, bias, logits, choose, selected, dispatch);
  } else {
    backend.matmul(x, w, bias, logits);
    backend.launch(x.rows, choose);
    backend.sort_by_expert(selected, dispatch);
  }
}

/// Runs both kernels at once if the backend can; otherwise does nothing and returns false.
template <class B, RowKernel Rotate, RowKernel Attend>
bool rotate_and_attend(B& backend, const Rotate& rotate, const Attend& attend) {
  if constexpr (RotatingAttentionBackend<B>) {
    return backend.rotate_and_attend(rotate, attend);
  } else {
    return false;
  }
}

/// The largest chunk of the head's logits: 32 MB and 1024 rows, unless the backend asks for more.
template <class B>
inline constexpr Index max_logit_bytes = Index{32} << 20;
template <LogitChunkBackend B>
inline constexpr Index max_logit_bytes<B> = static_cast<Index>(B::logit_bytes);
template <class B>
inline constexpr Index max_logit_rows = LogitChunkBackend<B> ? 4096 : 1024;

/// The names of optional members. In a class that derives from B and from this one, a name is ambiguous if B has it,
/// whatever it is there. This tells a wrong member from a missing one.
struct OptionalNames {
  static int upload, synchronise, Recording, replay, max_recorded_pairs, max_fused_pairs, route, rotate_and_attend,
      attend_to_cache, cache_attention_scratch, logit_bytes;
};
template <class B>
struct WithOptionalNames : B, OptionalNames {};

/// True if each optional member that B has is as its capability asks; otherwise an error of the compiler. A final class
/// cannot be checked.
template <class B>
consteval bool check_optional_members() {
  if constexpr (!std::is_final_v<B>) {
    using Names = WithOptionalNames<B>;
    static_assert(
        requires { Names::upload; } || UploadingBackend<B>,
        "tinymoe: a backend's `upload` must be void upload(void* to, const void* from, std::size_t bytes)");
    static_assert(
        requires { Names::synchronise; } || SynchronisingBackend<B>,
        "tinymoe: a backend's `synchronise` must be void synchronise()");
    static_assert(
        requires {
          Names::Recording;
          Names::replay;
          Names::max_recorded_pairs;
        } || RecordingBackend<B>,
        "tinymoe: a backend that records has all of a type Recording, void replay(Recording&, work) and a "
        "constant max_recorded_pairs");
    static_assert(
        requires { Names::max_fused_pairs; } || FewTokenBackend<B>,
        "tinymoe: a backend's `max_fused_pairs` must be a constant of the class, a number of pairs");
    static_assert(
        requires { Names::route; } || RoutingBackend<B>,
        "tinymoe: a backend's `route` must be void route(x, w, bias, logits, choose, selected, dispatch) for "
        "any kernel `choose`, beside a constant max_fused_pairs");
    static_assert(
        requires { Names::rotate_and_attend; } || RotatingAttentionBackend<B>,
        "tinymoe: a backend's `rotate_and_attend` must be bool rotate_and_attend(rotate, attend) for any "
        "two kernels");
    static_assert(
        requires {
          Names::attend_to_cache;
          Names::cache_attention_scratch;
        } || CacheAttentionBackend<B>,
        "tinymoe: a backend's `attend_to_cache` must be void attend_to_cache(shape, first_position, q, key, value, y, "
        "softmax, scratch) for any `softmax`, beside Index cache_attention_scratch(shape)");
    static_assert(
        requires { Names::logit_bytes; } || LogitChunkBackend<B>,
        "tinymoe: a backend's `logit_bytes` must be a constant of the class, a whole number of bytes");
  }
  return true;
}
template <class B>
inline constexpr bool optional_members_are_right = check_optional_members<B>();

}  // namespace detail

}  // namespace tinymoe::inline v0_1
