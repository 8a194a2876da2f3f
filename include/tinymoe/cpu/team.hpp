#pragma once
/// @file
/// The CPU's threads, as good neighbours of other programs.
///
/// An operation is cut into tasks by fixed rules. Each thread takes one after the other until none is left, so a thread
/// whose core another program uses takes fewer, and the others do not wait for its share. A thread without work spins
/// for microseconds, for the next operation is near, and then sleeps. A caller that sleeps while another thread ends
/// the last task leaves a core idle, and the system moves that thread there if its own core is taken.

#include <algorithm>
#include <atomic>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include <unistd.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/threads.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

/// What the threads of a team share. They talk by two counts: the tasks that nobody has taken, and those not done.
///
/// Nothing tells one run from the next, and nothing needs to: whoever lowers the first count has a task of the run that
/// goes on then, which does not end before that task is done; until then `job_` stays as it is.
class Crew {
 public:
  using Call = void(const void* f, Index task, Index thread);

  explicit Crew(int threads) : threads_(threads) {}
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  ~Crew() {
    if (process_ != ::getpid()) {
      (void)workers_.release();  // the child of a fork: they are not there
      return;
    }
    untaken_.store(ended);
    wake(untaken_, threads_);
    for (int i = 0; i < started_; ++i) workers_[static_cast<std::size_t>(i)].join();
  }

  void run(Index tasks, const void* f, Call* call) {
    assert(tasks < Index{asleep});
    for (const Here* at = here; at != nullptr; at = at->outer) {
      if (at->crew == this) return run_alone(tasks, f, call, at->thread);
    }
    const std::lock_guard lock(mutex_);
    const Here own{this, 0, here};
    here = &own;
    // In a task of another crew too: a worker here would not know that crew's number of the task, which has one.
    if (tasks < 2 || own.outer != nullptr) {
      run_alone(tasks, f, call, 0);
    } else {
      run_together(tasks, f, call);
    }
    here = own.outer;
  }

  static void run_alone(Index tasks, const void* f, Call* call, Index thread) {
    for (Index task = 0; task < tasks; ++task) call(f, task, thread);
  }

 private:
  static constexpr std::uint32_t ended = ~std::uint32_t{0};        // in place of the untaken tasks: leave
  static constexpr std::uint32_t asleep = std::uint32_t{1} << 31;  // beside the undone tasks: the caller sleeps

  struct Job {
    const void* f;
    Call* call;
    Index tasks;
  };

  /// A crew of whose task this thread is in the middle, its number there, and the crew in whose task that was begun.
  struct Here {
    const Crew* crew;
    Index thread;
    const Here* outer;
  };
  static constinit inline thread_local const Here* here = nullptr;

  /// Two tasks or more, on all threads.
  void run_together(Index tasks, const void* f, Call* call) {
    if (!workers_) start();
    const auto count = static_cast<std::uint32_t>(tasks);
    job_ = {f, call, tasks};
    undone_.store(count, std::memory_order_relaxed);
    untaken_.store(count);
    if (sleepers_.load() > 0) wake(untaken_, static_cast<int>(std::min<Index>(tasks - 1, threads_)));
    const std::uint32_t own = work(0);
    if (own < count && undone_.fetch_sub(own, std::memory_order_acq_rel) > own) await_the_others();
  }

