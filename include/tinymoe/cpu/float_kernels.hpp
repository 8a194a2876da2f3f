#pragma once
/// @file
/// The kernels of float32 products for each instruction set, all in one binary.

#include <type_traits>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/cpu/few_rows.hpp"
#include "tinymoe/cpu/instructions.hpp"
#include "tinymoe/cpu/pack.hpp"
#include "tinymoe/cpu/tiles.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

/// The tiles of an instruction set: as many sums as registers hold, and half the rows for what is left.
struct Tiles {
  Index rows, half_rows, cols;
  Tile whole, half;
  RowTile row_tile, narrow_row_tile;  // all columns, and half of them
  WriteTransposed write_transposed;
};

/// How numbers of type T are packed.
template <class T>
struct Packs {
  Pack<T> rows, columns;
};

/// Dot products of x (T) with weights (W): one row with `one_row_outputs`, and `square_outputs` rows with as many.
template <class T, class W>
struct Dots {
  using Function = void (*)(Index depth, const T* x, Index x_stride, const W* w, Index w_stride, float* y);
  Function one_row, square;
};

/// Kernels of one instruction set: a type with `lanes`, `rows`, `half_rows` and a function for each kernel, which has
/// the target.
#define TINYMOE_FLOAT_KERNELS(NAME, TARGET, LANES, ROWS, HALF)                                                       \
  struct NAME {                                                                                                      \
    TARGET static void whole(Index depth, const float* a, const float* b, float* c, Index stride, bool add) {        \
      multiply_tile<LANES, ROWS, 2>(depth, a, b, c, stride, add);                                                    \
    }                                                                                                                \
    TARGET static void half(Index depth, const float* a, const float* b, float* c, Index stride, bool add) {         \
      multiply_tile<LANES, HALF, 2>(depth, a, b, c, stride, add);                                                    \
    }                                                                                                                \
    TARGET static void row_tile(Index depth, const float* a, Index stride, const float* b, float* out,               \
                                const float* next) {                                                                 \
      multiply_row_tile<LANES, ROWS, 2>(depth, a, stride, b, out, next);                                             \
    }                                                                                                                \
    TARGET static void narrow_row_tile(Index depth, const float* a, Index stride, const float* b, float* out,        \
                                       const float* next) {                                                          \
      multiply_row_tile<LANES, ROWS, 1>(depth, a, stride, b, out, next);                                             \
    }                                                                                                                \
    TARGET static void transposed(const float* tile, Index width, Index first, Index count, Index lines, float* c,   \
                                  Index stride, bool add) {                                                          \
      write_transposed<LANES, ROWS>(tile, width, first, count, lines, c, stride, add);                               \
    }                                                                                                                \
    template <class T>                                                                                               \
    TARGET static void pack_rows(const T* from, Index stride, Index lines, Index depth, Index width, float* to) {    \
      pack_rows_of<LANES>(from, stride, lines, depth, width, to);                                                    \
    }                                                                                                                \
    template <class T>                                                                                               \
    TARGET static void pack_columns(const T* from, Index stride, Index lines, Index depth, Index width, float* to) { \
      pack_columns_of<LANES>(from, stride, lines, depth, width, to);                                                 \
    }                                                                                                                \
    template <int rows, int outputs, class T, class W>                                                               \
    TARGET static void dots(Index depth, const T* x, Index x_stride, const W* w, Index w_stride, float* y) {         \
      dot_products_of<LANES, rows, outputs>(depth, x, x_stride, w, w_stride, y);                                     \
    }                                                                                                                \
    static constexpr Tiles tiles{ROWS, HALF, 2 * LANES, whole, half, row_tile, narrow_row_tile, transposed};         \
  };

TINYMOE_FLOAT_KERNELS(BaselineKernels, , 4, 4, 2)
#ifdef TINYMOE_TARGET_AVX512
TINYMOE_FLOAT_KERNELS(Avx2Kernels, TINYMOE_TARGET_AVX2, 8, 6, 3)
TINYMOE_FLOAT_KERNELS(Avx512Kernels, TINYMOE_TARGET_AVX512, 16, 14, 7)
#endif
#undef TINYMOE_FLOAT_KERNELS

/// f(kernels) with the kernels of a set; those of AMX are AVX-512's.
template <class F>
auto with_kernels(CpuInstructions set, F f) {
#ifdef TINYMOE_TARGET_AVX512
  if (set >= CpuInstructions::avx512) return f(Avx512Kernels{});
  if (set == CpuInstructions::avx2) return f(Avx2Kernels{});
#endif
  return f(BaselineKernels{});
}

inline Tiles tiles_of(CpuInstructions set) {
  return with_kernels(set, []<class K>(K) { return K::tiles; });
}
template <class T>
Packs<T> packs_of(CpuInstructions set) {
  return with_kernels(set, []<class K>(K) { return Packs<T>{K::template pack_rows<T>, K::template pack_columns<T>}; });
}
template <class T, class W>
Dots<T, W> dots_of(CpuInstructions set) {
  return with_kernels(set, []<class K>(K) {
    return Dots<T, W>{K::template dots<1, one_row_outputs, T, W>,
                      K::template dots<square_outputs, square_outputs, T, W>};
  });
}

}  // namespace tinymoe::inline v0_1::detail::cpu
