#pragma once
/// @file
/// Inference with a KV cache, on one or several sequences: each new token costs one row.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "tinymoe/backend/capabilities.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/activations.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/settings.hpp"
#include "tinymoe/sample/expert_trace.hpp"
#include "tinymoe/sample/session_caches.hpp"

namespace tinymoe::inline v0_1 {

/// What a Session is planned for.
struct SessionOptions {
  Index sequences = 1;  // held at once
  bool trace = false;   // record the experts of the tokens of the last call

  /// Throws OptionError, naming the option.
  void check() const {
    detail::check_options("SessionOptions", {{"sequences", sequences, detail::range::whole(1, 1 << 16)}});
  }
};

/// The state of sequences that a model reads token by token.
///
/// With a sliding window the KV cache is a ring buffer, and the length of a sequence is unlimited. With full attention
/// or learned positions, a sequence that outgrows the context is restarted: its last half is read again from position
/// 0.
template <class ModelType>
class Session {
 public:
  using Architecture = typename ModelType::Architecture;
  using B = typename ModelType::BackendType;
  using Scalar = typename ModelType::Scalar;

  /// Allocates caches and activations; the model must outlive the session. Throws OptionError without a sequence,
  /// DeviceError without memory.
  explicit Session(const ModelType& model, SessionOptions options = {})
      : model_(&model),
        sequences_(checked(options)),
        activations_(plan_activations(model.backend(), rows())),
        caches_(model.backend(), sequences()) {
    model.settings().check();
    auto& backend = model.backend();
    inputs_ = backend.allocate(static_cast<std::size_t>(4 * rows()) * sizeof(std::int32_t));
    logits_ = backend.allocate(sequences_.size() * vocab * sizeof(Scalar));
    host_logits_.resize(sequences_.size() * vocab);
    converted_.resize(host_logits_.size());
    if (options.trace) trace_.emplace(backend, activations_, rows());
  }

  /// Prefill: reads tokens of one sequence and returns the logits (V) for the token after the last one, valid until the
  /// next call. Throws TextError for a token outside the vocabulary or without any token, ShapeError for a sequence
  /// that does not exist.
  std::span<const float> feed(std::span<const Token> tokens, Index sequence = 0) {
    if (tokens.empty()) fail<TextError>("a model must read at least one token before it generates");
    check(tokens, std::span(&sequence, 1));
    if (trace_) trace_->restart(std::ssize(tokens));
    read(tokens, sequence, 0);
    return std::span<const float>(converted_).first(vocab);
  }

  /// Decode: reads one token of each of several sequences in one pass, and returns the logits (n, V): row i is for the
  /// token after tokens[i] in sequences[i]. Throws as `feed` does, and ShapeError for a repeated sequence.
  std::span<const float> step(std::span<const Index> sequences, std::span<const Token> tokens) {
    if (sequences.size() != tokens.size()) {
      fail<ShapeError>("expected a token for each of ", sequences.size(), " sequences, found ", tokens.size());
    }
    check(tokens, sequences);
    if (trace_) trace_->restart(std::ssize(tokens));
    together_.clear();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (outgrows(at(*this, sequences[i]), 1)) {
        read(tokens.subspan(i, 1), sequences[i], static_cast<Index>(i));
      } else {
        together_.push_back(static_cast<Index>(i));
      }
    }
    if (!together_.empty()) read_together(sequences, tokens);
    return std::span<const float>(converted_).first(tokens.size() * vocab);
  }

  /// Empties all sequences.
  void reset() {
    for (auto& sequence : sequences_) sequence = {};
  }
  /// Empties one sequence.
  void reset(Index sequence) { at(*this, sequence) = {}; }

  /// The model that reads the tokens.
  const ModelType& model() const { return *model_; }
  /// How many sequences it was planned for.
  Index sequences() const { return std::ssize(sequences_); }
  /// The position of the next token; after a restart less than the number of tokens read.
  Index position(Index sequence = 0) const { return at(*this, sequence).position; }
  /// Bytes of keys and values.
  std::size_t cache_bytes() const { return caches_.bytes(); }
  /// For each mixture, the experts of the tokens of the last `feed` or `step`; none for tokens that a restart or a
  /// prompt longer than the context left unread. Empty without `trace`.
  std::span<const ExpertChoices> experts() const {
    return trace_ ? trace_->choices() : std::span<const ExpertChoices>{};
  }

