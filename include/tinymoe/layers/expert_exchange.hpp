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
#include <utility>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/core/error.hpp"
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
  /// Gives each rank its part of a few numbers on the host, and takes theirs; see GroupingCommunicator.
  virtual void exchange_numbers(std::span<const std::int32_t> send, std::span<std::int32_t> receive) = 0;
  /// Begins to send rows of `row_bytes` bytes, in memory of the backend, send_rows[r] to each rank r, and to receive as
  /// many as receive_rows says; those to and from one rank lie together, in the order of the ranks. What a rank has for
  /// itself stays where it is. Nothing else is called until `finish`, and the memory stays.
  virtual void start(const void* send, std::span<const Index> send_rows, void* receive,
                     std::span<const Index> receive_rows, std::size_t row_bytes) = 0;
  /// Returns when they have come. Throws what the communicator throws.
  virtual void finish() = 0;
  /// Waits for what was started and not finished, after an exception: its memory may go then. Throws nothing.
  virtual void give_up() = 0;

  /// Memory of the backend that one bank uses after the other. It grows.
  Memory scratch;
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

/// A bank of experts that a group of ranks shares. It stands between a mixture and what sends rows, so that a program
/// compiles the latter only if its Trainer may need it.
template <class T>
class SharedBank {
 public:
  virtual ~SharedBank() = default;
  /// y (S, D) = each row's expert of x (S, D), wherever that is; the rows are sorted as `dispatch` says. `p` are the
  /// experts' parameters, and `own` is what this rank's rows of its own experts keep.
  virtual void forward(const Pass& pass, const void* p, const Dispatch& dispatch, View<const T> x, View<T> y,
                       void* own) = 0;
  /// dx (S, D) of dy (S, D), after `forward`; adds to the gradients of this rank's experts.
  virtual void backward(const Pass& pass, const void* p, View<const T> dy, View<T> dx, void* own, void* gradients) = 0;
  /// Bytes that are kept of received rows.
  virtual std::size_t bytes() const = 0;
};

/// The bank of a mixture's E experts of width D, with parameters P. It keeps what backward needs of received rows; its
/// memory grows with them.
template <class Experts, Index E, Index D, Backend B, class P>
class ExpertsOfGroup final : public SharedBank<typename B::Scalar> {
  using T = typename B::Scalar;
  using M = typename B::Master;
  using Saved = typename Experts::template Saved<T, M>;
  using Gradients = typename Experts::template Parameters<M>;

 public:
  /// Both must outlive it. Throws OptionError for a number of ranks that does not divide the experts.
  [[gnu::cold]] ExpertsOfGroup(B& backend, ExpertExchange& exchange) : backend_(&backend), exchange_(&exchange) {
    const Index ranks = exchange.size();
    if (E % ranks != 0) {
      fail<OptionError>("expert parallelism: ", ranks, " processes cannot share the ", E, " experts of a layer");
    }
    first_expert_ = exchange.rank() * (E / ranks), last_expert_ = first_expert_ + E / ranks;
  }

  [[gnu::cold]] void forward(const Pass& pass, const void* parameters, const Dispatch& dispatch, View<const T> x,
                             View<T> y, void* own) override {
    const P& p = *static_cast<const P*>(parameters);
    tell_counts(dispatch);
    most_ = std::max(most_, received_);
    bind(pass.recompute);
    set_own_dispatch();
    rows_.dispatch.resize(received_, received_);
    if (received_ > 0) backend_->sort_by_expert(chosen(), rows_.dispatch);
    take_through_experts(x, y, rows_.x, own, [&](const Dispatch& rows, View<const T> from, View<T> to, Saved& saved) {
      Experts::forward(*backend_, pass, p, rows, from, to, saved);
    });
  }

  [[gnu::cold]] void backward(const Pass& pass, const void* parameters, View<const T> dy, View<T> dx, void* own,
                              void* gradients_of) override {
    const P& p = *static_cast<const P*>(parameters);
    Gradients& gradients = *static_cast<Gradients*>(gradients_of);
    bind(pass.recompute);
    take_through_experts(dy, dx, rows_.dy, own,
                         [&](const Dispatch& rows, View<const T> from, View<T> to, Saved& saved) {
                           Experts::backward(*backend_, pass, p, rows, from, to, saved, gradients);
                         });
  }

  std::size_t bytes() const override { return kept_.size(); }

 private:
  /// What is there of received rows, in memory for `most` of them.
  struct Rows {
    PerRow<T> x;                    // (S, D), by expert
    PerRow<T> received;             // (S, D), in the order of the ranks; the results go back from there
    PerRow<T> dy, result;           // (S, D), by expert
    View<std::int32_t> chosen;      // (S, 1): the expert of each received row
    Dispatch dispatch;              // of the received rows
    View<std::int32_t> own_starts;  // (1, E + 1)
    Saved experts;

    void plan(Plan& plan, Index most) {
      x = plan.keep<T>(most, D);
      dispatch = {plan.keep<std::int32_t>(1, E + 1), plan.keep<std::int32_t>(most, 1),
                  plan.keep<std::int32_t>(1, most)};
      own_starts = plan.keep<std::int32_t>(1, E + 1);
      for (PerRow<T>* rows : {&received, &dy, &result}) *rows = plan.scratch<T>(most, D);
      chosen = plan.scratch<std::int32_t>(most, 1);
      experts.plan(plan, most);
    }
  };

