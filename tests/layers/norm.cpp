#include "tinymoe/layers/norm.hpp"

#include <xtensor/xadapt.hpp>
#include <xtensor/xarray.hpp>
#include <xtensor/xmath.hpp>
#include <xtensor/xview.hpp>

#include "support/gradients.hpp"
#include "tinymoe/backend/cpu.hpp"

namespace tinymoe_test::norm {

namespace {

constexpr Index wide = 67;

template <class Norm, Index D>
using Layer = typename Norm::template Layer<D>;

xt::xarray<double> matrix_of(const std::vector<double>& values, Index rows) {
  return xt::adapt(values, {static_cast<std::size_t>(rows), values.size() / static_cast<std::size_t>(rows)});
}

}  // namespace

TEST_CASE("RmsNorm of a hand-computed row", "[norm]") {
  Reference<double> backend;
  Trial<Layer<RmsNorm, 2>, Reference<double>> trial(backend, {.time = 1, .settings = {setting::norm_epsilon = 0}}, 2,
                                                    2);
  trial.x.write({3, 4});  // mean square 12.5
  trial.weights.weight.data[0] = 1;
  trial.weights.weight.data[1] = -2;
  trial.forward();
  CHECK(trial.y.read()[0] == Approx(3 / std::sqrt(12.5)).epsilon(1e-15));
  CHECK(trial.y.read()[1] == Approx(-8 / std::sqrt(12.5)).epsilon(1e-15));
}

TEST_CASE("LayerNorm of a hand-computed row", "[norm]") {
  Reference<double> backend;
  Trial<Layer<LayerNorm, 4>, Reference<double>> trial(backend, {.time = 1, .settings = {setting::norm_epsilon = 0.5}},
                                                      4, 4);
  trial.x.write({1, 2, 3, 6});  // mean 3, variance 3.5, so that r = 1 / 2
  trial.w.fill(1);
  trial.weights.bias.data[3] = 10;
  trial.forward();
  CHECK(absolute_error(trial.y.read(), {-1 + 1, -0.5 + 1, 0 + 1, 1.5 + 10}) < 1e-15);
}

TEST_CASE("norms agree with xtensor's formula", "[norm]") {
  Reference<double> backend;
  const Pass pass{.batch = 2, .time = 3, .settings = {setting::norm_epsilon = 1e-3}};
  Trial<Layer<RmsNorm, wide>, Reference<double>> root(backend, pass, wide, wide);
  Trial<Layer<LayerNorm, wide>, Reference<double>> layer(backend, pass, wide, wide);
  const xt::xarray<double> x = matrix_of(root.x.read(), pass.rows());
  const auto weights = layer.w.read();
  const xt::xarray<double> gain = xt::adapt(std::vector<double>(weights.begin(), weights.begin() + wide));
  const auto start = weights.begin() + aligned_size(wide);
  const xt::xarray<double> bias = xt::adapt(std::vector<double>(start, start + wide));

  root.forward();
  const xt::xarray<double> mean_square = xt::mean(x * x, {1}, xt::keep_dims);
  const xt::xarray<double> root_y = x / xt::sqrt(mean_square + 1e-3) * gain;
  CHECK(xt::amax(xt::abs(matrix_of(root.y.read(), pass.rows()) - root_y))() < 1e-14);

  layer.forward();
  const xt::xarray<double> mean = xt::mean(x, {1}, xt::keep_dims);
  const xt::xarray<double> variance = xt::mean((x - mean) * (x - mean), {1}, xt::keep_dims);
  const xt::xarray<double> layer_y = (x - mean) / xt::sqrt(variance + 1e-3) * gain + bias;
  CHECK(xt::amax(xt::abs(matrix_of(layer.y.read(), pass.rows()) - layer_y))() < 1e-14);
}

TEST_CASE("norms have the gradients of complex steps", "[norm][gradient]") {
  const Pass pass{.batch = 1, .time = 3, .settings = {setting::norm_epsilon = 0.1}};
  SECTION("RmsNorm") { check_gradients<Layer<RmsNorm, wide>>(pass, wide, wide); }
  SECTION("LayerNorm") { check_gradients<Layer<LayerNorm, wide>>(pass, wide, wide); }
}

TEST_CASE("a norm's dx may be written over dy", "[norm]") {
  Reference<double> backend;
  Trial<Layer<LayerNorm, wide>, Reference<double>> trial(backend, {.time = 3}, wide, wide);
  trial.forward();
  trial.backward();
  const auto dx = trial.dx.read(), g = trial.g.read();
  trial.g.fill(0);
  Layer<LayerNorm, wide>::backward(backend, trial.pass, trial.weights, trial.dy.view(), trial.dy.view(), trial.saved,
                                   trial.gradients);
  CHECK(same_bits(trial.dy.read(), dx));
  CHECK(same_bits(trial.g.read(), g));
}

TEST_CASE("norms of a zero row are finite", "[norm]") {
  Cpu backend(1);
  Trial<Layer<RmsNorm, 2>, Cpu> root(backend, {.time = 1}, 2, 2);
  Trial<Layer<LayerNorm, 2>, Cpu> layer(backend, {.time = 1}, 2, 2);
  root.x.fill(0);
  root.forward();
  root.backward();
  CHECK(absolute_error(root.y.read(), {0, 0}) == 0);
  CHECK(std::isfinite(root.dx.read()[0]));
  layer.x.fill(7);  // a constant row: all of it is mean
  layer.forward();
  layer.backward();
  CHECK(absolute_error(layer.y.read(), {layer.w.read()[16], layer.w.read()[17]}) == 0);
  CHECK(std::isfinite(layer.dx.read()[0]));
}

TEST_CASE("norms on the CPU agree with the oracle", "[norm][cpu]") {
  for (const int threads : {1, 3}) {
    Cpu backend(threads);
    check_agreement<Layer<RmsNorm, wide>>(backend, {.batch = 3, .time = 7}, wide, wide);
    check_agreement<Layer<LayerNorm, wide>>(backend, {.batch = 3, .time = 7}, wide, wide);
  }
}

TEST_CASE("norms sum their gradients over chunks of rows, whole or not", "[norm][cpu]") {
  Cpu backend(2);
  for (const Index rows : {rowwise::chunk_size - 1, rowwise::chunk_size, rowwise::chunk_size + 1,
                           3 * rowwise::chunk_size, 3 * rowwise::chunk_size + 1}) {
    INFO("rows " << rows);
    check_agreement<Layer<RmsNorm, 5>>(backend, {.time = rows}, 5, 5);
    check_agreement<Layer<LayerNorm, 5>>(backend, {.time = rows}, 5, 5);
  }
}

TEST_CASE("LayerNorm in float survives a mean much greater than the deviation", "[norm][cpu]") {
  Cpu backend(1);
  Reference<double> oracle;
  Trial<Layer<LayerNorm, wide>, Cpu> trial(backend, {.time = 1}, wide, wide);
  Trial<Layer<LayerNorm, wide>, Reference<double>> expected(oracle, {.time = 1}, wide, wide);
  std::vector<double> x;
  for (Index i = 0; i < wide; ++i) x.push_back(static_cast<float>(4096 + normal_number(77, i)));
  trial.x.write(x);
  expected.x.write(x);
  trial.forward();
  expected.forward();
  CHECK(relative_error(trial.y.read(), expected.y.read()) < 1e-3);  // E[x²] − E[x]² in float would be off by 1
}

}  // namespace tinymoe_test::norm
