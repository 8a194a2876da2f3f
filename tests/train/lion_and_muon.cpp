// Lion and Muon against loops written from the papers, on every backend, and optimizers chosen at run time.

#include "tinymoe/train/optimizer.hpp"

#include <cmath>
#include <map>
#include <vector>

#include "support/catch.hpp"
#include "tinymoe/backend/reference.hpp"
#include "train/optimizer_trial.hpp"

namespace tinymoe_test::lion_and_muon {

namespace {

using Oracle = Reference<double>;
using Tensors = std::vector<NamedTensor>;

template <class Arch = Tiny>
const Tensors& tensors() {
  static const Tensors all = named_tensors<typename Arch::template Parameters<double>>();
  return all;
}

/// More matrices of a shape than go through a product together: 80 of w1 and w3 and 40 of w2.
using Many = Transformer<Vocab<5>, Context<4>, Width<4>,
                         Layers<2, MoEBlock<RmsNorm, Attention<Heads<2>>, Router<20, 2>, Expert<SwiGlu, Hidden<6>>>>>;

/// A dense block beside one with experts.
using Mixed = Transformer<Vocab<5>, Context<4>, Width<4>,
                          Layers<1, DenseBlock<RmsNorm, Attention<Heads<2>>, Expert<SwiGlu, Hidden<6>>>>,
                          Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>>, Router<4, 2>, Expert<SwiGlu, Hidden<6>>>>>;

bool has(const NamedTensor& tensor, const char* part) { return tensor.name.find(part) != std::string::npos; }

/// A dense matrix, and products by definition.
struct Matrix {
  std::size_t rows, cols;
  std::vector<double> values;
  double& operator()(std::size_t r, std::size_t c) { return values[r * cols + c]; }
  double operator()(std::size_t r, std::size_t c) const { return values[r * cols + c]; }
};
Matrix product(const Matrix& a, const Matrix& b) {
  Matrix result{a.rows, b.cols, std::vector<double>(a.rows * b.cols)};
  for (std::size_t i = 0; i < a.rows; ++i) {
    for (std::size_t j = 0; j < b.cols; ++j) {
      for (std::size_t k = 0; k < a.cols; ++k) result(i, j) += a(i, k) * b(k, j);
    }
  }
  return result;
}
Matrix transposed(const Matrix& a) {
  Matrix result{a.cols, a.rows, std::vector<double>(a.values.size())};
  for (std::size_t i = 0; i < a.rows; ++i) {
    for (std::size_t j = 0; j < a.cols; ++j) result(j, i) = a(i, j);
  }
  return result;
}

/// `zeropower_via_newtonschulz5` as Jordan et al. write it, in double.
Matrix orthogonal(Matrix x) {
  double square = 0;
  for (const double value : x.values) square += value * value;
  for (double& value : x.values) value /= std::sqrt(square) + 1e-7;
  const bool tall = x.rows > x.cols;
  if (tall) x = transposed(x);
  for (int i = 0; i < 5; ++i) {
    const Matrix a = product(x, transposed(x)), aa = product(a, a);
    Matrix b = a;
    for (std::size_t k = 0; k < b.values.size(); ++k) b.values[k] = -4.7750 * a.values[k] + 2.0315 * aa.values[k];
    const Matrix bx = product(b, x);
    for (std::size_t k = 0; k < x.values.size(); ++k) x.values[k] = 3.4445 * x.values[k] + bx.values[k];
  }
  return tall ? transposed(x) : x;
}

/// The weights after the steps of `weights_after`, by loops over tensors with names.
template <class Arch>
std::vector<double> plain_muon(const Muon& o, std::uint32_t steps) {
  using Trial = OptimizerTrial<Oracle, Muon, Arch>;
  auto weights = Trial::random(0);
  std::vector<double> momentum(weights.size()), mean(weights.size()), square(weights.size());
  for (std::uint32_t t = 1; t <= steps; ++t) {
    auto g = Trial::random(t);
    const double rate = o.lr / t, clip = 1.0 / (1 << (t % 3));
    for (const NamedTensor& tensor : tensors<Arch>()) {
      const auto first = static_cast<std::size_t>(tensor.offset);
      const auto count = static_cast<std::size_t>(tensor.rows * tensor.cols);
      if (has(tensor, "self_attn") || (o.experts && tensor.part == Part::expert) ||
          (o.feed_forward && tensor.part == Part::feed_forward)) {
        Matrix u{static_cast<std::size_t>(tensor.rows), static_cast<std::size_t>(tensor.cols), {}};
        for (std::size_t i = first; i < first + count; ++i) {
          momentum[i] = o.momentum * momentum[i] + clip * g[i];
          u.values.push_back(clip * g[i] + o.momentum * momentum[i]);
        }
        u = orthogonal(u);
        const double size = 0.2 * std::sqrt(double(std::max(tensor.rows, tensor.cols)));
        for (std::size_t i = first; i < first + count; ++i) {
          weights[i] -= rate * o.weight_decay * weights[i] + rate * size * u.values[i - first];
        }
        continue;
      }
      for (std::size_t i = first; i < first + count; ++i) {
        mean[i] = o.beta1 * mean[i] + (1 - o.beta1) * clip * g[i];
        square[i] = o.beta2 * square[i] + (1 - o.beta2) * clip * g[i] * clip * g[i];
        const double m = mean[i] / (1 - std::pow(o.beta1, t)), v = square[i] / (1 - std::pow(o.beta2, t));
        if (!tensor.is_vector) weights[i] -= rate * o.adamw_rate * o.weight_decay * weights[i];
        weights[i] -= rate * o.adamw_rate * m / (std::sqrt(v) + o.epsilon);
      }
    }
  }
  return weights;
}

}  // namespace

TEST_CASE("Lion follows a loop written from the paper", "[optimizer]") {
  Oracle backend;
  const Lion o{.lr = 0.01, .beta1 = 0.8, .beta2 = 0.95, .weight_decay = 0.7};
  using Trial = OptimizerTrial<Oracle, Lion>;
  auto expected = Trial::random(0);
  std::vector<double> m(expected.size());
  for (std::uint32_t t = 1; t <= 6; ++t) {
    const auto g = Trial::random(t);
    const double rate = o.lr / t, clip = 1.0 / (1 << (t % 3));
    for (const NamedTensor& tensor : tensors()) {
      for (auto i = static_cast<std::size_t>(tensor.offset);
           i < static_cast<std::size_t>(tensor.offset + tensor.rows * tensor.cols); ++i) {
        const double c = o.beta1 * m[i] + (1 - o.beta1) * clip * g[i];
        const double decay = tensor.is_vector ? 0 : o.weight_decay * expected[i];
        expected[i] -= rate * ((c > 0) - (c < 0) + decay);
        m[i] = o.beta2 * m[i] + (1 - o.beta2) * clip * g[i];
      }
    }
  }
  CHECK(greatest_difference(weights_after(backend, o, 6), expected) < 1e-12);
  // A gradient of zero moves nothing but by decay.
  Trial trial(backend, Lion{.weight_decay = 0});
  trial.step(std::vector<double>(expected.size()), 1);
  CHECK(trial.weights() == Trial::random(0));
}

TEST_CASE("Muon follows loops written from the papers", "[optimizer]") {
  Oracle backend;
  const Muon o{.lr = 0.02, .weight_decay = 0.3, .beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-7};
  const auto start = OptimizerTrial<Oracle, Muon>::random(0), expected = plain_muon<Tiny>(o, 4);
  CHECK(greatest_difference(weights_after(backend, o, 4), expected) < 1e-12);
  CHECK(greatest_difference(start, expected) > 1e-2);
  CHECK(greatest_difference(weights_after<Many>(backend, o, 3), plain_muon<Many>(o, 3)) < 1e-12);
  const Muon some{.lr = 0.02, .weight_decay = 0.3, .epsilon = 1e-7, .adamw_rate = 0.5, .experts = false};
  CHECK(greatest_difference(weights_after(backend, some, 4), plain_muon<Tiny>(some, 4)) < 1e-12);
  CHECK(greatest_difference(weights_after(backend, some, 4), plain_muon<Tiny>(o, 4)) > 1e-3);
  for (const bool experts : {true, false}) {
    const Muon dense{.lr = 0.02, .adamw_rate = 0.5, .experts = experts, .feed_forward = !experts};
    CHECK(greatest_difference(weights_after<Mixed>(backend, dense, 4), plain_muon<Mixed>(dense, 4)) < 1e-12);
  }
  // The gradients are zero for the next step.
  OptimizerTrial<Oracle, Muon> trial(backend, o);
  trial.step(start, 0.1);
  CHECK(trial.gradients() == std::vector<double>(start.size()));
}

TEST_CASE("Muon's updates are nearly orthogonal and of the size of AdamW's", "[optimizer]") {
  Oracle backend;
  OptimizerTrial<Oracle, Muon> trial(backend, {.weight_decay = 0});
  const auto before = trial.weights();
  trial.step(trial.random(1), 1);
  const auto after = trial.weights();
  std::map<std::pair<Index, Index>, int> shapes;
  for (const NamedTensor& tensor : tensors()) {
    if (!has(tensor, "self_attn") && !has(tensor, "experts")) continue;
    ++shapes[{tensor.rows, tensor.cols}];
    const double size = 0.2 * std::sqrt(double(std::max(tensor.rows, tensor.cols)));
    Matrix u{static_cast<std::size_t>(tensor.rows), static_cast<std::size_t>(tensor.cols), {}};
    double squares = 0;
    for (Index i = tensor.offset; i < tensor.offset + tensor.rows * tensor.cols; ++i) {
      const auto at = static_cast<std::size_t>(i);
      squares += (before[at] - after[at]) * (before[at] - after[at]);
      u.values.push_back((before[at] - after[at]) / size);
    }
    if (u.rows > u.cols) u = transposed(u);
    // Rows are near to orthonormal: the squares of the singular values, whose mean is the diagonal's, are near 1.
    const Matrix gram = product(u, transposed(u));
    double trace = 0;
    for (std::size_t i = 0; i < gram.rows; ++i) trace += gram(i, i);
    INFO(tensor.name);
    CHECK(trace / double(gram.rows) == Approx(0.9).margin(0.25));
    CHECK(std::sqrt(squares / double(u.values.size())) == Approx(0.2).margin(0.04));
  }
  CHECK(shapes.size() == 4);  // wide, tall and square, and those of stacked tensors by themselves
}

TEST_CASE("A matrix without a gradient is left alone by Muon, but for its decay", "[optimizer]") {
  Oracle backend;
  OptimizerTrial<Oracle, Muon> trial(backend, {.weight_decay = 0.5});
  auto gradients = trial.random(1);
  const auto before = trial.weights();
  const auto& idle =
      *std::find_if(tensors().begin(), tensors().end(), [](const auto& t) { return has(t, "experts.2"); });
  const auto first = gradients.begin() + idle.offset;
  std::fill(first, first + idle.rows * idle.cols, 0.0);
  trial.step(gradients, 0.1);
  const auto after = trial.weights();
  for (Index i = idle.offset; i < idle.offset + idle.rows * idle.cols; ++i) {
    CHECK(after[static_cast<std::size_t>(i)] == Approx(0.95 * before[static_cast<std::size_t>(i)]).epsilon(1e-14));
  }
}

TEST_CASE("Optimizers on the CPU agree with the oracle and repeat their bits", "[optimizer]") {
  Oracle oracle;
  const auto check = [&](auto optimizer, double tolerance) {
    const auto expected = weights_after(oracle, optimizer, 4);
    for (const int threads : {1, 2}) {
      Cpu cpu(threads);
      const auto found = weights_after(cpu, optimizer, 4);
      INFO(optimizer.name << " on " << threads << " threads");
      CHECK(greatest_difference(found, expected) < tolerance);
      CHECK(same_bits(found, weights_after(cpu, optimizer, 4)));
    }
  };
  check(AdamW{.lr = 0.1}, 1e-6);
  check(Lion{.lr = 0.1}, 1e-6);
  check(Muon{.lr = 0.1}, 1e-5);
  check(Muon{.lr = 0.1, .adamw_rate = 0.5, .experts = false}, 1e-5);
}

namespace {

/// Tensors of all parts, among them tables.
using Tabled = Transformer<Vocab<11>, Context<8>, Width<8>, Bigrams<13>, PerLayerEmbeddings,
                           Layers<1, DenseBlock<RmsNorm, Attention<Heads<2>, Learned>, Expert<SwiGlu, Hidden<8>>>>,
                           Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>>, Router<4, 2>, Expert<Hidden<6>>>>>;

/// The elements of a tensor.
template <class F>
void for_each_element(const NamedTensor& tensor, F&& f) {
  for (Index i = 0; i < tensor.rows * tensor.cols; ++i) f(static_cast<std::size_t>(tensor.offset + i));
}

}  // namespace

TEST_CASE("Each part of a model has the rate and the decay of its factors", "[optimizer]") {
  const auto check = [&]<class B, class O>(B& backend, O optimizer, double tolerance) {
    using Trial = OptimizerTrial<B, O, Tabled>;
    const std::vector<double> gradients = Trial::random(1);
    const auto after = [&](const O& one) {
      Trial trial(backend, one);
      trial.step(gradients, one.lr);
      return trial.weights();
    };
    O factored = optimizer;
    factored.rates = {.embedding = 0.5,
                      .position = 0,
                      .norm = 4,
                      .attention = 2,
                      .router = 3,
                      .expert = 0.25,
                      .feed_forward = 8,
                      .head = 1.5,
                      .table = 6};
    factored.decays = {.embedding = 2, .attention = 0, .expert = 4, .feed_forward = 0.5, .table = 3};
    const std::vector<double> found = after(factored), plain = after(optimizer);
    std::map<Part, int> parts;
    for (const NamedTensor& tensor : tensors<Tabled>()) {
      O alone = optimizer;  // with the part's rate and decay for the whole model
      alone.lr *= factored.rates[tensor.part], alone.weight_decay *= factored.decays[tensor.part];
      const std::vector<double> expected = after(alone);
      double difference = 0, moved = 0;
      for_each_element(tensor, [&](std::size_t i) {
        difference = std::max(difference, std::abs(found[i] - expected[i]));
        moved = std::max(moved, std::abs(found[i] - plain[i]));
      });
      INFO(tensor.name);
      CHECK(difference <= tolerance);
      CHECK(moved > 1e-3);
      ++parts[tensor.part];
    }
    CHECK(parts.size() == 9);
  };
  Oracle oracle;
  check(oracle, AdamW{.lr = 0.1}, 1e-14);
  check(oracle, Lion{.lr = 0.1}, 1e-14);
  check(oracle, Muon{.lr = 0.1}, 1e-14);
  check(oracle, Muon{.lr = 0.1, .adamw_rate = 0.5, .experts = false}, 1e-14);
  check(oracle, Muon{.lr = 0.1, .adamw_rate = 0.5, .feed_forward = false}, 1e-14);
  Cpu cpu(2);
  check(cpu, Muon{.lr = 0.1}, 1e-6);
}

TEST_CASE("Rows of a table without a gradient stay as they are, with their moments", "[optimizer]") {
  Oracle oracle;
  Cpu cpu(2);
  const auto check_on = [&]<class B, class O>(B& backend, O optimizer) {
    OptimizerTrial<B, O, Tabled> trial(backend, optimizer);
    trial.step(trial.random(1), 0.1);
    std::vector<double> gradients = trial.random(2);
    std::vector<std::size_t> idle;
    for (const NamedTensor& tensor : tensors<Tabled>()) {
      if (tensor.part != Part::table) continue;
      NamedTensor rows = tensor;
      rows.offset += 3 * tensor.cols, rows.rows = 2;
      for_each_element(rows, [&](std::size_t i) { gradients[i] = 0, idle.push_back(i); });
      gradients[static_cast<std::size_t>(tensor.offset)] = 0;  // but not the whole of its row
    }
    CHECK(idle.size() == 2 * 2 * 8);
    const auto weights = trial.weights(), moment = trial.moment(0);
    trial.step(gradients, 0.1);
    const auto after = trial.weights(), moment_after = trial.moment(0);
    std::size_t changed = 0, tensor_elements = 0;
    for (const std::size_t i : idle) {
      CHECK(after[i] == weights[i]);
      CHECK(moment_after[i] == moment[i]);
    }
    for (const NamedTensor& tensor : tensors<Tabled>()) {
      for_each_element(tensor, [&](std::size_t i) { changed += after[i] != weights[i], ++tensor_elements; });
    }
    CHECK(changed == tensor_elements - idle.size());
    CHECK(trial.gradients() == std::vector<double>(gradients.size()));
  };
  const auto check = [&](auto optimizer) { check_on(oracle, optimizer), check_on(cpu, optimizer); };
  check(AdamW{});
  check(Lion{});
  check(Muon{});
}

TEST_CASE("An optimizer chosen at run time is the one that it holds", "[optimizer]") {
  Cpu cpu(1);
  const auto check = [&](auto optimizer, const char* name) {
    const AnyOptimizer<Cpu> any = optimizer;
    CHECK(any.name == name);
    CHECK(any.moments == optimizer.moments);
    CHECK(any.lr == optimizer.lr);
    CHECK(detail::optimizer_name(any) == detail::optimizer_name(optimizer));
    CHECK(same_bits(weights_after(cpu, any, 2), weights_after(cpu, optimizer, 2)));
  };
  check(AdamW{.lr = 0.1, .beta1 = 0.7}, "adamw");
  check(AdamW{.lr = 0.1, .rates = {.norm = 3}, .decays = {.attention = 2}}, "adamw");
  check(Lion{.lr = 0.1}, "lion");
  check(Muon{.lr = 0.1, .momentum = 0.5}, "muon");
}

TEST_CASE("Which tensors are matrices of blocks", "[optimizer]") {
  std::size_t i = 0;
  for (const Segment& segment : segments<Tiny::Parameters<float>>()) {
    INFO(tensors()[i].name);
    CHECK(detail::is_block_matrix(segment) == (has(tensors()[i], "self_attn") || has(tensors()[i], "experts")));
    ++i;
  }
  CHECK(i == tensors().size());
  CHECK_FALSE(detail::is_block_matrix({.rows = 4, .cols = 4, .part = Part::attention, .trained = false}));
  CHECK_FALSE(detail::is_block_matrix({.rows = 4, .cols = 1, .part = Part::expert}));
  CHECK_FALSE(detail::is_block_matrix({.rows = 4, .cols = 4, .part = Part::expert, .is_vector = true}));
}

}  // namespace tinymoe_test::lion_and_muon
