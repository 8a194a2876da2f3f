#include <tinymoe/cuda/device.cuh>

namespace tinymoe::inline v0_1::detail::cuda::emulated {
namespace {

using cuda_emulator::Exchange;

/// Row r of matrix i is at the address of lane 8 i + r.
struct Tile {
  std::uint16_t element[8][8];
};
void read_tiles(const Exchange& exchange, Tile (&tiles)[4]) {
  for (int lane = 0; lane < 32; ++lane) {
    const void* const row = get<const void*>(exchange.input[lane].bytes);
    cuda_emulator::check_shared(row, 16);
    if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) {
      cuda_emulator::stop("load_matrices from a row that is not aligned to 16");
    }
    std::memcpy(tiles[lane / 8].element[lane % 8], row, 16);
  }
}

template <bool Transposed>
void finish(Exchange& exchange) {
  Tile tiles[4];
  read_tiles(exchange, tiles);
  for (int lane = 0; lane < 32; ++lane) {
    std::uint16_t pairs[8];
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < 2; ++j) {
        const int along = 2 * (lane % 4) + j, across = lane / 4;
        pairs[2 * i + j] = Transposed ? tiles[i].element[along][across] : tiles[i].element[across][along];
      }
    }
    std::memcpy(exchange.output[lane].bytes, pairs, sizeof(pairs));
  }
}

template <class T>
void unpack(std::uint32_t word, float* low, float* high) {
  *low = float(T::from_bits(static_cast<std::uint16_t>(word)));
  *high = float(T::from_bits(static_cast<std::uint16_t>(word >> 16)));
}

}  // namespace

void finish_load(Exchange& exchange) { finish<false>(exchange); }
void finish_load_transposed(Exchange& exchange) { finish<true>(exchange); }

template <class T>
void finish_multiply_add(Exchange& exchange) {
  float a[16][16], b[16][8], c[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = 2 * (lane % 4);
    std::uint32_t words[6];
    float sums[4];
    std::memcpy(words, exchange.input[lane].bytes, sizeof(words));
    std::memcpy(sums, exchange.input[lane].bytes + sizeof(words), sizeof(sums));
    unpack<T>(words[0], &a[g][t], &a[g][t + 1]);
    unpack<T>(words[1], &a[g + 8][t], &a[g + 8][t + 1]);
    unpack<T>(words[2], &a[g][t + 8], &a[g][t + 9]);
    unpack<T>(words[3], &a[g + 8][t + 8], &a[g + 8][t + 9]);
    unpack<T>(words[4], &b[t][g], &b[t + 1][g]);
    unpack<T>(words[5], &b[t + 8][g], &b[t + 9][g]);
    c[g][t] = sums[0], c[g][t + 1] = sums[1], c[g + 8][t] = sums[2], c[g + 8][t + 1] = sums[3];
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int col = 0; col < 8; ++col) c[row][col] += a[row][k] * b[k][col];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = 2 * (lane % 4);
    const float sums[4] = {c[g][t], c[g][t + 1], c[g + 8][t], c[g + 8][t + 1]};
    std::memcpy(exchange.output[lane].bytes, sums, sizeof(sums));
  }
}
template void finish_multiply_add<bfloat16>(Exchange&);
template void finish_multiply_add<float16>(Exchange&);

}  // namespace tinymoe::inline v0_1::detail::cuda::emulated