  /// Where the system starts fewer threads than asked for, those do the work.
  void start() {
    workers_ = std::make_unique<std::thread[]>(static_cast<std::size_t>(threads_ - 1));
    process_ = ::getpid();
    try {
      for (; started_ < threads_ - 1; ++started_) {
        workers_[static_cast<std::size_t>(started_)] = std::thread([this, thread = started_ + 1] { serve(thread); });
      }
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
  }

  /// A worker's life.
  void serve(Index thread) {
    const Here own{this, thread, nullptr};
    here = &own;
    for (;;) {
      if (!spin_until([this] { return untaken_.load(std::memory_order_relaxed) != 0; }, worker_patience)) {
        // In this order: either the caller sees the sleeper, or the sleeper the tasks.
        sleepers_.fetch_add(1);
        sleep_while(untaken_, 0);
        sleepers_.fetch_sub(1);
      }
      if (untaken_.load(std::memory_order_relaxed) == ended) return;
      if (const std::uint32_t done = work(thread)) {
        if (undone_.fetch_sub(done, std::memory_order_acq_rel) == (done | asleep)) wake(undone_, 1);
      }
    }
  }

  /// Takes tasks and does them until none is left; their number.
  std::uint32_t work(Index thread) {
    for (std::uint32_t done = 0;; ++done) {
      std::uint32_t left = untaken_.load(std::memory_order_relaxed);
      do {
        if (left == 0 || left == ended) return done;
      } while (!untaken_.compare_exchange_weak(left, left - 1, std::memory_order_acquire, std::memory_order_relaxed));
      job_.call(job_.f, job_.tasks - Index{left}, thread);
    }
  }

  void await_the_others() {
    if (spin_until([this] { return undone_.load(std::memory_order_acquire) == 0; }, caller_patience)) return;
    std::uint32_t undone = undone_.load(std::memory_order_acquire);
    while ((undone & ~asleep) != 0) {
      if (undone & asleep || undone_.compare_exchange_weak(undone, undone | asleep)) {
        sleep_while(undone_, undone | asleep);
        undone = undone_.load(std::memory_order_acquire);
      }
    }
  }

  /// Whether `ready()` before the patience ends. With more threads than cores there is none: who spins keeps a core
  /// from who has work.
  template <class Ready>
  bool spin_until(const Ready& ready, std::chrono::nanoseconds patience) const {
    if (ready()) return true;
    if (!spins_) return false;
    const auto until = std::chrono::steady_clock::now() + patience;
    do {
      for (int i = 0; i < 16; ++i) {
        if (ready()) return true;
        pause();
      }
    } while (std::chrono::steady_clock::now() < until);
    return false;
  }

  /// Tells the processor that this thread spins.
  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  // std::atomic's own waits call sched_yield before they sleep: beside another program a thread that yields stays in
  // the queue behind it, while one that sleeps is woken for its work and gets the core.
#ifdef __linux__
  static void sleep_while(std::atomic<std::uint32_t>& word, std::uint32_t value) {
    static_assert(sizeof word == 4);
    ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
  }
  static void wake(std::atomic<std::uint32_t>& word, int sleepers) {
    ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, sleepers, nullptr, nullptr, 0);
  }
#else
  static void sleep_while(std::atomic<std::uint32_t>& word, std::uint32_t value) { word.wait(value); }
  static void wake(std::atomic<std::uint32_t>& word, int) { word.notify_all(); }
#endif

  static constexpr std::chrono::nanoseconds worker_patience = std::chrono::microseconds(50);
  static constexpr std::chrono::nanoseconds caller_patience = std::chrono::microseconds(20);

  // Apart by two cache lines, which processors fetch together. Who has taken a task has its line, and the job with it.
  alignas(128) std::atomic<std::uint32_t> untaken_{0};
  std::atomic<std::uint32_t> sleepers_{0};
  Job job_{};
  alignas(128) std::atomic<std::uint32_t> undone_{0};
  alignas(128) std::mutex mutex_;
  const int threads_;
  const bool spins_ = threads_ <= available_cores();
  int started_ = 0;
  ::pid_t process_ = ::getpid();
  std::unique_ptr<std::thread[]> workers_;
};

/// A number of threads, the caller of `run` among them. Callers on several threads wait for each other, but for a team
/// of one thread, which is nobody's but its callers'.
class Team {
 public:
  /// `threads` of 1 or more. Those besides the caller are started at the first run; where the system starts fewer,
  /// those do the work.
  explicit Team(int threads) : threads_(threads), crew_(threads > 1 ? std::make_unique<Crew>(threads) : nullptr) {}

  int threads() const { return threads_; }

  /// f(task, thread) once for each task of 0 … tasks − 1 (fewer than 2^31), begun in order, each on the thread that is
  /// free first; returns when all are done. `thread` is below `threads()`, the caller's is 0, and no two tasks have the
  /// same one at the same time. f must not throw: the program would end.
  ///
  /// A run from within a task, of this team or of another, is done by the task's thread alone, and so is a run in the
  /// child of a fork, where the other threads are missing. Fork while no other thread is in a run: the child would wait
  /// for that thread, which it does not have.
  template <class F>
  void run(Index tasks, const F& f) const {
    run_tasks(tasks, &f, [](const void* of, Index task, Index thread) { (*static_cast<const F*>(of))(task, thread); });
  }

 private:
  /// No template, so that a program compiles it once.
  [[gnu::noinline]] void run_tasks(Index tasks, const void* f, Crew::Call* call) const noexcept {
    if (!crew_) return Crew::run_alone(tasks, f, call, 0);
    crew_->run(tasks, f, call);
  }

  int threads_;
  std::unique_ptr<Crew> crew_;
};

}  // namespace tinymoe::inline v0_1::detail::cpu
