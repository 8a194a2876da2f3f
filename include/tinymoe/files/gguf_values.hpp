#pragma once
/// @file
/// Values of a GGUF file's metadata and tensors as they lie in its memory.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/block_weights.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/gguf_blocks.hpp"
#include "tinymoe/files/gguf_types.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/stored_type.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// A value of the metadata. Strings and arrays stay in the file's memory.
struct GgufValue {
  GgufKind kind = GgufKind::boolean;  // of an array: of its items
  bool array = false;
  std::uint64_t count = 1;           // items of an array
  std::span<const std::byte> bytes;  // of the value; of a string: without its length

  /// Item i of a value of fixed size, as JSON.
  [[gnu::cold]] Json item(std::uint64_t i) const {
    const std::byte* at = bytes.data() + i * gguf_kind_facts[static_cast<std::size_t>(kind)].bytes;
    const auto read = [&]<class T>(T value) {
      std::memcpy(&value, at, sizeof value);
      return value;
    };
    switch (kind) {
      case GgufKind::uint8:
        return read(std::uint8_t{});
      case GgufKind::int8:
        return read(std::int8_t{});
      case GgufKind::uint16:
        return read(std::uint16_t{});
      case GgufKind::int16:
        return read(std::int16_t{});
      case GgufKind::uint32:
        return read(std::uint32_t{});
      case GgufKind::int32:
        return read(std::int32_t{});
      case GgufKind::uint64:
        return read(std::uint64_t{});
      case GgufKind::int64:
        return read(std::int64_t{});
      case GgufKind::float32:
        return static_cast<double>(read(float{}));
      case GgufKind::float64:
        return read(double{});
      case GgufKind::boolean:
        return read(std::uint8_t{}) != 0;
      default:
        return {};
    }
  }

  std::string_view text() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
};

/// A tensor in a GGUF file: its bytes live as long as the Gguf object, at any alignment.
struct GgufTensorView {
  GgufType type = GgufType::float32;
  std::vector<Index> shape;  // the fastest first
  std::span<const std::byte> bytes;

  Index cols() const { return shape.empty() ? 1 : shape[0]; }
  std::size_t row_bytes() const { return gguf_row_bytes(type, cols()); }
};

/// Converts elements of one row, whole blocks of them, to floats.
[[gnu::cold]] inline void gguf_to_floats(GgufType type, const std::byte* from, std::span<float> to) {
  const auto blocks = [&](std::size_t elements, std::size_t bytes, const auto& value) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = value(from + i / elements * bytes, i % elements);
  };
  const auto own = [&]<class Block>(Block) {
    blocks(block_weights, Block::bytes, [](const std::byte* block, std::size_t i) {
      return float(block_scale(block)) * static_cast<float>(Block::integer(block, static_cast<Index>(i)));
    });
  };
  const auto others = [&]<class Block>(Block) { blocks(Block::elements, Block::bytes, &Block::value); };
  switch (type) {
    case GgufType::float32:
      return convert_elements<float>(from, to.data(), to.size());
    case GgufType::float16:
      return convert_elements<StoredHalf>(from, to.data(), to.size());
    case GgufType::bfloat16:
      return convert_elements<bfloat16>(from, to.data(), to.size());
    case GgufType::q8_0:
      return own(Q8Block{});
    case GgufType::q4_0:
      return own(Q4Block{});
    case GgufType::q4_1:
      return others(Q4_1Block{});
    case GgufType::q5_0:
      return others(Q5_0Block{});
    case GgufType::q5_1:
      return others(Q5_1Block{});
    case GgufType::q2_k:
      return others(Q2KBlock{});
    case GgufType::q3_k:
      return others(Q3KBlock{});
    case GgufType::q4_k:
      return others(Q4KBlock{});
    case GgufType::q5_k:
      return others(Q5KBlock{});
    case GgufType::q6_k:
      return others(Q6KBlock{});
  }
}

}  // namespace detail

}  // namespace tinymoe::inline v0_1
