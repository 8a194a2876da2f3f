#include "tinymoe/layers/position.hpp"

#include "support/gradients.hpp"
#include "tinymoe/backend/cpu.hpp"

namespace tinymoe_test::position {

namespace {

/// The table of `pass`, as an attention plans it.
template <class B>
struct Table {
  using M = typename B::Master;

  Table(B& backend, const Pass& largest, Index head_dim) : memory(backend, largest.time, head_dim) {
    rope.table = memory.view();
  }
  DeviceMatrix<M, B> memory;
  RopeTable<M> rope;
};

/// Rows of `x` rotated by the positions of `pass`, or rotated back.
std::vector<double> turn(const Pass& pass, Index head_dim, std::vector<double> x, double direction = 1) {
  Reference<double> backend;
  Table table(backend, pass, head_dim);
  const Index width = std::ssize(x) / pass.rows();
  backend.launch(pass.rows(), kernels::Rotate<double, double>{
                                  {x.data(), pass.rows(), width}, table.rope.at(backend, pass), head_dim, direction});
  return x;
}

std::vector<double> random_row(std::uint64_t stream, Index count) {
  std::vector<double> row;
  for (Index i = 0; i < count; ++i) row.push_back(normal_number(stream, i));
  return row;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) total += a[i] * b[i];
  return total;
}

}  // namespace

TEST_CASE("rope rotates the pairs of both halves by their angles", "[position]") {
  // d = 4, theta = 10000: at position 3 the pair (0, 2) is rotated by 3 and the pair (1, 3) by 3 / 100.
  const auto y = turn({.time = 1, .first_position = 3}, 4, {1, 2, 5, 7});
  CHECK(absolute_error(y, {std::cos(3.0) - 5 * std::sin(3.0), 2 * std::cos(0.03) - 7 * std::sin(0.03),
                           5 * std::cos(3.0) + std::sin(3.0), 7 * std::cos(0.03) + 2 * std::sin(0.03)}) < 1e-14);
}

TEST_CASE("partial rope rotates the first numbers of a head and leaves the others", "[position]") {
  Reference<double> backend;
  Table table(backend, {.time = 1}, PartialRope<1, 2>::rotated(6) + 1);  // 4 of 6
  std::vector<double> x = {1, 2, 5, 7, 3, -1, 1, 2, 5, 7, 4, 8};
  const Pass pass{.time = 1, .first_position = 3};
  backend.launch(1, kernels::Rotate<double, double>{{x.data(), 1, 12}, table.rope.at(backend, pass), 6, 1.0});
  const std::vector<double> y = turn(pass, 4, {1, 2, 5, 7});
  CHECK(absolute_error(x, {y[0], y[1], y[2], y[3], 3, -1, y[0], y[1], y[2], y[3], 4, 8}) < 1e-14);
}

TEST_CASE("rope's angles follow theta", "[position]") {
  const auto y = turn({.time = 1, .first_position = 2, .settings = {setting::rope_theta = 16}}, 4, {0, 1, 0, 0});
  CHECK(absolute_error(y, {0, std::cos(0.5), 0, std::sin(0.5)}) < 1e-14);  // 2 · 16^(−1/2)
}

TEST_CASE("rope is complex multiplication", "[position]") {
  constexpr Index d = 10, heads = 3;
  const Pass pass{.batch = 2, .time = 5, .first_position = 11};
  const auto x = random_row(1, pass.rows() * heads * d);
  const auto y = turn(pass, d, x);
  double worst = 0;
  for (Index n = 0; n < pass.rows(); ++n) {
    for (Index h = 0; h < heads; ++h) {
      for (Index i = 0; i < d / 2; ++i) {
        const auto low = static_cast<std::size_t>((n * heads + h) * d + i), high = low + d / 2;
        const double angle = double(11 + n % 5) * std::pow(10000.0, -2.0 * double(i) / double(d));
        const Complex expected = Complex(x[low], x[high]) * std::polar(1.0, angle);
        worst = std::max(worst, std::abs(expected - Complex(y[low], y[high])));
      }
    }
  }
  CHECK(worst < 1e-13);
}

TEST_CASE("rope changes nothing at position 0, keeps norms and can be undone", "[position]") {
  const auto x = random_row(2, 6);
  CHECK(same_bits(turn({.time = 1}, 6, x), x));
  for (const Index position : {1, 100, 100000}) {
    const Pass pass{.time = 1, .first_position = position};
    const auto y = turn(pass, 6, x);
    CHECK(dot(y, y) == Approx(dot(x, x)).epsilon(1e-14));
    CHECK(absolute_error(turn(pass, 6, y, -1), x) < 1e-14);
  }
}

