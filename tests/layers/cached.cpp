// Decoding with a cache of keys and values equals the full forward, past the window's wrap.

#include "layers/model_trial.hpp"

using namespace tinymoe_test;

namespace {

constexpr Index V = 11;

/// Windows in all layers and no learned positions: a sequence may go on for ever.
using Windowed =
    Transformer<Vocab<V>, Context<9>, Width<8>,
                Layers<1, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, SlidingWindow<3>>, Router<3, 2>,
                                   Expert<SwiGlu, Hidden<5>>>>,
                Layers<1, DenseBlock<LayerNorm, Attention<Heads<2>, SlidingWindow<7>, Bias>, Expert<Gelu, Hidden<5>>>>>;
/// Learned positions and a layer that sees everything.
using Bounded = Transformer<Vocab<V>, Context<32>, Width<8>,
                            Layers<1, DenseBlock<LayerNorm, Attention<Heads<2>, Learned>, Expert<Relu, Hidden<5>>>>,
                            Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>, NoPosition, SlidingWindow<1>>, Router<2, 2>,
                                               Expert<Gelu, Hidden<5>>>>>;

/// Caches for passes of up to `chunk` tokens of each sequence, full of NaN at first.
template <class Arch, class B>
struct Decoder {
  using T = typename B::Scalar;
  using M = typename B::Master;

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
      most = std::max(most, rows * A::shape(Pass{}).heads);
    });
    probability.emplace_back(backend, batch * chunk, most);
  }

  /// The logits of the next tokens of each sequence: row b·time + t.
  std::vector<double> read(const Model<Arch, B>& model, const std::vector<Token>& tokens, const Pass& pass) {
    const View<const Token> ids(tokens.data(), 1, std::ssize(tokens));
    Arch::forward_cached(backend, pass, model.weights(), ids, *activations, caches, probability.front().view());
    DeviceMatrix<T, B> logits(backend, pass.rows(), V);
    Arch::logits(backend, model.weights(), activations->normed, logits.view());
    return logits.read();
  }

  B& backend;
  Activations<Arch, B> activations;
  std::vector<DeviceMatrix<T, B>> memory;
  std::vector<DeviceMatrix<M, B>> probability;
  std::array<KvCache<T>, static_cast<std::size_t>(Arch::layers)> caches;
};

/// Reads two sequences of `time` tokens by chunks of the given sizes, over and over, and compares with full forward.
template <class Arch, class B>
void check_decoding(B& backend, Index time, const std::vector<Index>& chunks, double tolerance) {
  constexpr Index batch = 2;
  ModelTrial<Arch, B> trial(backend, {.batch = batch, .time = time});
  trial.forward();
  const auto expected = trial.logits();
  const Index greatest = *std::max_element(chunks.begin(), chunks.end());
  Decoder<Arch, B> decoder(backend, batch, greatest);
  double worst = 0;
  std::size_t turn = 0;
  for (Index position = 0; position < time;) {
    const Index count = std::min(chunks[turn++ % chunks.size()], time - position);
    std::vector<Token> tokens;
    for (Index b = 0; b < batch; ++b) {
      const auto from = trial.tokens.begin() + b * time + position;
      tokens.insert(tokens.end(), from, from + count);
    }
    const auto logits = decoder.read(trial.model, tokens, {.batch = batch, .time = count, .first_position = position});
    for (Index b = 0; b < batch; ++b) {
      const auto part = rows_of(expected, V, b * time + position, count);
      worst = std::max(worst, absolute_error(rows_of(logits, V, b * count, count), part));
    }
    position += count;
  }
  check_small("chunks of up to " + std::to_string(greatest), worst, tolerance);
}

const std::vector<std::vector<Index>> chunkings{{1}, {2}, {3, 1}, {5, 1, 1, 2}, {9}};

}  // namespace

TEST_CASE("decoding past the context with rolling caches equals full forward", "[cached]") {
  // 40 tokens: the caches of 3 to 15 rows go round several times.
  Reference<double> oracle;
  Cpu backend(2);
  for (const auto& chunks : chunkings) {
    check_decoding<Windowed>(oracle, 40, chunks, 1e-10);
    check_decoding<Windowed>(backend, 40, chunks, 1e-4);
  }
}

TEST_CASE("decoding up to the context equals full forward", "[cached]") {
  Reference<double> oracle;
  for (const auto& chunks : {std::vector<Index>{1}, {7, 1}, {32}}) check_decoding<Bounded>(oracle, 32, chunks, 1e-10);
}

TEST_CASE("caches are bounded by the window and a pass, or by the context", "[cached]") {
  using Near = Windowed::BlockLayer<0>::AttentionLayer;
  using All = Bounded::BlockLayer<0>::AttentionLayer;
  STATIC_REQUIRE(Near::cache_rows(Windowed::context, 1) == 3);
  STATIC_REQUIRE(Near::cache_rows(Windowed::context, 5) == 7);
  STATIC_REQUIRE(All::cache_rows(Bounded::context, 1) == 32);
}
