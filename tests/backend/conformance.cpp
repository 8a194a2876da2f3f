// Every operation of concept Backend against the oracle, Reference<double>, at awkward sizes: strided views, guard
// zones around every matrix, fresh random numbers, twice for the same bits.

#include <tuple>

#include "backend/backends.hpp"
#include "tinymoe/backend/rows.hpp"

namespace tinymoe_test::conformance {

namespace {

/// A product's sizes: x (N, I), w (O, I).
struct Sizes {
  Index rows, inputs, outputs;
};
constexpr Sizes product_sizes[] = {{1, 1, 1},    {1, 257, 5},    {3, 33, 65},   {4, 31, 130}, {5, 6, 7},
                                   {33, 40, 1},  {49, 1, 40},    {97, 130, 19}, {145, 17, 3}, {257, 65, 33},
                                   {2, 700, 48}, {257, 300, 97}, {8, 64, 40},   {3, 136, 17}};

constexpr Index gap = 3;   // between the rows of strided matrices
constexpr Index wide = 8;  // the same, for matrices whose rows are aligned for wide loads

}  // namespace

TEST_CASE("matmul is x times w transposed, plus the bias", "[conformance]") {
  Numbers numbers(1);
  for (const auto& [n, i, o] : product_sizes) {
    Oracle x(n, i, numbers.take(n * i)), w(o, i, numbers.take(o * i)), bias(1, o, numbers.take(o));
    for (const auto& [with_bias, gap] : {std::pair{false, gap}, {true, gap}, {true, wide}}) {
      INFO("rows " << n << ", inputs " << i << ", outputs " << o << ", bias " << with_bias << ", gap " << gap);
      Oracle y(n, o);
      Reference<double>().matmul(x, w, with_bias ? View<const double>(bias) : View<const double>{}, y);
      for_each_backend([&, n = n, i = i, o = o, with_bias = with_bias, gap = gap](auto& backend) {
        using B = std::remove_cvref_t<decltype(backend)>;
        using T = typename B::Scalar;
        Guarded<B, T> from(backend, n, i, gap), weight(backend, o, i, gap), added(backend, 1, o),
            to(backend, n, o, gap);
        from.write(x.values);
        weight.write(w.values);
        added.write(bias.values);
        check_output(to, {}, y.values,
                     [&] { backend.matmul(from, weight, with_bias ? View<const T>(added) : View<const T>{}, to); });
        check_holds("inputs are unchanged", from.unchanged() && weight.unchanged() && added.unchanged());
      });
    }
  }
}

TEST_CASE("matmul_input is dy times w, in place of dx or added to it", "[conformance]") {
  Numbers numbers(2);
  for (const auto& [n, i, o] : product_sizes) {
    Oracle dy(n, o, numbers.take(n * o)), w(o, i, numbers.take(o * i));
    const auto start = numbers.take(n * i);
    for (const Write write : {Write::overwrite, Write::accumulate}) {
      INFO("rows " << n << ", inputs " << i << ", outputs " << o << ", added " << (write == Write::accumulate));
      Oracle dx(n, i, start);
      Reference<double>().matmul_input(dy, w, dx, write);
      for_each_backend([&, n = n, i = i, o = o](auto& backend) {
        using B = std::remove_cvref_t<decltype(backend)>;
        using T = typename B::Scalar;
        Guarded<B, T> from(backend, n, o, gap), weight(backend, o, i, gap), to(backend, n, i, gap);
        from.write(dy.values);
        weight.write(w.values);
        check_output(to, write == Write::accumulate ? start : std::vector<double>{}, dx.values,
                     [&] { backend.matmul_input(from, weight, to, write); });
        check_holds("inputs are unchanged", from.unchanged() && weight.unchanged());
      });
    }
  }
}

TEST_CASE("matmul_weight adds dy transposed times x", "[conformance]") {
  Numbers numbers(3);
  for (const auto& [n, i, o] : product_sizes) {
    INFO("rows " << n << ", inputs " << i << ", outputs " << o);
    Oracle dy(n, o, numbers.take(n * o)), x(n, i, numbers.take(n * i));
    const auto start = numbers.take(o * i);
    Oracle dw(o, i, start);
    Reference<double>().matmul_weight(dy, x, dw);
    for_each_backend([&, n = n, i = i, o = o](auto& backend) {
      using B = std::remove_cvref_t<decltype(backend)>;
      using T = typename B::Scalar;
      Guarded<B, T> gradient(backend, n, o, gap), from(backend, n, i, gap);
      Guarded<B, typename B::Master> to(backend, o, i, gap);
      gradient.write(dy.values);
      from.write(x.values);
      check_output(to, start, dw.values, [&] { backend.matmul_weight(gradient, from, to); });
      check_holds("inputs are unchanged", gradient.unchanged() && from.unchanged());
    });
  }
}

TEST_CASE("products of no rows write nothing", "[conformance]") {
  for_each_backend([&](auto& backend) {
    using B = std::remove_cvref_t<decltype(backend)>;
    using T = typename B::Scalar;
    Guarded<B, T> none(backend, 0, 5), weight(backend, 7, 5), to(backend, 0, 7);
    Guarded<B, typename B::Master> dw(backend, 7, 5);
    weight.write(std::vector<double>(35, 1.0));
    dw.write(std::vector<double>(35, 2.0));
    backend.matmul(none, weight, {}, to);
    backend.matmul_input(to, weight, none, Write::overwrite);
    backend.matmul_weight(to, none, dw);
    check_holds("nothing is written", to.unchanged() && none.unchanged() && dw.unchanged());
  });
}

TEST_CASE("grouped products meet each expert's rows with its matrix", "[conformance]") {
  struct Case {
    std::vector<std::int32_t> offsets;
    Index inputs, outputs;
  };
  const Case cases[] = {
      {{0, 1}, 5, 3},                      // one expert, one row
      {{0, 0, 3, 3, 5, 5}, 33, 17},        // empty experts at both ends and between; few rows
      {{0, 0, 0, 130, 130}, 40, 65},       // one expert has all rows
      {{0, 1, 50, 51, 120, 257}, 65, 33},  // uneven shares
      {{0, 64, 128, 192, 256}, 6, 1},      // even shares
      {{0, 4, 9, 12}, 31, 130},            // between dot products and blocks
      {{0, 0, 0}, 4, 4},                   // no row at all
      {{0, 5, 5, 7}, 72, 40},              // few rows that are aligned for wide loads
      {{0, 97}, 3, 5},                     // biases: one expert in several parts, which are uneven
      {{0, 1, 200}, 2, 513},               // biases: more parts than rows, and more than one block of columns
  };
  Numbers numbers(4);
  for (const auto& [offsets, i, o] : cases) {
    const auto experts = static_cast<Index>(offsets.size()) - 1, n = Index{offsets.back()};
    Oracle x(n, i, numbers.take(n * i)), dy(n, o, numbers.take(n * o));
    Oracle w(experts * o, i, numbers.take(experts * o * i)), bias(experts, o, numbers.take(experts * o));
    const auto start = numbers.take(experts * o * i), bias_start = numbers.take(experts * o);
    INFO("experts " << experts << ", rows " << n << ", inputs " << i << ", outputs " << o);
    const Index gap = i == 72 ? wide : conformance::gap;

    Reference<double> oracle;
    auto begins = offsets;
    const Dispatch where(View<std::int32_t>(begins.data(), 1, experts + 1), n);
    const Bank<const double> bank{w.values.data(), experts, o, i, o * i}, biases{bias.values.data(), experts, 1, o, o};
    Oracle y(n, o), y_plain(n, o), dx(n, i), dw(experts * o, i, start), db(experts, o, bias_start);
    oracle.grouped_matmul(x, bank, biases, where, y);
    oracle.grouped_matmul(x, bank, {}, where, y_plain);
    oracle.grouped_matmul_input(dy, bank, where, dx);
    oracle.grouped_matmul_weight(dy, x, where, Bank<double>{dw.values.data(), experts, o, i, o * i});
    Oracle sums(1, rowwise::grouped_column_sum_scratch(n, experts, o));
    rowwise::grouped_column_sum(oracle, dy, where, Bank<double>{db.values.data(), experts, 1, o, o}, sums);

    for_each_backend([&, i = i, o = o, &offsets = offsets](auto& backend) {
      using B = std::remove_cvref_t<decltype(backend)>;
      using T = typename B::Scalar;
      using M = typename B::Master;
      // Each expert's matrix is a row of a guarded matrix, so that the bank's stride jumps over guards.
      Guarded<B, std::int32_t> ends(backend, 1, experts + 1);
      Guarded<B, T> from(backend, n, i, gap), gradient(backend, n, o, gap), to(backend, n, o, gap),
          into(backend, n, i, gap);
      Guarded<B, T> weight(backend, experts, o * i, gap), added(backend, experts, o, gap);
      Guarded<B, M> weight_gradient(backend, experts, o * i, gap), bias_gradient(backend, experts, o, gap);
      ends.write(std::vector<double>(offsets.begin(), offsets.end()));
      const Dispatch dispatch(ends, n);
      from.write(x.values);
      gradient.write(dy.values);
      weight.write(w.values);
      added.write(bias.values);
      const Bank<const T> weights{weight.view().data, experts, o, i, o * i + gap};
      const Bank<const T> all_added{added.view().data, experts, 1, o, o + gap};
      check_output(to, {}, y.values, [&] { backend.grouped_matmul(from, weights, all_added, dispatch, to); });
      check_output(to, {}, y_plain.values, [&] { backend.grouped_matmul(from, weights, {}, dispatch, to); });
      check_output(into, {}, dx.values, [&] { backend.grouped_matmul_input(gradient, weights, dispatch, into); });
      check_output(weight_gradient, start, dw.values, [&] {
        backend.grouped_matmul_weight(gradient, from, dispatch,
                                      Bank<M>{weight_gradient.view().data, experts, o, i, o * i + gap});
      });
      Guarded<B, M> scratch(backend, 1, rowwise::grouped_column_sum_scratch(n, experts, o));
      check_output(bias_gradient, bias_start, db.values, [&] {
        rowwise::grouped_column_sum(backend, gradient, dispatch,
                                    Bank<M>{bias_gradient.view().data, experts, 1, o, o + gap}, scratch);
      });
      check_holds("scratch has been enough", scratch.intact());
      check_holds("inputs are unchanged", from.unchanged() && gradient.unchanged() && weight.unchanged() &&
                                              added.unchanged() && ends.unchanged());
    });
  }
}

TEST_CASE("sort_by_expert is a stable sort", "[conformance]") {
  struct Case {
    Index tokens, choices, experts;
    int pattern;  // 0: random, 1: all to expert 1, 2: descending, 3: random with choices of none, 4: none at all
  };
  const Case cases[] = {{1, 1, 1, 0},   {5, 2, 4, 0},     {33, 3, 5, 0}, {130, 1, 7, 0}, {17, 2, 3, 1}, {64, 2, 130, 2},
                        {300, 4, 8, 0}, {1000, 2, 64, 0}, {33, 3, 5, 3}, {300, 8, 8, 3}, {6, 2, 3, 4}};
  for (const auto& [n, k, e, pattern] : cases) {
    INFO("tokens " << n << ", choices " << k << ", experts " << e << ", pattern " << pattern);
    std::vector<std::int32_t> selected;
    for (Index pair = 0; pair < n * k; ++pair) {
      const RandomStream stream(Seed{5}, 0, RandomSite{3});
      const auto random = static_cast<Index>(random_below(stream, static_cast<std::uint64_t>(pair), std::uint64_t(e)));
      selected.push_back(static_cast<std::int32_t>(pattern == 1 ? 1 : pattern == 2 ? e - 1 - pair % e : random));
      if (pattern == 4 || (pattern == 3 && (pair * 7) % 3 == 0)) selected.back() = -1;
    }
    // The oracle is the standard library's stable sort.
    std::vector<double> pairs, slots(selected.size()), offsets(static_cast<std::size_t>(e) + 1);
    for (Index pair = 0; pair < n * k; ++pair) {
      slots[static_cast<std::size_t>(pair)] = -1;
      if (selected[static_cast<std::size_t>(pair)] >= 0) pairs.push_back(static_cast<double>(pair));
    }
    const auto expert_of = [&](double pair) { return selected[static_cast<std::size_t>(pair)]; };
    std::stable_sort(pairs.begin(), pairs.end(), [&](double a, double b) { return expert_of(a) < expert_of(b); });
    for (std::size_t slot = 0; slot < pairs.size(); ++slot) slots[static_cast<std::size_t>(pairs[slot])] = double(slot);
    for (std::size_t at = 0; at < offsets.size(); ++at) {
      offsets[at] = double(
          std::count_if(selected.begin(), selected.end(), [&](auto s) { return s >= 0 && s < std::int32_t(at); }));
    }
    for_each_backend([&, n = n, k = k, e = e](auto& backend) {
      using B = std::remove_cvref_t<decltype(backend)>;
      Guarded<B, std::int32_t> chosen(backend, n, k), ends(backend, 1, e + 1), places(backend, n, k);
      Guarded<B, std::int32_t> order(backend, 1, n * k);
      chosen.write(std::vector<double>(selected.begin(), selected.end()));
      Dispatch dispatch(ends, places, order);
      for (int run = 0; run < 2; ++run) {  // a second run starts from what the first one left
        backend.sort_by_expert(chosen, dispatch);
        check_holds("offsets", ends.read() == offsets);
        check_holds("slots", places.read() == slots);
        auto found = order.read();
        found.resize(pairs.size());  // what follows means nothing
        check_holds("pairs", found == pairs);
        check_holds("rows", dispatch.rows >= std::ssize(pairs) && dispatch.rows <= n * k);
      }
      check_holds("guards are untouched", ends.intact() && places.intact() && order.intact());
      check_holds("inputs are unchanged", chosen.unchanged());
    });
  }
}

TEST_CASE("grouped products follow the last sort, and take rows that are all one expert's", "[conformance]") {
  constexpr Index n = 150, i = 9, o = 7, experts = 3;
  Numbers numbers(6);
  Oracle x(n, i, numbers.take(n * i)), dy(n, o, numbers.take(n * o)), w(experts * o, i, numbers.take(experts * o * i));
  const auto start = numbers.take(experts * o * i), bias_start = numbers.take(experts * o);
  Reference<double> oracle;
  const Bank<const double> bank{w.values.data(), experts, o, i, o * i}, one{w.values.data(), 1, o, i, o * i};
  for_each_backend([&](auto& backend) {
    using B = std::remove_cvref_t<decltype(backend)>;
    using T = typename B::Scalar;
    using M = typename B::Master;
    Guarded<B, std::int32_t> chosen(backend, n, 1), ends(backend, 1, experts + 1), places(backend, n, 1),
        order(backend, 1, n);
    Guarded<B, T> from(backend, n, i), gradient(backend, n, o), weight(backend, experts * o, i), to(backend, n, o),
        into(backend, n, i);
    Guarded<B, M> dweight(backend, experts * o, i), dbias(backend, experts, o),
        scratch(backend, 1, rowwise::grouped_column_sum_scratch(n, experts, o));
    from.write(x.values), gradient.write(dy.values), weight.write(w.values);
    const Bank<const T> weights{weight.view().data, experts, o, i, o * i};
    const auto check = [&](const Dispatch& dispatch, const Dispatch& there) {
      const Index count = dispatch.experts();
      Oracle y(n, o), dx(n, i), dw(experts * o, i, start), db(experts, o, bias_start), sums(1, n * o);
      const Bank<const double> all = count == 1 ? one : bank;
      const Bank<const T> here{weights.data, count, o, i, o * i};
      oracle.grouped_matmul(x, all, {}, there, y);
      oracle.grouped_matmul_input(dy, all, there, dx);
      oracle.grouped_matmul_weight(dy, x, there, Bank<double>{dw.values.data(), count, o, i, o * i});
      rowwise::grouped_column_sum(oracle, dy, there, Bank<double>{db.values.data(), count, 1, o, o}, sums);
      check_output(to, {}, y.values, [&] { backend.grouped_matmul(from, here, {}, dispatch, to); });
      check_output(into, {}, dx.values, [&] { backend.grouped_matmul_input(gradient, here, dispatch, into); });
      check_output(dweight, start, dw.values, [&] {
        backend.grouped_matmul_weight(gradient, from, dispatch, Bank<M>{dweight.view().data, count, o, i, o * i});
      });
      check_output(dbias, bias_start, db.values, [&] {
        rowwise::grouped_column_sum(backend, gradient, dispatch, Bank<M>{dbias.view().data, count, 1, o, o}, scratch);
      });
    };
    Dispatch dispatch(ends, places, order);
    for (const Index first : {100, 20}) {  // the second sort is not taken for the first
      std::vector<std::int32_t> begins{0, std::int32_t(first), std::int32_t(first), std::int32_t(n)};
      std::vector<double> selected(static_cast<std::size_t>(n), 2.0);
      std::fill_n(selected.begin(), first, 0.0);
      chosen.write(selected);
      backend.sort_by_expert(chosen, dispatch);
      check(dispatch, Dispatch(View<std::int32_t>(begins.data(), 1, experts + 1), n));
    }
    check(Dispatch::to_one(n), Dispatch::to_one(n));
  });
}

namespace {

/// The matrices of one attention, as a layer has them: q, k and v are columns of one matrix, and so are dq, dk and dv.
struct AttentionCase {
  AttentionShape shape;
  Oracle qkv, y, log_sum, dy, dqkv;

