// A weight format that a user might write, without a change to the library: rows of 8-bit integers with a scale. A
// model of it decodes, is inspected and read from a checkpoint as the model whose weights were rounded beforehand.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "support/data.hpp"
#include "tinymoe/analysis/inspect.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/sample/generate.hpp"
#include "train/tiny.hpp"

namespace foreign {

/// Weights w = scale · q, with one scale a row and q from −127 to 127: a row is the scale, then its integers.
struct Int8Rows {};

struct Int8View {
  const std::byte* data = nullptr;
  tinymoe::Index rows = 0, cols = 0;
  static constexpr std::size_t row_bytes(tinymoe::Index cols) { return sizeof(float) + static_cast<std::size_t>(cols); }
  float operator()(tinymoe::Index row, tinymoe::Index col) const {
    const std::byte* from = data + static_cast<std::size_t>(row) * row_bytes(cols);
    float scale;
    std::memcpy(&scale, from, sizeof scale);
    return scale * static_cast<float>(static_cast<std::int8_t>(from[sizeof scale + static_cast<std::size_t>(col)]));
  }
};

struct Int8Bank {
  const std::byte* data = nullptr;
  std::ptrdiff_t stride = 0;  // bytes
  tinymoe::Index count = 0, rows = 0, cols = 0;
  Int8View operator[](tinymoe::Index expert) const { return {data + expert * stride, rows, cols}; }
};

}  // namespace foreign

/// Routers stay in float: what they choose should not change.
template <>
struct tinymoe::WeightFormat<foreign::Int8Rows> {
  using Vector = float;
  template <Part part>
  using Matrix = std::conditional_t<part == Part::router, float, foreign::Int8Rows>;
  using Pointer = std::byte*;
  using View = foreign::Int8View;
  using ConstView = foreign::Int8View;
  using Bank = foreign::Int8Bank;
  using ConstBank = foreign::Int8Bank;
  static constexpr bool plain = false;

  static constexpr std::size_t bytes(Index rows, Index cols) {
    return detail::round_up(static_cast<std::size_t>(rows) * View::row_bytes(cols), memory_alignment);
  }
  static Pointer pointer(std::byte* address) { return address; }
  static View view(Pointer data, Index rows, Index cols) { return {data, rows, cols}; }
  static View read(Pointer data, Index rows, Index cols) { return {data, rows, cols}; }
  static Bank bank(Pointer first, Pointer second, Index count, Index rows, Index cols) {
    return {first, second - first, count, rows, cols};
  }
  template <class M>
  static void encode(tinymoe::View<const M> values, std::byte* stored) {
    for (Index row = 0; row < values.rows; ++row) {
      float most = 0;
      for (Index col = 0; col < values.cols; ++col) most = std::max(most, std::abs(values(row, col)));
      const float scale = most > 0 ? most / 127 : 1;
      std::memcpy(stored, &scale, sizeof scale);
      stored += sizeof scale;
      for (Index col = 0; col < values.cols; ++col) {
        *stored++ = static_cast<std::byte>(static_cast<std::int8_t>(std::lround(values(row, col) / scale)));
      }
    }
  }
};

