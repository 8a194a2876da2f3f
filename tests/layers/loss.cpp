#include "tinymoe/layers/loss.hpp"

#include "support/gradients.hpp"
#include "tinymoe/backend/cpu.hpp"

namespace tinymoe_test::loss {

namespace {

constexpr Index N = 7, D = 3, V = 5;

/// A head with random weights and rows on backend B, in chunks of `chunk` rows.
template <class B>
struct Head {
  using T = typename B::Scalar;

  Head(B& backend, Index chunk, Index vocab = V)
      : backend(backend),
        weight(backend, vocab, D),
        bias(backend, 1, vocab),
        x(backend, N, D),
        losses(backend, 1, N),
        dx(backend, N, D),
        dweight(backend, vocab, D),
        dbias(backend, 1, vocab),
        logits(backend, chunk, vocab),
        partial(backend, rowwise::chunks(chunk), vocab) {
    weight.fill_normal(1);
    bias.fill_normal(2);
    x.fill_normal(3);
    scratch.logits = logits.view();
    scratch.partial = partial.view();
    losses.fill(not_a_number);
    dx.fill(not_a_number);
    dweight.fill(before);
    dbias.fill(before);
  }
  void loss(const std::vector<Token>& targets) {
    tinymoe::detail::head_loss<B>(backend, weight.view(), bias.view(), x.view(), {targets.data(), 1, N}, losses.view(),
                                  scratch);
  }
  void gradient(const std::vector<Token>& targets, double scale) {
    tinymoe::detail::head_loss_and_gradient<B>(backend, weight.view(), bias.view(), x.view(), {targets.data(), 1, N},
                                               scale, losses.view(), dx.view(), dweight.view(), dbias.view(), scratch);
  }

