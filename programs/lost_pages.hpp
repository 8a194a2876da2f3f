#pragma once
/// @file
/// A mapped file that shrinks, or whose disk fails, while a program reads it: the kernel sends BUS, whose default is a
/// crash. A library leaves a process's signals alone; a program may end with a sentence.

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstring>

namespace programs {

namespace detail {

inline char program_name[256] = "";  // for the handler

/// Finds the file that is mapped at an address in /proc/self/maps, whose lines are "7f00-7f80 r--p 0 08:01 42 /file".
/// Calls only what a signal handler may. False if there is none.
inline bool file_mapped_at(std::uintptr_t address, char* name, std::size_t size) {
  const int maps = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  if (maps < 0) return false;
  char bytes[1024];
  std::uintptr_t ends[2] = {};
  std::size_t length = 0;
  int end = 0;  // which of the two addresses is read; 2: both are
  bool here = false;
  for (ssize_t count; !here && (count = ::read(maps, bytes, sizeof bytes)) > 0;) {
    for (ssize_t i = 0; i < count && !here; ++i) {
      const char c = bytes[i];
      if (c == '\n') {
        here = length > 0 && ends[0] <= address && address < ends[1];
        if (here) break;
        ends[0] = ends[1] = 0, length = 0, end = 0;
      } else if (end < 2) {
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) {
          ++end;
        } else {
          ends[end] = 16 * ends[end] + static_cast<std::uintptr_t>(digit);
        }
      } else if (c == '/' || length > 0) {
        // A name may have characters that a terminal would obey.
        if (length + 1 < size) name[length++] = static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
      }
    }
  }
  ::close(maps);
  name[here ? length : 0] = '\0';
  return here;
}

inline void write_text(const char* text) { static_cast<void>(!::write(STDERR_FILENO, text, std::strlen(text))); }

/// Ends the program with a sentence where a file's page is lost; any other BUS is the crash that it would be.
inline void on_bus(int signal, siginfo_t* about, void* /*context*/) {
  char name[4096];
  const auto address = reinterpret_cast<std::uintptr_t>(about->si_addr);
  if (about->si_code != BUS_ADRERR || !file_mapped_at(address, name, sizeof name)) {
    ::signal(signal, SIG_DFL);  // the instruction runs again
    return;
  }
  write_text(program_name);
  write_text(": ");
  write_text(name);
  write_text(": became shorter while it was read, or its disk fails; what was saved before is whole\n");
  ::_exit(1);
}

}  // namespace detail

/// From now on a lost page of a mapped file ends the program with a sentence that names the file, and the status 1.
inline void end_at_lost_pages(const char* program) {
  const char* slash = std::strrchr(program, '/');
  std::strncpy(detail::program_name, slash != nullptr ? slash + 1 : program, sizeof detail::program_name - 1);
  struct sigaction action {};
  action.sa_sigaction = detail::on_bus;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace programs
