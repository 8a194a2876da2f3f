// Products on AMX tiles against float64, at awkward sizes, in strided views with guards around them. Where the
// processor has no AMX the tiles are emulated; the emulator is tested first.

#include "tinymoe/cpu/amx.hpp"

#include <cmath>
#include <csignal>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <vector>

#include "amx_emulator/emulator.hpp"
#include "support/catch.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"

#if defined(TINYMOE_AMX)

#include <sys/wait.h>
#include <unistd.h>

namespace tinymoe_test::amx_tests {

using namespace tinymoe;
namespace amx = detail::cpu::amx;

namespace {

/// A matrix in a view whose rows lie `gap` numbers apart, NaN before, between and after them.
template <class T>
class Matrix {
 public:
  Matrix(Index rows, Index cols, Index gap, std::uint64_t seed = 0)
      : memory_(static_cast<std::size_t>(2 * margin + rows * (cols + gap)), T(std::numeric_limits<float>::quiet_NaN())),
        view_(memory_.data() + margin, rows, cols, cols + gap) {
    if (seed == 0) return;
    const RandomStream stream(Seed{seed}, 0, RandomSite{1});
    for (Index i = 0; i < view_.size(); ++i) {
      view_(i / cols, i % cols) = T(random_uniform(stream, static_cast<std::uint64_t>(i)) - 0.5f);
    }
    before_ = memory_;
  }
  Matrix(const Matrix&) = delete;

  View<T> view() { return view_; }
  operator View<const T>() const { return view_; }
  T operator()(Index r, Index c) const { return view_(r, c); }

  bool unchanged() const { return std::memcmp(memory_.data(), before_.data(), memory_.size() * sizeof(T)) == 0; }
  /// Whether only the matrix itself may have been written.
  bool guards_are_intact() const {
    for (Index i = 0; i < std::ssize(memory_); ++i) {
      const Index place = i - margin, row = place / view_.stride, column = place % view_.stride;
      const bool inside = place >= 0 && row < view_.rows && column < view_.cols;
      if (!inside && !std::isnan(float(memory_[static_cast<std::size_t>(i)]))) return false;
    }
    return true;
  }

 private:
  static constexpr Index margin = 37;
  std::vector<T> memory_, before_;
  View<T> view_;
};

/// Bytes that begin at a multiple of 64, with what must not be written after them.
class Bytes {
 public:
  explicit Bytes(Index size) : memory_(static_cast<std::size_t>(size + 128), std::byte{0xff}), size_(size) {}
  std::byte* data() {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    return memory_.data() + (64 - address % 64) % 64;
  }
  bool ends_in_time() { return data()[size_] == std::byte{0xff}; }

