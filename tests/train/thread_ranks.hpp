#pragma once
// Ranks that are threads of the test: communicators of shared memory.

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/worker.hpp"
#include "tinymoe/train/any_communicator.hpp"
#include "tinymoe/train/communicator.hpp"

namespace tinymoe_test::ranks {

using namespace tinymoe;

/// Ranks that share memory. All get all numbers, and add them in the order of the ranks, so that all have the same
/// bits. What a rank does not own is spoilt, so that nothing can rely on it.
class Threads {
 public:
  explicit Threads(Index size) : shared_(std::make_shared<Shared>(size)) {}
  explicit Threads(std::nullptr_t) {}

  Threads of(Index rank) const {
    Threads one = *this;
    one.rank_ = rank;
    return one;
  }
  Index rank() const { return rank_; }
  Index size() const { return std::ssize(shared_->given); }
  /// Groups are named by their ranks: each is made once, by the first that comes.
  Threads group(Index color) {
    std::vector<double> colors(static_cast<std::size_t>(size()));
    colors[static_cast<std::size_t>(rank_)] = static_cast<double>(color + 1);
    sum(std::span(colors));
    Threads one(nullptr);
    const auto of_color = [&](double other) { return other == static_cast<double>(color + 1); };
    {
      const std::lock_guard lock(shared_->mutex);
      auto& group = shared_->groups[{color, shared_->grouped[static_cast<std::size_t>(rank_)]++}];
      if (!group) group = std::make_shared<Shared>(std::count_if(colors.begin(), colors.end(), of_color));
      one.shared_ = group;
    }
    one.rank_ = std::count_if(colors.begin(), colors.begin() + rank_, of_color);
    return one;
  }
  void exchange_numbers(std::span<const std::int32_t> send, std::span<std::int32_t> receive) {
    const std::size_t each = send.size() / static_cast<std::size_t>(size());
    std::vector<double> numbers(send.begin(), send.end());
    shared_->given[static_cast<std::size_t>(rank_)] = numbers;
    wait();
    for (std::size_t i = 0; i < receive.size(); ++i) {
      receive[i] =
          static_cast<std::int32_t>(shared_->given[i / each].at(static_cast<std::size_t>(rank_) * each + i % each));
    }
    wait();
  }
  template <class B>
  void start_exchange(B& backend, const void* from, std::span<const Index> send, void* to,
                      std::span<const Index> receive, std::size_t row_bytes) {
    auto& sent = shared_->sent[static_cast<std::size_t>(rank_)];
    sent.assign(static_cast<std::size_t>(size()), {});
    const auto* bytes = static_cast<const std::byte*>(from);
    for (std::size_t r = 0; r < sent.size(); ++r) {
      const std::size_t count = static_cast<std::size_t>(send[r]) * row_bytes;
      if (static_cast<Index>(r) != rank_) {
        sent[r].resize(count);
        backend.copy_to_host(sent[r].data(), bytes, count);
      }
      bytes += count;
    }
    receive_ = {static_cast<std::byte*>(to), {receive.begin(), receive.end()}, row_bytes};
  }
  template <class B>
  void finish_exchange(B& backend) {
    wait();
    std::byte* to = receive_.to;
    for (std::size_t r = 0; r < receive_.rows.size(); ++r) {
      const std::size_t count = static_cast<std::size_t>(receive_.rows[r]) * receive_.row_bytes;
      if (static_cast<Index>(r) != rank_) {
        const auto& sent = shared_->sent[r][static_cast<std::size_t>(rank_)];
        if (sent.size() != count) fail<TrainingError>("a rank expects other rows than it is sent");
        backend.copy_to_device(to, sent.data(), count);
      }
      to += count;
    }
    wait();
  }
  /// This rank makes no more calls; those that wait for it throw.
  void drop() {
    shared_->dropped = true;
    shared_->barrier.arrive_and_drop();
  }

