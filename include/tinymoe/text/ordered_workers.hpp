#pragma once
/// @file
/// Threads that work on blocks of text while one thread reads and writes. Memory is bounded, and the blocks keep their
/// order.

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_range.hpp"
#include "tinymoe/core/threads.hpp"
#include "tinymoe/text/story_source.hpp"

namespace tinymoe::inline v0_1::detail {

/// The number of threads to use where the caller asked for `threads`; 0 asks for one for each core that the process may
/// run on. Throws OptionError for a number below 0 or above `max_threads`.
inline int thread_count(int threads) {
  check_option("the number of threads", threads, range::whole(0, max_threads));
  return threads > 0 ? threads : available_cores();
}

/// Stories, and what a thread makes of them.
struct StoryBlock {
  StoryList stories;
  std::vector<std::byte> result = {};
};

/// `push` gives a block to one of the threads. `finish` gets the finished blocks on the thread that pushes, in the
/// order of `push`. At most two blocks a thread are alive. What a worker throws, `push` or `drain` throws.
class OrderedWorkers {
 public:
  using Work = std::function<void(StoryBlock&)>;

  /// `make_work()` is called once for each thread, here, and its result is called by that thread only. Where the system
  /// starts fewer threads, those do the work. Throws DeviceError if it starts none.
  OrderedWorkers(int threads, const std::function<Work()>& make_work, Work finish) : finish_(std::move(finish)) {
    try {
      for (int i = 0; i < threads; ++i) threads_.emplace_back([this, work = make_work()] { run(work); });
    } catch (const std::system_error& error) {
      if (threads_.empty()) {
        fail<DeviceError>("no thread can be started: ", error.code().message(),
                          "; end other programs, or raise the limits on processes and memory (ulimit -u, ulimit -v)");
      }
    } catch (...) {
      stop();
      throw;
    }
    limit_ = 2 * threads_.size();
  }
  OrderedWorkers(const OrderedWorkers&) = delete;
  OrderedWorkers& operator=(const OrderedWorkers&) = delete;
  ~OrderedWorkers() { stop(); }

  void push(StoryList stories) {
    if (in_flight_.size() >= limit_) finish_oldest();
    in_flight_.push_back(std::make_unique<Slot>(std::move(stories)));
    {
      const std::lock_guard lock(mutex_);
      waiting_.push_back(in_flight_.back().get());
    }
    work_came_.notify_one();
  }

  /// Finishes all blocks that were pushed.
  void drain() {
    while (!in_flight_.empty()) finish_oldest();
  }

 private:
  struct Slot {
    explicit Slot(StoryList stories) : block{std::move(stories)} {}
    StoryBlock block;
    bool done = false;
    std::exception_ptr error;
  };

  void finish_oldest() {
    {
      std::unique_lock lock(mutex_);
      slot_done_.wait(lock, [&] { return in_flight_.front()->done; });
    }
    const auto slot = std::move(in_flight_.front());
    in_flight_.pop_front();
    if (slot->error) std::rethrow_exception(slot->error);
    finish_(slot->block);
  }

  void run(const Work& work) {
    for (;;) {
      std::unique_lock lock(mutex_);
      work_came_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
      if (stopping_) return;
      Slot& slot = *waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      try {
        work(slot.block);
      } catch (...) {
        slot.error = std::current_exception();
      }
      lock.lock();
      slot.done = true;
      slot_done_.notify_one();
    }
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    work_came_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  Work finish_;
  std::size_t limit_ = 0;
  std::mutex mutex_;
  std::condition_variable work_came_, slot_done_;
  std::deque<std::unique_ptr<Slot>> in_flight_;  // in the order of `push`; of the pushing thread
  std::deque<Slot*> waiting_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace tinymoe::inline v0_1::detail