TEST_CASE("products of rotated vectors depend on their distance alone", "[position]") {
  const auto q = random_row(3, 8), k = random_row(4, 8);
  const auto product = [&](Index at_q, Index at_k) {
    return dot(turn({.time = 1, .first_position = at_q}, 8, q), turn({.time = 1, .first_position = at_k}, 8, k));
  };
  for (const Index shift : {1, 17, 1000}) {
    CHECK(product(9 + shift, 4 + shift) == Approx(product(9, 4)).epsilon(1e-11));
    CHECK(std::abs(product(9 + shift, 4) - product(9, 4)) > 1e-3);
  }
}

TEST_CASE("rope's table is filled again when the positions change, and only then", "[position]") {
  Reference<double> backend;
  Pass pass{.time = 4};
  Table table(backend, {.time = 6}, 2);
  const auto cosine_of_last = [&] { return table.rope.at(backend, pass)(pass.time - 1, 0); };
  CHECK(cosine_of_last() == std::cos(3.0));
  CHECK(table.rope.at(backend, pass).rows == 4);
  table.memory.fill(7);
  CHECK(cosine_of_last() == 7);  // nothing changed
  pass.time = 2;
  CHECK(cosine_of_last() == 7);  // still holds the shorter pass
  pass.time = 6;
  CHECK(cosine_of_last() == std::cos(5.0));
  pass.first_position = 5;
  CHECK(cosine_of_last() == std::cos(10.0));
  pass.first_position = 0;
  pass.time = 3;
  CHECK(cosine_of_last() == std::cos(2.0));
  Table wide(backend, {.time = 6}, 4);
  const auto slow_cosine = [&] { return wide.rope.at(backend, pass)(2, 1); };
  CHECK(slow_cosine() == Approx(std::cos(0.02)).epsilon(1e-15));
  pass.settings.set(setting::rope_theta = 100);
  CHECK(slow_cosine() == Approx(std::cos(0.2)).epsilon(1e-15));
}

TEST_CASE("rope rotates each sequence by positions of its own", "[position]") {
  constexpr Index d = 6, time = 2;
  const std::vector<std::int32_t> firsts = {40, 0, 7};
  const Pass pass{.batch = 3, .time = time, .first_position = 99, .positions = {firsts.data(), 1, 3}};
  const auto x = random_row(6, pass.rows() * 2 * d);
  auto y = x;
  Reference<double> backend;
  RopeTable<double> rope;
  Plan measure(Plan::Purpose::inference);
  rope.plan(measure, pass, d);
  CHECK(rope.table.rows == 6);
  DeviceMatrix<double, Reference<double>> memory(backend, 6, d);
  rope.table = memory.view();
  const auto rotate = [&](double direction) {
    backend.launch(6, kernels::Rotate<double, double>{{y.data(), 6, 2 * d}, rope.at(backend, pass), d, direction});
  };
  rotate(1);
  for (std::size_t b = 0; b < 3; ++b) {
    const auto part = [&](const std::vector<double>& of) {
      const auto from = of.begin() + static_cast<Index>(b) * time * 2 * d;
      return std::vector<double>(from, from + time * 2 * d);
    };
    CHECK(same_bits(part(y), turn({.time = time, .first_position = firsts[b]}, d, part(x))));
  }
  rotate(-1);
  CHECK(absolute_error(y, x) < 1e-14);
  // A pass without positions of its own does not use this table, nor the other way round.
  CHECK(rope.at(backend, {.time = 4, .first_position = 99})(3, 0) == std::cos(102.0));
  CHECK(rope.at(backend, pass)(3, 0) == std::cos(1.0));
  CHECK(rope.at(backend, {.time = 4, .first_position = 99})(0, 0) == std::cos(99.0));
}

TEST_CASE("rope on the CPU is exact at far positions", "[position][cpu]") {
  const Pass pass{.batch = 2, .time = 33, .first_position = 100000};
  constexpr Index d = 40, width = 3 * d;
  Cpu backend(3);
  Table table(backend, pass, d);
  DeviceMatrix<float, Cpu> x(backend, pass.rows(), width);
  x.fill_normal(5);
  const auto start = x.read();
  backend.launch(pass.rows(), kernels::Rotate<float, float>{x.view(), table.rope.at(backend, pass), d, 1.0f});
  CHECK(relative_error(x.read(), turn(pass, d, start)) < 1e-6);
  backend.launch(pass.rows(), kernels::Rotate<float, float>{x.view(), table.rope.at(backend, pass), d, -1.0f});
  CHECK(relative_error(x.read(), start) < 1e-6);
}

}  // namespace tinymoe_test::position