  /// to (S, D) = what `apply(dispatch, from, to, saved)` makes of the rows of `from` (S, D), where their experts are.
  /// `sorted` is memory for received rows.
  template <class F>
  void take_through_experts(View<const T> from, View<T> to, const PerRow<T>& sorted, void* own, F&& apply) {
    const View<T> rows = rows_.received(received_), x = sorted(received_), y = rows_.result(received_);
    exchange_->start(from.data, rows_here_, rows.data, rows_of_others_, row_bytes);
    if (own_rows_ > 0) apply(own_dispatch_, own_part(from), own_part(to), *static_cast<Saved*>(own));
    exchange_->finish();
    if (received_ > 0) {
      backend_->launch(received_, kernels::Gather<T>{rows, rows_.dispatch.slots, x});
      apply(rows_.dispatch, x, y, rows_.experts);
      backend_->launch(received_, kernels::FromSlots<T>{y, rows_.dispatch.slots, rows});
    }
    exchange_->start(rows.data, rows_of_others_, to.data, rows_here_, row_bytes);
    exchange_->finish();
  }

  static constexpr std::size_t row_bytes = static_cast<std::size_t>(D) * sizeof(T);

  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }

  /// Memory for `most_` rows: what is kept is this bank's, the rest of all banks. With `recompute` all is of all: then
  /// forward runs again just before backward.
  [[gnu::cold]] void bind(bool recompute) {
    const Dispatch sorted = rows_.dispatch;  // which stays in backward
    Plan measure(Plan::Purpose::training);
    rows_.plan(measure, most_);
    const std::size_t kept = recompute ? 0 : measure.kept_bytes(), scratch = measure.bytes() - kept;
    for (auto [memory, bytes] : {std::pair(&kept_, kept), {&exchange_->scratch, scratch}}) {
      if (memory->size() >= bytes) continue;
      *memory = {};
      *memory = backend_->allocate(bytes + bytes / 4);
    }
    std::byte* const shared = exchange_->scratch.bytes();
    Plan place(Plan::Purpose::training, recompute ? shared : kept_.bytes(),
               recompute ? shared + measure.kept_bytes() : shared);
    rows_.plan(place, most_);
    rows_.dispatch.resize(sorted.tokens(), sorted.tokens());
    rows_.dispatch.rows = sorted.rows, rows_.dispatch.host = sorted.host;
  }

  /// Tells the ranks how many rows of each expert come, and learns it from them.
  [[gnu::cold]] void tell_counts(const Dispatch& dispatch) {
    const Index ranks = exchange_->size(), each = last_expert_ - first_expert_;
    starts_.resize(at(E + 1));
    backend_->copy_to_host(starts_.data(), dispatch.offsets.data, starts_.size() * sizeof(starts_[0]));
    std::vector<std::int32_t> own(at(E));
    for (Index e = 0; e < E; ++e) own[at(e)] = starts_[at(e + 1)] - starts_[at(e)];
    counts_.resize(at(E));
    exchange_->exchange_numbers(own, counts_);
    rows_here_.assign(at(ranks), 0), rows_of_others_.assign(at(ranks), 0);
    received_ = 0;
    for (Index r = 0; r < ranks; ++r) {
      rows_here_[at(r)] = starts_[at((r + 1) * each)] - starts_[at(r * each)];
      if (r == exchange_->rank()) continue;
      for (Index e = 0; e < each; ++e) rows_of_others_[at(r)] += counts_[at(r * each + e)];
      received_ += rows_of_others_[at(r)];
    }
    own_first_ = starts_[at(first_expert_)], own_rows_ = starts_[at(last_expert_)] - own_first_;
  }

  /// The rows that stay: of this rank's experts alone.
  [[gnu::cold]] void set_own_dispatch() {
    std::vector<std::int32_t> own(at(E + 1));
    for (Index e = 0; e <= E; ++e) {
      own[at(e)] = starts_[at(std::clamp(e, first_expert_, last_expert_))] - static_cast<std::int32_t>(own_first_);
    }
    backend_->copy_to_device(rows_.own_starts.data, own.data(), own.size() * sizeof(own[0]));
    own_dispatch_ = Dispatch(rows_.own_starts, own_rows_);
  }

  /// The expert of each received row, (S, 1).
  [[gnu::cold]] View<const std::int32_t> chosen() {
    std::vector<std::int32_t> experts;
    experts.reserve(at(received_));
    const Index each = last_expert_ - first_expert_;
    for (Index r = 0; r < exchange_->size(); ++r) {
      if (r == exchange_->rank()) continue;
      for (Index e = 0; e < each; ++e) {
        experts.insert(experts.end(), at(counts_[at(r * each + e)]), static_cast<std::int32_t>(first_expert_ + e));
      }
    }
    backend_->copy_to_device(rows_.chosen.data, experts.data(), experts.size() * sizeof(experts[0]));
    return rows_.chosen.middle_rows(0, received_);
  }

  template <class V>
  V own_part(const V& rows) const {
    return rows.middle_rows(own_first_, own_rows_);
  }

  B* backend_;
  ExpertExchange* exchange_;
  Memory kept_;
  Rows rows_;
  Index most_ = 16;                           // rows that there is memory for
  Index first_expert_ = 0, last_expert_ = 0;  // of this rank
  std::vector<std::int32_t> starts_;          // of each expert's rows among this rank's, E + 1
  std::vector<std::int32_t> counts_;          // (G, E/G): the rows that each rank has for each of this rank's experts
  std::vector<Index> rows_here_;              // of this rank, for the experts of each
  std::vector<Index> rows_of_others_;         // of each other rank, for this rank's experts
  Index received_ = 0;                        // of all
  Index own_first_ = 0, own_rows_ = 0;        // those that stay
  Dispatch own_dispatch_;
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