  AttentionCase(const AttentionShape& shape, Numbers& numbers)
      : shape(shape),
        qkv(rows(), width(), numbers.take(rows() * width())),
        y(rows(), queries()),
        log_sum(rows(), shape.heads),
        dy(rows(), queries(), numbers.take(rows() * queries())),
        dqkv(rows(), width()) {
    Reference<double> oracle;
    Oracle scratch(1, oracle.attention_scratch(shape));
    const auto [q, k, v] = split(View<const double>(qkv));
    oracle.attention_forward(shape, q, k, v, y, log_sum, scratch);
    const auto [dq, dk, dv] = split(dqkv.view());
    oracle.attention_backward(shape, q, k, v, y, log_sum, dy, dq, dk, dv, scratch);
  }

  Index rows() const { return shape.batch * shape.time; }
  Index queries() const { return shape.heads * shape.head_dim; }
  Index keys() const { return shape.kv_heads * shape.head_dim; }
  Index width() const { return queries() + 2 * keys(); }
  template <class V>
  std::tuple<V, V, V> split(V qkv) const {
    return {qkv.middle_cols(0, queries()), qkv.middle_cols(queries(), keys()),
            qkv.middle_cols(queries() + keys(), keys())};
  }

  template <class B>
  void run(B& backend, Index gap = conformance::gap) {
    using T = typename B::Scalar;
    Guarded<B, T> in(backend, rows(), width(), gap), out(backend, rows(), queries(), gap);
    Guarded<B, T> gradient(backend, rows(), queries(), gap), into(backend, rows(), width(), gap);
    Guarded<B, typename B::Master> sums(backend, rows(), shape.heads);
    Guarded<B, T> scratch(backend, 1, static_cast<Index>(backend.attention_scratch(shape)));
    in.write(qkv.values);
    gradient.write(dy.values);
    const auto [q, k, v] = split(View<const T>(in));
    const auto [dq, dk, dv] = split(into.view());
    check_output(out, {}, y.values, [&, q = q, k = k, v = v] {
      sums.write({});
      backend.attention_forward(shape, q, k, v, out, sums, scratch);
    });
    check_close("log-sums", sums.read(), log_sum.values, tolerance<B>);
    check_output(into, {}, dqkv.values, [&, q = q, k = k, v = v, dq = dq, dk = dk, dv = dv] {
      backend.attention_backward(shape, q, k, v, out, sums, gradient, dq, dk, dv, scratch);
    });
    check_holds("guards are untouched", out.intact() && sums.intact() && scratch.intact());
    check_holds("inputs are unchanged", in.unchanged() && gradient.unchanged());
  }
};

}  // namespace

TEST_CASE("attention and its gradients at awkward sizes", "[conformance]") {
  Numbers numbers(6);
  for (const Index d : {1, 6, 40}) {
    for (const Index window : {0, 1, 3, 1000}) {
      for (const Index t : {1, 33, 65, 130}) {
        for (const Index kv : {4, 2, 1}) {
          // Few cases, for what the others leave out: long sequences of narrow heads, of one key head or of a window of
          // one, and windows past the end.
          if (window == 1000 && (kv == 2 || t == 65)) continue;
          if (d < 40 && t > 33 && !(window == 3 && kv == 2)) continue;
          if (t == 130 && (kv == 1 || window == 1)) continue;
          const Index batch = kv != 2 ? 1 : t == 130 ? 2 : 3;
          const double scale = 1 / std::sqrt(double(d));
          INFO("head_dim " << d << ", window " << window << ", time " << t << ", kv heads " << kv << ", batch "
                           << batch);
          AttentionCase attention({batch, t, 4, kv, d, window, scale}, numbers);
          for_each_backend([&](auto& backend) { attention.run(backend); });
        }
      }
    }
  }
}

TEST_CASE("attention of wide heads, and of rows that are aligned for wide loads", "[conformance]") {
  Numbers numbers(13);
  for (const Index d : {8, 64, 72, 128, 160}) {
    for (const auto& [t, window, kv] : {std::tuple<Index, Index, Index>{70, 0, 1}, {131, 30, 2}}) {
      INFO("head_dim " << d << ", time " << t << ", window " << window);
      AttentionCase attention({t == 70 ? 2 : 1, t, 2, kv, d, window, 1 / std::sqrt(double(d))}, numbers);
      for_each_backend([&](auto& backend) { attention.run(backend, wide); });
      if (d == 128) for_each_backend([&](auto& backend) { attention.run(backend); });
    }
  }
}

TEST_CASE("attention with a window at a tile's edge", "[conformance]") {
  Numbers numbers(7);
  for (const Index window : {63, 64, 65, 127, 128, 129}) {
    INFO("window " << window);
    AttentionCase attention({1, 140, 2, 1, 5, window, 0.4}, numbers);
    for_each_backend([&](auto& backend) { attention.run(backend); });
  }
}

TEST_CASE("attention with dropout uses the same mask in backward", "[conformance]") {
  Numbers numbers(12);
  for (const Index window : {0, 3, 64}) {
    for (const Index t : {1, 33, 130}) {
      INFO("window " << window << ", time " << t);
      const Dropout dropout{RandomStream(Seed{3}, 1, RandomSite::in_layers(2), 2), 5, 0.4};
      AttentionCase attention({2, t, 4, 2, 6, window, 0.4, dropout}, numbers);
      AttentionCase without({2, t, 4, 2, 6, window, 0.4}, numbers);
      check_holds("dropout acts", t == 1 || attention.y.values != without.y.values);
      for_each_backend([&](auto& backend) { attention.run(backend); });
    }
  }
}

TEST_CASE("attention stays finite with large logits", "[conformance]") {
  Numbers numbers(8);
  AttentionCase attention({1, 40, 2, 2, 6, 0, 100.0}, numbers);
  for_each_backend([&](auto& backend) {
    using B = std::remove_cvref_t<decltype(backend)>;
    using T = typename B::Scalar;
    Guarded<B, T> in(backend, 40, attention.width()), out(backend, 40, attention.queries());
    Guarded<B, typename B::Master> sums(backend, 40, 2);
    Guarded<B, T> scratch(backend, 1, static_cast<Index>(backend.attention_scratch(attention.shape)));
    in.write(attention.qkv.values);
    const auto [q, k, v] = attention.split(View<const T>(in));
    backend.attention_forward(attention.shape, q, k, v, out, sums, scratch);
    check_close("the result", out.read(), attention.y.values, 100 * tolerance<B>);
  });
}

TEST_CASE("row kernels that belong to no one layer", "[conformance]") {
  Numbers numbers(9);
  // Sums over rows go by chunks of 32 rows and blocks of 512 columns.
  static_assert(rowwise::chunk_size == 32 && rowwise::column_block == 512);
  for (const auto& [n, c] : {std::pair<Index, Index>{1, 1},
                             {3, 64},
                             {31, 2},
                             {32, 7},
                             {33, 65},
                             {63, 512},
                             {64, 3},
                             {65, 513},
                             {257, 130},
                             {5, 1}}) {
    INFO("rows " << n << ", columns " << c);
    Oracle x(n, c, numbers.take(n * c)), y(n, c, numbers.take(n * c)), total(1, c, numbers.take(c));
    const auto y_start = y.values, total_start = total.values;
    Oracle out(n, c);
    for (std::size_t i = 0; i < x.values.size(); ++i) {
      out.values[i] = y.values[i] + x.values[i];
      total.values[i % static_cast<std::size_t>(c)] += x.values[i];
    }
    for_each_backend([&, n = n, c = c](auto& backend) {
      using B = std::remove_cvref_t<decltype(backend)>;
      using T = typename B::Scalar;
      Guarded<B, T> a(backend, n, c, gap), b(backend, n, c, gap), to(backend, n, c, gap);
      Guarded<B, typename B::Master> totals(backend, 1, c), scratch(backend, 1, rowwise::column_sum_scratch(n, c));
      a.write(x.values);
      check_output(b, y_start, out.values, [&] { rowwise::add<B>(backend, a, b); });
      b.write(y_start);
      check_output(to, {}, out.values, [&] { rowwise::add<B>(backend, a, b, to); });
      check_output(b, y_start, out.values, [&] { rowwise::add<B>(backend, a, b, b); });  // out may be an operand
      check_output(totals, total_start, total.values, [&] { rowwise::column_sum<B>(backend, a, totals, scratch); });
      check_holds("scratch has been enough", scratch.intact());
      check_holds("inputs are unchanged", a.unchanged());
    });
  }
}

TEST_CASE("memory of a backend is zeroed, aligned and copied whole", "[conformance]") {
  for_each_backend([&](auto& backend) {
    const Memory none = backend.allocate(0);
    check_holds("no memory", none.size() == 0);
    for (const std::size_t bytes : {std::size_t{1}, std::size_t{4097}, std::size_t{3} << 20}) {
      const Memory memory = backend.allocate(bytes);
      check_holds("size", memory.size() == bytes);
      check_holds("alignment", reinterpret_cast<std::uintptr_t>(memory.bytes()) % memory_alignment == 0);
      std::vector<unsigned char> host(bytes, 1), back(bytes, 2);
      backend.copy_to_host(back.data(), memory.bytes(), bytes);
      check_holds("zeroed", back == std::vector<unsigned char>(bytes, 0));
      for (std::size_t i = 0; i < bytes; ++i) host[i] = static_cast<unsigned char>(i * 7 + 1);
      backend.copy_to_device(memory.bytes(), host.data(), bytes);
      backend.copy_to_host(back.data(), memory.bytes(), bytes);
      check_holds("copied there and back", back == host);
      backend.zero(memory.bytes() + bytes / 2, bytes - bytes / 2);
      backend.copy_to_host(back.data(), memory.bytes(), bytes);
      std::fill(host.begin() + static_cast<Index>(bytes / 2), host.end(), static_cast<unsigned char>(0));
      check_holds("half of it zeroed", back == host);
    }
  });
}

TEST_CASE("too much memory is a DeviceError that names the size", "[conformance]") {
  for_each_backend([&](auto& backend) {
    std::string message;
    try {
      static_cast<void>(backend.allocate(std::size_t{1} << 60));
    } catch (const DeviceError& error) {
      message = error.what();
    }
    check_holds("the message has the size", message.find("1152921504606846976") != std::string::npos);
  });
}

}  // namespace tinymoe_test::conformance