  /// Whether a sequence may be longer than the context.
  static constexpr bool unlimited = detail::SessionCaches<Architecture, B>::unlimited;
  /// Max tokens of one pass.
  static constexpr Index chunk = detail::SessionCaches<Architecture, B>::chunk;

 private:
  using Caches = typename detail::SessionCaches<Architecture, B>::Caches;
  static constexpr auto vocab = static_cast<std::size_t>(Architecture::vocab);

  struct Sequence {
    std::vector<Token> history;
    Index position = 0;
  };

  static std::vector<Sequence> checked(const SessionOptions& options) {
    options.check();
    return std::vector<Sequence>(static_cast<std::size_t>(options.sequences));
  }
  static Activations<Architecture, B> plan_activations(B& backend, Index rows) {
    return {backend, Plan::Purpose::inference, Pass{.batch = 1, .time = rows}};
  }
  Index rows() const { return std::max(chunk, sequences()); }
  template <class Self>
  static auto& at(Self& self, Index sequence) {
    if (sequence < 0 || sequence >= self.sequences()) {
      fail<ShapeError>("the session has sequences 0 to ", self.sequences() - 1, ", found ", sequence);
    }
    return self.sequences_[static_cast<std::size_t>(sequence)];
  }

  void check(std::span<const Token> tokens, std::span<const Index> sequences) const {
    for (const Token token : tokens) {
      if (token < 0 || token >= Architecture::vocab) {
        fail<TextError>("token ", token, " is outside the vocabulary of ", Architecture::vocab);
      }
    }
    for (auto sequence = sequences.begin(); sequence != sequences.end(); ++sequence) {
      at(*this, *sequence);
      if (std::find(sequences.begin(), sequence, *sequence) != sequence) {
        fail<ShapeError>("expected each sequence once, found ", *sequence, " twice");
      }
    }
  }

  static bool outgrows(const Sequence& sequence, Index tokens) {
    return !unlimited && sequence.position + tokens > Architecture::context;
  }

  /// Reads tokens of one sequence in passes of its own. Row `row` of the result gets the logits after the last token;
  /// the trace starts at `row`.
  void read(std::span<const Token> tokens, Index number, Index row) {
    auto& sequence = at(*this, number);
    auto& history = sequence.history;
    const Index begin = std::ssize(history);
    Index next = begin;
    history.insert(history.end(), tokens.begin(), tokens.end());
    if (outgrows(sequence, std::ssize(tokens))) {
      // Starts again with the last half of the context, so that the next half is free.
      sequence.position = 0;
      next = std::ssize(history) - std::min(std::ssize(history), (Architecture::context + 1) / 2);
    }
    const auto caches = caches_.part(number);
    while (next < std::ssize(history)) {
      const Index count = std::min(chunk, std::ssize(history) - next);
      const Pass pass{.time = count,
                      .first_position = sequence.position,
                      .settings = model_->settings(),
                      .limits = model_->limits_by_layer(),
                      .previous = sequence.position > 0 ? previous(count, 1) : View<const Token>()};
      const Index first = sequence.position > 0 ? next - 1 : next;
      // The tokens, and after them the one before.
      host_inputs_.assign(history.begin() + next, history.begin() + next + count);
      host_inputs_.push_back(history[static_cast<std::size_t>(first)]);
      model_->backend().copy_to_device(inputs_.bytes(), host_inputs_.data(), host_inputs_.size() * sizeof(Token));
      run(pass, caches);
      if (trace_) {
        rows_.clear();
        for (Index n = next; n < next + count; ++n) rows_.push_back(n < begin ? -1 : n - begin + row);
        trace_->record(model_->backend(), rows_);
      }
      sequence.position += count;
      next += count;
      if (next == std::ssize(history)) {
        compute_logits(count - 1, 1);
        read_logits(std::span(&row, 1));
      }
    }
    forget(history);
  }

