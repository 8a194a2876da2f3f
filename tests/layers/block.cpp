#include "tinymoe/layers/block.hpp"

#include "support/gradients.hpp"
#include "tinymoe/backend/cpu.hpp"

namespace tinymoe_test::block {

namespace {

constexpr Index D = 8;

using Sparse = MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, SlidingWindow<3>>, Router<3, 2>,
                        Expert<SwiGlu, Hidden<5>>>::Layer<D>;
using Full = DenseBlock<LayerNorm, Attention<Heads<2>, Bias, Learned>, Expert<Gelu, Hidden<5>, Bias>>::Layer<D>;

template <class Layer>
using Double = Trial<Layer, Reference<double>>;

const Settings losses{setting::balance_weight = 0.7, setting::z_weight = 0.3};

}  // namespace

TEST_CASE("a block whose branches end in zero passes x through", "[block]") {
  Reference<double> backend;
  Double<Full> trial(backend, {.batch = 2, .time = 3}, D, D);
  auto& attention = trial.weights.attention;
  auto& network = trial.weights.network.network.experts[0];
  std::fill_n(attention.output.data, attention.output.size(), 0.0);
  std::fill_n(attention.output_bias_.data, D, 0.0);
  std::fill_n(network.output.data, network.output.size(), 0.0);
  std::fill_n(network.output_bias.data, D, 0.0);
  trial.forward();
  CHECK(same_bits(trial.y.read(), trial.x.read()));
  std::fill_n(attention.output_bias_.data, D, 1.0);
  std::fill_n(network.output_bias.data, D, 0.25);
  trial.forward();
  auto shifted = trial.x.read();
  for (double& value : shifted) value += 1.25;
  CHECK(absolute_error(trial.y.read(), shifted) < 1e-15);
}

TEST_CASE("a block is its layers with two residual sums", "[block]") {
  Reference<double> backend;
  const Pass pass{.batch = 2, .time = 5};
  Double<Sparse> block(backend, pass, D, D);
  block.forward();
  Double<Sparse::NormLayer> first(backend, pass, D, D), second(backend, pass, D, D);
  Double<Sparse::AttentionLayer> attention(backend, pass, D, D);
  Double<Sparse::NetworkLayer> network(backend, pass, D, D);
  // Each layer's parameters lie one after another in the block's buffer.
  double* at = block.w.view().data;
  for (const auto& w : {first.w.view(), attention.w.view(), second.w.view(), network.w.view()}) {
    std::copy_n(at, w.cols, w.data);
    at += w.cols;
  }
  const auto run = [](auto& layer, const std::vector<double>& x) {
    std::copy(x.begin(), x.end(), layer.x.view().data);
    layer.forward();
    return layer.y.read();
  };
  const auto added = [](std::vector<double> a, const std::vector<double>& b) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
    return a;
  };
  const auto x = block.x.read();
  const auto h = added(x, run(attention, run(first, x)));
  CHECK(absolute_error(block.y.read(), added(h, run(network, run(second, h)))) < 1e-13);
}

TEST_CASE("blocks have the gradients of complex steps", "[block][gradient]") {
  SECTION("sparse") { check_gradients<Sparse>({.batch = 2, .time = 4, .settings = losses}, D, D); }
  SECTION("dense") { check_gradients<Full>({.batch = 2, .time = 3}, D, D); }
}

TEST_CASE("a block's dx may be written over dy", "[block]") {
  Reference<double> backend;
  Double<Sparse> trial(backend, {.batch = 2, .time = 5, .settings = losses}, D, D);
  trial.forward();
  trial.backward();
  const auto dx = trial.dx.read(), g = trial.g.read();
  trial.g.fill(0);
  trial.forward();
  Sparse::backward(backend, trial.pass, trial.weights, trial.dy.view(), trial.dy.view(), trial.saved, trial.gradients);
  CHECK(absolute_error(trial.dy.read(), dx) < 1e-14);
  CHECK(absolute_error(trial.g.read(), g) < 1e-14);
}

TEST_CASE("blocks on the CPU agree with the oracle", "[block][cpu]") {
  for (const int threads : {1, 3}) {
    Cpu backend(threads);
    check_agreement<Sparse>(backend, {.batch = 2, .time = 37, .settings = losses}, D, D);
    check_agreement<Full>(backend, {.batch = 2, .time = 5}, D, D);
  }
}

TEST_CASE("blocks name their tensors as the hub does", "[block]") {
  using Names = std::vector<std::string>;
  CHECK(tensor_names<Sparse::Parameters<double>>() ==
        Names{"input_layernorm.weight", "self_attn.q_proj.weight+k_proj.weight+v_proj.weight",
              "self_attn.o_proj.weight", "post_attention_layernorm.weight", "block_sparse_moe.gate.weight",
              "block_sparse_moe.experts.0.w1.weight+w3.weight", "block_sparse_moe.experts.0.w2.weight",
              "block_sparse_moe.experts.1.w1.weight+w3.weight", "block_sparse_moe.experts.1.w2.weight",
              "block_sparse_moe.experts.2.w1.weight+w3.weight", "block_sparse_moe.experts.2.w2.weight"});
  CHECK(tensor_names<Full::Parameters<double>>() ==
        Names{"input_layernorm.weight", "input_layernorm.bias", "self_attn.q_proj.weight+k_proj.weight+v_proj.weight",
              "self_attn.o_proj.weight", "self_attn.q_proj.bias+k_proj.bias+v_proj.bias", "self_attn.o_proj.bias",
              "post_attention_layernorm.weight", "post_attention_layernorm.bias", "mlp.up_proj.weight",
              "mlp.down_proj.weight", "mlp.up_proj.bias", "mlp.down_proj.bias"});
}

}  // namespace tinymoe_test::block
