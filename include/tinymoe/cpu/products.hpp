#pragma once
/// @file
/// Matrix products of one thread, in blocks that stay in its caches.
///
/// Both operands are packed as float panels, block by block, then a tile of the result at a time stays in registers.
/// Packing converts from any type, so all types share the tiles. What a result's bits depend on are its depth and
/// operands alone.

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <type_traits>

#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cpu/float_kernels.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

/// One side of a product: lines of `depth` numbers, stored in any way that `pack` knows.
struct Operand {
  const void* data;
  Index stride;  // as `pack` takes it
  Index lines, depth;
  /// Packs elements first_k … of lines first …, as Pack.
  void (*pack)(const Operand& from, Index first, Index lines, Index first_k, Index depth, Index width, float* to);
  const void* packs;     // the functions of the instruction set
  Index most_lines = 0;  // that `pack` takes at once; a panel at least
};

inline constexpr Index any_lines = Index{1} << 30;

namespace of_matrix {

template <class T>
void pack_rows(const Operand& from, Index first, Index lines, Index k, Index depth, Index width, float* to) {
  const T* const begin = static_cast<const T*>(from.data) + first * from.stride + k;
  static_cast<const Packs<T>*>(from.packs)->rows(begin, from.stride, lines, depth, width, to);
}
template <class T>
void pack_columns(const Operand& from, Index first, Index lines, Index k, Index depth, Index width, float* to) {
  const T* const begin = static_cast<const T*>(from.data) + k * from.stride + first;
  static_cast<const Packs<T>*>(from.packs)->columns(begin, from.stride, lines, depth, width, to);
}

}  // namespace of_matrix

/// The rows of a matrix as lines.
template <class T>
Operand rows_of(View<const T> a, const Packs<T>& packs) {
  return {a.data, a.stride, a.rows, a.cols, of_matrix::pack_rows<T>, &packs, any_lines};
}
/// The columns of a matrix as lines.
template <class T>
Operand columns_of(View<const T> a, const Packs<T>& packs) {
  return {a.data, a.stride, a.cols, a.rows, of_matrix::pack_columns<T>, &packs, any_lines};
}

/// The scratch of one thread's products.
class Panels {
 public:
  /// Blocks of the two operands, which together leave half of a second-level cache of 2 MiB to the result. Rows and
  /// columns are multiples of every set's tiles.
  static constexpr Index max_rows = 168, max_cols = 512, max_depth = 512;
  static constexpr Index left_size = max_rows * max_depth + 2 * pack_slack,
                         right_size = max_cols * max_depth + 2 * pack_slack;
  static constexpr Index size = left_size + right_size;

  explicit Panels(float* memory) : left_(memory), right_(memory + left_size) {}

  /// c = a bᵀ, or c += a bᵀ, where a's lines are the rows of c and b's lines its columns.
  [[gnu::noinline]] void multiply(const Tiles& tiles, const Operand& a, const Operand& b, View<float> c,
                                  bool add) const {
    assert(a.depth == b.depth && c.rows == a.lines && c.cols == b.lines);
    if (a.depth == 0 && !add) {
      for (Index r = 0; r < c.rows; ++r) std::fill_n(c.row(r), c.cols, 0.0f);
    }
    for (Index col = 0; col < c.cols; col += max_cols) {
      const Index cols = std::min(max_cols, c.cols - col);
      for (Index k = 0; k < a.depth; k += max_depth) {
        const Index depth = std::min(max_depth, a.depth - k);
        const Index at_once = std::max(tiles.cols, b.most_lines / tiles.cols * tiles.cols);
        for (Index j = 0; j < cols; j += at_once) {
          b.pack(b, col + j, std::min(at_once, cols - j), k, depth, tiles.cols, right_ + j * depth);
        }
        for (Index row = 0; row < c.rows; row += max_rows) {
          const Index rows = std::min(max_rows, c.rows - row);
          // All tiles have the whole height, but for the last if that is half as high.
          const Index rest = rows % tiles.rows, low = rest > 0 && rest <= tiles.half_rows ? rest : 0;
          if (rows > low) a.pack(a, row, rows - low, k, depth, tiles.rows, left_);
          if (low > 0) a.pack(a, row + rows - low, low, k, depth, tiles.half_rows, left_ + (rows - low) * depth);
          for_each_tile(tiles, rows, [&](Index first, Index height, Index taken) {
            const auto tile = height == tiles.rows ? tiles.whole : tiles.half;
            for (Index j = 0; j < cols; j += tiles.cols) {
              const auto part =
                  View<float>(c.row(row + first) + col + j, taken, std::min(tiles.cols, cols - j), c.stride);
              write_tile(tile, tiles, height, depth, left_ + first * depth, right_ + j * depth, part, add || k > 0);
            }
          });
        }
      }
    }
  }

  /// Whether `multiply_by_rows` is the faster one for so many rows of x: packing w costs as much as multiplying it by
  /// some thirty rows, and what it saves is lost again in writing results across where the depth is small.
  template <class T>
  static bool reads_rows(const Tiles& tiles, View<T> w, Index rows) {
    return std::is_same_v<std::remove_const_t<T>, float> && rows < w.cols && w.rows >= tiles.rows &&
           packed_lines(tiles, w.cols) > 0;
  }

