#pragma once
// A backend whose groups have several lanes, each a thread of the host. A write outside of `each` and `once` then
// happens several times, and a missing barrier is a data race, which ThreadSanitizer finds.

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <thread>
#include <type_traits>
#include <vector>

#include "tinymoe/backend/reference.hpp"

namespace tinymoe_test {

using namespace tinymoe;

/// What the lanes of one group share.
struct Lanes {
  static constexpr Index count = 3;
  static constexpr std::size_t largest = 16;  // bytes of a sum

  std::barrier<> barrier{count};
  std::atomic<std::uint64_t> slots[2][count][largest / 8] = {};
  std::atomic<std::uint64_t> arrived = 0;
};

/// One lane. With TINYMOE_RELAXED_LANES, `sum` and `max` order nothing but themselves, as shuffles of a GPU do: for
/// ThreadSanitizer, on machines where that is enough.
class LaneGroup {
 public:
  LaneGroup(Lanes& lanes, Index rank, std::uint64_t& calls) : lanes_(&lanes), rank_(rank), calls_(&calls) {}
  Index rank() const { return rank_; }
  static constexpr Index size() { return Lanes::count; }

  template <class F>
  void each(Index n, F&& f) const {
    for (Index i = rank_; i < n; i += size()) f(i);
    lanes_->barrier.arrive_and_wait();
  }
  template <class F>
  auto sum(Index n, F&& f) const {
    using T = std::remove_cvref_t<std::invoke_result_t<F&, Index>>;
    T total{};
    for (Index i = rank_; i < n; i += size()) total += f(i);
    return reduce(total, [](T a, T b) { return a + b; });
  }
  /// Elements of arrays in pairs, so that other lanes have them than have their indices.
  template <class F, class... Arrays>
  requires(sizeof...(Arrays) > 0) void each(Index n, F&& f, Arrays... arrays) const {
    for (Index i = 0; i < n; ++i) {
      if (i / 2 % size() == rank_) f(tinymoe::detail::element(arrays, i)...);
    }
    lanes_->barrier.arrive_and_wait();
  }
  template <class F, class... Arrays>
  requires(sizeof...(Arrays) > 0) auto sum(Index n, F&& f, Arrays... arrays) const {
    using T = std::remove_cvref_t<std::invoke_result_t<F&, tinymoe::detail::Element<Arrays>...>>;
    T total{};
    for (Index i = 0; i < n; ++i) {
      if (i / 2 % size() == rank_) total += f(tinymoe::detail::element(arrays, i)...);
    }
    const T all = reduce(total, [](T a, T b) { return a + b; });
    lanes_->barrier.arrive_and_wait();
    return all;
  }
  template <class F>
  auto max(Index n, F&& f) const {
    using T = std::remove_cvref_t<decltype(real_part(f(Index{})))>;
    T greatest = rank_ < n ? real_part(f(rank_)) : -std::numeric_limits<T>::infinity();
    for (Index i = rank_ + size(); i < n; i += size()) greatest = std::max<T>(greatest, real_part(f(i)));
    return reduce(greatest, [](T a, T b) { return std::max(a, b); });
  }
  template <class F>
  void once(F&& f) const {
    if (rank_ == 0) f();
    lanes_->barrier.arrive_and_wait();
  }

 private:
  template <class T, class Add>
  T reduce(T own, Add add) const {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= Lanes::largest);
    auto& slots = lanes_->slots[*calls_ % 2];  // the other one may still be read
    std::uint64_t words[Lanes::largest / 8] = {};
    std::memcpy(words, &own, sizeof(T));
    for (std::size_t w = 0; w < Lanes::largest / 8; ++w) slots[rank_][w].store(words[w], std::memory_order_relaxed);
    ++*calls_;
#ifdef TINYMOE_RELAXED_LANES
    std::atomic_signal_fence(std::memory_order_seq_cst);
    lanes_->arrived.fetch_add(1, std::memory_order_relaxed);
    while (lanes_->arrived.load(std::memory_order_relaxed) < *calls_ * Lanes::count) std::this_thread::yield();
    std::atomic_signal_fence(std::memory_order_seq_cst);
#else
    lanes_->barrier.arrive_and_wait();
#endif
    T result{};
    for (Index lane = 0; lane < Lanes::count; ++lane) {
      for (std::size_t w = 0; w < Lanes::largest / 8; ++w) words[w] = slots[lane][w].load(std::memory_order_relaxed);
      T value;
      std::memcpy(static_cast<void*>(&value), words, sizeof(T));
      result = lane == 0 ? value : add(result, value);
    }
    return result;
  }

  Lanes* lanes_;
  Index rank_;
  std::uint64_t* calls_;  // of reduce, by this lane
};

/// The oracle, whose kernel rows are run by the lanes of a group.
class Laned : public Reference<double> {
 public:
  static constexpr const char* name() { return "lanes"; }

  template <RowKernel Kernel>
  void launch(Index rows, const Kernel& kernel) const {
    Lanes lanes;
    std::vector<std::jthread> threads;
    for (Index rank = 0; rank < Lanes::count; ++rank) {
      threads.emplace_back([&, rank] {
        std::uint64_t calls = 0;
        for (Index row = 0; row < rows; ++row) kernel(LaneGroup(lanes, rank, calls), row);
      });
    }
  }
};
static_assert(Backend<Laned>);

}  // namespace tinymoe_test