  B& backend;
  DeviceMatrix<T, B> weight, bias, x;
  DeviceMatrix<typename B::Master, B> losses;
  DeviceMatrix<T, B> dx;
  DeviceMatrix<typename B::Master, B> dweight, dbias;
  DeviceMatrix<T, B> logits;
  DeviceMatrix<typename B::Master, B> partial;
  tinymoe::detail::HeadScratch<T, typename B::Master> scratch;
};

using Double = Head<Reference<double>>;
const std::vector<Token> targets{0, 4, -1, 2, 2, -100, 1};

/// What was added to gradients that began at `before`.
std::vector<double> added(const std::vector<double>& gradient) {
  auto result = gradient;
  for (double& value : result) value -= before;
  return result;
}

}  // namespace

TEST_CASE("the loss of hand-computed logits", "[loss]") {
  Reference<double> backend;
  Double head(backend, N);
  head.weight.fill(0);
  head.bias.fill(3);
  head.loss(targets);
  CHECK(head.losses.read()[0] == Approx(std::log(5.0)).epsilon(1e-15));  // even odds
  head.bias.write({std::log(1), std::log(2), std::log(3), std::log(4), std::log(10)});
  head.loss(targets);
  const auto losses = head.losses.read();
  CHECK(absolute_error(losses, {std::log(20.0), std::log(2.0), 0, std::log(20.0 / 3), std::log(20.0 / 3), 0,
                                std::log(10.0)}) < 1e-14);
}

TEST_CASE("the head's gradients of hand-computed logits", "[loss]") {
  Reference<double> backend;
  Double head(backend, N);
  head.weight.fill(0);
  head.bias.write({std::log(1), std::log(2), std::log(3), std::log(4), std::log(10)});
  head.gradient({4, -1, -1, -1, -1, -1, -1}, 2);
  CHECK(absolute_error(added(head.dbias.read()), {0.1, 0.2, 0.3, 0.4, -1}) < 1e-14);  // 2 (p − onehot)
}

TEST_CASE("the head has the gradients of complex steps", "[loss][gradient]") {
  Reference<double> real;
  Double head(real, 3);
  head.gradient(targets, 0.3);
  Reference<Complex> stepped_backend;
  Head<Reference<Complex>> stepped(stepped_backend, N);
  const auto loss = [&] {
    stepped.loss(targets);
    Complex total(0);
    for (Index n = 0; n < N; ++n) total += stepped.losses.view().data[n];
    return 0.3 * total;
  };
  CHECK(check_slopes("weight", stepped.weight.view(), 0, V * D, added(head.dweight.read()), loss) > 1e-3);
  CHECK(check_slopes("bias", stepped.bias.view(), 0, V, added(head.dbias.read()), loss) > 1e-3);
  CHECK(check_slopes("x", stepped.x.view(), 0, N * D, head.dx.read(), loss) > 1e-3);

  head.dx.fill(not_a_number);  // again: parameters' gradients add up, dx is overwritten
  const auto weight_once = added(head.dweight.read()), bias_once = added(head.dbias.read());
  head.gradient(targets, 0.3);
  auto weight_twice = added(head.dweight.read()), bias_twice = added(head.dbias.read());
  for (double& value : weight_twice) value /= 2;
  for (double& value : bias_twice) value /= 2;
  CHECK(absolute_error(weight_twice, weight_once) < 1e-14);
  CHECK(absolute_error(bias_twice, bias_once) < 1e-14);
  CHECK(std::isfinite(absolute_error(head.dx.read(), head.dx.read())));
}

TEST_CASE("a target below zero has no loss and no gradient", "[loss]") {
  Reference<double> backend;
  Double some(backend, 2), none(backend, 2);
  some.gradient(targets, 1);
  const auto dx = some.dx.read(), losses = some.losses.read();
  CHECK(losses[2] == 0);
  CHECK(losses[5] == 0);
  for (const std::size_t n : {2u, 5u}) {
    for (std::size_t i = 0; i < D; ++i) CHECK(dx[n * D + i] == 0);
  }
  CHECK(losses[0] > 0);
  none.gradient(std::vector<Token>(N, -1), 1);
  CHECK(absolute_error(none.dx.read(), std::vector<double>(N * D, 0.0)) == 0);
  CHECK(absolute_error(none.losses.read(), std::vector<double>(N, 0.0)) == 0);
  CHECK(absolute_error(none.dweight.read(), std::vector<double>(V * D, before)) == 0);
  CHECK(absolute_error(none.dbias.read(), std::vector<double>(V, before)) == 0);
}

TEST_CASE("a scale of zero gives losses and no gradient", "[loss]") {
  Reference<double> backend;
  Double plain(backend, 2), zero(backend, 2);
  plain.loss(targets);
  zero.gradient(targets, 0);
  CHECK(absolute_error(zero.losses.read(), plain.losses.read()) < 1e-14);
  CHECK(absolute_error(zero.dx.read(), std::vector<double>(N * D, 0.0)) == 0);
  CHECK(absolute_error(zero.dweight.read(), std::vector<double>(V * D, before)) == 0);
  CHECK(absolute_error(zero.dbias.read(), std::vector<double>(V, before)) == 0);
}

TEST_CASE("a head in chunks equals one in one piece", "[loss]") {
  Reference<double> backend;
  Double whole(backend, N), alone(backend, N);
  whole.gradient(targets, 0.3);
  alone.loss(targets);
  CHECK(absolute_error(whole.losses.read(), alone.losses.read()) < 1e-15);
  for (const Index chunk : {1, 2, 3, 6}) {
    Double head(backend, chunk), without(backend, chunk);
    head.gradient(targets, 0.3);
    without.loss(targets);
    CHECK(absolute_error(head.losses.read(), whole.losses.read()) < 1e-15);
    CHECK(absolute_error(without.losses.read(), whole.losses.read()) < 1e-15);
    CHECK(absolute_error(head.dx.read(), whole.dx.read()) < 1e-15);
    CHECK(absolute_error(head.dweight.read(), whole.dweight.read()) < 1e-14);
    CHECK(absolute_error(head.dbias.read(), whole.dbias.read()) < 1e-14);
  }
}

TEST_CASE("the loss is exact with extreme logits", "[loss]") {
  const auto check = [](auto&& backend) {
    Head head(backend, N);
    head.weight.fill(0);
    head.bias.write({-1e4, 1e4, 0, 0, 9999});
    head.gradient({0, 1, 2, -1, -1, -1, 4}, 1);
    const double log_sum = std::log(1 + std::exp(-1.0));
    CHECK(absolute_error(head.losses.read(), {2e4 + log_sum, log_sum, 1e4 + log_sum, 0, 0, 0, 1 + log_sum}) < 1e-2);
    CHECK(std::isfinite(absolute_error(head.dbias.read(), head.dbias.read())));
  };
  check(Reference<double>());
  check(Cpu(1));
}

TEST_CASE("the head on the CPU agrees with the oracle", "[loss][cpu]") {
  constexpr Index many = 130;
  for (const int threads : {1, 3}) {
    Reference<double> oracle;
    Cpu backend(threads);
    Double expected(oracle, N, many);
    Head<Cpu> head(backend, 3, many), plain(backend, N, many);
    expected.gradient(targets, 0.3);
    head.gradient(targets, 0.3);
    plain.loss(targets);
    CHECK(relative_error(head.losses.read(), expected.losses.read()) < 1e-5);
    CHECK(relative_error(plain.losses.read(), expected.losses.read()) < 1e-5);
    CHECK(relative_error(head.dx.read(), expected.dx.read()) < 1e-5);
    CHECK(relative_error(head.dweight.read(), expected.dweight.read()) < 1e-5);
    CHECK(relative_error(head.dbias.read(), expected.dbias.read()) < 1e-5);
  }
}

namespace {

/// A backend with room for larger chunks of logits.
struct Roomy : Cpu {
  static constexpr std::size_t logit_bytes = std::size_t{256} << 20;
};
static_assert(LogitChunkBackend<Roomy>);

}  // namespace

TEST_CASE("a head's chunk is bounded by memory and by the rows there are", "[loss]") {
  const auto rows = [](const auto& backend, Index vocab, Index tokens) {
    Plan plan(Plan::Purpose::training);
    tinymoe::detail::HeadScratch<float, float> scratch, with_bias;
    scratch.plan(plan, {.time = tokens}, vocab, false, backend);
    with_bias.plan(plan, {.time = tokens}, vocab, true, backend);
    CHECK(scratch.logits.cols == vocab);
    CHECK(scratch.partial.size() == 0);
    CHECK(with_bias.partial.size() >= rowwise::column_sum_scratch(with_bias.logits.rows, vocab));
    return scratch.logits.rows;
  };
  const Cpu cpu(1);
  CHECK(rows(cpu, 5, 7) == 7);
  CHECK(rows(cpu, 100, 100000) == 1024);
  CHECK(rows(cpu, 32768, 100000) == 256);  // 32 MB
  CHECK(rows(cpu, 1000000, 100000) == 64);
  const Roomy roomy;
  CHECK(rows(roomy, 5, 7) == 7);
  CHECK(rows(roomy, 100, 100000) == 4096);
  CHECK(rows(roomy, 32768, 100000) == 2048);  // 256 MB
}

}  // namespace tinymoe_test::loss