namespace tinymoe_test::foreign_weights {

namespace {

using foreign::Int8Rows;
using Plain = Reference<float>;

/// Rounds each weight of a model as the format does; returns how many changed.
template <class Arch>
Index round_weights(Model<Arch, Plain>& model) {
  Index offset = 0, changed = 0;
  typename Arch::template Parameters<Int8Rows> stored;
  Arch::template Parameters<Int8Rows>::for_each(
      Path{},
      [&]<class Tensor>(const ParameterInfo& info, Tensor&) {
        if constexpr (!Tensor::Format::plain) {
          View<float> values(model.masters().data + offset, info.rows(), info.cols);
          std::vector<std::byte> bytes(Tensor::Format::bytes(info.rows(), info.cols));
          Tensor::Format::template encode<float>(values, bytes.data());
          const auto rounded = Tensor::Format::read(bytes.data(), info.rows(), info.cols);
          for (Index row = 0; row < values.rows; ++row) {
            for (Index col = 0; col < values.cols; ++col) {
              changed += values(row, col) != rounded(row, col) ? 1 : 0;
              values(row, col) = rounded(row, col);
            }
          }
        }
        offset += aligned_size(info.size());
      },
      stored);
  return changed;
}

xt::xtensor<Token, 2> some_tokens(std::size_t time) {
  auto tokens = xt::xtensor<Token, 2>::from_shape({2, time});
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens.data()[i] = static_cast<Token>(i * 37 % 255);
  return tokens;
}

/// Every logit, to the bit. (Catch cannot take xtensor's == apart.)
bool same(const Inspection& a, const Inspection& b) { return (a.logits == b.logits); }

/// Its kernels of few tokens read plain weights only.
struct Fused : Plain {
  static constexpr Index max_fused_pairs = 16;
};

using Untied = Tiny;
using TiedMixed =
    Transformer<Vocab<260>, Context<16>, Width<16>, TiedHead, HeadBias,
                Layers<1, DenseBlock<LayerNorm, Attention<Heads<4>, Learned, Bias>, Expert<Gelu, Hidden<24>, Bias>>>,
                Layers<1, MoEBlock<LayerNorm, Attention<Heads<2>, QkNorm>, Router<4, 2, Bias>,
                                   Expert<SwiGlu, Hidden<24>, Bias>, Shared<Expert<SwiGlu, Hidden<16>>>>>>;

}  // namespace

TEMPLATE_TEST_CASE("a model of a foreign weight format computes with the weights that it stores", "[weights]", Untied,
                   TiedMixed) {
  Plain backend;
  const Model<TestType, Plain, Int8Rows> model(backend, Seed{8});
  Model<TestType, Plain> rounded(backend, Seed{8});
  CHECK(round_weights(rounded) > 1000);

  const auto found = inspect(model, some_tokens(12)), wanted = inspect(rounded, some_tokens(12));
  CHECK(same(found, wanted));
  REQUIRE(found.routing.size() == wanted.routing.size());
  for (std::size_t i = 0; i < found.routing.size(); ++i) {
    CHECK((found.routing[i].selected == wanted.routing[i].selected));
  }

  const SampleOptions options{.temperature = 0, .tokens = 12};
  CHECK(generate(model, tiny_tokenizer(), "the cat", options) ==
        generate(rounded, tiny_tokenizer(), "the cat", options));
}

TEST_CASE("a model of a foreign weight format is read from a checkpoint, and a bad one leaves it unchanged",
          "[weights]") {
  const TemporaryFolder folder;
  Plain backend;
  Model<Tiny, Plain> trained(backend, Seed{9});
  save_model(folder / "model", trained, tiny_tokenizer());
  Model<Tiny, Plain, Int8Rows> model(backend, Seed{1});
  load_model(folder / "model", model);
  round_weights(trained);
  CHECK(same(inspect(model, some_tokens(9)), inspect(trained, some_tokens(9))));

  const Model<TinyOf<260, 32>, Plain> other(backend);
  save_model(folder / "other", other, tiny_tokenizer());
  CHECK_THROWS_AS(load_model(folder / "other", model), MismatchError);
  CHECK(same(inspect(model, some_tokens(9)), inspect(trained, some_tokens(9))));
}

TEST_CASE("integers take a quarter of the bytes, and need no masters", "[weights]") {
  using Whole = Model<Tiny, Plain>;
  using Small = Model<Tiny, Plain, Int8Rows>;
  STATIC_REQUIRE(Whole::has_masters);
  STATIC_REQUIRE_FALSE(Small::has_masters);
  constexpr std::size_t whole = buffer_bytes<Whole::Weights>(), small = buffer_bytes<Small::Weights>();
  STATIC_REQUIRE(whole == static_cast<std::size_t>(buffer_size<Whole::Weights>()) * sizeof(float));
  CHECK(small < whole / 2);  // rows of 16 carry a scale of 4 bytes
}

TEST_CASE("a backend with kernels for few tokens decodes a foreign weight format without them", "[weights]") {
  Plain backend;
  Fused fused;
  const Model<Tiny, Plain, Int8Rows> model(backend, Seed{8});
  const Model<Tiny, Fused, Int8Rows> same_model(fused, Seed{8});
  const SampleOptions options{.temperature = 0, .tokens = 12};
  CHECK(generate(model, tiny_tokenizer(), "the cat", options) ==
        generate(same_model, tiny_tokenizer(), "the cat", options));
}

}  // namespace tinymoe_test::foreign_weights
