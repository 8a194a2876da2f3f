#pragma once
/// @file
/// Inference on one sequence: keys and values of past tokens are kept, so that each new token costs one row.

#include <algorithm>
#include <span>
#include <vector>

#include "tinymoe/layers/model.hpp"

namespace tinymoe {

/// The state of one sequence that a model reads token by token.
///
/// Where attention has a sliding window its cache is a rolling buffer of the window, and a sequence may go on for ever.
/// Where it sees everything, or positions are learned, a sequence that outgrows the context forgets its first half: the
/// later half is read again from position 0.
template <class ModelType>
class Session {
 public:
  using Architecture = typename ModelType::Architecture;
  using B = typename ModelType::BackendType;
  using Scalar = typename ModelType::Scalar;
  using Master = typename ModelType::Master;

  /// Plans caches and activations; the model must outlive the session. Throws DeviceError without memory.
  explicit Session(const ModelType& model) : model_(&model), activations_(plan_activations(model.backend())) {
    Index elements = 0, longest = 1;
    for_each_attention([&](auto layer, Index) {
      using A = typename decltype(layer)::type;
      const Index rows = A::cache_rows(Architecture::context, chunk);
      elements += 2 * aligned_size(rows * A::key_width);
      longest = std::max(longest, rows * A::shape(Pass{}).heads);
    });
    auto& backend = model.backend();
    cache_memory_ = backend.allocate(static_cast<std::size_t>(elements) * sizeof(Scalar));
    probability_ = backend.allocate(static_cast<std::size_t>(chunk * longest) * sizeof(Master));
    tokens_ = backend.allocate(static_cast<std::size_t>(chunk) * sizeof(Token));
    logits_ = backend.allocate(static_cast<std::size_t>(Architecture::vocab) * sizeof(Scalar));
    auto* next = cache_memory_.template as<Scalar>().data;
    for_each_attention([&](auto layer, Index i) {
      using A = typename decltype(layer)::type;
      const Index rows = A::cache_rows(Architecture::context, chunk);
      auto& cache = caches_[static_cast<std::size_t>(i)];
      cache.capacity = rows;
      cache.key = {next, rows, A::key_width};
      next += aligned_size(rows * A::key_width);
      cache.value = {next, rows, A::key_width};
      next += aligned_size(rows * A::key_width);
    });
    host_logits_.resize(static_cast<std::size_t>(Architecture::vocab));
    converted_.resize(host_logits_.size());
  }

  /// Reads tokens and returns the logits (V) of what comes after the last one; they stay until the next call.
  /// Throws TextError for a token outside the vocabulary or for no tokens at all.
  std::span<const float> feed(std::span<const Token> tokens) {
    if (tokens.empty()) fail<TextError>("a model must read at least one token before it writes");
    for (const Token token : tokens) {
      if (token < 0 || token >= Architecture::vocab) {
        fail<TextError>("token ", token, " is outside the vocabulary of ", Architecture::vocab);
      }
    }
    history_.insert(history_.end(), tokens.begin(), tokens.end());
    auto next = static_cast<std::size_t>(std::ssize(history_) - std::ssize(tokens));
    if (!unlimited && position_ + std::ssize(tokens) > Architecture::context) {
      // Starts again with the last half of the context, so that the next half is free.
      position_ = 0;
      next = history_.size() - std::min(history_.size(), static_cast<std::size_t>((Architecture::context + 1) / 2));
    }
    while (next < history_.size()) {
      const std::size_t count = std::min<std::size_t>(chunk, history_.size() - next);
      read(std::span(history_).subspan(next, count), next + count == history_.size());
      next += count;
    }
    // Only what a restart may read again is kept.
    const auto kept = static_cast<std::size_t>(Architecture::context);
    if (history_.size() > 4 * kept) history_.erase(history_.begin(), history_.end() - static_cast<Index>(kept));
    return converted_;
  }

  /// Forgets the sequence.
  void reset() {
    position_ = 0;
    history_.clear();
  }

  /// Tokens in the cache's numbering; less than what was fed after a restart.
  Index position() const { return position_; }
  /// Bytes of keys and values.
  std::size_t cache_bytes() const { return cache_memory_.size(); }

  /// Tokens that one pass reads at most.
  static constexpr Index chunk = std::min<Index>(64, Architecture::context);
  /// Whether a sequence may be longer than the context.
  static constexpr bool unlimited = [] {
    bool windows = !Architecture::learned_positions;
    Architecture::for_each_layer([&](auto group, Index, Index) {
      using A = typename Architecture::template BlockLayer<group>::AttentionLayer;
      windows = windows && A::visible(Architecture::context) <= Architecture::context;
    });
    return windows;
  }();

 private:
  static Activations<Architecture, B> plan_activations(B& backend) {
    return {backend, Plan::Purpose::inference, Pass{.batch = 1, .time = chunk}};
  }

  template <class F>
  static void for_each_attention(F&& f) {
    Architecture::for_each_layer([&](auto group, Index, Index number) {
      f(std::type_identity<typename Architecture::template BlockLayer<group>::AttentionLayer>{}, number);
    });
  }

  void read(std::span<const Token> tokens, bool wants_logits) {
    auto& backend = model_->backend();
    const Pass pass{
        .batch = 1, .time = std::ssize(tokens), .first_position = position_, .settings = model_->settings()};
    const auto ids = tokens_.template as<Token>().data;
    backend.copy_to_device(ids, tokens.data(), tokens.size_bytes());
    Architecture::forward_cached(backend, pass, model_->weights(), View<const Token>(ids, 1, pass.time), *activations_,
                                 caches_, probability_.template as<Master>());
    position_ += pass.time;
    if (!wants_logits) return;
    const View<Scalar> logits = {logits_.template as<Scalar>().data, 1, Architecture::vocab};
    Architecture::logits(backend, model_->weights(), activations_->normed.middle_rows(pass.time - 1, 1), logits);
    backend.copy_to_host(host_logits_.data(), logits.data, host_logits_.size() * sizeof(Scalar));
    for (std::size_t v = 0; v < converted_.size(); ++v) converted_[v] = static_cast<float>(real_part(host_logits_[v]));
  }

  const ModelType* model_;
  Activations<Architecture, B> activations_;
  Memory cache_memory_, probability_, tokens_, logits_;
  std::array<KvCache<Scalar>, static_cast<std::size_t>(Architecture::layers)> caches_;
  std::vector<Scalar> host_logits_;
  std::vector<float> converted_;
  std::vector<Token> history_;
  Index position_ = 0;
};

}  // namespace tinymoe
