#pragma once
/// @file
/// The KV caches of a session: one for each attention of a model, in one block of memory.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/cached_attention.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// Caches of several sequences, planned for an architecture.
template <class Arch, Backend B>
class SessionCaches {
 public:
  using Scalar = typename B::Scalar;
  using Caches = std::array<KvCache<Scalar>, static_cast<std::size_t>(Arch::layers)>;

  /// Throws DeviceError without memory.
  SessionCaches(B& backend, Index sequences) {
    Index elements = 0, scratch = 0;
    for_each_attention([&](auto layer, Index, Index capacity) {
      using A = typename decltype(layer)::type;
      elements += 2 * aligned_size(sequences * capacity * A::key_width);
      scratch = std::max(scratch, cached_attention_scratch(backend, A::shape(Pass{}), chunk, sequences, capacity));
    });
    memory_ = backend.allocate(static_cast<std::size_t>(elements) * sizeof(Scalar));
    scratch_ = backend.allocate(static_cast<std::size_t>(scratch) * sizeof(typename B::Master));
    auto* next = memory_.template as<Scalar>().data;
    for_each_attention([&](auto layer, Index number, Index capacity) {
      using A = typename decltype(layer)::type;
      auto& cache = caches_[static_cast<std::size_t>(number)];
      cache.capacity = capacity;
      for (auto* view : {&cache.key, &cache.value}) {
        *view = {next, sequences * capacity, A::key_width};
        next += aligned_size(view->size());
      }
    });
  }

  /// The part of one sequence.
  Caches part(Index sequence) const {
    Caches caches = caches_;
    for (auto& cache : caches) cache = cache.part(sequence);
    return caches;
  }
  /// The caches for passes in which sequence b has index places[b], (1, B).
  Caches of(View<const std::int32_t> places) const {
    Caches caches = caches_;
    for (auto& cache : caches) cache.places = places;
    return caches;
  }
  /// Scratch memory of cached attention.
  MasterOutput<B> scratch() const { return scratch_.template as<typename B::Master>(); }
  /// Bytes of keys and values.
  std::size_t bytes() const { return memory_.size(); }

  /// Whether a sequence may be longer than the context.
  static constexpr bool unlimited = [] {
    bool windows = !Arch::learned_positions;
    Arch::for_each_layer([&](auto group, Index, Index) {
      using A = typename Arch::template BlockLayer<group>::AttentionLayer;
      windows = windows && A::visible(Arch::context) <= Arch::context;
    });
    return windows;
  }();
  /// Max tokens of one pass. More rows make faster products. But a cache with a window is longer by the rows of a pass,
  /// and should not be many times the window.
  static constexpr Index chunk = [] {
    Index most = std::min<Index>(512, Arch::context);
    Arch::for_each_layer([&](auto group, Index, Index) {
      using A = typename Arch::template BlockLayer<group>::AttentionLayer;
      const Index window = A::visible(Arch::context);
      if (window <= Arch::context) most = std::min(most, std::max<Index>(64, window));
    });
    return most;
  }();

 private:
  /// f(type of the attention, its index, its cache's rows for a sequence)
  template <class F>
  static void for_each_attention(F&& f) {
    Arch::for_each_layer([&](auto group, Index, Index number) {
      using A = typename Arch::template BlockLayer<group>::AttentionLayer;
      f(std::type_identity<A>{}, number, A::cache_rows(Arch::context, chunk));
    });
  }

  Memory memory_, scratch_;
  Caches caches_;
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
