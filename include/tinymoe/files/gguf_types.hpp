#pragma once
/// @file
/// GGUF, the file format of llama.cpp, as it lies on disk: the types of tensors and of metadata.
///
///     "GGUF" | u32 version | u64 tensors | u64 keys
///     of each key: its name, u32 type, the value        a name: u64 length, bytes
///     of each tensor: its name, u32 dimensions, u64 each of them, the fastest first; u32 type, u64 offset
///     up to a multiple of `general.alignment`: zeros; from there on the tensors, each at its offset

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tinymoe/core/block_weights.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/gguf_blocks.hpp"

namespace tinymoe::inline v0_1 {

/// The type of a tensor in a GGUF file, by the file's number for it. Those that tinymoe reads have a name here; it
/// writes float32, bfloat16, q8_0 and q4_0.
enum class GgufType : std::uint32_t {
  float32 = 0,
  float16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  bfloat16 = 30
};

namespace detail {

/// What is known of a type: how many elements a block of it has, in how many bytes. 0 bytes: tinymoe does not read it.
struct GgufTypeFacts {
  std::string_view name;
  std::size_t elements = 1, bytes = 0;
};

/// Those of a format of gguf_blocks.hpp.
template <class Block>
constexpr GgufTypeFacts gguf_facts_of(std::string_view name) {
  return {name, Block::elements, Block::bytes};
}

/// By ggml's numbers. The names are for messages.
inline constexpr GgufTypeFacts gguf_type_facts[] = {{"F32", 1, 4},
                                                    {"F16", 1, 2},
                                                    {"Q4_0", block_weights, Q4Block::bytes},
                                                    gguf_facts_of<Q4_1Block>("Q4_1"),
                                                    {"Q4_2"},
                                                    {"Q4_3"},
                                                    gguf_facts_of<Q5_0Block>("Q5_0"),
                                                    gguf_facts_of<Q5_1Block>("Q5_1"),
                                                    {"Q8_0", block_weights, Q8Block::bytes},
                                                    {"Q8_1"},
                                                    gguf_facts_of<Q2KBlock>("Q2_K"),
                                                    gguf_facts_of<Q3KBlock>("Q3_K"),
                                                    gguf_facts_of<Q4KBlock>("Q4_K"),
                                                    gguf_facts_of<Q5KBlock>("Q5_K"),
                                                    gguf_facts_of<Q6KBlock>("Q6_K"),
                                                    {"Q8_K"},
                                                    {"IQ2_XXS"},
                                                    {"IQ2_XS"},
                                                    {"IQ3_XXS"},
                                                    {"IQ1_S"},
                                                    {"IQ4_NL"},
                                                    {"IQ3_S"},
                                                    {"IQ2_S"},
                                                    {"IQ4_XS"},
                                                    {"I8"},
                                                    {"I16"},
                                                    {"I32"},
                                                    {"I64"},
                                                    {"F64"},
                                                    {"IQ1_M"},
                                                    {"BF16", 1, 2}};

constexpr const GgufTypeFacts& gguf_facts(GgufType type) { return gguf_type_facts[static_cast<std::size_t>(type)]; }

/// The bytes of a row of `cols` elements, which are whole blocks.
constexpr std::size_t gguf_row_bytes(GgufType type, Index cols) {
  return static_cast<std::size_t>(cols) / gguf_facts(type).elements * gguf_facts(type).bytes;
}

/// The type of a value in the metadata, by the file's number for it.
enum class GgufKind : std::uint32_t {
  uint8,
  int8,
  uint16,
  int16,
  uint32,
  int32,
  float32,
  boolean,
  string,
  array,
  uint64,
  int64,
  float64
};

/// Names for messages, and the bytes of each; 0: it says its length.
struct GgufKindFacts {
  std::string_view name;
  std::size_t bytes;
};
inline constexpr GgufKindFacts gguf_kind_facts[] = {
    {"uint8", 1}, {"int8", 1},   {"uint16", 2}, {"int16", 2},  {"uint32", 4}, {"int32", 4},  {"float32", 4},
    {"bool", 1},  {"string", 0}, {"array", 0},  {"uint64", 8}, {"int64", 8},  {"float64", 8}};

inline constexpr std::uint32_t gguf_version = 3, gguf_oldest_version = 2;
inline constexpr std::uint32_t gguf_alignment = 32;  // where a file does not say another
inline constexpr std::size_t gguf_most_dimensions = 4;

}  // namespace detail

/// The type's name as llama.cpp writes it: "F32", "Q8_0".
constexpr std::string_view gguf_type_name(GgufType type) { return detail::gguf_facts(type).name; }

}  // namespace tinymoe::inline v0_1