  /// Reads one token of each of the sequences whose indices in the call are in `together_`.
  void read_together(std::span<const Index> sequences, std::span<const Token> tokens) {
    const Index count = std::ssize(together_);
    // Tokens, positions, places and the tokens before, in one copy.
    host_inputs_.resize(static_cast<std::size_t>(4 * count));
    for (Index n = 0; n < count; ++n) {
      const auto i = static_cast<std::size_t>(together_[static_cast<std::size_t>(n)]);
      auto& sequence = at(*this, sequences[i]);
      std::int32_t* input = host_inputs_.data() + n;
      input[0] = tokens[i];
      input[count] = static_cast<std::int32_t>(sequence.position);
      input[2 * count] = static_cast<std::int32_t>(sequences[i]);
      input[3 * count] = sequence.position > 0 ? sequence.history.back() : -1;
      sequence.history.push_back(tokens[i]);
      ++sequence.position;
      forget(sequence.history);
    }
    auto* inputs = inputs_.template as<std::int32_t>().data;
    detail::upload(model_->backend(), inputs, host_inputs_.data(), host_inputs_.size() * sizeof(std::int32_t));
    const Pass pass{.batch = count,
                    .time = 1,
                    .settings = model_->settings(),
                    .limits = model_->limits_by_layer(),
                    .positions = {inputs + count, 1, count},
                    .previous = previous(3 * count, count)};
    const auto caches = caches_.of({inputs + 2 * count, 1, count});
    repeat(count, [&] {
      run(pass, caches);
      compute_logits(0, count);
    });
    if (trace_) trace_->record(model_->backend(), together_);
    read_logits(together_);
  }

  /// Runs `work` on one token of each of `count` sequences: recordable, as every call runs the same operations on the
  /// same addresses.
  template <class Work>
  void repeat(Index count, Work&& work) {
    const bool recordable =
        Architecture::max_pairs(count) <= detail::max_recorded_pairs<B> && model_->limits_by_layer() == nullptr;
    recordable ? repeated_[count](model_->backend(), model_->settings(), work) : work();
  }

  /// The tokens before each sequence's first, among the inputs.
  View<const Token> previous(Index first, Index count) {
    return {inputs_.template as<std::int32_t>().data + first, 1, count};
  }

  /// One pass over the first tokens of the inputs.
  void run(const Pass& pass, const Caches& caches) {
    const View<const Token> tokens(inputs_.template as<std::int32_t>().data, 1, pass.rows());
    Architecture::forward_cached(model_->backend(), pass, model_->weights(), tokens, *activations_, caches,
                                 caches_.scratch());
  }

  /// Computes the logits of rows first … first + count − 1 of the last pass, on the backend.
  void compute_logits(Index first, Index count) {
    Architecture::logits(model_->backend(), model_->weights(),
                         activations_->normed(first + count).middle_rows(first, count),
                         View<Scalar>(logits_.template as<Scalar>().data, count, Architecture::vocab));
  }

  /// Copies the computed logits to rows `to` of the result.
  void read_logits(std::span<const Index> to) {
    const auto bytes = to.size() * vocab * sizeof(Scalar);
    model_->backend().copy_to_host(host_logits_.data(), logits_.bytes(), bytes);
    for (std::size_t n = 0; n < to.size(); ++n) {
      std::transform(host_logits_.data() + n * vocab, host_logits_.data() + (n + 1) * vocab,
                     converted_.data() + static_cast<std::size_t>(to[n]) * vocab,
                     [](Scalar logit) { return static_cast<float>(real_part(logit)); });
    }
  }

  /// Drops old tokens; a restart never reads more than the last half of the context.
  static void forget(std::vector<Token>& history) {
    if (std::ssize(history) <= 4 * Architecture::context) return;
    history.erase(history.begin(), history.end() - Architecture::context);
  }

  const ModelType* model_;
  std::vector<Sequence> sequences_;
  Activations<Architecture, B> activations_;
  detail::SessionCaches<Architecture, B> caches_;
  Memory inputs_, logits_;
  std::optional<ExpertTrace<Architecture, B>> trace_;
  std::vector<Scalar> host_logits_;
  std::vector<float> converted_;
  std::vector<std::int32_t> host_inputs_;
  std::vector<Index> together_, rows_;
  std::map<Index, detail::Repeated<B, Settings>> repeated_;  // by the number of sequences
};

}  // namespace tinymoe::inline v0_1
