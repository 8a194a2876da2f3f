// Products by themselves: one of float32 and a bank's of bfloat16, each with its two gradients. Weights rotate through
// more memory than a core's caches hold, as they do in a step.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "matrix.hpp"
#include "programs/main.hpp"
#include "programs/measure.hpp"
#include "programs/numbers.hpp"
#include "support.hpp"
#include "tinymoe/backend/cpu.hpp"

namespace {

using namespace tinymoe;

struct Arguments {
  double seconds = 1;
  int threads = 0;
};

/// Calls f(turn) again and again for some seconds and prints the median as a row; f() does `operations`.
template <class B, class F>
void report(B& cpu, const Arguments& arguments, const std::string& figure, double operations, F&& f) {
  bench::ProductLimits limits;
  limits.measure(cpu.threads());
  std::vector<double> seconds;
  std::size_t turn = 0;
  for (int warm = 0; warm < 3; ++warm) f(turn++);
  for (double left = arguments.seconds; left > 0; left -= seconds.back()) {
    seconds.push_back(programs::seconds_of([&] { f(turn++); }));
  }
  limits.measure(cpu.threads());
  bench::print_row(std::string("product, ") + bench::type_name<B>() + " " + figure,
                   operations / programs::median(seconds) / 1e9, "GFLOP/s", limits.of<typename B::Scalar>() / 1e9, 0);
}

/// y (N, O) = x (N, I) w (O, I)ᵀ for each of `experts`, all with as many rows, and the gradients of x and w.
template <class B>
void multiply(const Arguments& arguments, Index experts, Index rows, Index outputs, Index inputs) {
  using T = typename B::Scalar;
  B cpu(arguments.threads);
  const Index all = experts * rows;
  const auto copies = static_cast<std::size_t>(1 + (Index{64} << 20) / (experts * outputs * inputs * Index{sizeof(T)}));
  std::vector<bench::Matrix<T>> weights;
  for (std::size_t i = 0; i < copies; ++i) weights.emplace_back(experts * outputs, inputs);
  const bench::Matrix<T> x(all, inputs), y(all, outputs);
  const bench::Matrix<float> gradient(experts * outputs, inputs);
  std::vector<std::int32_t> ends;
  for (Index e = 0; e <= experts; ++e) ends.push_back(static_cast<std::int32_t>(e * rows));
  const Dispatch dispatch(View<std::int32_t>(ends.data(), 1, experts + 1), all);
  const auto bank = [&](std::size_t turn) {
    return Bank<const T>{weights[turn % copies].view().data, experts, outputs, inputs, outputs * inputs};
  };
  const std::string shape = std::to_string(rows) + "x" + std::to_string(outputs) + "x" + std::to_string(inputs) +
                            (experts > 1 ? " for each of " + std::to_string(experts) + " experts" : "");
  const double operations = 2.0 * double(all) * double(outputs) * double(inputs);
  report(cpu, arguments, shape, operations, [&](std::size_t turn) {
    if (experts == 1) return cpu.matmul(x, weights[turn % copies], {}, y);
    cpu.grouped_matmul(x, bank(turn), {}, dispatch, y);
  });
  report(cpu, arguments, shape + ", gradient of x", operations, [&](std::size_t turn) {
    if (experts == 1) return cpu.matmul_input(y, weights[turn % copies], x, Write::overwrite);
    cpu.grouped_matmul_input(y, bank(turn), dispatch, x);
  });
  report(cpu, arguments, shape + ", gradient of the weights", operations, [&](std::size_t) {
    if (experts == 1) return cpu.matmul_weight(y, x, gradient);
    cpu.grouped_matmul_weight(y, x, dispatch,
                              Bank<float>{gradient.view().data, experts, outputs, inputs, outputs * inputs});
  });
}

}  // namespace

int main(int count, char** values) {
  Arguments arguments;
  CLI::App app("Matrix products of the CPU by themselves.");
  programs::add_number(app, "--seconds", arguments.seconds, "for each product", programs::range::above_0);
  programs::add_number(app, "--threads", arguments.threads, "0: as many as OMP_NUM_THREADS says, or cores",
                       programs::range::whole(0, tinymoe::detail::max_threads));
  return programs::run(app, count, values, [&] {
    std::printf("bfloat16 is multiplied by %s here\n", bench::bfloat16_unit());
    multiply<Cpu>(arguments, 1, 1024, 1536, 512);
    multiply<CpuBfloat16>(arguments, 8, 256, 2816, 512);
  });
}
