#pragma once
/// @file
/// The processor's matrix unit (AMX) as the CPU's products use it: eight tile registers of 16 rows of 64 bytes, and the
/// product of two narrow matrices that keeps its sums in four of them.
///
/// TINYMOE_AMX is defined where compiler and system know AMX; whether the processor has it is asked at run time
/// (cpu/instructions.hpp). There is no int8 product on tiles: integer weights have a scale for every 32 of them, so the
/// sums would leave the tiles at each step, which costs more than to convert the weights to bfloat16.

#include <cstddef>
#include <cstdint>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/cpu/instructions.hpp"

#if defined(TINYMOE_TARGET_AVX512) && defined(__linux__)
#if defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11
#define TINYMOE_AMX 1
#endif
#endif

namespace tinymoe::inline v0_1::detail::cpu::amx {

inline constexpr Index tile_rows = 16;
inline constexpr Index tile_bytes = 1024;
inline constexpr Index tile_depth = 32;  // numbers of bfloat16 in a tile's row: what one instruction multiplies
inline constexpr Index block_side = 2 * tile_rows;  // a block of sums is two tiles high and wide
inline constexpr Index line = 64;                   // bytes: a row of a tile, and of the caches

/// How many tiles cover a depth. Operands are padded with zeros up to the last one's end.
constexpr Index steps_of(Index depth) { return (depth + tile_depth - 1) / tile_depth; }

}  // namespace tinymoe::inline v0_1::detail::cpu::amx

#if defined(TINYMOE_AMX)
#define TINYMOE_TARGET_AMX TINYMOE_TARGET_AVX512_AND(",avx512bf16,amx-tile,amx-bf16")

namespace tinymoe::inline v0_1::detail::cpu::amx {

/// What a thread's tiles look like: the operand of ldtilecfg.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileShapes) == 64);

/// While it lives, this thread's eight tiles have 16 rows of 64 bytes. The release afterwards keeps context switches
/// cheap: only tiles in use are saved, 8 KB.
class TileUse {
 public:
  // The instruction's operand is the whole struct: compilers' own intrinsics have been wrong about its size.
  TINYMOE_TARGET_AMX TileUse() { asm volatile("ldtilecfg %0" : : "m"(shapes)); }
  TINYMOE_TARGET_AMX ~TileUse() { asm volatile("tilerelease"); }
  TileUse(const TileUse&) = delete;

 private:
  static constexpr TileShapes shapes{};
};

template <int tile>
TINYMOE_INLINE TINYMOE_TARGET_AMX void set_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(tile));
}

/// 16 rows of 64 bytes, `stride` bytes apart.
template <int tile>
TINYMOE_INLINE TINYMOE_TARGET_AMX void load(const std::byte* from, Index stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(tile) : "memory");
}

template <int tile>
TINYMOE_INLINE TINYMOE_TARGET_AMX void store(std::byte* to, Index stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(tile) : "memory");
}

/// sums (16, 16) float32 += a (16, 32) b (32, 16) in bfloat16; row r of tile b holds the pairs of b's rows 2 r, 2 r
/// + 1.
template <int sums, int a, int b>
TINYMOE_INLINE TINYMOE_TARGET_AMX void multiply_add() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(a), "i"(b));
}

/// Brings memory that is needed soon to the second-level cache, a few lines at a time. A tile's rows lie too far apart
/// for the processor to foresee them.
class Ahead {
 public:
  Ahead() = default;
  /// `rows` rows of `row_bytes`, `stride` bytes apart, within `moments` calls of fetch().
  Ahead(const void* first, Index rows, Index row_bytes, Index stride, Index moments)
      : at_(static_cast<const std::byte*>(first)),
        rows_(rows),
        lines_((row_bytes + line - 1) / line),
        skip_(stride - lines_ * line),
        each_((rows * lines_ + moments - 1) / moments) {}

  TINYMOE_INLINE void fetch() {
    for (Index i = 0; i < each_ && rows_ > 0; ++i) {
      __builtin_prefetch(at_, 0, 2);
      at_ += line;
      if (++column_ == lines_) at_ += skip_, column_ = 0, --rows_;
    }
  }

 private:
  const std::byte* at_ = nullptr;
  Index rows_ = 0, lines_ = 0, skip_ = 0, each_ = 0, column_ = 0;
};

/// The left operand, 16 or 32 rows: tile t of step s begins at data + t · tile + s · step, its rows `stride` bytes
/// apart.
struct Left {
  const std::byte* data;
  Index stride, step, tile;
};

/// A block of sums, float32: column tile t begins 64 · t bytes from the first, row tile t 16 strides. Strides are in
/// bytes.
struct Sums {
  float* data;
  Index stride;
};

/// to = from + left right, for left_tiles × right_tiles tiles of sums and `steps` tiles of depth. Without `from` (null)
/// sums begin at zero; `from_tile` is the distance of its column tiles in bytes, 0 if both begin alike. The tiles of
/// `right` lie one after the other, all of a step together.
template <int left_tiles, int right_tiles>
TINYMOE_TARGET_AMX inline void multiply(Left left, const std::byte* right, Index steps, Sums from, Index from_tile,
                                        Sums to, Ahead& after) {
  const auto* first = reinterpret_cast<const std::byte*>(from.data);
  const Index first_row_tile = tile_rows * from.stride;
  if (first == nullptr) {
    set_zero<0>();
    if constexpr (right_tiles == 2) set_zero<1>();
    if constexpr (left_tiles == 2) set_zero<2>();
    if constexpr (left_tiles == 2 && right_tiles == 2) set_zero<3>();
  } else {
    load<0>(first, from.stride);
    if constexpr (right_tiles == 2) load<1>(first + from_tile, from.stride);
    if constexpr (left_tiles == 2) load<2>(first + first_row_tile, from.stride);
    if constexpr (left_tiles == 2 && right_tiles == 2) load<3>(first + first_row_tile + from_tile, from.stride);
  }
  Ahead ahead = after;
  for (Index s = 0; s < steps; ++s) {
    load<4>(left.data, left.stride);
    load<6>(right, line);
    multiply_add<0, 4, 6>();
    if constexpr (right_tiles == 2) {
      load<7>(right + tile_bytes, line);
      multiply_add<1, 4, 7>();
    }
    if constexpr (left_tiles == 2) {
      load<5>(left.data + left.tile, left.stride);
      multiply_add<2, 5, 6>();
      if constexpr (right_tiles == 2) multiply_add<3, 5, 7>();
    }
    left.data += left.step;
    right += right_tiles * tile_bytes;
    ahead.fetch();
  }
  after = ahead;
  auto* last = reinterpret_cast<std::byte*>(to.data);
  const Index last_row_tile = tile_rows * to.stride;
  store<0>(last, to.stride);
  if constexpr (right_tiles == 2) store<1>(last + line, to.stride);
  if constexpr (left_tiles == 2) store<2>(last + last_row_tile, to.stride);
  if constexpr (left_tiles == 2 && right_tiles == 2) store<3>(last + last_row_tile + line, to.stride);
}

}  // namespace tinymoe::inline v0_1::detail::cpu::amx

#endif
