#include "tinymoe/layers/expert.hpp"

#include "support/gradients.hpp"
#include "tinymoe/backend/cpu.hpp"

namespace tinymoe_test::expert {

namespace {

/// A bank of E experts as a layer; its N rows are shared among them by `ends`.
template <class X, Index D, Index E>
struct Bank3 {
  using Layer = typename X::template Layer<D, E>;

  template <class T>
  struct Parameters : Layer::template Parameters<T> {
    template <class F, class... P>
    static constexpr void for_each(const Path& path, F&& f, P&... p) {
      Layer::template Parameters<T>::for_each(path, 1, f, p...);
    }
  };

  template <class T, class M>
  struct Saved {
    typename Layer::template Saved<T, M> experts;
    std::array<std::int32_t, E + 1> ends{};
    void plan(Plan& plan, const Pass& pass) {
      experts.plan(plan, pass.rows());
      // The first expert has no row, the last one all that are left when the others have one each.
      for (Index e = 2; e < E; ++e) ends[static_cast<std::size_t>(e)] = static_cast<std::int32_t>(e - 1);
      ends[E] = static_cast<std::int32_t>(pass.rows());
    }
    Dispatch dispatch() { return {View<std::int32_t>(ends.data(), 1, E + 1), ends[E]}; }
  };