  template <class B>
  void reduce_scatter(B& backend, View<typename B::Master> row, std::span<const Index> firsts) {
    replace(backend, row, firsts, [&](std::vector<double>& numbers, std::size_t from, std::size_t to) {
      sum(std::span<double>(numbers));
      std::fill_n(numbers.begin(), from, 1e30), std::fill(numbers.begin() + std::ptrdiff_t(to), numbers.end(), 1e30);
    });
  }
  template <class B>
  void all_gather(B& backend, View<typename B::Master> row, std::span<const Index> firsts) {
    replace(backend, row, firsts, [&](std::vector<double>& numbers, std::size_t, std::size_t) {
      shared_->given[static_cast<std::size_t>(rank_)] = numbers;
      wait();
      for (std::size_t r = 0; r + 1 < firsts.size(); ++r) {
        const auto& given = shared_->given[r];
        std::copy(given.begin() + firsts[r], given.begin() + firsts[r + 1], numbers.begin() + firsts[r]);
      }
      wait();
    });
  }
  void sum(std::span<double> numbers) {
    shared_->given[static_cast<std::size_t>(rank_)].assign(numbers.begin(), numbers.end());
    wait();
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = 0;
      for (const auto& given : shared_->given) numbers[i] += given.at(i);
    }
    wait();
  }

 private:
  void wait() {
    if (shared_->dropped) fail<DeviceError>("another rank has gone");
    shared_->barrier.arrive_and_wait();
  }
  /// f(the row as numbers, where this rank's share begins, where it ends).
  template <class B, class F>
  void replace(B& backend, View<typename B::Master> row, std::span<const Index> firsts, F&& f) {
    if (std::ssize(firsts) != size() + 1 || firsts.front() != 0 || firsts.back() != row.cols ||
        !std::is_sorted(firsts.begin(), firsts.end())) {
      fail<TrainingError>("wrong shares");  // no REQUIRE: Catch2 counts in one thread
    }
    std::vector<typename B::Master> host(static_cast<std::size_t>(row.cols));
    backend.copy_to_host(host.data(), row.data, host.size() * sizeof(host[0]));
    std::vector<double> numbers(host.begin(), host.end());
    const auto own = static_cast<std::size_t>(rank_);
    f(numbers, static_cast<std::size_t>(firsts[own]), static_cast<std::size_t>(firsts[own + 1]));
    std::transform(numbers.begin(), numbers.end(), host.begin(),
                   [](double number) { return static_cast<typename B::Master>(number); });
    backend.copy_to_device(row.data, host.data(), host.size() * sizeof(host[0]));
  }

  struct Shared {
    explicit Shared(Index size)
        : barrier(size),
          given(static_cast<std::size_t>(size)),
          sent(static_cast<std::size_t>(size)),
          grouped(static_cast<std::size_t>(size)) {}
    std::barrier<> barrier;
    std::atomic<bool> dropped = false;
    std::vector<std::vector<double>> given;
    std::vector<std::vector<std::vector<std::byte>>> sent;  // of each rank, to each
    std::mutex mutex;
    std::vector<int> grouped;  // how often each rank has asked for a group
    std::map<std::pair<Index, int>, std::shared_ptr<Shared>> groups;
  };
  struct Receive {
    std::byte* to = nullptr;
    std::vector<Index> rows;
    std::size_t row_bytes = 0;
  };

  std::shared_ptr<Shared> shared_;
  Index rank_ = 0;
  Receive receive_;
};
static_assert(Communicator<Threads> && GroupingCommunicator<Threads>);

/// The same, which sums gradients in another thread while backward goes on.
class Beside : public Threads {
 public:
  explicit Beside(const Threads& ranks) : Threads(ranks) {}
  Beside group(Index color) { return Beside(Threads::group(color)); }
  template <class B>
  static bool overlaps(const B&) {
    return true;
  }
  template <class B>
  void start_reduce_scatter(B& backend, View<typename B::Master> row, std::span<const Index> firsts) {
    worker_->give([ranks = static_cast<Threads&>(*this), &backend, row, firsts]() mutable {
      ranks.reduce_scatter(backend, row, firsts);
    });
    if (on_start) on_start(row.data);
  }
  template <class B>
  void finish(B&) {
    worker_->finish();
  }
  std::function<void(const void*)> on_start;  // of each row, before this rank goes on

 private:
  std::shared_ptr<tinymoe::detail::Worker> worker_ = std::make_shared<tinymoe::detail::Worker>();
};
static_assert(OverlappingCommunicator<Beside> && GroupingCommunicator<Beside> && !OverlappingCommunicator<Threads>);

/// f(communicator) on so many threads.
template <class F>
void on_ranks(Index size, F&& f) {
  const Threads all(size);
  std::vector<std::thread> threads;
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(size));
  for (Index rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        f(all.of(rank));
      } catch (...) {
        errors[static_cast<std::size_t>(rank)] = std::current_exception();
        all.of(rank).drop();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace tinymoe_test::ranks
