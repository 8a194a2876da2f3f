#include "tinymoe/cpu/launch.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "support/catch.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/layers/activation_functions.hpp"
#include "tinymoe/layers/loss.hpp"
#include "tinymoe/layers/norm.hpp"
#include "tinymoe/train/adamw.hpp"

namespace tinymoe_test::launch {

using namespace tinymoe;
using detail::cpu::compiled_for;
using detail::cpu::row_runner;
using detail::cpu::run_rows;

namespace {

/// Several numbers in a matrix of their own, and sentinels after each row.
template <class T>
struct Matrix {
  Index rows, cols;
  std::vector<T> numbers;
  Matrix(Index r, Index c, float low, float high)
      : rows(r), cols(c), numbers(static_cast<std::size_t>(r * (c + 3)), T(77.0f)) {
    std::uint32_t word = 2463534242u + std::uint32_t(31 * r + c);
    for (Index row = 0; row < r; ++row) {
      for (Index i = 0; i < c; ++i) {
        word = word * 1664525u + 1013904223u;
        view()(row, i) = T(low + (high - low) * float(word >> 8) * 0x1p-24f);
      }
    }
  }
  View<T> view() { return {numbers.data(), rows, cols, cols + 3}; }
};

/// Adds the rounding error of a square, which only a fused multiply-add can see.
struct Fused {
  float* to;
  template <class Group>
  void operator()(Group group, Index row) const {
    group.each(
        64, [](float& v) { v = v * v - 1.00048828125f; }, to + 64 * row);
  }
};
struct FusedOnce : Fused {
  static constexpr bool compiled_once = true;
};

/// f(set) for the sets that this machine has, the narrowest first.
template <class F>
void for_each_set(F f) {
  for (const CpuInstructions set : detail::cpu::every_set) {
    if (detail::cpu::usable(set)) f(set);
  }
}

template <class T>
double difference(const Matrix<T>& a, const Matrix<T>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.numbers.size(); ++i) {
    const double error = std::abs(double(float(a.numbers[i])) - double(float(b.numbers[i])));
    largest = std::max(largest, error == error ? error / (1 + std::abs(double(float(b.numbers[i])))) : 1e9);
  }
  return largest;
}

/// Runs a kernel, which `make` gives for a matrix to write, by each set: they agree but for rounding.
template <class T, class Make>
void check_agreement(Index rows, Index cols, Index kernel_rows, double tolerance, Make make) {
  Matrix<T> expected(rows, cols, -1, 1);
  run_rows(CpuInstructions::baseline, make(expected.view()), 0, kernel_rows);
  for_each_set([&](CpuInstructions set) {
    Matrix<T> found(rows, cols, -1, 1);
    run_rows(set, make(found.view()), 0, kernel_rows);
    CAPTURE(detail::cpu::name_of(set), rows, cols);
    CHECK(difference(found, expected) <= tolerance);
  });
}

template <class T>
void check_kernels(double tolerance) {
  for (const Index cols : {1, 7, 16, 33, 130}) {
    const Index rows = 5;
    Matrix<T> x(rows, cols, -2, 2), wide(rows, 2 * cols, -9, 9), gain(1, cols, 0.5f, 1.5f);
    check_agreement<T>(rows, cols, rows, tolerance, [&](View<T> y) {
      return kernels::ActivationForward<SwiGlu, T>{wide.view(), y, {}};
    });
    check_agreement<T>(rows, 2 * cols, rows, tolerance, [&](View<T> dh) {
      return kernels::ActivationBackward<SwiGlu, T>{wide.view(), x.view(), dh, {}};
    });
    check_agreement<T>(rows, cols, rows, tolerance, [&](View<T> y) {
      return kernels::ActivationForward<Gelu, T>{x.view(), y, {}};
    });
    Matrix<float> inverse(1, rows, 1, 1), partial(1, cols, 0, 0);
    check_agreement<T>(rows, cols, rows, tolerance, [&](View<T> y) {
      return kernels::NormForward<T, float>{x.view(), gain.view(), {}, y, {}, inverse.view(), 1e-5};
    });
    check_agreement<T>(rows, cols, 1, tolerance, [&](View<T> dx) {
      return kernels::NormBackward<T, float>{
          wide.view().middle_cols(0, cols), gain.view(), x.view(), {}, dx, {}, inverse.view(), partial.view()};
    });
    std::vector<Token> targets(static_cast<std::size_t>(rows), 0);
    Matrix<float> losses(1, rows, 0, 0);
    check_agreement<T>(rows, cols, rows, tolerance, [&](View<T> logits) {
      return kernels::CrossEntropy<T, float>{logits, {targets.data(), 1, rows}, losses.view(), 0.5f};
    });
    const Chunk chunk{.offset = 0, .size = int(cols), .decay = 1};
    const float clip[] = {1, 1};
    check_agreement<T>(1, cols, 1, tolerance, [&](View<T> copy) {
      static Matrix<float> weights(1, 130, 0, 0), gradients(1, 130, 0, 0), mean(1, 130, 0, 0), square(1, 130, 0, 0);
      weights = gradients = mean = Matrix<float>(1, 130, -1, 1), square = Matrix<float>(1, 130, 0, 1);
      return kernels::AdamWStep<T, float>{weights.numbers.data(),
                                          copy.data,
                                          gradients.numbers.data(),
                                          mean.numbers.data(),
                                          square.numbers.data(),
                                          &chunk,
                                          clip,
                                          1e-2f,
                                          0.1f,
                                          0.9f,
                                          0.95f,
                                          1e-8f,
                                          0.1f,
                                          0.05f};
    });
  }
}

}  // namespace

