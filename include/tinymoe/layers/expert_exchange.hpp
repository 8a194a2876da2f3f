#pragma once
/// @file
/// Expert parallelism: the experts of each bank are spread over a group of ranks, in order, E/G for each. A rank sends
/// each row to the rank of its expert, which sends the result back. Nothing is padded and nothing dropped: the ranks
/// tell each other first how many rows come.
///
///     x̃ = my rows, sorted by expert;   to rank r go those of its experts;   ỹ = what comes back, in the same places
///
/// The rows of a rank's own experts stay where they are, and are computed while the others are on their way. Of the
/// rows that come, those of one expert lie together after a sort: they are like tokens with one choice each. Backward
/// takes the same way with dỹ and dx̃. An expert's gradient is then that of the rows of the whole group.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/host.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/moe_kernels.hpp"
#include "tinymoe/layers/pass.hpp"

namespace tinymoe::inline v0_1 {

/// How the ranks of a group send each other rows; see Pass::exchange. All ranks make the same calls.
class ExpertExchange {
 public:
  virtual ~ExpertExchange() = default;
  /// This rank's number in the group.
  virtual Index rank() const = 0;
  /// The ranks of the group, G.
  virtual Index size() const = 0;
  /// Begins to send rows of `row_bytes` bytes, in host memory, send_rows[r] to each rank r, and to receive as many as
  /// receive_rows says; those to and from one rank lie together, in the order of the ranks. Nothing else is called
  /// until `finish`, and the memory stays.
  virtual void start(const void* send, std::span<const Index> send_rows, void* receive,
                     std::span<const Index> receive_rows, std::size_t row_bytes) = 0;
  /// Returns when they have come. Throws what the communicator throws.
  virtual void finish() = 0;
};

namespace kernels {

/// to[n] = sorted[slot of n], for rows with one choice each.
template <class T>
struct FromSlots {
  View<const T> sorted;
  View<const std::int32_t> slots;  // (N, 1)
  View<T> to;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const auto copy = [](T& out, T v) { out = v; };
    group.each(to.cols, copy, write_only(to.row(n)), sorted.row(slots.row(n)[0]));
  }
};

}  // namespace kernels

namespace detail {

/// A bank of E experts of width D whose rows come from all ranks of a group. It keeps what backward needs; `Experts` is
/// a mixture's. Its memory grows with the rows that come.
template <class Experts, Index E, Index D, class T, class M>
class SpreadExperts {
 public:
  /// y (S, D) = each row's expert of x (S, D), wherever that is; the rows are sorted as `dispatch` says. `own` is what
  /// this rank's rows of its own experts keep.
  template <Backend B, class P>
  [[gnu::cold]] void forward(B& backend, const Pass& pass, const P& p, const Dispatch& dispatch, View<const T> x,
                             View<T> y, typename Experts::template Saved<T, M>& own) {
    count(backend, *pass.exchange, dispatch);
    make_room(backend);
    start(backend, *pass.exchange, x, to_others_, from_others_);
    if (own_rows_ > 0) {
      Experts::forward(backend, pass, p, own_dispatch_, own_part(x), own_part(y), own);
    }
    const View<T> came = rows_.came(others_), sorted = rows_.x(others_), result = rows_.y(others_);
    finish(backend, *pass.exchange, came);
    if (others_ > 0) {
      backend.sort_by_expert(chosen(backend), rows_.dispatch);
      backend.launch(others_, kernels::Gather<T>{came, rows_.dispatch.slots, sorted});
      Experts::forward(backend, pass, p, rows_.dispatch, sorted, result, rows_.experts);
      backend.launch(others_, kernels::FromSlots<T>{result, rows_.dispatch.slots, came});
    }
    send_back(backend, *pass.exchange, came, y);
  }

