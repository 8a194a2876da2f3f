#pragma once
/// @file
/// The signals whose default ends a program, and how they end it.

#include <signal.h>  // pthread_sigmask
#include <unistd.h>

#include <utility>

namespace programs::detail {

/// What people, terminals, schedulers and the kernel send to end a program that may save first: every signal whose
/// default ends a process, but for KILL and those that tell of a fault. The real-time signals are of the same kind.
inline constexpr std::pair<int, const char*> ending_signals[] = {
    {SIGHUP, "SIGHUP"},       {SIGINT, "SIGINT"},   {SIGQUIT, "SIGQUIT"}, {SIGTERM, "SIGTERM"},
    {SIGUSR1, "SIGUSR1"},     {SIGUSR2, "SIGUSR2"}, {SIGALRM, "SIGALRM"}, {SIGVTALRM, "SIGVTALRM"},
    {SIGPROF, "SIGPROF"},     {SIGXCPU, "SIGXCPU"}, {SIGPIPE, "SIGPIPE"}, {SIGXFSZ, "SIGXFSZ"},
#if defined(__linux__)
    {SIGIO, "SIGIO"},         {SIGPWR, "SIGPWR"},
#endif
#if defined(SIGSTKFLT)
    {SIGSTKFLT, "SIGSTKFLT"},
#endif
};

/// f(signal) for each of them.
template <class F>
void for_each_ending_signal(F&& f) {
  for (const auto& [signal, name] : ending_signals) f(signal);
#if defined(SIGRTMIN)
  for (int signal = SIGRTMIN; signal <= SIGRTMAX; ++signal) f(signal);
#endif
}

/// A signal handler: ends the program by the signal's default, without a return to the handler's thread. The kernel
/// takes no default for process 1, as a container's program is: that exits, with the status that a shell gives.
inline void end_by(int signal) {
  ::signal(signal, SIG_DFL);
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, signal);
  ::pthread_sigmask(SIG_UNBLOCK, &only, nullptr);  // a handler's own signal is blocked
  ::raise(signal);
  ::_exit(128 + signal);
}

inline void set_handler(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  ::sigaction(signal, &action, nullptr);
}

/// What happens at a signal: SIG_DFL, SIG_IGN, or a handler.
inline auto handler_of(int signal) {
  struct sigaction action {};
  ::sigaction(signal, nullptr, &action);
  return action.sa_handler;
}

/// Process 1 gets the defaults of signals from this: without handlers, the kernel drops them.
inline void end_at_signals_as_process_1() {
  if (::getpid() != 1) return;
  for_each_ending_signal([](int signal) {
    if (handler_of(signal) == SIG_DFL) set_handler(signal, end_by);
  });
}

}  // namespace programs::detail