 private:
  std::vector<std::byte> memory_;
  Index size_;
};

void need_amx() {
  if (!amx_runs()) skip("neither AMX nor the AVX-512 with BF16 that its emulator needs");
}

/// Tiles 0, 1 and 2 of `shapes`, whose rows lie 20, 36 and 12 bytes apart: sums += a b, in all forms of addresses that
/// compilers use: base with index, with small and large offsets, a scaled index, registers of both halves.
TINYMOE_TARGET_AMX void product_of_tiles(float* sums, const bfloat16* a, const bfloat16* b,
                                         const amx::TileShapes& shapes) {
  asm volatile(
      "ldtilecfg %3\n\t"
      "mov %0, %%r13\n\t"
      "mov $5, %%r14\n\t"
      "tileloadd (%%r13,%%r14,4), %%tmm0\n\t"
      "mov %1, %%r12\n\t"
      "sub $1000, %%r12\n\t"
      "mov $18, %%rax\n\t"
      "tileloaddt1 1000(%%r12,%%rax,2), %%tmm1\n\t"
      "mov %2, %%rcx\n\t"
      "add $64, %%rcx\n\t"
      "mov $12, %%r9\n\t"
      "tileloadd -64(%%rcx,%%r9), %%tmm2\n\t"
      "tdpbf16ps %%tmm2, %%tmm1, %%tmm0\n\t"
      "tilestored %%tmm0, (%%r13,%%r14,4)\n\t"
      "tilezero %%tmm0\n\t"
      "tilerelease"
      :
      : "r"(sums), "r"(a), "r"(b), "m"(shapes)
      : "rax", "rcx", "r9", "r12", "r13", "r14", "memory");
}

TINYMOE_TARGET_AMX void use_tiles_without_shapes() { asm volatile("tilezero %tmm0"); }

/// The greatest error beyond rounding to `T`, relative to the sum of the products' sizes.
template <class T, class Value>
double error_of(const Matrix<T>& got, View<T> view, Value value) {
  double worst = 0;
  for (Index r = 0; r < view.rows; ++r) {
    for (Index c = 0; c < view.cols; ++c) {
      const auto [expected, size] = value(r, c);
      const double rounding = sizeof(T) == 2 ? std::abs(expected) * 0x1p-8 : 0;
      const double error = std::abs(double(float(got(r, c))) - expected) - rounding;
      if (!(error <= 0)) worst = std::max(worst, std::isnan(error) ? 1e30 : error / size);
    }
  }
  return worst;
}

/// What a sum should be, and the sum of its terms' sizes.
struct Sum {
  double value = 0, size = 1e-30;
  void add(double term) { value += term, size += std::abs(term); }
};

struct Sizes {
  Index rows, inputs, outputs, gap;
};
constexpr Sizes all_sizes[] = {{1, 1, 1, 3},    {2, 33, 17, 0},     {5, 31, 130, 8},   {16, 64, 16, 0},
                               {17, 300, 3, 1}, {33, 512, 17, 32},  {70, 1408, 32, 0}, {64, 544, 40, 0},
                               {40, 31, 64, 5}, {100, 64, 40, 960}, {3, 1408, 1, 2},   {530, 33, 33, 0},
                               {35, 290, 65, 7}};

constexpr double sums_error = 1e-6;

}  // namespace

TEST_CASE("AMX tiles: a product by Intel's definition", "[amx]") {
  need_amx();
  // Shapes that are not whole: a (5, 14), b (14, 3).
  alignas(64) amx::TileShapes shapes;
  std::memset(shapes.row_bytes, 0, sizeof shapes.row_bytes);
  std::memset(shapes.rows, 0, sizeof shapes.rows);
  shapes.rows[0] = 5, shapes.row_bytes[0] = 12;
  shapes.rows[1] = 5, shapes.row_bytes[1] = 28;
  shapes.rows[2] = 7, shapes.row_bytes[2] = 12;
  Matrix<float> sums(5, 3, 2, 1);
  Matrix<bfloat16> a(5, 14, 4, 2), b(7, 6, 0, 3);
  float expected[5][3];
  for (Index m = 0; m < 5; ++m) {
    for (Index n = 0; n < 3; ++n) {
      float even = 0, odd = 0;
      for (Index k = 0; k < 7; ++k) {
        even = std::fma(float(a(m, 2 * k)), float(b(k, 2 * n)), even);
        odd = std::fma(float(a(m, 2 * k + 1)), float(b(k, 2 * n + 1)), odd);
      }
      expected[m][n] = sums(m, n) + (even + odd);
    }
  }
  product_of_tiles(sums.view().data, a.view().data, b.view().data, shapes);
  for (Index m = 0; m < 5; ++m) {
    for (Index n = 0; n < 3; ++n) CHECK(sums(m, n) == expected[m][n]);
  }
  CHECK(sums.guards_are_intact());
  CHECK((a.unchanged() && b.unchanged()));
}

TEST_CASE("AMX tiles: even and odd products are summed apart, denormal numbers are zero", "[amx]") {
  need_amx();
  const float cases[][2][4] = {{{0x1p24f, 1, -0x1p24f, 0}, {1, 1, 1, 1}},
                               {{0x1p-127f, 0, 0, 0}, {0x1p100f, 0, 0, 0}},
                               {{0x1p-70f, 0, 0, 0}, {0x1p-70f, 0, 0, 0}}};
  const float expected[] = {1, 0, 0};
  for (int i = 0; i < 3; ++i) {
    alignas(64) bfloat16 left[16][32] = {}, right[16][32] = {};
    alignas(64) float sums[16][16] = {};
    for (int k = 0; k < 4; ++k) left[0][k] = bfloat16(cases[i][0][k]), right[k / 2][k % 2] = bfloat16(cases[i][1][k]);
    amx::Ahead nothing;
    {
      const amx::TileUse tiles;
      amx::multiply<1, 1>({reinterpret_cast<const std::byte*>(left), 64, 0, 0},
                          reinterpret_cast<const std::byte*>(right), 1, {}, 0, {sums[0], 64}, nothing);
    }
    CHECK(sums[0][0] == expected[i]);
  }
}

TEST_CASE("AMX tiles: what the processor refuses is refused", "[amx]") {
  need_amx();
  amx_emulator::Tiles tiles;
  CHECK(tiles.zero(0) != nullptr);  // nothing is configured
  const auto configure = [&](auto change) {
    amx::TileShapes shapes;
    change(shapes);
    return tiles.configure(reinterpret_cast<const std::uint8_t*>(&shapes));
  };
  CHECK(configure([](auto&) {}) == nullptr);
  CHECK(tiles.multiply_bfloat16(0, 1, 2) == nullptr);
  CHECK(tiles.multiply_bfloat16(0, 1, 1) != nullptr);
  CHECK(tiles.multiply_bfloat16(0, 0, 1) != nullptr);
  CHECK(tiles.zero(8) != nullptr);
  CHECK(configure([](auto& s) { s.palette = 2; }) != nullptr);
  CHECK(configure([](auto& s) { s.reserved[3] = 1; }) != nullptr);
  CHECK(configure([](auto& s) { s.rows[1] = 17; }) != nullptr);
  CHECK(configure([](auto& s) { s.row_bytes[1] = 65; }) != nullptr);
  CHECK(configure([](auto& s) { s.row_bytes[1] = 256 + 64; }) != nullptr);
  CHECK(configure([](auto& s) { s.rows[8] = 1, s.row_bytes[8] = 4; }) != nullptr);
  CHECK(configure([](auto& s) { s.rows[3] = 0; }) != nullptr);
  CHECK(configure([](auto& s) { s.rows[3] = 0, s.row_bytes[3] = 0; }) == nullptr);
  CHECK(tiles.zero(3) != nullptr);
  CHECK(configure([](auto& s) { s.rows[1] = 15; }) == nullptr);
  CHECK(tiles.multiply_bfloat16(0, 1, 2) != nullptr);  // its rows are fewer than the sums'
  CHECK(tiles.multiply_bfloat16(0, 2, 1) != nullptr);  // its rows are fewer than the pairs of a
  CHECK(configure([](auto& s) { s.palette = 0; }) == nullptr);
  CHECK(tiles.zero(0) != nullptr);

  // The signal reaches the process then.
  const pid_t child = fork();
  if (child == 0) {
    close(STDERR_FILENO);
    std::signal(SIGILL, SIG_DFL);  // in place of Catch's handler
    amx_runs();
    use_tiles_without_shapes();
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGILL));
}

