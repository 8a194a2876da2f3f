#pragma once
// Drives one layer on one backend with random data; checks its gradients by complex step and a backend by the oracle.
//
// Complex step (Squire and Trapp 1998): dL/dw = Im L(w + ih) / h; with h = 1e-30 nothing cancels, so that a gradient in
// double agrees to 1e-12 and better.

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"
#include "support/same_bits.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/layers/balance.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/layers/pass.hpp"

namespace tinymoe_test {

using namespace tinymoe;
using Complex = std::complex<double>;

/// Standard normal number `i` of a stream, rounded to float, so that every backend gets the same numbers.
[[gnu::noinline]] inline double normal_number(std::uint64_t stream, Index i) {
  return static_cast<float>(random_normal(RandomStream(Seed{stream}, 0, RandomSite{3}), static_cast<std::uint64_t>(i)));
}

inline constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

// Checks outside of templates, so that Catch's macros are compiled once a file.

[[gnu::noinline]] inline void check_small(const std::string& what, double value, double tolerance) {
  INFO(what);
  CHECK(value < tolerance);
}
[[gnu::noinline]] inline void check_true(const std::string& what, bool value) {
  INFO(what);
  CHECK(value);
}

/// A matrix in a backend's memory.
template <class T, class B>
class DeviceMatrix {
 public:
  [[gnu::noinline]] DeviceMatrix(B& backend, Index rows, Index cols)
      : backend_(&backend),
        memory_(backend.allocate(static_cast<std::size_t>(std::max<Index>(1, rows * cols)) * sizeof(T))),
        view_(memory_.template as<T>().data, rows, cols) {}

  View<T> view() const { return view_; }
  [[gnu::noinline]] void write(const std::vector<double>& values) {
    std::vector<T> converted;
    for (const double value : values) converted.push_back(T(static_cast<Compute<T>>(value)));
    backend_->copy_to_device(view_.data, converted.data(), converted.size() * sizeof(T));
  }
  void fill(double value) { write(std::vector<double>(static_cast<std::size_t>(view_.size()), value)); }
  [[gnu::noinline]] void fill_normal(std::uint64_t stream, double deviation = 1) {
    std::vector<double> values;
    for (Index i = 0; i < view_.size(); ++i) values.push_back(static_cast<float>(deviation * normal_number(stream, i)));
    write(values);
  }
  [[gnu::noinline]] std::vector<double> read() const {
    std::vector<T> values(static_cast<std::size_t>(view_.size()));
    backend_->copy_to_host(values.data(), view_.data, values.size() * sizeof(T));
    std::vector<double> result;
    for (const T& value : values) result.push_back(static_cast<double>(real_part(value)));
    return result;
  }

 private:
  B* backend_;
  Memory memory_;
  View<T> view_;
};

/// max |a − b| / max |b|; infinite if an element is not finite.
[[gnu::noinline]] inline double relative_error(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0, greatest = 1e-30;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, std::abs(a[i] - b[i]));
    greatest = std::max(greatest, std::abs(b[i]));
  }
  return worst / greatest;
}

/// max |a − b|; infinite if an element is not finite.
[[gnu::noinline]] inline double absolute_error(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, std::abs(a[i] - b[i]));
  }
  return worst;
}

/// The name of a tensor as on disk; stacked tensors have several, joined by "+".
[[gnu::noinline]] inline std::string full_name(const ParameterInfo& info) {
  std::string name = info.path.text();
  const char* separator = name.empty() ? "" : ".";
  for (const auto& rows : info.names) {
    if (rows.rows == 0) continue;
    name += separator;
    name += rows.name;
    separator = "+";
  }
  return name;
}

/// All names of `P`'s tensors, in the order of its visitor.
template <class P>
std::vector<std::string> tensor_names() {
  std::vector<std::string> names;
  P::for_each(Path{}, [&](const ParameterInfo& info) { names.push_back(full_name(info)); });
  return names;
}