  /// dx (S, D) of dy (S, D), after `forward`; adds to the gradients of this rank's experts.
  template <Backend B, class P, class G>
  [[gnu::cold]] void backward(B& backend, const Pass& pass, const P& p, View<const T> dy, View<T> dx,
                              typename Experts::template Saved<T, M>& own, G& gradients) {
    start(backend, *pass.exchange, dy, to_others_, from_others_);
    if (own_rows_ > 0) {
      Experts::backward(backend, pass, p, own_dispatch_, own_part(dy), own_part(dx), own, gradients);
    }
    const View<T> came = rows_.came(others_), sorted = rows_.dy(others_), result = rows_.dx(others_);
    finish(backend, *pass.exchange, came);
    if (others_ > 0) {
      backend.launch(others_, kernels::Gather<T>{came, rows_.dispatch.slots, sorted});
      Experts::backward(backend, pass, p, rows_.dispatch, sorted, result, rows_.experts, gradients);
      backend.launch(others_, kernels::FromSlots<T>{result, rows_.dispatch.slots, came});
    }
    send_back(backend, *pass.exchange, came, dx);
  }

  /// Bytes of the memory of rows that have come.
  std::size_t bytes() const { return block_.size(); }

 private:
  /// What is kept of the rows that have come, in memory for `most` of them.
  struct Rows {
    PerRow<T> came, x, y, dx, dy;  // (S, D); those that came lie in the order of the ranks, the others by expert
    View<std::int32_t> chosen;     // (S, 1): the expert of each row that came
    Dispatch dispatch;
    View<std::int32_t> own_starts;  // (1, E + 1)
    typename Experts::template Saved<T, M> experts;

    void plan(Plan& plan, Index most) {
      for (PerRow<T>* rows : {&came, &x, &y, &dx, &dy}) *rows = plan.keep<T>(most, D);
      chosen = plan.keep<std::int32_t>(most, 1);
      dispatch = {plan.keep<std::int32_t>(1, E + 1), plan.keep<std::int32_t>(most, 1),
                  plan.keep<std::int32_t>(1, most)};
      own_starts = plan.keep<std::int32_t>(1, E + 1);
      experts.plan(plan, most);
    }
  };

  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }

  /// Tells the ranks how many rows of each expert come, and learns it from them.
  template <class B>
  [[gnu::cold]] void count(B& backend, ExpertExchange& exchange, const Dispatch& dispatch) {
    const Index ranks = exchange.size(), each = E / ranks, me = exchange.rank();
    starts_.resize(at(E + 1));
    backend.copy_to_host(starts_.data(), dispatch.offsets.data, starts_.size() * sizeof(starts_[0]));
    std::vector<std::int32_t> counts(at(E));
    for (Index e = 0; e < E; ++e) counts[at(e)] = starts_[at(e + 1)] - starts_[at(e)];
    counts_.resize(at(E));
    const std::vector<Index> one(at(ranks), 1);
    exchange.start(counts.data(), one, counts_.data(), one, at(each) * sizeof(counts[0]));
    exchange.finish();
    to_others_.assign(at(ranks), 0), from_others_.assign(at(ranks), 0);
    others_ = 0;
    for (Index r = 0; r < ranks; ++r) {
      if (r == me) continue;
      to_others_[at(r)] = starts_[at((r + 1) * each)] - starts_[at(r * each)];
      for (Index e = 0; e < each; ++e) from_others_[at(r)] += counts_[at(r * each + e)];
      others_ += from_others_[at(r)];
    }
    first_expert_ = me * each, last_expert_ = first_expert_ + each;
    own_first_ = starts_[at(first_expert_)], own_rows_ = starts_[at(last_expert_)] - own_first_;
  }

