#pragma once
/// @file
/// Signals that end a run early, with its checkpoint.

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <iostream>

#include "programs/main.hpp"
#include "programs/signals.hpp"

namespace programs {

namespace detail {

// A signal of the process may be handled on any of its threads.
inline std::atomic<int> interrupted_by = 0;      // the first signal
inline std::atomic<std::int64_t> asked_at = -1;  // when a person or a scheduler first asked, in milliseconds
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<std::int64_t>::is_always_lock_free,
              "a signal handler uses them");

/// A second INT, TERM or QUIT ends the program at once. One in the same tenth of a second is the first one again: the
/// program `timeout`, for example, signals a process and then its group. The other signals may come often: a terminal
/// that closes sends HUP twice, and the kernel XCPU every second.
inline void on_signal(int signal) {
  const int kept = errno;
  int none = 0;
  interrupted_by.compare_exchange_strong(none, signal);
  if (signal == SIGINT || signal == SIGTERM || signal == SIGQUIT) {
    const auto since = std::chrono::steady_clock::now().time_since_epoch();
    const std::int64_t now = std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
    std::int64_t first = -1;
    if (!asked_at.compare_exchange_strong(first, now) && now - first > 100) {
      end_by(signal);
    }
  }
  errno = kept;
}

}  // namespace detail

/// From now on PIPE only asks the run to end: whoever stops reading the output, as `head` does, ends the run so.
inline void catch_end_of_pipe() { detail::set_handler(SIGPIPE, detail::on_signal); }

/// From now on these signals only ask the run to end. One that the program was started to ignore, as nohup does with
/// HUP, stays ignored; but INT and QUIT are taken, since a shell's script ignores them for each job in the background.
/// PIPE and XFSZ are taken too: their writes fail in any case. One that a library has taken, as profilers take PROF,
/// stays that library's.
inline void catch_interruptions() {
  detail::for_each_ending_signal([](int signal) {
    const auto handler = detail::handler_of(signal);
    const bool always = signal == SIGINT || signal == SIGQUIT || signal == SIGPIPE || signal == SIGXFSZ;
    if (always || handler == SIG_DFL || handler == detail::end_by) detail::set_handler(signal, detail::on_signal);
  });
}

/// Whether the run is asked to end.
inline bool interrupted() { return detail::interrupted_by != 0; }

/// The signal that asked first: "SIGTERM".
inline const char* interruption() {
  const int by = detail::interrupted_by;
  for (const auto& [signal, name] : detail::ending_signals) {
    if (signal == by) return name;
  }
  return "a real-time signal";
}

/// Writes a line of progress. Where nobody reads the output any more, the run is asked to end, as by PIPE, even if that
/// signal is ignored. Other failures do not stop a run: they are told when it ends.
inline void flush_progress() {
  if (output_failure() == EPIPE && !interrupted()) detail::interrupted_by = SIGPIPE;
}

/// Where the standard output takes no more, what is printed from now on goes to the standard error.
inline void print_to_error_if_cut() {
  if (std::ferror(stdout) == 0 && std::cout) return;
  ::dup2(STDERR_FILENO, STDOUT_FILENO);
  std::clearerr(stdout);
  std::cout.clear();
}

}  // namespace programs