/// The weighted router losses of a mixture, or of a block with a mixture; 0 for other layers.
template <class Saved>
auto weighted_router_losses(const Saved& saved, const Pass& pass) {
  const auto sum_of = [&](const auto& routing) {
    using M = std::remove_cvref_t<decltype(*routing.losses.data)>;
    return M(pass.router_loss_scale) * (M(pass.settings[setting::balance_weight]) * routing.losses.data[0] +
                                        M(pass.settings[setting::z_weight]) * routing.losses.data[1]);
  };
  if constexpr (requires { saved.routing(); }) {
    return sum_of(saved.routing());
  } else if constexpr (requires { saved.network.routing(); }) {
    return sum_of(saved.network.routing());
  } else {
    return 0.0;
  }
}

/// A layer with random weights, x (N, I) and dy (N, O) on backend B; its loss is Σ dy · y + the weighted router losses.
template <class Layer, class B>
class Trial {
 public:
  using T = typename B::Scalar;
  using M = typename B::Master;
  using Parameters = typename Layer::template Parameters<T>;
  static constexpr Index size = buffer_size<Parameters>();

  [[gnu::noinline]] Trial(B& backend, const Pass& pass, Index inputs, Index outputs, std::uint64_t seed = 1)
      : backend(backend),
        pass(pass),
        w(backend, 1, size),
        g(backend, 1, size),
        x(backend, pass.rows(), inputs),
        y(backend, pass.rows(), outputs),
        dy(backend, pass.rows(), outputs),
        dx(backend, pass.rows(), inputs) {
    bind_parameters(weights, w.view().data);
    bind_parameters(gradients, g.view().data);
    w.fill_normal(4 * seed, 0.6);
    x.fill_normal(4 * seed + 1);
    dy.fill_normal(4 * seed + 2);
    Plan measure(Plan::Purpose::training);
    plan(measure);
    memory_ = backend.allocate(measure.bytes());
    Plan place(Plan::Purpose::training, memory_.bytes(), measure);
    plan(place);
  }

  [[gnu::noinline]] void forward() { Layer::forward(backend, pass, weights, x.view(), y.view(), saved); }
  [[gnu::noinline]] void backward() { Layer::backward(backend, pass, weights, dy.view(), dx.view(), saved, gradients); }
  [[gnu::noinline]] T loss() {
    forward();
    T total(0);
    for (Index i = 0; i < y.view().size(); ++i) total += y.view().data[i] * dy.view().data[i];
    return total + T(weighted_router_losses(saved, pass));
  }

  B& backend;
  Pass pass;
  Parameters weights;
  typename Layer::template Parameters<M> gradients;
  DeviceMatrix<T, B> w;
  DeviceMatrix<M, B> g;
  DeviceMatrix<T, B> x, y, dy, dx;
  typename Layer::template Saved<T, M> saved;

 private:
  [[gnu::noinline]] void plan(Plan& plan) {
    if constexpr (requires { saved.plan(plan, pass, backend); }) {
      saved.plan(plan, pass, backend);
    } else {
      saved.plan(plan, pass);
    }
  }
  Memory memory_;
};

/// Im L(value + ih) / h.
template <class Loss>
double complex_step(Complex& value, Loss&& loss) {
  const Complex kept = value;
  value += Complex(0, 1e-30);
  const double slope = loss().imag() / 1e-30;
  value = kept;
  return slope;
}

/// Compares `gradient` with complex steps of `values`, from `first` on; returns max |slope|.
template <class Loss>
double check_slopes(const std::string& name, View<Complex> values, Index first, Index count,
                    const std::vector<double>& gradient, Loss&& loss, double tolerance = 1e-12) {
  double worst = 0, greatest = 0;
  for (Index i = first; i < first + count; ++i) {
    const double slope = complex_step(values.data[i], loss);
    const double error = std::abs(slope - gradient[static_cast<std::size_t>(i)]) / std::max(1.0, std::abs(slope));
    worst = std::isfinite(error) ? std::max(worst, error) : std::numeric_limits<double>::infinity();
    greatest = std::max(greatest, std::abs(slope));
  }
  check_small("gradient of " + name, worst, tolerance);
  return greatest;
}

