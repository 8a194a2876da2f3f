// Decoding with a KV cache equals the full forward, also when a rolling cache has wrapped around.

#include <optional>

#include "backend/forced.hpp"
#include "layers/decoder.hpp"

namespace tinymoe_test::cached {

namespace {

constexpr Index V = 11;

/// Windows in all layers and no learned positions: a sequence may have any length.
using Windowed =
    Transformer<Vocab<V>, Context<9>, Width<8>,
                Layers<1, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, SlidingWindow<3>>, Router<3, 2>,
                                   Expert<SwiGlu, Hidden<5>>>>,
                Layers<1, DenseBlock<LayerNorm, Attention<Heads<2>, SlidingWindow<7>, Bias>, Expert<Gelu, Hidden<5>>>>>;
/// Learned positions and a layer without a window.
using Bounded = Transformer<Vocab<V>, Context<32>, Width<8>,
                            Layers<1, DenseBlock<LayerNorm, Attention<Heads<2>, Learned>, Expert<Relu, Hidden<5>>>>,
                            Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>, NoPosition, SlidingWindow<1>>, Router<2, 2>,
                                               Expert<Gelu, Hidden<5>>>>>;

/// Two sequences of `time` tokens have the logits of full forward when they are read by chunks.
template <class Arch, class B>
void check_two(B& backend, Index time, const std::vector<Index>& chunks, double tolerance) {
  ModelTrial<Arch, B> trial(backend, {.batch = 2, .time = time});
  trial.forward();
  check_decoding(trial, chunks, tolerance);
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

}  // namespace

TEST_CASE("decoding past the context with rolling caches equals full forward", "[cached]") {
  // 40 tokens: the caches of 3 to 15 rows wrap around several times.
  Reference<double> oracle;
  Cpu backend(2);
  for (const auto& chunks : chunkings) {
    check_two<Windowed>(oracle, 40, chunks, 1e-10);
    check_two<Windowed>(backend, 40, chunks, 1e-4);
  }
}

TEST_CASE("decoding up to the context equals full forward", "[cached]") {
  Reference<double> oracle;
  for (const auto& chunks : {std::vector<Index>{1}, {7, 1}, {32}}) check_two<Bounded>(oracle, 32, chunks, 1e-10);
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

/// The attention of `time` queries to a cache, computed with products and by single queries: the largest difference.
/// Rows of the cache in which no token has been are not a number.
template <class B, class T = typename B::Scalar, class M = typename B::Master>
double products_against_single(B& backend, AttentionShape shape, Index first, Index capacity) {
  const Index d = shape.head_dim, width = shape.kv_heads * d, time = shape.time;
  DeviceMatrix<T, B> key(backend, capacity, width), value(backend, capacity, width), q(backend, time, shape.heads * d),
      k(backend, time, width), v(backend, time, width), products(backend, time, shape.heads * d),
      single(backend, time, shape.heads * d);
  key.fill_normal(1), value.fill_normal(2), q.fill_normal(3), k.fill_normal(4), v.fill_normal(5);
  for (Index row = first; row < capacity; ++row) {
    for (Index i = 0; i < width; ++i) key.view()(row, i) = value.view()(row, i) = T(float(not_a_number));
  }
  DeviceMatrix<M, B> scratch(backend, 1, cached_attention_scratch(backend, shape, time, time, capacity));
  const KvCache<T> cache{key.view(), value.view(), capacity};
  const Pass pass{.time = time, .first_position = first};
  backend.launch(time, kernels::CacheStore<T>{k.view(), v.view(), cache, RowPositions(pass)});
  cached_attention(backend, shape, pass, q.view(), cache, products.view(), scratch.view());
  backend.launch(time * shape.heads, kernels::CachedAttention<T, M>{shape, RowPositions(pass), q.view(), cache,
                                                                    single.view(), scratch.view()});
  return absolute_error(products.read(), single.read());
}

TEST_CASE("products and single queries give the same attention, wherever the cache wraps around", "[cached]") {
  Reference<double> backend;
  constexpr Index d = 4, heads = 4, kv_heads = 2, time = 9;
  for (const Index window : {0, 1, 5, 14}) {
    // Up to a position where the cache of 22 rows, or of all rows, has wrapped around, is just full, or is not full.
    for (const Index first : {0, 3, 13, 14, 40, 61}) {
      const AttentionShape shape{1, time, heads, kv_heads, d, window, 0.5};
      const Index capacity = window > 0 ? 22 : 70;
      INFO("window " << window << ", from position " << first);
      CHECK(products_against_single(backend, shape, first, capacity) < 1e-14);
    }
  }
}

TEST_CASE("Cpu attends to a cache by products in tiles of queries, in bfloat16 with logits in float", "[cached]") {
  Cpu cpu(2);
  CpuBfloat16 rounding(2);
  std::optional<Forced<CpuBfloat16>> on_tiles;  // of the matrix unit, which rounds probabilities as well
  if (amx_runs()) on_tiles.emplace(2, CpuInstructions::amx);
  for (const Index time : {8, 64, 131}) {
    for (const Index window : {0, 5, 90}) {
      for (const Index first : {0, 3, 200}) {
        const AttentionShape shape{1, time, 4, 2, 20, window, 0.5};
        const Index capacity = window > 0 ? window + time - 1 : 340;
        INFO("time " << time << ", window " << window << ", from position " << first);
        CHECK(products_against_single(cpu, shape, first, capacity) < 1e-5);
        CHECK(products_against_single(rounding, shape, first, capacity) < 0.02);  // one rounding of the result
        if (on_tiles) {
          CHECK(products_against_single(static_cast<CpuBfloat16&>(*on_tiles), shape, first, capacity) < 0.03);
        }
      }
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

}  // namespace tinymoe_test::cached
