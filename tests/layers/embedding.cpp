#include "tinymoe/layers/embedding.hpp"

#include <map>
#include <set>
#include <utility>

#include "support/gradients.hpp"
#include "tinymoe/backend/cpu.hpp"

namespace tinymoe_test::embedding {

namespace {

constexpr Index V = 5, D = 70, C = 9;
constexpr Index T = 5, N = 2 * T;

constexpr Token tokens[N] = {3, 0, 3, -1, 3, 1, 0, 3, 3, 3};  // repeats in and across sequences, a pad; never 2 or 4

/// The tables, their gradients and x on backend B.
template <class B, bool learned, Index R = 0>
struct Table {
  using Layer = tinymoe::detail::Embedding<V, D, C, learned, R>;
  using S = typename B::Scalar;
  static constexpr Index size = buffer_size<typename Layer::template Parameters<S>>();

  explicit Table(B& backend) : backend(backend), w(backend, 1, size), g(backend, 1, size), x(backend, N, D) {
    bind_parameters(weights, w.view().data);
    bind_parameters(gradients, g.view().data);
    w.fill_normal(1);
    x.fill_normal(2);
    Plan measure(Plan::Purpose::training);
    saved.plan(measure, pass);
    memory = backend.allocate(measure.bytes());
    Plan place(Plan::Purpose::training, memory.bytes(), measure);
    saved.plan(place, pass);
  }
  void forward() { Layer::forward(backend, pass, weights, ids(), x.view(), saved); }
  void backward() { Layer::backward(backend, pass, ids(), x.view(), saved, gradients); }
  View<const Token> ids() const { return {tokens, 1, N}; }

