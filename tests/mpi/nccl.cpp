// What check.sh starts by mpirun, a process for each GPU: `nccl sums`, `nccl leave` … Without mpirun `nccl count`
// prints how many GPUs there are.

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "mpi/exchanges.hpp"
#include "tinymoe/mpi/nccl.hpp"

namespace {

using namespace tinymoe;
using tinymoe_test::exchange_rows;
using tinymoe_test::expect;

/// Whole numbers, so that each order of a sum gives the same.
float number_of(Index rank, Index i) { return static_cast<float>((i * 7919 + rank * 104729) % 4093 - 2046); }

/// Rows and shares of every kind: shorter than the ranks are many, empty shares, and one that is the largest by far.
template <class B>
void sum_rows(Nccl& ranks, const B& device) {
  for (const Index size : {1, 3, 1001, 3'000'017}) {
    std::vector<float> row(static_cast<std::size_t>(size)), sums(row.size()), found(row.size());
    for (Index i = 0; i < size; ++i) {
      const auto at = static_cast<std::size_t>(i);
      row[at] = number_of(ranks.rank(), i);
      for (Index r = 0; r < ranks.size(); ++r) sums[at] += number_of(r, i);
    }
    const std::size_t bytes = row.size() * sizeof(float);
    const Memory memory = device.allocate(bytes);
    const View<float> view(memory.as<float>().data, 1, size);
    for (const Index weight : {1, 0, 100}) {
      std::vector<Index> firsts = {0};
      for (Index r = 1; r <= ranks.size(); ++r) {
        const Index all = ranks.size() - 1 + weight;
        firsts.push_back(r == ranks.size() || all == 0 ? size : size * r / all);
      }
      const auto own = static_cast<std::size_t>(ranks.rank());
      const Index first = firsts[own], end = firsts[own + 1];
      const std::string what = std::to_string(size) + ", " + std::to_string(weight);
      device.copy_to_device(view.data, row.data(), bytes);
      ranks.reduce_scatter(device, view, firsts);
      device.copy_to_host(found.data(), view.data, bytes);
      for (Index i = 0; i < size; ++i) {
        const auto at = static_cast<std::size_t>(i);
        if (i >= first && i < end) {
          expect(found[at] == sums[at], "reduce-scatter, " + what);
        } else {
          found[at] = -1;
        }
      }
      // Two beside the backend's stream.
      const Memory other = device.allocate(bytes);
      const View<float> second(other.as<float>().data, 1, size);
      for (const auto& each : {view, second}) {
        device.copy_to_device(each.data, row.data(), bytes);
        ranks.start_reduce_scatter(device, each, firsts);
      }
      ranks.finish(device);
      for (const auto& each : {view, second}) {
        std::vector<float> beside(row.size());
        device.copy_to_host(beside.data(), each.data, bytes);
        for (auto at = static_cast<std::size_t>(first); at < static_cast<std::size_t>(end); ++at) {
          expect(beside[at] == sums[at], "reduce-scatter beside, " + what);
        }
      }
      device.copy_to_device(view.data, found.data(), bytes);
      ranks.all_gather(device, view, firsts);
      device.copy_to_host(found.data(), view.data, bytes);
      expect(found == sums, "all-gather, " + what);
    }
  }
}

/// In groups of two, beside a sum of all, and in a group of all.
template <class B>
void exchange(Nccl& ranks, const B& device) {
  const std::vector<float> ones(100'000, 1);
  const Memory memory = device.allocate(ones.size() * sizeof(float));
  const View<float> row(memory.as<float>().data, 1, std::ssize(ones));
  std::vector<Index> firsts = {0};
  for (Index r = 1; r <= ranks.size(); ++r) firsts.push_back(row.cols * r / ranks.size());
  Nccl pairs = ranks.group(ranks.rank() / 2);
  for (const Index row_bytes : {1, 96, 40'000}) {
    exchange_rows(ranks, device, row_bytes);
    device.copy_to_device(row.data, ones.data(), ones.size() * sizeof(float));
    ranks.start_reduce_scatter(device, row, firsts);
    exchange_rows(pairs, device, row_bytes);
    ranks.finish(device);
    float found = 0;
    device.copy_to_host(&found, row.data + firsts[static_cast<std::size_t>(ranks.rank())], sizeof(float));
    expect(found == static_cast<float>(ranks.size()), "a sum beside rows");
  }
}

void run(std::string_view mode) {
  Mpi joined({.patience = 60});
  const bool last = joined.rank() == joined.size() - 1;
  const Cuda device({.device = mode == "same" ? 0 : static_cast<int>(joined.local_rank())});
  Nccl ranks(joined, device);
  sum_rows(ranks, device);
  if (mode == "leave" && last) {
    ranks.leave("the disk is full");
    std::this_thread::sleep_for(std::chrono::minutes(10));
  }
  if (mode == "killed" && last) ::raise(SIGKILL);
  sum_rows(ranks, device);
  exchange(ranks, device);
  const CudaBfloat16 narrow({.device = static_cast<int>(joined.local_rank())});
  Nccl others(joined, narrow);  // a second communicator, of the same ranks
  sum_rows(others, narrow);
  joined.meet();
  if (joined.rank() == 0) std::puts("ok");
}

}  // namespace

int main(int count, char** values) {
  const std::string_view mode = count == 2 ? values[1] : "";
  if (mode == "count") {
    int gpus = 0;
    while (Cuda::available(gpus)) ++gpus;
    std::printf("%d\n", gpus);
    return 0;
  }
  try {
    run(mode);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "nccl: %s\n", error.what());
    return 1;
  }
}
