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
      most = std::max(most, cached_attention_scratch(A::shape(Pass{}), chunk, batch * chunk, rows));
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
    DeviceMatrix<T, B> logits(backend, pass.rows(), V);
    Arch::logits(backend, model.weights(), activations->normed, logits.view());
    return logits.read();
  }

  B& backend;
  Activations<Arch, B> activations;
  std::vector<DeviceMatrix<T, B>> memory;
  std::vector<DeviceMatrix<M, B>> scratch;
  Caches caches;
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

/// Sequences of 3, 1 and 8 tokens or more are read one by one into places 2, 0 and 3 of a cache of four; then those at
/// `turns` go on, each at its own position, in one pass with one token each. Compares with full forward.
template <class Arch, class B>
void check_apart(B& backend, Index steps, const std::vector<std::vector<Index>>& turns, double tolerance) {
  constexpr Index sequences = 3;
  const std::vector<Index> prompts = {3, 1, 8};
  const std::vector<std::int32_t> place_of = {2, 0, 3};
  ModelTrial<Arch, B> trial(backend, {.batch = sequences, .time = 8 + steps});
  trial.forward();
  const auto expected = trial.logits();
  Decoder<Arch, B> decoder(backend, 4, 8);
  const auto tokens_of = [&](Index b, Index first, Index count) {
    const auto from = trial.tokens.begin() + b * trial.pass.time + first;
    return std::vector<Token>(from, from + count);
  };
  auto position = prompts;
  for (Index b = 0; b < sequences; ++b) {
    const auto at = static_cast<std::size_t>(b);
    auto part = decoder.caches;
    for (auto& cache : part) cache = cache.part(place_of[at]);
    const auto logits = decoder.read(trial.model, tokens_of(b, 0, prompts[at]), {.time = prompts[at]}, part);
    check_small("prompt", absolute_error(logits, rows_of(expected, V, b * trial.pass.time, prompts[at])), tolerance);
  }
  double worst = 0;
  for (Index step = 0; step < steps; ++step) {
    std::vector<Token> tokens;
    std::vector<double> wanted;
    std::vector<std::int32_t> positions, places;
    for (const Index b : turns[static_cast<std::size_t>(step) % turns.size()]) {
      const auto at = static_cast<std::size_t>(b);
      tokens.push_back(tokens_of(b, position[at], 1).front());
      const auto part = rows_of(expected, V, b * trial.pass.time + position[at], 1);
      wanted.insert(wanted.end(), part.begin(), part.end());
      positions.push_back(static_cast<std::int32_t>(position[at]++));
      places.push_back(place_of[at]);
    }
    auto caches = decoder.caches;
    for (auto& cache : caches) cache.places = {places.data(), 1, std::ssize(places)};
    const Pass pass{.batch = std::ssize(tokens), .time = 1, .positions = {positions.data(), 1, std::ssize(positions)}};
    worst = std::max(worst, absolute_error(decoder.read(trial.model, tokens, pass, caches), wanted));
  }
  check_small("sequences apart", worst, tolerance);
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

TEST_CASE("sequences at positions of their own equal full forward, whichever go on", "[cached]") {
  const std::vector<std::vector<Index>> turns{{0, 1, 2}, {2, 0}, {1}, {2, 1, 0}};
  Reference<double> oracle;
  Cpu backend(2);
  check_apart<Windowed>(oracle, 30, turns, 1e-10);
  check_apart<Windowed>(backend, 30, turns, 1e-4);
  check_apart<Bounded>(oracle, 24, turns, 1e-10);  // up to the last position of the context
  check_apart<Bounded>(backend, 24, turns, 1e-4);
}

TEST_CASE("products and single queries give the same attention, wherever the cache begins again", "[cached]") {
  Reference<double> backend;
  constexpr Index d = 4, heads = 4, kv_heads = 2, time = 9;
  for (const Index window : {0, 1, 5, 14}) {
    // Up to a position where the cache of 22 rows, or of all rows, has gone round, is just full, or is not full.
    for (const Index first : {0, 3, 13, 14, 40, 61}) {
      const AttentionShape shape{1, time, heads, kv_heads, d, window, 0.5};
      const Index capacity = window > 0 ? 22 : 70;
      DeviceMatrix<double, Reference<double>> key(backend, capacity, kv_heads * d),
          value(backend, capacity, kv_heads * d);
      key.fill_normal(1), value.fill_normal(2);
      for (Index row = first; row < capacity; ++row) {  // no token has been there
        for (Index i = 0; i < kv_heads * d; ++i) key.view()(row, i) = value.view()(row, i) = not_a_number;
      }
      DeviceMatrix<double, Reference<double>> q(backend, time, heads * d), k(backend, time, kv_heads * d),
          v(backend, time, kv_heads * d), products(backend, time, heads * d), single(backend, time, heads * d),
          scratch(backend, 1, time * heads * (capacity + d));
      q.fill_normal(3), k.fill_normal(4), v.fill_normal(5);
      const KvCache<double> cache{key.view(), value.view(), capacity};
      cached_attention(backend, shape, {.time = time, .first_position = first}, q.view(), k.view(), v.view(), cache,
                       products.view(), scratch.view());
      backend.launch(time * heads, kernels::CachedAttention<double, double>{
                                       shape, RowPositions(Pass{.time = time, .first_position = first}), q.view(),
                                       cache, single.view(), scratch.view()});
      INFO("window " << window << ", from position " << first);
      CHECK(absolute_error(products.read(), single.read()) < 1e-14);
    }
  }
}

TEST_CASE("caches are bounded by the window and a pass, or by the context", "[cached]") {
  using Near = Windowed::BlockLayer<0>::AttentionLayer;
  using All = Bounded::BlockLayer<0>::AttentionLayer;
  STATIC_REQUIRE(Near::cache_rows(Windowed::context, 1) == 3);
  STATIC_REQUIRE(Near::cache_rows(Windowed::context, 5) == 7);
  STATIC_REQUIRE(All::cache_rows(Bounded::context, 1) == 32);
}
