#pragma once
// AMX's tiles and what its instructions do with them, by Intel's definition (Software Developer's Manual, volume 2). An
// operation that the processor would refuse returns the reason, else null.

#include <cstdint>
#include <cstring>

#include "tinymoe/cpu/amx_tiles.hpp"

#if defined(TINYMOE_AMX)

namespace tinymoe_test::amx_emulator {

using Reason = const char*;

/// One thread's tiles.
class Tiles {
 public:
  static constexpr unsigned count = 8, most_rows = 16, most_bytes = 64;

  Reason configure(const std::uint8_t* from) {
    std::uint8_t config[64];
    std::memcpy(config, from, 64);
    release();
    if (config[0] == 0) return nullptr;
    if (config[0] != 1) return "#GP: ldtilecfg knows palettes 0 and 1 only";
    if (config[1] != 0) return "ldtilecfg with a start row is not emulated";
    for (int i = 2; i < 16; ++i) {
      if (config[i] != 0) return "#GP: ldtilecfg found a reserved byte that is not zero";
    }
    for (unsigned i = 0; i < 16; ++i) {
      const unsigned bytes = config[16 + 2 * i] + 256u * config[17 + 2 * i], rows = config[48 + i];
      if (i >= count && (bytes != 0 || rows != 0)) return "#GP: ldtilecfg found a shape for a tile that does not exist";
      if (bytes > most_bytes || rows > most_rows) return "#GP: ldtilecfg found a tile of more than 16 rows of 64 bytes";
      if ((bytes == 0) != (rows == 0)) return "#GP: ldtilecfg found rows without bytes, or bytes without rows";
    }
    for (unsigned i = 0; i < count; ++i) {
      tiles_[i].bytes = config[16 + 2 * i];
      tiles_[i].rows = config[48 + i];
    }
    configured_ = true;
    return nullptr;
  }

  void release() {
    std::memset(tiles_, 0, sizeof tiles_);
    configured_ = false;
  }

  Reason zero(unsigned tile) {
    if (const Reason reason = unusable(tile)) return reason;
    std::memset(tiles_[tile].data, 0, sizeof tiles_[tile].data);
    return nullptr;
  }

  Reason load(unsigned tile, const std::uint8_t* from, std::int64_t stride) {
    if (const Reason reason = zero(tile)) return reason;
    Tile& to = tiles_[tile];
    for (unsigned r = 0; r < to.rows; ++r) std::memcpy(to.data[r], from + stride * r, to.bytes);
    return nullptr;
  }

  Reason store(unsigned tile, std::uint8_t* to, std::int64_t stride) const {
    if (const Reason reason = unusable(tile)) return reason;
    const Tile& from = tiles_[tile];
    for (unsigned r = 0; r < from.rows; ++r) std::memcpy(to + stride * r, from.data[r], from.bytes);
    return nullptr;
  }

  /// tdpbf16ps: sums += a b. For each row the even and the odd products are summed apart, from zero, with a fused
  /// multiply-add for each pair; then even + odd is added to the sum. Nearest even; denormals count and become zero.
  __attribute__((target("avx512f"))) Reason multiply_bfloat16(unsigned sums, unsigned a, unsigned b) {
    for (const unsigned tile : {sums, a, b}) {
      if (const Reason reason = unusable(tile)) return reason;
    }
    if (sums == a || sums == b || a == b) return "#UD: tdpbf16ps needs three different tiles";
    Tile& to = tiles_[sums];
    const Tile &left = tiles_[a], &right = tiles_[b];
    if (to.bytes % 4 != 0 || left.bytes % 4 != 0 || right.bytes % 4 != 0) {
      return "#UD: tdpbf16ps needs rows of a multiple of four bytes";
    }
    if (left.rows != to.rows || right.bytes != to.bytes || left.bytes != 4u * right.rows) {
      return "#UD: tdpbf16ps got tiles whose shapes do not fit";
    }
    const unsigned mode = __builtin_ia32_stmxcsr();
    const unsigned flush_denormals = 0x9fc0;  // results and operands; nearest even, no exceptions
    asm volatile("ldmxcsr %0" : : "m"(flush_denormals));
    for (unsigned m = 0; m < to.rows; ++m) {
      Floats even = {}, odd = {}, sum;
      for (unsigned k = 0; k < right.rows; ++k) {
        std::uint32_t pair;
        std::memcpy(&pair, left.data[m] + 4 * k, 4);
        Words pairs;
        std::memcpy(&pairs, right.data[k], 64);
        const Words both = Words{} + pair;
        asm volatile("vfmadd231ps %2, %1, %0" : "+v"(even) : "v"(Floats(both << 16)), "v"(Floats(pairs << 16)));
        asm volatile("vfmadd231ps %2, %1, %0" : "+v"(odd) : "v"(Floats(both & high)), "v"(Floats(pairs & high)));
      }
      std::memcpy(&sum, to.data[m], 64);
      asm volatile("vaddps %1, %0, %0" : "+v"(even) : "v"(odd));
      asm volatile("vaddps %1, %0, %0" : "+v"(sum) : "v"(even));
      std::memcpy(to.data[m], &sum, to.bytes);
    }
    asm volatile("ldmxcsr %0" : : "m"(mode));
    return nullptr;
  }

 private:
  using Words = std::uint32_t __attribute__((vector_size(64)));
  using Floats = float __attribute__((vector_size(64)));
  static constexpr std::uint32_t high = 0xffff0000u;

  struct Tile {
    alignas(64) std::uint8_t data[most_rows][most_bytes];
    std::uint8_t rows, bytes;
  };

  Reason unusable(unsigned tile) const {
    if (!configured_) return "#UD: no tiles are configured";
    if (tile >= count) return "#UD: there are eight tiles";
    return tiles_[tile].rows == 0 ? "#UD: the tile has no rows" : nullptr;
  }

  Tile tiles_[count] = {};
  bool configured_ = false;
};

}  // namespace tinymoe_test::amx_emulator

#endif
