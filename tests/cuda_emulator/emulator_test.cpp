// Blocks and their threads: what they compute, and the mistakes that the emulator must report.

#include "test_support.hpp"

namespace {

using namespace cuda_emulator::test;
using cuda_emulator::Order;

struct PartialSums;
template <bool Barrier>
__global__ void __launch_bounds__(256) sum_rows(const float* __restrict__ x, float* y, int n) {
  float* const parts = static_shared<float, 32, PartialSums>();
  float total = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) {
    total += x[static_cast<int>(blockIdx.x) * n + i];
  }
  for (int mask = 16; mask > 0; mask /= 2) total += shuffle_xor(total, mask);
  if (threadIdx.x % warp_size == 0) parts[threadIdx.x / warp_size] = total;
  if (Barrier) sync_block();
  total = 0;
  for (unsigned warp = 0; warp < blockDim.x / warp_size; ++warp) total += parts[warp];
  if (threadIdx.x == blockDim.x / 2) y[blockIdx.x] = total;
}

TEST_CASE("a block adds up in shared memory", "[cuda_emulator]") {
  const auto x = numbers<float>(4 * 1000);
  const Buffer<float> in(x), out(4);
  for (const unsigned threads : {32u, 256u, 1024u}) {
    for (const Order order : {Order{Order::Kind::forward}, Order{Order::Kind::backward}, Order{Order::Kind::random, 1},
                              Order{Order::Kind::random, 2}}) {
      const InOrder turns(order);
      check(start(sum_rows<true>, 4, threads, 0, nullptr, in.data, out.data, 1000));
      const auto y = out.host();
      for (std::size_t row = 0; row < 4; ++row) {
        float expected = 0;
        for (std::size_t i = 0; i < 1000; ++i) expected += x[row * 1000 + i];
        CHECK(y[row] == expected);
      }
    }
  }
}

TEST_CASE("a missing barrier gives wrong numbers", "[cuda_emulator]") {
  const Buffer<float> in(numbers<float>(4 * 1000)), out(4);
  check(start(sum_rows<true>, 4, 256, 0, nullptr, in.data, out.data, 1000));
  const auto right = out.host();
  check(start(sum_rows<false>, 4, 256, 0, nullptr, in.data, out.data, 1000));
  const auto wrong = out.host();
  for (std::size_t i = 0; i < 4; ++i) CHECK(wrong[i] != right[i]);
}

__global__ void lanes(int* xor_five, int* from_three, std::uint32_t* odd, double* wide) {
  const int lane = static_cast<int>(threadIdx.x);
  xor_five[lane] = shuffle_xor(lane, 5);
  from_three[lane] = shuffle(10 * lane, (lane + 3) % 32);
  odd[lane] = ballot(lane % 2 == 1);
  wide[lane] = shuffle(lane + 0.5, 7);
}

TEST_CASE("lanes exchange values", "[cuda_emulator]") {
  const Buffer<int> a(32), b(32);
  const Buffer<std::uint32_t> c(32);
  const Buffer<double> d(32);
  check(start(lanes, 1, 32, 0, nullptr, a.data, b.data, c.data, d.data));
  const auto xor_five = a.host(), from_three = b.host();
  const auto odd = c.host();
  const auto wide = d.host();
  for (int lane = 0; lane < 32; ++lane) {
    const auto i = static_cast<std::size_t>(lane);
    CHECK(xor_five[i] == (lane ^ 5));
    CHECK(from_three[i] == 10 * ((lane + 3) % 32));
    CHECK(odd[i] == 0xaaaaaaaau);
    CHECK(wide[i] == 7.5);
  }
}

__global__ void indices(unsigned* to) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  to[block * 30 + thread] = blockIdx.y * 1000 + threadIdx.x * 100 + threadIdx.y * 10 + threadIdx.z;
}

TEST_CASE("threads and blocks have their indices", "[cuda_emulator]") {
  const Buffer<unsigned> to(30 * 24);
  check(start(indices, dim3(2, 3, 4), dim3(2, 3, 5), 0, nullptr, to.data));
  const auto found = to.host();
  for (unsigned i = 0; i < found.size(); ++i) {
    const unsigned thread = i % 30, block = i / 30;
    CHECK(found[i] == block / 2 % 3 * 1000 + thread % 2 * 100 + thread / 2 % 3 * 10 + thread / 6);
  }
}

__global__ void exit_early(int* to) {
  if (threadIdx.x >= 64) return;
  int* const shared = dynamic_shared<int>();
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  sync_block();
  to[threadIdx.x] = shared[63 - threadIdx.x];
}
__global__ void half_at_barrier() {
  if (threadIdx.x < 32) {
    sync_block();
  } else {
    sync_warp();
    if (threadIdx.x == 40) sync_block();
    if (threadIdx.x != 40) sync_warp();
  }
}
__global__ void different_collectives() {
  if (threadIdx.x % 2 == 0) {
    shuffle_xor(1, 2);
  } else {
    ballot(true);
  }
}
__global__ void exited_lane() {
  if (threadIdx.x == 3) return;
  sync_warp();
}
__global__ void two_barriers() {
  if (threadIdx.x < 32) {
    sync_block();
  } else {
    sync_block();
  }
}
__global__ void past_dynamic_shared(int n) { dynamic_shared<int>()[n] = 1; }

