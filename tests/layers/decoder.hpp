#pragma once
// Decoding with a KV cache, and its comparison with the full forward.

#include <algorithm>
#include <array>

#include "layers/model_trial.hpp"

namespace tinymoe_test {

/// Caches for passes of up to `chunk` tokens of each sequence, full of NaN at first.
template <class Arch, class B>
struct Decoder {
  using T = typename B::Scalar;
  using M = typename B::Master;
  using Caches = std::array<KvCache<T>, static_cast<std::size_t>(Arch::layers)>;

  Decoder(B& backend, Index batch, Index chunk)
      : backend(backend), activations(backend, Plan::Purpose::inference, Pass{.batch = batch, .time = chunk}) {
    Index most = 0;
    Arch::for_each_layer([&](auto group, Index, Index number) {
      using A = typename Arch::template BlockLayer<group>::AttentionLayer;
      const Index rows = A::cache_rows(Arch::context, chunk);
      auto& cache = caches[static_cast<std::size_t>(number)];
      cache.capacity = rows;
      for (auto* view : {&cache.key, &cache.value}) {
        memory.emplace_back(backend, batch * rows, A::key_width);
        memory.back().fill(not_a_number);
        *view = memory.back().view();
      }
      most = std::max(most, cached_attention_scratch(backend, A::shape(Pass{}), chunk, batch * chunk, rows));
    });
    scratch.emplace_back(backend, 1, most);
  }

  /// The logits of the next tokens of each sequence: row b·time + t.
  std::vector<double> read(const Model<Arch, B>& model, const std::vector<Token>& tokens, const Pass& pass) {
    return read(model, tokens, pass, caches);
  }
  std::vector<double> read(const Model<Arch, B>& model, const std::vector<Token>& tokens, const Pass& pass,
                           const Caches& caches) {
    const View<const Token> ids(tokens.data(), 1, std::ssize(tokens));
    Arch::forward_cached(backend, pass, model.weights(), ids, *activations, caches, scratch.front().view());
    DeviceMatrix<T, B> logits(backend, pass.rows(), Arch::vocab);
    Arch::logits(backend, model.weights(), activations->normed(pass.rows()), logits.view());
    return logits.read();
  }

  B& backend;
  Activations<Arch, B> activations;
  std::vector<DeviceMatrix<T, B>> memory;
  std::vector<DeviceMatrix<M, B>> scratch;
  Caches caches;
};

/// Reads a trial's sequences by chunks of the given sizes, over and over, and compares with its full forward, which was
/// the last pass of the trial.
template <class Arch, class B>
void check_decoding(ModelTrial<Arch, B>& trial, const std::vector<Index>& chunks, double tolerance) {
  constexpr Index vocab = Arch::vocab;
  const Index batch = trial.pass.batch, time = trial.pass.time;
  const auto expected = trial.logits();
  const Index longest = *std::max_element(chunks.begin(), chunks.end());
  Decoder<Arch, B> decoder(trial.backend, batch, longest);
  double worst = 0;
  std::size_t turn = 0;
  for (Index position = 0; position < time;) {
    const Index count = std::min(chunks[turn++ % chunks.size()], time - position);
    std::vector<Token> tokens;
    for (Index b = 0; b < batch; ++b) {
      const auto from = trial.tokens.begin() + b * time + position;
      tokens.insert(tokens.end(), from, from + count);
    }
    const Pass pass{.batch = batch, .time = count, .first_position = position, .settings = trial.pass.settings};
    const auto logits = decoder.read(trial.model, tokens, pass);
    for (Index b = 0; b < batch; ++b) {
      const auto part = rows_of(expected, vocab, b * time + position, count);
      worst = std::max(worst, absolute_error(rows_of(logits, vocab, b * count, count), part));
    }
    position += count;
  }
  check_small("chunks of up to " + std::to_string(longest), worst, tolerance);
}

/// Chunks by which decoding is tried: single tokens, and passes that a rolling cache must take in parts.
inline const std::vector<std::vector<Index>> chunkings{{1}, {2}, {3, 1}, {5, 1, 1, 2}, {9}};

}  // namespace tinymoe_test
