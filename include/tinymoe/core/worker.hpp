#pragma once
/// @file
/// A thread that does one piece of work after the other beside the one that gives it.

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1::detail {

/// One thread, which begins with the first work and ends with the object. One other thread makes all calls but `here`
/// and `awaited`.
class Worker {
 public:
  Worker() = default;
  Worker(const Worker&) = delete;
  ~Worker() {
    if (!thread_.joinable()) return;
    {
      const std::lock_guard lock(mutex_);
      ends_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  /// Work for after all that was given before; none of it is done after an exception.
  void give(std::function<void()> work) {
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
    {
      const std::lock_guard lock(mutex_);
      work_.push_back(std::move(work));
      idle_ = false;
    }
    changed_.notify_all();
  }

  /// Whether the caller is its thread.
  bool here() const { return std::this_thread::get_id() == thread_.get_id(); }
  /// Whether somebody waits for it; it may then use a core for its own waiting.
  bool awaited() const { return awaited_; }

  /// Returns when all that was given is done. Throws what the first work has thrown that did.
  void finish() {
    if (idle_ && !error_) return;
    awaited_ = true;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return idle_.load(); });
    awaited_ = false;
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return ends_ || !work_.empty(); });
      if (ends_) return;
      const auto work = std::move(work_.front());
      work_.pop_front();
      if (!error_) {
        lock.unlock();
        std::exception_ptr error;
        try {
          work();
        } catch (...) {
          error = std::current_exception();
        }
        lock.lock();
        if (error) error_ = error;
      }
      if (work_.empty()) {
        idle_ = true;
        changed_.notify_all();
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> work_;
  std::exception_ptr error_;
  std::atomic<bool> idle_ = true, awaited_ = false;
  bool ends_ = false;
  std::thread thread_;
};

}  // namespace tinymoe::inline v0_1::detail