TEST_CASE("AMX: forward is x times w transposed, plus the bias", "[amx]") {
  need_amx();
  Bytes scratch(amx::scratch_bytes);
  for (const auto& [n, i, o, gap] : all_sizes) {
    for (const bool with_bias : {false, true}) {
      INFO("rows " << n << ", inputs " << i << ", outputs " << o << ", gap " << gap << ", bias " << with_bias);
      const Matrix<bfloat16> x(n, i, gap, 1), w(o, i, gap, 2), bias(1, o, 0, 3);
      Matrix<bfloat16> y(n, o, gap), cut(n, o, 0);
      Bytes packed(amx::packed_rows_bytes(n, i));
      amx::pack_rows(x, packed.data());
      const auto biases = with_bias ? View<const bfloat16>(bias) : View<const bfloat16>{};
      amx::forward(packed.data(), w, biases, y.view(), scratch.data());
      CHECK(error_of(y, y.view(), [&, i = i](Index r, Index c) {
              Sum sum;
              for (Index k = 0; k < i; ++k) sum.add(double(x(r, k)) * double(w(c, k)));
              if (with_bias) sum.add(double(bias(0, c)));
              return sum;
            }) < sums_error);
      // In tasks: the same bits.
      for (Index row = 0; row < n; row += 32) {
        for (Index output = 0; output < o; output += 24) {
          const Index outputs = std::min(Index{24}, o - output);
          amx::forward(
              packed.data() + amx::packed_rows_bytes(row, i), View<const bfloat16>(w).middle_rows(output, outputs),
              with_bias ? biases.middle_cols(output, outputs) : biases,
              cut.view().middle_rows(row, std::min(Index{32}, n - row)).middle_cols(output, outputs), scratch.data());
        }
      }
      bool same = true;
      for (Index r = 0; r < n; ++r) {
        for (Index c = 0; c < o; ++c) same = same && y(r, c).bits == cut(r, c).bits;
      }
      CHECK(same);
      CHECK((y.guards_are_intact() && cut.guards_are_intact()));
      CHECK((x.unchanged() && w.unchanged() && bias.unchanged()));
      CHECK((packed.ends_in_time() && scratch.ends_in_time()));
    }
  }
}

