#include "tinymoe/layers/attention.hpp"

#include <xtensor/xarray.hpp>
#include <xtensor/xmath.hpp>
#include <xtensor/xview.hpp>

#include "support/gradients.hpp"
#include "tinymoe/backend/cpu.hpp"

namespace tinymoe_test::attention {

namespace {

constexpr Index D = 6;

using Everything = Attention<Heads<4>, KvHeads<2>, HeadDim<4>, Rope, SlidingWindow<3>, Bias>::Layer<D>;
using Plain = Attention<Heads<2>, NoPosition>::Layer<D>;

template <class Layer>
using Double = Trial<Layer, Reference<double>>;

/// Attention by its definition, with xtensor's arrays and complex rotations: y (N, D).
template <class Layer>
std::vector<double> by_definition(const Double<Layer>& trial, Index window, bool rotary, bool biases) {
  using Array = xt::xarray<double>;
  const auto parameters = trial.weights;
  const auto array = [](const auto& tensor) {
    Array a = xt::zeros<double>({tensor.rows, tensor.cols});
    std::copy_n(tensor.data, tensor.size(), a.begin());
    return a;
  };
  const auto linear = [](const Array& x, const Array& w) {
    Array y = xt::zeros<double>({x.shape()[0], w.shape()[0]});
    for (std::size_t n = 0; n < x.shape()[0]; ++n) {
      for (std::size_t o = 0; o < w.shape()[0]; ++o) y(n, o) = xt::sum(xt::row(x, Index(n)) * xt::row(w, Index(o)))();
    }
    return y;
  };
  constexpr Index H = Layer::query_width / Layer::head_dim, G = Layer::key_width / Layer::head_dim, d = Layer::head_dim;
  const Index T = trial.pass.time;
  Array x = xt::zeros<double>({trial.pass.rows(), D});
  std::copy_n(trial.x.view().data, x.size(), x.begin());
  Array qkv = linear(x, array(parameters.qkv));
  if constexpr (requires { parameters.qkv_bias_.data; }) {
    if (biases) qkv += xt::reshape_view(array(parameters.qkv_bias_), {1, int(Layer::qkv_width)});
  }
  if (rotary) {
    for (Index n = 0; n < trial.pass.rows(); ++n) {
      for (Index head = 0; head < H + G; ++head) {
        for (Index i = 0; i < d / 2; ++i) {
          double &low = qkv(n, head * d + i), &high = qkv(n, head * d + i + d / 2);
          const double angle =
              double(trial.pass.first_position + n % T) * std::pow(10000.0, -2.0 * double(i) / double(d));
          const Complex turned = Complex(low, high) * std::polar(1.0, angle);
          low = turned.real(), high = turned.imag();
        }
      }
    }
  }
  Array out = xt::zeros<double>({trial.pass.rows(), H * d});
  for (Index n = 0; n < trial.pass.rows(); ++n) {
    const Index t = n % T, first = n - std::min(t, window - 1);
    for (Index h = 0; h < H; ++h) {
      const Index g = h * G / H;
      const Array q = xt::view(qkv, n, xt::range(h * d, (h + 1) * d));
      const Array k = xt::view(qkv, xt::range(first, n + 1), xt::range((H + g) * d, (H + g + 1) * d));
      const Array v = xt::view(qkv, xt::range(first, n + 1), xt::range((H + G + g) * d, (H + G + g + 1) * d));
      Array p = xt::zeros<double>({n + 1 - first});
      for (std::size_t s = 0; s < p.size(); ++s)
        p(s) = std::exp(xt::sum(q * xt::row(k, Index(s)))() / std::sqrt(double(d)));
      const double total = xt::sum(p)();
      for (std::size_t s = 0; s < p.size(); ++s) {
        for (Index c = 0; c < d; ++c) out(n, h * d + c) += p(s) / total * v(s, c);
      }
    }
  }
  Array y = linear(out, array(parameters.output));
  if constexpr (requires { parameters.output_bias_.data; }) {
    if (biases) y += array(parameters.output_bias_);
  }
  return {y.begin(), y.end()};
}

}  // namespace

TEST_CASE("attention of hand-computed tokens", "[attention]") {
  Reference<double> backend;
  using Layer = Attention<Heads<1>, NoPosition>::Layer<1>;
  Double<Layer> trial(backend, {.time = 2}, 1, 1);
  trial.x.write({1, 2});
  trial.weights.qkv.data[0] = 0.5;  // q = x / 2
  trial.weights.qkv.data[1] = 1;    // k = x
  trial.weights.qkv.data[2] = 3;    // v = 3x
  trial.weights.output.data[0] = 10;
  trial.forward();
  const double p = 1 / (1 + std::exp(-1.0));  // of the second token for itself: logits 1 and 2
  CHECK(trial.y.read()[0] == Approx(30).epsilon(1e-15));
  CHECK(trial.y.read()[1] == Approx(10 * (3 * (1 - p) + 6 * p)).epsilon(1e-15));
}

TEST_CASE("attention with queries of zero averages the visible values", "[attention]") {
  Reference<double> backend;
  using Layer = Attention<Heads<1>, NoPosition, SlidingWindow<3>>::Layer<1>;
  Double<Layer> trial(backend, {.batch = 2, .time = 5}, 1, 1);
  trial.x.write({3, 6, 9, 30, 60, 1, 2, 3, 4, 5});
  trial.weights.qkv.data[0] = 0;
  trial.weights.qkv.data[2] = trial.weights.output.data[0] = 1;
  trial.forward();
  CHECK(absolute_error(trial.y.read(), {3, 4.5, 6, 15, 33, 1, 1.5, 2, 3, 4}) < 1e-14);
}

TEST_CASE("attention agrees with its definition", "[attention]") {
  Reference<double> backend;
  Double<Everything> all(backend, {.batch = 2, .time = 7, .first_position = 4}, D, D);
  all.forward();
  CHECK(absolute_error(all.y.read(), by_definition<Everything>(all, 3, true, true)) < 1e-13);
  Double<Plain> plain(backend, {.batch = 2, .time = 7}, D, D);
  plain.forward();
  CHECK(absolute_error(plain.y.read(), by_definition<Plain>(plain, 1000, false, false)) < 1e-13);
}

TEST_CASE("attention has the gradients of complex steps", "[attention][gradient]") {
  SECTION("grouped, rotary, windowed, with biases") {
    check_gradients<Everything>({.batch = 2, .time = 5, .first_position = 2}, D, D);
  }
  SECTION("plain") { check_gradients<Plain>({.batch = 2, .time = 4}, D, D); }
}

TEST_CASE("attention with a window of one token is a linear map", "[attention]") {
  Reference<double> backend;
  using Layer = Attention<Heads<3>, SlidingWindow<1>, OutputBias>::Layer<D>;
  Double<Layer> trial(backend, {.time = 4}, D, D);
  trial.forward();
  std::vector<double> v(4 * D), y(4 * D);
  View<double> values(v.data(), 4, D), expected(y.data(), 4, D);
  backend.matmul(trial.x.view(), View<const double>(trial.weights.qkv).middle_rows(2 * D, D), {}, values);
  backend.matmul(values, trial.weights.output, trial.weights.output_bias_, expected);
  CHECK(absolute_error(trial.y.read(), y) < 1e-13);
}

TEST_CASE("a window that holds all tokens changes nothing", "[attention]") {
  Reference<double> backend;
  Double<Plain> open(backend, {.batch = 2, .time = 5}, D, D);
  Double<Attention<Heads<2>, NoPosition, SlidingWindow<5>>::Layer<D>> window(backend, {.batch = 2, .time = 5}, D, D);
  open.forward(), open.backward();
  window.forward(), window.backward();
  CHECK(absolute_error(open.y.read(), window.y.read()) < 1e-13);
  CHECK(absolute_error(open.dx.read(), window.dx.read()) < 1e-13);
  CHECK(absolute_error(open.g.read(), window.g.read()) < 1e-13);
}

TEST_CASE("grouped heads equal as many heads with repeated keys and values", "[attention]") {
  Reference<double> backend;
  using Grouped = Attention<Heads<4>, KvHeads<2>, HeadDim<2>>::Layer<D>;
  using Full = Attention<Heads<4>, HeadDim<2>>::Layer<D>;
  Double<Grouped> grouped(backend, {.batch = 2, .time = 5}, D, D);
  Double<Full> full(backend, {.batch = 2, .time = 5}, D, D);
  // The row of the grouped weights for row r of the full ones: q's own, then heads 0 0 1 1 of k and of v.
  const auto source = [](Index r) {
    if (r < 8) return r;
    const Index part = (r - 8) / 8, head = (r - 8) % 8 / 2, c = r % 2;
    return 8 + part * 4 + head / 2 * 2 + c;
  };
  for (Index r = 0; r < Full::qkv_width; ++r) {
    std::copy_n(grouped.weights.qkv.view().row(source(r)), D, full.weights.qkv.view().row(r));
  }
  std::copy_n(grouped.weights.output.data, D * 8, full.weights.output.data);
  grouped.forward(), grouped.backward();
  full.forward(), full.backward();
  CHECK(absolute_error(full.y.read(), grouped.y.read()) < 1e-13);
  CHECK(absolute_error(full.dx.read(), grouped.dx.read()) < 1e-13);
  std::vector<double> summed(Grouped::qkv_width * D);
  for (Index r = 0; r < Full::qkv_width; ++r) {
    for (Index i = 0; i < D; ++i) {
      summed[static_cast<std::size_t>(source(r) * D + i)] += full.gradients.qkv.view()(r, i);
    }
  }
  const double* dw = grouped.gradients.qkv.data;
  CHECK(absolute_error(summed, std::vector<double>(dw, dw + Grouped::qkv_width * D)) < 1e-12);
}

TEST_CASE("rotary attention does not depend on where a sequence begins", "[attention]") {
  Reference<double> backend;
  Double<Everything> here(backend, {.time = 6}, D, D), there(backend, {.time = 6, .first_position = 50}, D, D);
  here.forward();
  there.forward();
  CHECK(absolute_error(here.y.read(), there.y.read()) < 1e-12);
  CHECK(absolute_error(here.y.read(), there.y.read()) > 0);  // the tables do differ
}

TEST_CASE("attention sees the order of tokens through rope alone", "[attention]") {
  Reference<double> backend;
  // The third token's result is a sum over a set, so that swapping the first two does not change it, unless keys are
  // rotated.
  const auto third = [&](auto trial, bool swap) {
    if (swap) {
      for (Index i = 0; i < D; ++i) std::swap(trial.x.view()(0, i), trial.x.view()(1, i));
    }
    trial.forward();
    const auto y = trial.y.read();
    return std::vector<double>(y.begin() + 2 * D, y.end());
  };
  using Turned = Attention<Heads<1>>::Layer<D>;
  const Pass pass{.time = 3};
  CHECK(absolute_error(third(Double<Plain>(backend, pass, D, D), true),
                       third(Double<Plain>(backend, pass, D, D), false)) < 1e-14);
  CHECK(absolute_error(third(Double<Turned>(backend, pass, D, D), true),
                       third(Double<Turned>(backend, pass, D, D), false)) > 1e-3);
}

TEST_CASE("attention on the CPU agrees with the oracle", "[attention][cpu]") {
  for (const int threads : {1, 3}) {
    Cpu backend(threads);
    check_agreement<Everything>(backend, {.batch = 3, .time = 70, .first_position = 5}, D, D);
    check_agreement<Plain>(backend, {.batch = 1, .time = 3}, D, D);
  }
}

TEST_CASE("attention names its tensors as the hub does", "[attention]") {
  using Names = std::vector<std::string>;
  CHECK(tensor_names<Everything::Parameters<double>>() == Names{"q_proj.weight+k_proj.weight+v_proj.weight",
                                                                "o_proj.weight", "q_proj.bias+k_proj.bias+v_proj.bias",
                                                                "o_proj.bias"});
  CHECK(tensor_names<Plain::Parameters<double>>() ==
        Names{"q_proj.weight+k_proj.weight+v_proj.weight", "o_proj.weight"});
  CHECK(tensor_names<Attention<Heads<3>, QkvBias>::Layer<D>::Parameters<double>>().size() == 3);
}

TEST_CASE("the cache of a window is as long as the window and a pass", "[attention]") {
  STATIC_REQUIRE(Plain::cache_rows(100, 8) == 100);
  STATIC_REQUIRE(Everything::cache_rows(100, 8) == 10);  // the first of 8 new tokens sees 2 more
  STATIC_REQUIRE(Everything::cache_rows(100, 1) == 3);
  STATIC_REQUIRE(Plain::visible(0) == 1);
  STATIC_REQUIRE(Plain::visible(41) == 42);
  STATIC_REQUIRE(Everything::visible(1) == 2);
  STATIC_REQUIRE(Everything::visible(41) == 3);
}

}  // namespace tinymoe_test::attention