  B& backend;
  Pass pass{.batch = 2, .time = T, .first_position = 3};
  typename Layer::template Parameters<S> weights, gradients;
  DeviceMatrix<S, B> w, g, x;
  typename Layer::Saved saved;
  Memory memory;
};

constexpr Index position_offset = aligned_size(V * D);

}  // namespace

TEST_CASE("embedding is the token's row, plus the position's where positions are learned", "[embedding]") {
  Reference<double> backend;
  using Learnt = Table<Reference<double>, true>;
  using Plain = Table<Reference<double>, false>;
  Learnt learned(backend);
  Plain plain(backend);
  learned.x.fill(not_a_number);
  plain.x.fill(not_a_number);
  learned.forward();
  plain.forward();
  const auto w = learned.w.read();
  bool learned_right = true, plain_right = true;
  for (Index n = 0; n < N; ++n) {
    for (Index c = 0; c < D; ++c) {
      const bool pad = tokens[n] < 0;
      const double token = pad ? 0 : w[static_cast<std::size_t>(tokens[n] * D + c)];
      const double position = pad ? 0 : w[static_cast<std::size_t>(position_offset + (3 + n % T) * D + c)];
      learned_right = learned_right && learned.x.view()(n, c) == token + position;
      plain_right = plain_right && plain.x.view()(n, c) == token;
    }
  }
  CHECK(learned_right);
  CHECK(plain_right);
}

TEST_CASE("embedding's gradients are the sums over a token's and a position's rows", "[embedding][gradient]") {
  const auto expected = [](const std::vector<double>& dx) {
    std::vector<double> g(static_cast<std::size_t>(Table<Reference<double>, true>::size), before);
    for (Index n = 0; n < N; ++n) {
      if (tokens[n] < 0) continue;
      for (Index c = 0; c < D; ++c) {
        const double d = dx[static_cast<std::size_t>(n * D + c)];
        g[static_cast<std::size_t>(tokens[n] * D + c)] += d;
        g[static_cast<std::size_t>(position_offset + (3 + n % T) * D + c)] += d;
      }
    }
    return g;
  };
  const auto check = [&](auto&& backend, double tolerance) {
    Table<std::remove_cvref_t<decltype(backend)>, true> table(backend);
    const auto dx = table.x.read();
    table.g.fill(before);
    table.backward();
    CHECK(absolute_error(table.g.read(), expected(dx)) < tolerance);
    CHECK(same_bits(table.x.read(), dx));
    const auto once = table.g.read();
    table.backward();
    auto twice = expected(dx);
    for (double& value : twice) value = 2 * value - before;
    CHECK(absolute_error(table.g.read(), twice) < 2 * tolerance);
    for (Index c = 0; c < D; ++c) REQUIRE(table.g.read()[static_cast<std::size_t>(2 * D + c)] == before);  // unseen
  };
  check(Reference<double>(), 1e-13);
  check(Cpu(1), 1e-5);
  check(Cpu(3), 1e-5);
}

TEST_CASE("embedding's gradients by complex step", "[embedding][gradient]") {
  Reference<double> real;
  Table<Reference<double>, true> table(real);
  const auto dy = table.x.read();
  table.backward();
  Reference<Complex> stepped_backend;
  Table<Reference<Complex>, true> stepped(stepped_backend);
  const auto loss = [&] {
    stepped.forward();
    Complex total(0);
    for (Index i = 0; i < N * D; ++i) total += stepped.x.view().data[i] * dy[static_cast<std::size_t>(i)];
    return total;
  };
  CHECK(check_slopes("embed_tokens", stepped.w.view(), 0, V * D, table.g.read(), loss) > 0.1);
  CHECK(check_slopes("embed_positions", stepped.w.view(), position_offset, C * D, table.g.read(), loss) > 0.1);
}

TEST_CASE("embedding adds the row of a token and the one before", "[embedding][gradient]") {
  Reference<double> backend;
  constexpr Index R = 7;
  Table<Reference<double>, false, R> table(backend);
  constexpr Index offset = aligned_size(V * D);
  const auto w = table.w.read();
  // The row that was added to x[n]; -1: none. The rows are random, so one number tells them apart.
  const auto row_of = [&](Index n) -> Index {
    const double token = tokens[n] < 0 ? 0 : w[static_cast<std::size_t>(tokens[n] * D)], found = table.x.view()(n, 0);
    if (found == token) return -1;
    for (Index r = 0; r < R; ++r) {
      if (found == token + w[static_cast<std::size_t>(offset + r * D)]) return r;
    }
    return R;
  };
  table.forward();
  std::map<std::pair<Token, Token>, Index> rows;
  bool whole = true;
  for (Index n = 0; n < N; ++n) {
    const Index row = row_of(n);
    INFO("token " << n);
    CHECK(row < R);
    // None at the beginning of a sequence, for a pad, or after one.
    CHECK((row < 0) == (n % T == 0 || tokens[n] < 0 || tokens[n - 1] < 0));
    if (row < 0) continue;
    const auto [pair, is_new] = rows.try_emplace({tokens[n - 1], tokens[n]}, row);
    CHECK(pair->second == row);  // the same pair has the same row
    for (Index c = 0; c < D; ++c) {
      const auto at = [&](Index row_number) { return w[static_cast<std::size_t>(row_number * D + c)]; };
      whole = whole && table.x.view()(n, c) == at(tokens[n]) + w[static_cast<std::size_t>(offset + row * D + c)];
    }
  }
  CHECK(whole);
  std::set<Index> different;
  for (const auto& [pair, row] : rows) different.insert(row);
  CHECK(different.size() >= 3);  // of 5 pairs
  CHECK(rows.at({3, 0}) != rows.at({0, 3}));

  // A pass that goes on with a sequence knows the token before.
  constexpr Token last[2] = {1, -1};
  table.pass.previous = View<const Token>(last, 1, 2);
  table.forward();
  CHECK(row_of(0) >= 0);
  CHECK(row_of(T) == -1);

  const auto dx = table.x.read();
  table.g.fill(before);
  table.backward();
  auto expected = std::vector<double>(static_cast<std::size_t>(table.size), before);
  for (Index n = 0; n < N; ++n) {
    const Index row = row_of(n);
    for (Index c = 0; c < D && tokens[n] >= 0; ++c) {
      const double d = dx[static_cast<std::size_t>(n * D + c)];
      expected[static_cast<std::size_t>(tokens[n] * D + c)] += d;
      if (row >= 0) expected[static_cast<std::size_t>(offset + row * D + c)] += d;
    }
  }
  CHECK(absolute_error(table.g.read(), expected) < 1e-13);
}

TEST_CASE("embedding describes its tables as the hub names them", "[embedding]") {
  using Names = std::vector<std::string>;
  CHECK(tensor_names<tinymoe::detail::Embedding<V, D, C, true>::Parameters<double>>() ==
        Names{"embed_tokens.weight", "embed_positions.weight"});
  CHECK(tensor_names<tinymoe::detail::Embedding<V, D, C, false>::Parameters<double>>() == Names{"embed_tokens.weight"});
  CHECK(tensor_names<tinymoe::detail::Embedding<V, D, C, false, 9>::Parameters<double>>() ==
        Names{"embed_tokens.weight", "embed_bigrams.weight"});
}

}  // namespace tinymoe_test::embedding