TEST_CASE("AMX: input_gradient is dy times w, in place of dx or added to it", "[amx]") {
  need_amx();
  Bytes scratch(amx::scratch_bytes);
  for (const auto& [n, o, i, gap] : all_sizes) {  // so that the greatest size is the depth
    for (const bool add : {false, true}) {
      INFO("rows " << n << ", inputs " << i << ", outputs " << o << ", gap " << gap << ", added " << add);
      const Matrix<bfloat16> dy(n, o, gap, 1), w(o, i, gap, 2), start(n, i, gap, 3);
      Matrix<bfloat16> dx(n, i, gap, add ? 3 : 0), cut(n, i, gap, add ? 3 : 0);
      amx::input_gradient(dy, w, dx.view(), add, scratch.data());
      CHECK(error_of(dx, dx.view(), [&, o = o](Index r, Index c) {
              Sum sum;
              if (add) sum.add(double(start(r, c)));
              for (Index k = 0; k < o; ++k) sum.add(double(dy(r, k)) * double(w(k, c)));
              return sum;
            }) < sums_error);
      for (Index column = 0; column < i; column += 32) {
        const Index cols = std::min(Index{32}, i - column);
        amx::input_gradient(dy, View<const bfloat16>(w).middle_cols(column, cols), cut.view().middle_cols(column, cols),
                            add, scratch.data());
      }
      bool same = true;
      for (Index r = 0; r < n; ++r) {
        for (Index c = 0; c < i; ++c) same = same && dx(r, c).bits == cut(r, c).bits;
      }
      CHECK(same);
      CHECK((dx.guards_are_intact() && cut.guards_are_intact()));
      CHECK((dy.unchanged() && w.unchanged() && scratch.ends_in_time()));
    }
  }
}

TEST_CASE("AMX: weight_gradient adds dy transposed times x", "[amx]") {
  need_amx();
  Bytes scratch(amx::scratch_bytes);
  const auto check = [&](Index n, Index i, Index o, Index gap) {
    INFO("rows " << n << ", inputs " << i << ", outputs " << o << ", gap " << gap);
    const Matrix<bfloat16> dy(n, o, gap, 1), x(n, i, gap, 2);
    const Matrix<float> start(o, i, gap, 3);
    Matrix<float> dw(o, i, gap, 3), cut(o, i, gap, 3);
    Bytes packed(amx::packed_pairs_bytes(n, i));
    amx::pack_pairs(x, packed.data());
    amx::weight_gradient(dy, packed.data(), dw.view(), scratch.data());
    CHECK(error_of(dw, dw.view(), [&](Index r, Index c) {
            Sum sum;
            sum.add(double(start(r, c)));
            for (Index k = 0; k < n; ++k) sum.add(double(dy(k, r)) * double(x(k, c)));
            return sum;
          }) < sums_error);
    for (Index output = 0; output < o; output += 24) {
      const Index outputs = std::min(Index{24}, o - output);
      for (Index column = 0; column < i; column += 32) {
        amx::weight_gradient(
            View<const bfloat16>(dy).middle_cols(output, outputs), packed.data() + amx::packed_pairs_bytes(n, column),
            cut.view().middle_rows(output, outputs).middle_cols(column, std::min(Index{32}, i - column)),
            scratch.data());
      }
    }
    bool same = true;
    for (Index r = 0; r < o; ++r) {
      for (Index c = 0; c < i; ++c) same = same && dw(r, c) == cut(r, c);
    }
    CHECK(same);
    CHECK((dw.guards_are_intact() && cut.guards_are_intact()));
    CHECK((dy.unchanged() && x.unchanged() && packed.ends_in_time() && scratch.ends_in_time()));
  };
  for (const auto& [n, i, o, gap] : all_sizes) check(n, i, o, gap);
  check(4100, 33, 100, 0);  // so deep that the outputs are packed in groups, and their depth in pieces
}

}  // namespace tinymoe_test::amx_tests

#endif