  template <class B>
  [[gnu::cold]] void make_room(B& backend) {
    if (block_.size() == 0 || others_ > most_) {
      most_ = std::max<Index>(others_ + others_ / 4, 16);
      Plan measure(Plan::Purpose::training);
      rows_.plan(measure, most_);
      block_ = {};
      block_ = backend.allocate(measure.bytes());
      Plan place(Plan::Purpose::training, block_.bytes(), measure);
      rows_.plan(place, most_);
    }
    rows_.dispatch.resize(others_, others_);
    std::vector<std::int32_t> own(at(E + 1));
    for (Index e = 0; e <= E; ++e) {
      own[at(e)] = starts_[at(std::clamp(e, first_expert_, last_expert_))] - static_cast<std::int32_t>(own_first_);
    }
    backend.copy_to_device(rows_.own_starts.data, own.data(), own.size() * sizeof(own[0]));
    own_dispatch_ = Dispatch(rows_.own_starts, own_rows_);
  }

  /// The expert of each row that has come, (S, 1).
  template <class B>
  [[gnu::cold]] View<const std::int32_t> chosen(B& backend) {
    std::vector<std::int32_t> experts;
    experts.reserve(at(others_));
    const Index each = last_expert_ - first_expert_;
    for (Index r = 0; r < std::ssize(from_others_); ++r) {
      for (Index e = 0; e < each && from_others_[at(r)] > 0; ++e) {
        experts.insert(experts.end(), at(counts_[at(r * each + e)]), static_cast<std::int32_t>(first_expert_ + e));
      }
    }
    backend.copy_to_device(rows_.chosen.data, experts.data(), experts.size() * sizeof(experts[0]));
    return rows_.chosen.middle_rows(0, others_);
  }

  template <class V>
  V own_part(const V& rows) const {
    return rows.middle_rows(own_first_, own_rows_);
  }

  /// Sends rows of others' experts, which lie before and behind those of this rank's.
  template <class B>
  [[gnu::cold]] void start(B& backend, ExpertExchange& exchange, View<const T> rows, std::span<const Index> send,
                           std::span<const Index> receive) {
    const auto bytes = at(D) * sizeof(T);
    const Index all = starts_[at(E)], behind = own_first_ + own_rows_;
    sent_.resize(at(all - own_rows_) * bytes);
    backend.copy_to_host(sent_.data(), rows.data, at(own_first_) * bytes);
    backend.copy_to_host(sent_.data() + at(own_first_) * bytes, rows.data + behind * D, at(all - behind) * bytes);
    received_.resize(at(others_) * bytes);
    exchange.start(sent_.data(), send, received_.data(), receive, bytes);
  }
  template <class B>
  [[gnu::cold]] void finish(B& backend, ExpertExchange& exchange, View<T> to) {
    exchange.finish();
    backend.copy_to_device(to.data, received_.data(), received_.size());
  }
  /// The results of the rows that have come, to where they came from; those of this rank's rows, to their places.
  template <class B>
  [[gnu::cold]] void send_back(B& backend, ExpertExchange& exchange, View<const T> results, View<T> to) {
    const auto bytes = at(D) * sizeof(T);
    const Index all = starts_[at(E)], behind = own_first_ + own_rows_;
    std::swap(sent_, received_);  // the same numbers of rows, the other way
    backend.copy_to_host(sent_.data(), results.data, sent_.size());
    received_.resize(at(all - own_rows_) * bytes);
    exchange.start(sent_.data(), from_others_, received_.data(), to_others_, bytes);
    exchange.finish();
    backend.copy_to_device(to.data, received_.data(), at(own_first_) * bytes);
    backend.copy_to_device(to.data + behind * D, received_.data() + at(own_first_) * bytes, at(all - behind) * bytes);
  }

  Memory block_;
  Rows rows_;
  Index most_ = 0;                              // rows that there is memory for
  std::vector<std::int32_t> starts_;            // of each expert's rows among this rank's, E + 1
  std::vector<std::int32_t> counts_;            // (G, E/G): the rows of each of this rank's experts that each rank has
  std::vector<Index> to_others_, from_others_;  // rows for each rank
  Index others_ = 0;                            // rows that come
  Index first_expert_ = 0, last_expert_ = 0, own_first_ = 0, own_rows_ = 0;
  Dispatch own_dispatch_;
  std::vector<std::byte> sent_, received_;
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