/// The value of the parameters' gradients before backward adds to them.
inline constexpr double before = 0.5;

/// Every parameter's gradient and that of x against complex steps; the parameters' gradients are added to, dx is
/// overwritten, and the alignment between tensors is left alone. With `all_used`, no tensor's gradient may be zero.
/// `prepare(trial)` may change weights and x first.
template <class Layer, class Prepare>
void check_gradients(const Pass& pass, Index inputs, Index outputs, Prepare&& prepare, bool all_used = true) {
  Reference<double> real;
  Trial<Layer, Reference<double>> trial(real, pass, inputs, outputs);
  prepare(trial);
  trial.forward();
  trial.g.fill(before);
  trial.dx.fill(not_a_number);
  trial.backward();
  const auto dx = trial.dx.read();
  auto once = trial.g.read();

  Reference<Complex> stepped_backend;
  Trial<Layer, Reference<Complex>> stepped(stepped_backend, pass, inputs, outputs);
  prepare(stepped);
  const auto loss = [&] { return stepped.loss(); };
  check_small("loss", std::abs(loss().real() - trial.loss()), 1e-12 * std::max(1.0, std::abs(trial.loss())));
  std::vector<double> gradient(once.size());
  std::transform(once.begin(), once.end(), gradient.begin(), [](double value) { return value - before; });
  Index offset = 0, between = 0;
  Layer::template Parameters<double>::for_each(Path{}, [&](const ParameterInfo& info) {
    const double greatest = check_slopes(full_name(info), stepped.w.view(), offset, info.size(), gradient, loss);
    if (all_used && info.trained) check_true("gradient of " + full_name(info) + " is not zero", greatest > 1e-6);
    for (Index i = info.size(); i < aligned_size(info.size()); ++i) {
      between += once[static_cast<std::size_t>(offset + i)] != before;
    }
    offset += aligned_size(info.size());
  });
  check_true("what lies between the tensors' gradients is left alone", between == 0);
  check_true("gradient of x is not zero",
             check_slopes("x", stepped.x.view(), 0, stepped.x.view().size(), dx, loss) > 1e-6);

  trial.forward();
  trial.dx.fill(not_a_number);
  trial.backward();
  check_true("backward overwrites dx", same_bits(trial.dx.read(), dx));
  std::vector<double> twice(once.size());
  std::transform(gradient.begin(), gradient.end(), twice.begin(), [](double value) { return before + 2 * value; });
  check_small("backward adds to the gradients", absolute_error(trial.g.read(), twice), 1e-12);
}

template <class Layer>
void check_gradients(const Pass& pass, Index inputs, Index outputs) {
  check_gradients<Layer>(pass, inputs, outputs, [](auto&) {});
}

/// Runs the layer on `backend` and on the oracle: y, dx and the gradients agree, and a second run gives the same bits.
template <class Layer, class B>
void check_agreement(B& backend, const Pass& pass, Index inputs, Index outputs, double tolerance = 1e-5) {
  Reference<double> oracle;
  Trial<Layer, Reference<double>> expected(oracle, pass, inputs, outputs);
  Trial<Layer, B> trial(backend, pass, inputs, outputs);
  expected.forward();
  expected.backward();
  std::vector<std::vector<double>> first;
  for (int run = 0; run < 2; ++run) {
    trial.y.fill(not_a_number);
    trial.dx.fill(not_a_number);
    trial.g.fill(0);
    trial.forward();
    trial.backward();
    if (run == 0) first = {trial.y.read(), trial.dx.read(), trial.g.read()};
  }
  check_small("y", relative_error(first[0], expected.y.read()), tolerance);
  check_small("dx", relative_error(first[1], expected.dx.read()), tolerance);
  check_small("parameters' gradients", relative_error(first[2], expected.g.read()), tolerance);
  check_true("y is the same again", same_bits(trial.y.read(), first[0]));
  check_true("dx is the same again", same_bits(trial.dx.read(), first[1]));
  check_true("the parameters' gradients are the same again", same_bits(trial.g.read(), first[2]));
}

}  // namespace tinymoe_test