TEST_CASE("row kernels agree between instruction sets but for rounding, and write to their rows only", "[cpu]") {
  check_kernels<float>(3e-6);
  check_kernels<bfloat16>(1e-2);
}

TEST_CASE("a kernel is compiled for the set that runs it, one that gains nothing only once", "[cpu]") {
  for_each_set([&](CpuInstructions set) {
    std::vector<float> numbers(128, 1.000244140625f);  // its square is 1.00048828125 + 2^−24
    run_rows(set, Fused{numbers.data()}, 0, 2);
    CAPTURE(detail::cpu::name_of(set));
#if defined(TINYMOE_TEST_FUSES)
    const bool fused = std::max(set, compiled_for) >= CpuInstructions::avx2;
    CHECK(std::count(numbers.begin(), numbers.end(), fused ? 0x1p-24f : 0.0f) == 128);
#endif
    const bool wider = set > compiled_for && compiled_for < CpuInstructions::avx512;
    CHECK((row_runner<Fused>(set) != row_runner<Fused>(CpuInstructions::baseline)) == wider);
    CHECK(row_runner<FusedOnce>(set) == row_runner<FusedOnce>(CpuInstructions::baseline));
  });
}

TEST_CASE("a Cpu runs its kernels by the instructions that it was asked for", "[cpu]") {
  for_each_set([&](CpuInstructions set) {
    const Cpu backend(CpuOptions{.threads = 2, .instructions = set});
    CHECK(backend.instructions() == set);
    std::vector<float> numbers(64 * 100, 1.000244140625f), expected = numbers;
    backend.launch(100, Fused{numbers.data()});
    run_rows(set, Fused{expected.data()}, 0, 100);
    CHECK(numbers == expected);
  });
}

TEST_CASE("rows are cut into pieces that are worth a thread's while", "[cpu]") {
  const detail::cpu::Team team(4), alone(1);
  std::atomic<int> pieces = 0;
  std::atomic<Index> done = 0;
  struct Counts {
    std::atomic<int>* pieces;
    std::atomic<Index>* rows;
  };
  const Counts counts{&pieces, &done};
  const auto pieces_of = [&](const detail::cpu::Team& of, Index rows, Index elements) {
    pieces = 0, done = 0;
    detail::cpu::launch_rows(of, rows, elements, &counts, [](const void* of, Index first, Index last) {
      const auto& to = *static_cast<const Counts*>(of);
      ++*to.pieces, *to.rows += last - first;
    });
    CHECK(done == rows);
    return pieces.load();
  };
  CHECK(pieces_of(team, 8, 16) == 1);
  CHECK(pieces_of(team, 8, 512) == 2);
  CHECK(pieces_of(team, 8, 4096) == 8);
  CHECK(pieces_of(team, 1000, 512) == 16);
  CHECK(pieces_of(team, 0, 512) == 0);
  CHECK(pieces_of(alone, 1000, 512) == 1);
  const auto sized = kernels::NormForward<float, float>{{nullptr, 8, 512}, {}, {}, {}, {}, {}, 0};
  CHECK(detail::cpu::elements_of_row(sized) == 512);
  // One that does not say may cost any time: each row may have a thread.
  CHECK(pieces_of(team, 8, detail::cpu::elements_of_row(Fused{})) == 8);
}

}  // namespace tinymoe_test::launch
