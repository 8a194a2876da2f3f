// What check.sh starts by mpirun: ranks that sum, leave, hang and throw. `ranks sums`, `ranks leave` …
// It prints what it found wrong; rank 0 prints "ok" in the end.

#include <algorithm>
#include <chrono>
#include <complex>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "mpi/exchanges.hpp"
#include "tinymoe/backend/host.hpp"
#include "tinymoe/mpi/mpi.hpp"

namespace {

using namespace tinymoe;
using tinymoe_test::exchange_rows;
using tinymoe_test::expect;

/// All that a sum needs of a backend. `Base`: detail::HostBackend tells that its numbers are on the host.
struct NoBase {};
template <class M, class Base = NoBase>
struct Minimal : Base {
  using Master = M;
  static void copy_to_host(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
  static void copy_to_device(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
  static Memory allocate(std::size_t bytes) { return detail::HostBackend().allocate(bytes); }
};

/// What rank `rank` has at `i`: of very different sizes, so that another order of the sum is another number.
double number_of(Index rank, Index i) {
  const auto mixed = static_cast<std::uint64_t>(i * 7919 + rank * 104729 + 1) * 0x9e3779b97f4a7c15u;
  return (static_cast<double>(mixed >> 40) - 8e6) * static_cast<double>(std::uint64_t{1} << (mixed >> 20) % 24);
}

/// A row of every length that matters: shorter than the ranks are many, and (`long_too`) one piece, and two and a bit.
template <class M>
void sum_rows(Mpi& ranks, const char* type, bool long_too) {
  Minimal<M> backend;
  Minimal<M, detail::HostBackend> on_host;
  const Index piece = std::max(Index{1} << 22, ranks.size() << 16) / static_cast<Index>(sizeof(M));
  for (const Index size : {Index{1}, Index{3}, Index{1001}, piece, 2 * piece + 5}) {
    if (size >= piece && !long_too) continue;
    std::vector<M> row(static_cast<std::size_t>(size)), sums(row.size());
    for (Index i = 0; i < size; ++i) {
      const auto at = static_cast<std::size_t>(i);
      row[at] = static_cast<M>(number_of(ranks.rank(), i));
      sums[at] = static_cast<M>(number_of(0, i));
      for (Index r = 1; r < ranks.size(); ++r) sums[at] += static_cast<M>(number_of(r, i));
    }
    // Even shares, those of one rank alone, and the last rank's the largest by far.
    for (const Index weight : {1, 0, 100}) {
      std::vector<Index> firsts = {0};
      for (Index r = 1; r <= ranks.size(); ++r) {
        const Index all = ranks.size() - 1 + weight;
        firsts.push_back(r == ranks.size() || all == 0 ? size : size * r / all);
      }
      if (weight == 0) std::fill(firsts.begin() + 1, firsts.end(), size);
      std::vector<M> found = row;
      const View<M> view(found.data(), 1, size);
      const auto own = static_cast<std::size_t>(ranks.rank());
      const Index first = firsts[own], count = firsts[own + 1] - first;
      const auto what = [&](const char* operation) {
        return std::string(operation) + ", " + type + ", " + std::to_string(size) + ", " + std::to_string(weight);
      };
      ranks.reduce_scatter(backend, view, firsts);
      expect(std::memcmp(found.data() + first, sums.data() + first, static_cast<std::size_t>(count) * sizeof(M)) == 0,
             what("reduce-scatter"));
      // Two beside this thread.
      expect(ranks.overlaps(on_host) && !ranks.overlaps(backend), "sums beside the calling thread");
      std::vector<M> more[2] = {row, row};
      for (auto& one : more) ranks.start_reduce_scatter(on_host, View<M>(one.data(), 1, size), firsts);
      ranks.finish(on_host);
      for (const auto& other : more) {
        expect(std::memcmp(other.data() + first, sums.data() + first, static_cast<std::size_t>(count) * sizeof(M)) == 0,
               what("reduce-scatter beside"));
      }
      std::fill(found.begin(), found.begin() + first, M(-1)),
          std::fill(found.begin() + first + count, found.end(), M(-1));
      ranks.all_gather(backend, view, firsts);
      expect(std::memcmp(found.data(), sums.data(), sums.size() * sizeof(M)) == 0, what("all-gather"));
    }
  }
}

/// `apart`: each rank has a machine of its own.
void sums(Mpi& ranks, bool apart) {
  sum_rows<float>(ranks, "float", true);
  sum_rows<double>(ranks, "double", false);
  sum_rows<std::complex<double>>(ranks, "complex", true);
  for (const std::size_t size : {0u, 1u, 5u, 200'003u}) {
    std::vector<double> found(size), sums(size);
    for (std::size_t i = 0; i < size; ++i) {
      found[i] = number_of(ranks.rank(), static_cast<Index>(i));
      for (Index r = 0; r < ranks.size(); ++r) sums[i] += number_of(r, static_cast<Index>(i));
    }
    ranks.sum(std::span(found));
    expect(found == sums, "numbers, " + std::to_string(size));
  }
  // What all get of rank 0, and where the ranks are.
  std::string text = ranks.rank() == 0 ? "from rank 0" : "           ";
  ranks.broadcast(std::as_writable_bytes(std::span(text)));
  expect(text == "from rank 0", text);
  expect(ranks.local_rank() == (apart ? 0 : ranks.rank()), "the rank on its machine");
  expect(ranks.local_size() == (apart ? 1 : ranks.size()), "the ranks of a machine");
  expect(ranks.threads() >= 1 && ranks.threads() <= detail::available_cores(), "threads");
  // A communicator of the program, of every second rank.
  MPI_Comm half = MPI_COMM_NULL;
  MPI_Comm_split(ranks.communicator(), static_cast<int>(ranks.rank() % 2), 0, &half);
  {
    Mpi others(half);
    double count = 1;
    others.sum(std::span(&count, 1));
    expect(count == static_cast<double>((ranks.size() + 1 - ranks.rank() % 2) / 2), "half the ranks");
  }
  MPI_Comm_free(&half);
}

/// Groups of ranks, and what they send each other, alone and beside a sum of all.
void exchanges(Mpi& ranks) {
  Minimal<double, detail::HostBackend> backend;
  Minimal<double> apart;  // whose rows MPI cannot read
  const auto check = [&](Mpi& group, Index row_bytes, bool beside_sums) {
    std::vector<double> row(100'000, 1);
    std::vector<Index> firsts = {0};
    for (Index r = 1; r <= ranks.size(); ++r) firsts.push_back(std::ssize(row) * r / ranks.size());
    if (beside_sums) ranks.start_reduce_scatter(backend, View<double>(row.data(), 1, std::ssize(row)), firsts);
    exchange_rows(group, backend, row_bytes);
    exchange_rows(group, apart, row_bytes);
    ranks.finish(backend);
    const auto own = static_cast<std::size_t>(ranks.rank());
    const double sum = beside_sums ? static_cast<double>(ranks.size()) : 1;
    for (Index i = firsts[own]; i < firsts[own + 1]; ++i)
      expect(row[static_cast<std::size_t>(i)] == sum, "sums beside rows");
  };
  Mpi pairs = ranks.group(ranks.rank() / 2), alike = ranks.group(ranks.rank() % 2);
  expect(pairs.rank() == ranks.rank() % 2 && alike.rank() == ranks.rank() / 2, "ranks of groups");
  for (const Index row_bytes : {1, 96, 40'000}) {
    for (const bool beside_sums : {false, true}) {
      check(ranks, row_bytes, beside_sums), check(pairs, row_bytes, beside_sums), check(alike, row_bytes, beside_sums);
    }
  }
  double count = 1;
  alike.sum(std::span(&count, 1));
  expect(count == static_cast<double>(alike.size()), "sum of a group");
}

void run(std::string_view mode) {
  const bool hangs = mode == "hang" || mode == "hang beside" || mode == "cut";
  Mpi ranks({.patience = hangs ? 1.0 : 60.0});
  double one = 1;
  ranks.sum(std::span(&one, 1));
  const bool last = ranks.rank() == ranks.size() - 1;
  if (mode == "sums" || mode == "sums apart") {
    sums(ranks, mode == "sums apart");
    exchanges(ranks);
  } else if (mode == "cut") {  // until the link is cut, of which no rank is told
    for (int i = 0;; ++i) {
      ranks.sum(std::span(&one, 1));
      if (i == 1000 && ranks.rank() == 0) std::puts("they sum"), std::fflush(stdout);
    }
  } else if (mode == "leave") {  // the last rank leaves; rank 0 is told why, and the program that ends by that ends all
    if (last) {
      ranks.leave("the disk is full");
      std::this_thread::sleep_for(std::chrono::minutes(10));
    }
    ranks.sum(std::span(&one, 1));
  } else if (mode == "hang") {
    if (last) std::this_thread::sleep_for(std::chrono::minutes(10));
    ranks.sum(std::span(&one, 1));
  } else if (mode == "hang beside") {  // in a sum beside the thread that waits for it later
    if (last) std::this_thread::sleep_for(std::chrono::minutes(10));
    Minimal<double, detail::HostBackend> backend;
    std::vector<Index> firsts(static_cast<std::size_t>(ranks.size() + 1), 1);
    firsts[0] = 0;
    ranks.start_reduce_scatter(backend, View<double>(&one, 1, 1), firsts);
    ranks.finish(backend);
  } else if (mode == "throw") {  // past its Mpi, without a word to the others
    if (last) fail<FileError>("data.txt: is not here");
    ranks.sum(std::span(&one, 1));
  } else if (mode == "killed") {
    if (last) ::raise(SIGKILL);
    ranks.sum(std::span(&one, 1));
  } else {
    fail<OptionError>("there is no mode ", mode);
  }
  ranks.meet();
  if (ranks.rank() == 0) std::puts("ok");
}

}  // namespace

int main(int count, char** values) {
  try {
    run(count == 2 ? values[1] : "");
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ranks: %s\n", error.what());
    return 1;
  }
}