TEST_CASE("threads that wait for each other forever stop the program", "[cuda_emulator]") {
  const Buffer<int> to(64);
  check(start(exit_early, 1, 128, 64 * sizeof(int), nullptr, to.data));
  const auto found = to.host();
  for (int i = 0; i < 64; ++i) CHECK(found[static_cast<std::size_t>(i)] == 63 - i);

  const auto run = [](auto kernel) {
    start(kernel, 1, 64, 0, nullptr);
    cudaDeviceSynchronize();
  };
  std::string text;
  CHECK(signal_of([&] { run(half_at_barrier); }, &text) == SIGABRT);
  CHECK(text.find("sync_block at") != std::string::npos);
  CHECK(signal_of([&] { run(different_collectives); }, &text) == SIGABRT);
  CHECK(text.find("different places") != std::string::npos);
  CHECK(signal_of([&] { run(exited_lane); }, &text) == SIGABRT);
  CHECK(text.find("exit") != std::string::npos);
  CHECK(signal_of([&] { run(two_barriers); }, &text) == SIGABRT);
  CHECK(text.find("different barriers") != std::string::npos);
  CHECK(signal_of([] {
          start(past_dynamic_shared, 1, 1, 64, nullptr, 16);
          cudaDeviceSynchronize();
        }) == SIGSEGV);
}

/// Reads what it copies when it has waited for all but the last `Pending` groups.
template <int Pending>
__global__ void copy_late(const float* from, float* first, float* second) {
  float* const shared = dynamic_shared<float>();
  const unsigned at = 4 * threadIdx.x;
  copy_async(shared + at, from + at);
  commit_copies();
  copy_async(shared + 128 + at, from + 128 + at);
  commit_copies();
  wait_copies<Pending>();
  sync_block();
  for (unsigned i = 0; i < 4; ++i) first[at + i] = shared[127 - at - i], second[at + i] = shared[128 + at + i];
}

TEST_CASE("asynchronous copies have arrived after a wait", "[cuda_emulator]") {
  const auto x = numbers<float>(256, 0, 251);
  const Buffer<float> in(x), first(128), second(128);
  const auto run = [&](auto kernel) { check(start(kernel, 1, 32, 1024, nullptr, in.data, first.data, second.data)); };
  run(copy_late<0>);
  const auto a = first.host(), b = second.host();
  for (std::size_t i = 0; i < 128; ++i) CHECK((a[i] == x[127 - i] && b[i] == x[128 + i]));
  run(copy_late<1>);
  const auto c = first.host(), d = second.host();
  for (std::size_t i = 0; i < 128; ++i) CHECK((c[i] == x[127 - i] && d[i] != d[i]));
}

/// d (16 x 8) = a (16 x 16) b + d, where b is (16 x 8) or, as rows of bᵀ, (8 x 16).
template <class T, bool Transposed>
__global__ void multiply_tile(const T* a, const T* b, float* d) {
  T* const a_tile = dynamic_shared<T>();
  T* const b_tile = a_tile + 256;
  const int lane = static_cast<int>(threadIdx.x);
  copy_async(a_tile + 8 * lane, a + 8 * lane);
  if (lane < 16) copy_async(b_tile + 8 * lane, b + 8 * lane);
  commit_copies();
  wait_copies<0>();
  sync_warp();
  std::uint32_t a_words[4], b_words[4];
  load_matrices(a_words, a_tile + lane % 16 * 16 + lane / 16 * 8);
  if constexpr (Transposed) {  // the words of b are rows of bᵀ: no further transposition
    load_matrices(b_words, b_tile + lane % 8 * 16 + lane / 8 % 2 * 8);
  } else {
    load_matrices_transposed(b_words, b_tile + lane % 16 * 8);
  }
  float c[4];
  float* const rows[2] = {d + lane / 4 * 8 + lane % 4 * 2, d + (lane / 4 + 8) * 8 + lane % 4 * 2};
  for (int i = 0; i < 4; ++i) c[i] = rows[i / 2][i % 2];
  multiply_add<T>(c, a_words, b_words[0], b_words[1]);
  for (int i = 0; i < 4; ++i) rows[i / 2][i % 2] = c[i];
}

template <class T>
void check_tiles() {
  const auto a = numbers<T>(256), b = numbers<T>(128, 5);
  const auto c = numbers<float>(128, 2);
  for (const bool transposed : {false, true}) {
    const Buffer<T> a_device(a), b_device(b);
    const Buffer<float> d(c);
    check(start(transposed ? multiply_tile<T, true> : multiply_tile<T, false>, 1, 32, 768, nullptr, a_device.data,
                b_device.data, d.data));
    const auto found = d.host();
    for (std::size_t i = 0; i < 16; ++i) {
      for (std::size_t j = 0; j < 8; ++j) {
        float expected = c[i * 8 + j];
        for (std::size_t k = 0; k < 16; ++k) {
          expected += float(a[i * 16 + k]) * float(transposed ? b[j * 16 + k] : b[k * 8 + j]);
        }
        CHECK(found[i * 8 + j] == expected);
      }
    }
  }
}

TEST_CASE("tensor cores multiply tiles", "[cuda_emulator]") {
  check_tiles<bfloat16>();
  check_tiles<float16>();
  CHECK(pack<bfloat16>(1, -2) == 0xc0003f80u);
  CHECK(pack<float16>(1, -2) == 0xc0003c00u);
}

}  // namespace
