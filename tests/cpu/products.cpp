// Products and attention of the CPU for each instruction set that can run here, at sizes of several blocks and tasks,
// and the promise that bits do not depend on the number of threads.

#include <cstdint>
#include <tuple>
#include <type_traits>
#include <vector>

#include "backend/backends.hpp"
#include "tinymoe/backend/host_memory.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/cpu/products.hpp"

namespace tinymoe_test::cpu_products {

namespace {

/// The sets that can run here, forced one after the other; AMX, which has nothing for float, on emulated tiles if need
/// be.
template <class T>
std::vector<CpuInstructions> sets() {
  std::vector<CpuInstructions> found;
  for (const auto set : {CpuInstructions::baseline, CpuInstructions::avx2, CpuInstructions::avx512}) {
    if (detail::cpu::usable(set)) found.push_back(set);
  }
  if (std::is_same_v<T, bfloat16> && amx_runs()) found.push_back(CpuInstructions::amx);
  return found;
}

/// Random numbers as T, in rows of `stride` elements.
template <class T>
std::vector<T> numbers(Index count, std::uint64_t seed) {
  Numbers stream(seed);
  std::vector<T> result;
  for (Index i = 0; i < count; ++i) result.push_back(T(static_cast<float>(stream.next())));
  return result;
}

/// All products of one bank: y, dx and dw, as numbers.
template <class B>
std::vector<double> products(B& backend, const std::vector<std::int32_t>& offsets, Index inputs, Index outputs) {
  using T = typename B::Scalar;
  const Index experts = std::ssize(offsets) - 1, n = offsets.back();
  auto begins = offsets;
  const Dispatch dispatch(View<std::int32_t>(begins.data(), 1, experts + 1), n);
  const auto x = numbers<T>(n * inputs, 1), w = numbers<T>(experts * outputs * inputs, 2),
             dy = numbers<T>(n * outputs, 3);
  std::vector<T> y(static_cast<std::size_t>(n * outputs)), dx(static_cast<std::size_t>(n * inputs));
  std::vector<typename B::Master> dw(w.size(), 1);
  const Bank<const T> bank(w.data(), experts, outputs, inputs, outputs * inputs);
  const View<const T> from(x.data(), n, inputs), slope(dy.data(), n, outputs);
  backend.grouped_matmul(from, bank, {}, dispatch, View<T>(y.data(), n, outputs));
  backend.grouped_matmul_input(slope, bank, dispatch, View<T>(dx.data(), n, inputs));
  backend.grouped_matmul_weight(slope, from, dispatch,
                                Bank<typename B::Master>(dw.data(), experts, outputs, inputs, outputs * inputs));
  std::vector<double> all;
  for (const T value : y) all.push_back(static_cast<double>(value));
  for (const T value : dx) all.push_back(static_cast<double>(value));
  for (const auto value : dw) all.push_back(static_cast<double>(value));
  return all;
}

constexpr AttentionShape shape{
    .batch = 2, .time = 70, .heads = 4, .kv_heads = 2, .head_dim = 10, .window = 67, .scale = 0.3};

/// Attention of the shape and its gradients, as numbers.
template <class B>
std::vector<double> attention(B& backend) {
  using T = typename B::Scalar;
  using M = typename B::Master;
  const Index n = shape.batch * shape.time, wide = shape.heads * shape.head_dim,
              narrow = shape.kv_heads * shape.head_dim;
  const auto q = numbers<T>(n * wide, 1), k = numbers<T>(n * narrow, 2), v = numbers<T>(n * narrow, 3),
             dy = numbers<T>(n * wide, 4);
  std::vector<T> y(q.size()), dq(q.size()), dk(k.size()), dv(k.size()),
      scratch(static_cast<std::size_t>(backend.attention_scratch(shape)));
  std::vector<M> log_sum(static_cast<std::size_t>(n * shape.heads));
  const View<const T> query(q.data(), n, wide), key(k.data(), n, narrow), value(v.data(), n, narrow),
      slope(dy.data(), n, wide);
  const View<T> out(y.data(), n, wide), room(scratch.data(), 1, std::ssize(scratch));
  const View<M> sums(log_sum.data(), n, shape.heads);
  backend.attention_forward(shape, query, key, value, out, sums, room);
  backend.attention_backward(shape, query, key, value, out, sums, slope, View<T>(dq.data(), n, wide),
                             View<T>(dk.data(), n, narrow), View<T>(dv.data(), n, narrow), room);
  std::vector<double> result;
  for (const auto* values : {&y, &dq, &dk, &dv}) {
    for (const T number : *values) result.push_back(static_cast<double>(number));
  }
  return result;
}

}  // namespace

TEMPLATE_TEST_CASE("each instruction set computes the products, beyond the sizes of a block", "[cpu]", Cpu,
                   CpuBfloat16) {
  // More than one block of rows, columns and depth; experts of few rows and of none.
  for (const auto& [offsets, inputs, outputs] :
       {std::tuple{std::vector<std::int32_t>{0, 181, 181, 184, 230}, Index{523}, Index{67}},
        {{0, 0, 40}, 37, 1050},
        {{0, 700}, 16, 33}}) {
    Reference<double> oracle;
    const auto expected = products(oracle, offsets, inputs, outputs);
    for (const auto set : sets<typename TestType::Scalar>()) {
      INFO(detail::cpu::name_of(set) << ", inputs " << inputs << ", outputs " << outputs);
      std::vector<double> first;
      for (const int threads : {1, 2, 3}) {
        Forced<TestType> forced(threads, set);
        TestType& backend = forced;
        CHECK(backend.instructions() == set);
        const auto found = products(backend, offsets, inputs, outputs);
        if (threads == 1) check_close("as the oracle", found, expected, tolerance<TestType>);
        if (threads == 1) first = found;
        check_holds("the same bits for any number of threads", same_bits(found, first));
      }
    }
  }
}

TEMPLATE_TEST_CASE("how threads cut the rows of an expert changes no bits", "[cpu]", Cpu, CpuBfloat16) {
  // Among them are sizes whose last piece has as few rows as are dot products by themselves.
  for (const auto& [rows, inputs, outputs] :
       {std::tuple<int, Index, Index>{85, 40, 8}, {33, 40, 8}, {128, 512, 8}, {65, 200, 33}, {9, 31, 70}}) {
    for (const auto set : sets<typename TestType::Scalar>()) {
      std::vector<double> first;
      for (const int threads : {1, 2, 4, 8}) {
        INFO(detail::cpu::name_of(set) << ", " << threads << " threads: " << rows << " x " << inputs << " x "
                                       << outputs);
        Forced<TestType> forced(threads, set);
        const auto found = products(static_cast<TestType&>(forced), {0, rows}, inputs, outputs);
        if (threads == 1) first = found;
        check_holds("the same bits", same_bits(found, first));
      }
    }
  }
}

TEST_CASE("weights that are read where they lie give the same bits as packed ones", "[cpu]") {
  using detail::cpu::Panels;
  Memory memory = detail::allocate_host_memory(static_cast<std::size_t>(Panels::size) * sizeof(float));
  const Panels panels(memory.as<float>().data);
  for (const auto set : sets<float>()) {
    const auto tiles = detail::cpu::tiles_of(set);
    const auto packs = detail::cpu::packs_of<float>(set);
    // Whole, narrow and cut panels of x; outputs that are no multiple of a tile; more than one block of the depth; more
    // lines than the scratch memory takes.
    for (const auto& [rows, outputs, depth] : {std::tuple<Index, Index, Index>{1, 14, 5},
                                               {9, 67, 523},
                                               {16, 29, 512},
                                               {33, 15, 1030},
                                               {47, 40, 300},
                                               {90, 14, 6100}}) {
      for (const bool add : {false, true}) {
        INFO(detail::cpu::name_of(set) << ": " << rows << " rows, " << outputs << " outputs, depth " << depth);
        const auto x = numbers<float>(rows * depth, 1), w = numbers<float>(outputs * (depth + 3), 2);
        std::vector<float> packed(static_cast<std::size_t>(rows * (outputs + 1)), 2), read = packed;
        const View<const float> from(x.data(), rows, depth), weights(w.data(), outputs, depth, depth + 3);
        CHECK(Panels::reads_rows(tiles, weights, rows) == (rows < depth));
        panels.multiply(tiles, rows_of(from, packs), rows_of(weights, packs),
                        View<float>(packed.data(), rows, outputs, outputs + 1), add);
        panels.multiply_by_rows(tiles, rows_of(from, packs), weights,
                                View<float>(read.data(), rows, outputs, outputs + 1), add);
        CHECK(packed == read);
      }
    }
    CHECK_FALSE(Panels::reads_rows(tiles, View<const float>(nullptr, 3, 64), 1));  // fewer than a tile
    CHECK_FALSE(Panels::reads_rows(tiles, View<const float>(nullptr, 64, 99999), 1));
  }
}

TEMPLATE_TEST_CASE("each instruction set computes attention", "[cpu]", Cpu, CpuBfloat16) {
  using T = typename TestType::Scalar;
  Reference<double> oracle;
  const auto expected = attention(oracle);
  for (const auto set : sets<T>()) {
    INFO(detail::cpu::name_of(set));
    std::vector<double> first;
    for (const int threads : {1, 3}) {
      Forced<TestType> forced(threads, set);
      TestType& backend = forced;
      const auto found = attention(backend);
      if (threads == 1) check_close("as the oracle", found, expected, std::is_same_v<T, float> ? 1e-5 : 2e-2);
      if (threads == 1) first = found;
      check_holds("the same bits for any number of threads", same_bits(found, first));
    }
  }
}

}  // namespace tinymoe_test::cpu_products
