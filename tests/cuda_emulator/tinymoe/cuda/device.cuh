#pragma once
/// @file
/// The emulator's stand-in for the real file of this name: the same functions, on fibers.
///
/// Each takes the place it is called from as a last argument of its own, for the messages: lanes of a warp, and threads
/// at a barrier, must come from one place.

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "emulator/fibers.hpp"
#include "emulator/launch.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/float16.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1::detail::cuda {

inline constexpr int warp_size = 32;

namespace emulated {
using Place = cuda_emulator::Place;

template <class T>
concept Shuffled = std::is_arithmetic_v<T> &&(sizeof(T) == 4 || sizeof(T) == 8);

template <class T>
T get(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

void finish_load(cuda_emulator::Exchange& exchange);
void finish_load_transposed(cuda_emulator::Exchange& exchange);
template <class T>
void finish_multiply_add(cuda_emulator::Exchange& exchange);
extern template void finish_multiply_add<bfloat16>(cuda_emulator::Exchange&);
extern template void finish_multiply_add<float16>(cuda_emulator::Exchange&);
}  // namespace emulated

template <class T>
inline T shuffle_xor(T value, int mask, const emulated::Place& place = emulated::Place::current()) {
  static_assert(emulated::Shuffled<T>);
  using cuda_emulator::lane, cuda_emulator::Meeting;
  const auto& all = cuda_emulator::meet_warp(Meeting::shuffle_xor, &value, sizeof(T), nullptr, place);
  const unsigned from = lane() ^ static_cast<unsigned>(mask);
  return from < 32 ? emulated::get<T>(all.input[from].bytes) : value;
}
template <class T>
inline T shuffle(T value, int from, const emulated::Place& place = emulated::Place::current()) {
  static_assert(emulated::Shuffled<T>);
  const auto& all = cuda_emulator::meet_warp(cuda_emulator::Meeting::shuffle, &value, sizeof(T), nullptr, place);
  return emulated::get<T>(all.input[from & 31].bytes);
}
inline std::uint32_t ballot(bool predicate, const emulated::Place& place = emulated::Place::current()) {
  const auto& all = cuda_emulator::meet_warp(cuda_emulator::Meeting::ballot, &predicate, 1, nullptr, place);
  std::uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= std::uint32_t{emulated::get<bool>(all.input[i].bytes)} << i;
  return bits;
}
inline void sync_warp(const emulated::Place& place = emulated::Place::current()) {
  cuda_emulator::meet_warp(cuda_emulator::Meeting::sync_warp, nullptr, 0, nullptr, place);
}
inline void sync_block(const emulated::Place& place = emulated::Place::current()) { cuda_emulator::meet_block(place); }

template <class T>
inline T* dynamic_shared() {
  return reinterpret_cast<T*>(cuda_emulator::dynamic_shared_memory());
}
template <class T, int Count, class Place>
inline T* static_shared() {
  alignas(16) static std::byte bytes[Count * sizeof(T) + cuda_emulator::StaticMemory::zone];
  static constinit cuda_emulator::StaticMemory memory{bytes, Count * sizeof(T)};
  return reinterpret_cast<T*>(cuda_emulator::claim(memory));
}

inline void copy_async(void* shared, const void* global) { cuda_emulator::start_copy(shared, global); }
inline void commit_copies() { cuda_emulator::close_copies(); }
template <int Pending>
inline void wait_copies() {
  cuda_emulator::finish_copies(Pending);
}

inline void load_matrices(std::uint32_t (&to)[4], const void* row,
                          const emulated::Place& place = emulated::Place::current()) {
  const auto& all =
      cuda_emulator::meet_warp(cuda_emulator::Meeting::load_matrices, &row, sizeof(row), emulated::finish_load, place);
  std::memcpy(to, all.output[cuda_emulator::lane()].bytes, sizeof(to));
}
inline void load_matrices_transposed(std::uint32_t (&to)[4], const void* row,
                                     const emulated::Place& place = emulated::Place::current()) {
  const auto& all = cuda_emulator::meet_warp(cuda_emulator::Meeting::load_matrices_transposed, &row, sizeof(row),
                                             emulated::finish_load_transposed, place);
  std::memcpy(to, all.output[cuda_emulator::lane()].bytes, sizeof(to));
}

template <class T>
inline void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                         const emulated::Place& place = emulated::Place::current()) {
  static_assert(std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>);
  std::uint32_t input[10] = {a[0], a[1], a[2], a[3], b0, b1};
  std::memcpy(input + 6, c, sizeof(c));
  const auto& all = cuda_emulator::meet_warp(cuda_emulator::Meeting::multiply_add, input, sizeof(input),
                                             emulated::finish_multiply_add<T>, place);
  std::memcpy(c, all.output[cuda_emulator::lane()].bytes, sizeof(c));
}

template <class T>
inline std::uint32_t pack(float low, float high) {
  return static_cast<std::uint32_t>(T(low).bits) | static_cast<std::uint32_t>(T(high).bits) << 16;
}

inline void follow() { ++cuda_emulator::followed; }

/// The arguments are copied when the kernel is started, and again for each thread, which owns its parameters. No kernel
/// starts early here; but one that might must have every thread wait for the one before.
template <class... Parameters, class... Arguments>
cudaError_t start_next(bool early, void (*kernel)(Parameters...), dim3 blocks, dim3 threads, std::size_t shared_bytes,
                       cudaStream_t stream, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "parameters are copied to the device as bytes");
  static_assert((sizeof(Parameters) + ... + 0) <= 4096, "more parameters than every device takes");
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  };
  const Call call{kernel, {Parameters(arguments)...}};
  return cuda_emulator::launch(reinterpret_cast<const void*>(kernel), blocks, threads, shared_bytes, stream,
                               [call, blocks, threads, shared_bytes, early] {
                                 cuda_emulator::followed = 0;
                                 cuda_emulator::run_grid(blocks, threads, shared_bytes,
                                                         {[](const void* context) {
                                                            const Call& mine = *static_cast<const Call*>(context);
                                                            std::apply(mine.kernel, mine.arguments);
                                                          },
                                                          &call});
                                 const std::uint64_t all =
                                     std::uint64_t{blocks.x} * blocks.y * blocks.z * threads.x * threads.y * threads.z;
                                 if (early && cuda_emulator::followed != all) {
                                   cuda_emulator::stop("a kernel that may start early does not wait in each thread");
                                 }
                               });
}
template <class... Parameters, class... Arguments>
cudaError_t start(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, std::size_t shared_bytes,
                  cudaStream_t stream, Arguments&&... arguments) {
  return start_next(false, kernel, blocks, threads, shared_bytes, stream, arguments...);
}

}  // namespace tinymoe::inline v0_1::detail::cuda
