// The CPU's products with integer weights against the oracle, at awkward sizes, on every instruction set that it has.
// The weights' bytes end where their memory ends, so that a sanitizer sees a read behind them.

#include "tinymoe/cpu/block_products.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "backend/backends.hpp"

namespace tinymoe_test::block_products {

namespace {

/// Rows of weights in memory of just their size.
template <class W>
struct Stored {
  Stored(Numbers& numbers, Index rows, Index cols)
      : rows(rows),
        cols(cols),
        size(static_cast<std::size_t>(rows) * Format::row_bytes(cols)),
        bytes(new std::byte[size]) {
    std::vector<float> values;
    for (Index i = 0; i < rows * cols; ++i) values.push_back(static_cast<float>(numbers.next()));
    Format::encode(View<const float>(values.data(), rows, cols), bytes.get());
  }
  using Format = WeightFormat<W>;
  typename Format::View view() const { return {bytes.get(), rows, cols}; }
  Index rows, cols;
  std::size_t size;
  std::unique_ptr<std::byte[]> bytes;
};

/// So many numbers, none of them halfway between two of 8 bits: there it depends on the compiler, which may fuse what
/// is multiplied and rounded, which of them is taken.
std::vector<double> off_ties(Numbers& numbers, Index rows, Index cols) {
  auto x = numbers.take(rows * cols);
  for (Index row = 0; row < rows; ++row) {
    for (Index first = 0; first < cols; first += 32) {
      double* const group = x.data() + row * cols + first;
      const Index count = std::min<Index>(32, cols - first);
      double most = 0;
      for (Index i = 0; i < count; ++i) most = std::max(most, std::abs(group[i]));
      for (Index i = 0; i < count; ++i) {
        const double scaled = group[i] * 127 / most;
        if (std::abs(scaled - std::floor(scaled) - 0.5) < 1e-3) group[i] *= 0.99;
      }
    }
  }
  return x;
}

/// What a product of this set computes with: activations of 8 bits on AVX512-VNNI.
std::vector<double> as_read(std::vector<double> x, Index cols, CpuInstructions set) {
  if (set < CpuInstructions::vnni) return x;
  for (std::size_t row = 0; row < x.size(); row += static_cast<std::size_t>(cols)) {
    for (Index first = 0; first < cols; first += 32) {
      double* const group = x.data() + row + first;
      const Index count = std::min<Index>(32, cols - first);
      float most = 0;
      for (Index i = 0; i < count; ++i) most = std::max(most, std::abs(static_cast<float>(group[i])));
      const float inverse = most > 0 ? 127 / most : 0;
      for (Index i = 0; i < count; ++i) {
        group[i] = std::nearbyint(static_cast<float>(group[i]) * inverse) * double{most / 127};
      }
    }
  }
  return x;
}

/// test(backend) on one thread and on several, for each instruction set that can be used here.
template <class Test>
void for_each_cpu(Test&& test) {
  for (const auto set : detail::cpu::every_set) {
    if (!detail::cpu::usable(set)) continue;
    for (const int threads : {1, 3}) {
      INFO(detail::cpu::name_of(set) << ", " << threads << " threads");
      Cpu cpu(CpuOptions{.threads = threads, .instructions = set});
      test(cpu);
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("the CPU multiplies by integer weights", "[block_products]", Int8, Int4) {
  struct Sizes {
    Index rows, inputs, outputs;
  };
  Numbers numbers(11);
  for (const auto& [n, i, o] : {Sizes{1, 1, 1},
                                {1, 512, 33},
                                {1, 1120, 5},
                                {2, 31, 7},
                                {3, 544, 65},
                                {4, 65, 40},
                                {5, 33, 64},
                                {7, 96, 31},
                                {13, 1408, 9},
                                {65, 130, 97}}) {
    Stored<TestType> w(numbers, o, i);
    const auto values = off_ties(numbers, n, i);
    Oracle x(n, i, values), bias(1, o, numbers.take(o)), y(n, o), plain(n, o);
    for_each_cpu([&, n = n, i = i, o = o](Cpu& cpu) {
      INFO("rows " << n << ", inputs " << i << ", outputs " << o);
      x.values = as_read(values, i, cpu.instructions());
      Reference<double>().matmul(x, w.view(), bias, y);
      Reference<double>().matmul(x, w.view(), {}, plain);
      Guarded<Cpu, float> from(cpu, n, i, 3), added(cpu, 1, o), to(cpu, n, o, 3);
      from.write(values);
      added.write(bias.values);
      const auto before = std::vector<std::byte>(w.bytes.get(), w.bytes.get() + w.size);
      check_output(to, {}, y.values, [&] { cpu.matmul(from, w.view(), added, to); });
      check_output(to, {}, plain.values, [&] { cpu.matmul(from, w.view(), {}, to); });
      check_holds("inputs are unchanged",
                  from.unchanged() && added.unchanged() && std::equal(before.begin(), before.end(), w.bytes.get()));
    });
  }
}

TEMPLATE_TEST_CASE("the CPU multiplies each expert's rows by its integer weights", "[block_products]", Int8, Int4) {
  constexpr Index experts = 5, i = 70, o = 37;
  Numbers numbers(12);
  std::vector<std::int32_t> offsets = {0, 0, 2, 2, 31, 32};  // empty ones, few rows, many rows
  constexpr Index n = 34;                                    // two rows are nobody's
  Stored<TestType> w(numbers, experts * o, i);
  const typename WeightFormat<TestType>::Bank bank{w.bytes.get(), static_cast<std::ptrdiff_t>(w.size / experts),
                                                   experts, o, i};
  const auto values = off_ties(numbers, n, i);
  Oracle x(n, i, values), bias(experts, o, numbers.take(experts * o)), y(n, o);
  for_each_cpu([&](Cpu& cpu) {
    x.values = as_read(values, i, cpu.instructions());
    const Dispatch where(View<std::int32_t>(offsets.data(), 1, experts + 1), n);
    y.values.assign(y.values.size(), 0.0);
    Reference<double>().grouped_matmul(x, bank, Bank<const double>{bias.values.data(), experts, 1, o, o}, where, y);
    Guarded<Cpu, float> from(cpu, n, i, 3), added(cpu, experts, o, 3), to(cpu, n, o, 3);
    from.write(values);
    added.write(bias.values);
    const std::vector<double> zeros(y.values.size());
    check_output(to, zeros, y.values, [&] {
      cpu.grouped_matmul(from, bank, Bank<const float>{added.view().data, experts, 1, o, o + 3}, where, to);
    });
    Guarded<Cpu, float> none(cpu, 0, i), nothing(cpu, 0, o);
    cpu.matmul(none, w.view(), {}, View<float>(nothing.view().data, 0, experts * o));
    check_holds("no rows write nothing", nothing.unchanged());
  });
}

TEMPLATE_TEST_CASE("a product of what is not finite is not finite by any set, and other rows do not see it",
                   "[block_products]", Int8, Int4) {
  constexpr Index i = 70, o = 37;
  Numbers numbers(14);
  const Stored<TestType> w(numbers, o, i);
  for (const Index n : {2, 7}) {  // few rows, many rows
    std::vector<float> x;
    for (Index k = 0; k < n * i; ++k) x.push_back(static_cast<float>(numbers.next()));
    for_each_cpu([&](Cpu& cpu) {
      std::vector<float> clean(static_cast<std::size_t>(n * o)), y(clean.size());
      const View<const float> from(x.data(), n, i);
      cpu.matmul(from, w.view(), {}, View<float>(clean.data(), n, o));
      for (const float odd : {std::nanf(""), -std::nanf(""), INFINITY, -INFINITY}) {
        for (const Index at : {0, 17, 69}) {  // the first half of a group, the second, and a group that is filled up
          auto spoilt = x;
          spoilt[static_cast<std::size_t>(i + at)] = odd;
          cpu.matmul(View<const float>(spoilt.data(), n, i), w.view(), {}, View<float>(y.data(), n, o));
          bool finite = false, same = true;
          for (Index k = 0; k < n * o; ++k) {
            const auto place = static_cast<std::size_t>(k);
            if (k / o == 1) {
              finite = finite || std::isfinite(y[place]);
            } else {
              same = same && y[place] == clean[place];
            }
          }
          check_holds("nothing finite", !finite);
          check_holds("other rows are the same", same);
        }
      }
    });
  }
}

// Products read them on processors without AVX512-VNNI.
TEMPLATE_TEST_CASE("blocks become the floats that they stand for", "[block_products]", Int8, Int4) {
  using Block = typename WeightFormat<TestType>::View::Block;
  Numbers numbers(13);
  const Stored<TestType> w(numbers, 1, 160);
  for (const auto set : {CpuInstructions::baseline, CpuInstructions::avx2, CpuInstructions::avx512}) {
    if (!detail::cpu::usable(set)) continue;
    std::vector<float> decoded(160);
    detail::cpu::BlockDecoders<Block>::of(set)(w.bytes.get(), 5, decoded.data());
    bool same = true;
    for (Index c = 0; c < 160; ++c) same = same && decoded[static_cast<std::size_t>(c)] == w.view()(0, c);
    check_holds(detail::cpu::name_of(set), same);
  }
}

}  // namespace tinymoe_test::block_products
