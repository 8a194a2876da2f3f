#pragma once
/// @file
/// The batches of a run. They are read from the data, and sent to the backend, before the steps that need them.

#include <cstddef>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/text/batches.hpp"
#include "tinymoe/text/batching.hpp"
#include "tinymoe/text/padded_batches.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/train/step_batch.hpp"
#include "tinymoe/train/token_slots.hpp"

namespace tinymoe::inline v0_1 {

/// Which batches a rank of a run reads.
struct FeedOptions {
  Index batch = 16, time = 0;            // B, T of a micro-batch
  Index micro_batches = 1;               // of a step, which the ranks share
  Batching batching = Batching::packed;  // padded: stories end with `end_of_story`
  Token end_of_story = 0;
  Seed seed = {};
  Index rank = 0, ranks = 1;

  /// Throws OptionError, naming the option.
  void check() const {
    using namespace detail::range;
    detail::check_options("FeedOptions", {{"batch", batch, whole(1, 1 << 24)},
                                          {"time", time, whole(1, 1 << 24)},
                                          {"micro_batches", micro_batches, whole(1, 1 << 16)},
                                          {"ranks", ranks, whole(1, static_cast<double>(micro_batches))},
                                          {"rank", rank, whole(0, static_cast<double>(ranks - 1))}});
  }

  /// The micro-batches of a step that this rank reads: `rank`, `rank + ranks` … Some ranks may have one more than
  /// others.
  Index own_micro_batches() const { return (micro_batches - rank + ranks - 1) / ranks; }
};

/// The batches that one rank reads, step by step. A step's micro-batches go to the ranks in turn, so that all ranks
/// together read what a single process would read. The order depends on the seed and the step alone.
template <Backend B>
class BatchFeed {
 public:
  /// Throws OptionError for options out of range, what the batches throw, and DeviceError without memory. The backend
  /// must outlive it.
  BatchFeed(B& backend, const TokenData& data, const FeedOptions& options)
      : options_(options), source_(source(data, options)), slots_(backend, options.batch * options.time) {
    for (HostBatch* batch : {&current_, &next_}) {
      batch->inputs.resize(static_cast<std::size_t>(options.batch * options.time * options.own_micro_batches()));
      batch->targets.resize(batch->inputs.size());
    }
  }

  /// The batch of step `step`, valid until the next call. Throws what the data throws.
  detail::StepBatch<B> next(Index step) {
    if (current_.step != step) {
      fill(next_, step);  // does nothing if the batch was prefetched
      std::swap(current_, next_);
    }
    return current();
  }

  /// Reads the batch of the next step, `step`, and uploads its first micro-batch while the current step runs. An error
  /// of the data is not thrown here, because the current step does not need that batch: `next` throws it.
  void prefetch(Index step) {
    if (current_.step == step || next_.step == step) return;  // a step that was skipped runs again
    try {
      fill(next_, step);
    } catch (const Error&) {
      return;
    }
    slots_.send_ahead(step, 0, micro_batch(next_.inputs, 0), micro_batch(next_.targets, 0));
  }

  /// The batch that `next` returned last; zeros before the first call.
  detail::StepBatch<B> current() {
    return {current_.inputs, current_.targets, options_.batch, options_.time, current_.step, &slots_};
  }

 private:
  using Source = std::variant<Batches, PaddedBatches>;

  struct HostBatch {
    Index step = -1;  // whose tokens these are
    std::vector<Token> inputs, targets;
  };

  [[gnu::cold]] static Source source(const TokenData& data, const FeedOptions& o) {
    o.check();
    if (o.batching == Batching::packed) return Batches(data, o.batch, o.time, o.seed);
    return PaddedBatches(data, o.end_of_story, o.batch, o.time, o.seed);
  }

  /// Throws what the data throws; the batch then belongs to no step.
  void fill(HostBatch& batch, Index step) {
    if (batch.step == step) return;
    batch.step = -1;
    for (Index i = 0; i < options_.own_micro_batches(); ++i) {
      const Index number = step * options_.micro_batches + i * options_.ranks + options_.rank;
      std::visit(
          [&](const auto& batches) {
            batches.fill(number, micro_batch(batch.inputs, i), micro_batch(batch.targets, i));
          },
          source_);
    }
    batch.step = step;
  }

  std::span<Token> micro_batch(std::vector<Token>& tokens, Index i) const {
    return detail::row_of(std::span(tokens), i, options_.batch * options_.time);
  }

  FeedOptions options_;
  Source source_;
  detail::TokenSlots<B> slots_;
  HostBatch current_, next_;  // of the step under way, and of the one after it
};

}  // namespace tinymoe::inline v0_1