  template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
  static void forward(B& backend, const Pass& pass, const Parameters<T>& p, Input<B> x, Output<B> y,
                      Saved<T, M>& saved) {
    Layer::forward(backend, pass, p, saved.dispatch(), x, y, saved.experts);
  }
  template <Backend B, class T = typename B::Scalar, class M = typename B::Master>
  static void backward(B& backend, const Pass& pass, const Parameters<T>& p, Input<B> dy, Output<B> dx,
                       Saved<T, M>& saved, Parameters<M>& gradients) {
    Layer::backward(backend, pass, p, saved.dispatch(), dy, dx, saved.experts, gradients);
  }
};

template <class X, Index D, Index E = 1>
using Double = Trial<Bank3<X, D, E>, Reference<double>>;

constexpr Index D = 4, F = 3;

double silu(double x) { return x / (1 + std::exp(-x)); }

}  // namespace

TEST_CASE("activations of hand-computed values", "[expert]") {
  CHECK(SwiGlu::value(1.0, 3.0) == Approx(3 * 0.7310585786300049).epsilon(1e-15));
  CHECK(SwiGlu::value(-2.0, 0.5) == Approx(-0.1192029220221176).epsilon(1e-15));
  CHECK(Gelu::value(1.0) == Approx(0.8413447460685429).epsilon(1e-15));
  CHECK(Gelu::value(-0.5) == Approx(-0.15426876936299344).epsilon(1e-14));
  CHECK(Gelu::value(0.0) == 0.0);
  CHECK(GeluTanh::value(1.0) == Approx(0.8411919906082768).epsilon(1e-15));
  CHECK(GeluTanh::value(-0.5) == Approx(-0.15428599017485606).epsilon(1e-14));
  CHECK(Relu::value(2.5) == 2.5);
  CHECK(Relu::value(-2.5) == 0.0);
  CHECK(Relu::slope(0.0) == 0.0);
  CHECK(Relu::slope(1e-9) == 1.0);
}

TEST_CASE("activations in float stay finite for extreme inputs", "[expert]") {
  for (const float far : {30.0f, 100.0f, 1e4f, 1e9f}) {
    float gate = 7, up = 7;
    SwiGlu::slopes(far, 2.0f, gate, up);
    CHECK(gate == Approx(2.0f));
    CHECK(up == Approx(far));
    SwiGlu::slopes(-far, 2.0f, gate, up);
    CHECK(std::abs(gate) < 1e-10f);
    CHECK(std::abs(up) < 1e-10f);
    CHECK(SwiGlu::value(far, 1.0f) == Approx(far));
    CHECK(std::abs(SwiGlu::value(-far, 1.0f)) < 1e-10f);
    CHECK(Gelu::value(far) == Approx(far));
    CHECK(std::abs(Gelu::value(-far)) < 1e-5f * far);
    CHECK(Gelu::slope(far) == Approx(1.0f));
    CHECK(std::abs(Gelu::slope(-far)) < 1e-5f);
    CHECK(GeluTanh::value(far) == Approx(far));
    CHECK(std::abs(GeluTanh::value(-far)) < 1e-5f);
    CHECK(GeluTanh::slope(far) == Approx(1.0f));
    CHECK(std::abs(GeluTanh::slope(-far)) < 1e-5f);
  }
}

TEST_CASE("a SwiGLU expert of hand-computed weights", "[expert]") {
  Reference<double> backend;
  Double<Expert<SwiGlu, Hidden<1>, Bias>, 1> trial(backend, {.time = 2}, 1, 1);
  auto& one = trial.weights.experts[0];
  one.input.data[0] = 2, one.input_bias.data[0] = 1;     // gate = 2x + 1
  one.input.data[1] = -3, one.input_bias.data[1] = 0.5;  // up = −3x + 1/2
  one.output.data[0] = 10, one.output_bias.data[0] = 7;
  trial.x.write({1, -0.5});
  trial.forward();
  CHECK(trial.y.read()[0] == Approx(10 * silu(3) * -2.5 + 7).epsilon(1e-14));
  CHECK(trial.y.read()[1] == Approx(7).epsilon(1e-14));  // silu(0) = 0
}

TEST_CASE("a bank of experts agrees with plain loops", "[expert]") {
  Reference<double> backend;
  const Pass pass{.time = 5};
  Double<Expert<SwiGlu, Hidden<F>, Bias>, D, 3> swiglu(backend, pass, D, D);
  Double<Expert<Gelu, Hidden<F>>, D, 3> gelu(backend, pass, D, D);
  Double<Expert<Relu, Hidden<F>, Bias>, D, 3> relu(backend, pass, D, D);
  const auto check = [](auto& trial, auto activation, bool gated, auto bias_of, auto output_bias_of) {
    trial.forward();
    double worst = 0;
    for (Index n = 0; n < 5; ++n) {
      const auto& one = trial.weights.experts[n == 0 ? 1 : 2];  // offsets 0 0 1 5
      const auto linear = [&](Index o) {
        double total = bias_of(one, o);
        for (Index i = 0; i < D; ++i) total += one.input.data[o * D + i] * trial.x.view()(n, i);
        return total;
      };
      for (Index o = 0; o < D; ++o) {
        double y = output_bias_of(one, o);
        for (Index f = 0; f < F; ++f) {
          y += one.output.data[o * F + f] * activation(linear(f)) * (gated ? linear(F + f) : 1);
        }
        worst = std::max(worst, std::abs(y - trial.y.view()(n, o)));
      }
    }
    CHECK(worst < 1e-13);
  };
  const auto none = [](const auto&, Index) { return 0.0; };
  const auto input_bias = [](const auto& one, Index o) { return one.input_bias.data[o]; };
  const auto output_bias = [](const auto& one, Index o) { return one.output_bias.data[o]; };
  check(swiglu, silu, true, input_bias, output_bias);
  check(
      gelu, [](double h) { return 0.5 * h * std::erfc(-h / std::sqrt(2.0)); }, false, none, none);
  check(
      relu, [](double h) { return std::max(h, 0.0); }, false, input_bias, output_bias);
}

TEST_CASE("experts have the gradients of complex steps", "[expert][gradient]") {
  // The first expert has no token, so that its gradients are zero, which the steps check too.
  const auto as_is = [](auto&) {};
  SECTION("SwiGlu with biases") {
    check_gradients<Bank3<Expert<SwiGlu, Hidden<F>, Bias>, D, 3>>({.time = 5}, D, D, as_is, false);
  }
  SECTION("GeluTanh") { check_gradients<Bank3<Expert<GeluTanh, Hidden<F>>, D, 3>>({.time = 5}, D, D, as_is, false); }
  SECTION("Gelu") { check_gradients<Bank3<Expert<Gelu, Hidden<F>>, D, 3>>({.time = 5}, D, D, as_is, false); }
  SECTION("Relu with biases") {
    check_gradients<Bank3<Expert<Relu, Hidden<F>, Bias>, D, 3>>({.time = 5}, D, D, as_is, false);
  }
}

TEST_CASE("an expert with no token keeps its gradients to the last bit", "[expert]") {
  Reference<double> backend;
  Double<Expert<SwiGlu, Hidden<F>, Bias>, D, 3> trial(backend, {.time = 5}, D, D);
  trial.g.fill(before);
  trial.forward();
  trial.backward();
  const auto g = trial.g.read();
  const auto one = static_cast<std::size_t>(trial.size / 3);  // the first expert's elements
  CHECK(std::count(g.begin(), g.begin() + static_cast<Index>(one), before) == static_cast<Index>(one));
  CHECK(std::count(g.begin() + static_cast<Index>(one), g.end(), before) < static_cast<Index>(one));
}

TEST_CASE("experts on the CPU agree with the oracle", "[expert][cpu]") {
  for (const int threads : {1, 3}) {
    Cpu backend(threads);
    check_agreement<Bank3<Expert<SwiGlu, Hidden<F>, Bias>, D, 3>>(backend, {.batch = 3, .time = 33}, D, D);
    check_agreement<Bank3<Expert<Gelu, Hidden<F>>, D, 3>>(backend, {.time = 3}, D, D);
  }
}

TEST_CASE("experts name their tensors as the hub does", "[expert]") {
  using Names = std::vector<std::string>;
  CHECK(tensor_names<Bank3<Expert<SwiGlu, Hidden<F>, Bias>, D, 2>::Parameters<double>>() ==
        Names{"experts.0.w1.weight+w3.weight", "experts.0.w2.weight", "experts.0.w1.bias+w3.bias", "experts.0.w2.bias",
              "experts.1.w1.weight+w3.weight", "experts.1.w2.weight", "experts.1.w1.bias+w3.bias",
              "experts.1.w2.bias"});
  CHECK(tensor_names<Bank3<Expert<Gelu, Hidden<F>>, D, 1>::Parameters<double>>() ==
        Names{"experts.0.w1.weight", "experts.0.w2.weight"});
}

}  // namespace tinymoe_test::expert