  /// c = x wᵀ, or c += x wᵀ, with the bits of `multiply`: x is packed as a whole, and w is read once, from where it
  /// lies.
  [[gnu::noinline]] void multiply_by_rows(const Tiles& tiles, const Operand& x, View<const float> w, View<float> c,
                                          bool add) const {
    assert(x.depth == w.cols && c.rows == x.lines && c.cols == w.rows && w.rows >= tiles.rows &&
           packed_lines(tiles, w.cols) > 0);
    const Index most = packed_lines(tiles, x.depth), passes = (c.rows + most - 1) / most,
                each = (c.rows + passes * tiles.cols - 1) / (passes * tiles.cols) * tiles.cols;
    for (Index line = 0; line < c.rows; line += each) {
      multiply_some_lines(tiles, x, line, std::min(each, c.rows - line), w, c, add);
    }
  }

 private:
  /// How many lines of a depth the scratch memory takes.
  static Index packed_lines(const Tiles& tiles, Index depth) {
    return (size - pack_slack) / depth / tiles.cols * tiles.cols;
  }

  void multiply_some_lines(const Tiles& tiles, const Operand& x, Index line, Index lines, View<const float> w,
                           View<float> c, bool add) const {
    // What is left after whole tiles takes a narrow one if that is enough.
    const Index narrow = tiles.cols / 2, rest = lines % tiles.cols, low = rest > 0 && rest <= narrow ? rest : 0,
                wide = (lines - low + tiles.cols - 1) / tiles.cols * tiles.cols,
                padded = low > 0 ? wide + narrow : wide;
    for (Index k = 0; k < x.depth; k += max_depth) {
      const Index depth = std::min(max_depth, x.depth - k);
      if (wide > 0) x.pack(x, line, lines - low, k, depth, tiles.cols, left_ + k * padded);
      if (low > 0) x.pack(x, line + lines - low, low, k, depth, narrow, left_ + k * padded + wide * depth);
    }
    alignas(64) float tile[16 * 32];
    for (Index o = 0; o < w.rows; o += tiles.rows) {
      // The last tile overlaps the one before it.
      const Index last = w.rows - tiles.rows, from = std::min(o, last), next = std::min(from + tiles.rows, last);
      for (Index k = 0; k < x.depth; k += max_depth) {
        const Index depth = std::min(max_depth, x.depth - k);
        for (Index j = 0; j < padded; j += tiles.cols) {
          const Index width = std::min(tiles.cols, padded - j);
          (width == narrow ? tiles.narrow_row_tile : tiles.row_tile)(
              depth, w.row(from) + k, w.stride, left_ + k * padded + j * depth, tile, w.row(j == 0 ? next : from) + k);
          tiles.write_transposed(tile, width, o - from, tiles.rows - (o - from), std::min(width, lines - j),
                                 c.row(line + j) + o, c.stride, add || k > 0);
        }
      }
    }
  }

  /// f(first row, height of the tile, rows of it that there are).
  template <class F>
  static void for_each_tile(const Tiles& tiles, Index rows, F f) {
    for (Index first = 0; first < rows;) {
      const Index left = rows - first, height = left > tiles.half_rows ? tiles.rows : tiles.half_rows;
      f(first, height, std::min(left, height));
      first += height;
    }
  }

  /// Tiles that reach over the edge of c are computed beside it.
  static void write_tile(Tile tile, const Tiles& tiles, Index height, Index depth, const float* a, const float* b,
                         View<float> c, bool add) {
    if (c.rows == height && c.cols == tiles.cols) return tile(depth, a, b, c.data, c.stride, add);
    alignas(64) float edge[16 * 32];
    if (add) {
      for (Index r = 0; r < c.rows; ++r) std::copy_n(c.row(r), c.cols, edge + r * tiles.cols);
    }
    tile(depth, a, b, edge, tiles.cols, add);
    for (Index r = 0; r < c.rows; ++r) std::copy_n(edge + r * tiles.cols, c.cols, c.row(r));
  }

  float *left_, *right_;  // one after the other
};

/// y[:, first … first + count − 1] = x wᵀ + bias for few rows, rounded to T.
template <class T, class W>
[[gnu::noinline]] void multiply_few_rows(const Dots<T, W>& dots, View<const T> x, View<const W> w, View<const T> bias,
                                         View<T> y, Index first, Index count) {
  const bool square = x.rows >= square_outputs;
  const Index height = square ? square_outputs : 1, width = square ? square_outputs : one_row_outputs;
  const auto function = square ? dots.square : dots.one_row;
  float sums[16];
  // The last block overlaps the one before it. Where there are fewer outputs than a block has, each is a block of
  // itself.
  const bool narrow = count < width;
  for (Index o = first; o < first + count; o += narrow ? 1 : width) {
    const Index output = narrow ? o : std::min(o, first + count - width);
    for (Index n = 0; n < x.rows; n += height) {
      const Index row = std::min(n, x.rows - height);
      function(x.cols, x.row(row), x.stride, w.row(output), narrow ? 0 : w.stride, sums);
      for (Index r = 0; r < height; ++r) {
        for (Index j = 0; j < (narrow ? 1 : width); ++j) {
          float sum = sums[r * width + j];
          if (!bias.empty()) sum += static_cast<float>(bias.data[output + j]);
          y(row + r, output + j) = static_cast<T>(sum);
        }
      }
    }
  }
}

}  // namespace tinymoe::inline v0_1::detail::cpu
