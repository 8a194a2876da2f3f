#pragma once
/// @file
/// The main function of all programs: parse the command line, run, and print errors as one line, whatever the program
/// was started with: closed or full outputs, a limit on the size of files, little memory.

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <iostream>
#include <new>
#include <sstream>
#include <string>
#include <string_view>
#include <tinymoe/core/error.hpp>
#include <type_traits>

#include "programs/lost_pages.hpp"
#include "programs/signals.hpp"

namespace programs {

/// Writes what was printed so far. Returns 0, or the reason (errno) why the standard output first took no more.
inline int output_failure() {
  static int first = 0;
  if (std::ferror(stdout) == 0) errno = 0;  // else it is the reason of what has failed just before
  std::cout.flush();
  if (std::fflush(stdout) == 0 && std::cout && std::ferror(stdout) == 0) return 0;
  if (first == 0) first = errno != 0 ? errno : EIO;
  return first;
}

/// Writes what was printed so far. Throws FileError if the standard output takes it no more.
inline void flush_output() {
  if (const int reason = output_failure(); reason != 0) {
    tinymoe::fail<tinymoe::FileError>("the standard output cannot be written: ", std::strerror(reason));
  }
}

/// Gives each standard stream that is closed the null device, so that no file which is opened later gets its number and
/// the program's text. Reading there finds the end, messages vanish, and printing is the error that it would be.
inline void hold_standard_streams() {
  for (const int number : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(number, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest number that is free, which is this one.
    if (::open("/dev/null", number == STDERR_FILENO ? O_WRONLY : O_RDONLY) < 0) ::open("/", O_RDONLY);
  }
}

/// Prints "train: …" to the standard error, after what was printed before. Returns the exit code, 1.
inline int print_error(const char* program, const char* sentence) {
  std::cout.flush();
  std::fflush(stdout);
  std::fprintf(stderr, "%s: %s\n", std::filesystem::path(program).filename().c_str(), sentence);
  return 1;
}

/// Lets no flag take a value but "true", as --quiet=2: CLI11 would take some numbers, and throw std::out_of_range of
/// others.
inline void refuse_values_of_flags(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_expected_max() == 0) option->disable_flag_override();
  }
  for (CLI::App* command : app.get_subcommands([](CLI::App*) { return true; })) refuse_values_of_flags(*command);
}

/// Parses the command line and calls `work()`, which may return the exit code. An exception becomes one line on the
/// standard error, "train: …", and the exit code 1, and so does output that could not be written. A file that outgrows
/// a limit on its size (ulimit -f) is an error of writing, not a signal. Signals end a container's process 1, too.
///
/// `end(status, sentence)` tells the sentence of an exception, if there is one, and returns the exit code.
template <class Work, class End>
int run(CLI::App& app, int count, char** values, Work&& work, End&& end) {
  hold_standard_streams();
  std::signal(SIGXFSZ, SIG_IGN);
  detail::end_at_signals_as_process_1();
  end_at_lost_pages(values[0]);
  int status = 0;
  std::string sentence;
  sentence.reserve(64);  // where there is no more memory
  try {
    try {
      refuse_values_of_flags(app);
      app.parse(count, values);
      if constexpr (std::is_void_v<decltype(work())>) {
        work();
      } else {
        status = work();
      }
    } catch (const CLI::ParseError& error) {
      app.failure_message([](const CLI::App* parsed, const CLI::Error& refusal) {
        std::string sentence = tinymoe::detail::on_one_line(refusal.what());
        const std::string_view override = " was given a disallowed flag override";  // CLI11's words
        if (sentence.ends_with(override)) {
          sentence.resize(sentence.size() - override.size());
          sentence = "--" + sentence + " is a flag: give it without a value";
        }
        const CLI::Error line(refusal.get_name(), sentence);
        return CLI::FailureMessage::simple(parsed, line);
      });
      std::ostringstream help;
      status = app.exit(error, help, std::cerr);
      std::cout << help.str();
    }
    if (status == 0) flush_output();
  } catch (const std::bad_alloc&) {
    sentence = "there is not enough memory";
  } catch (const std::exception& error) {
    sentence = error.what();
  }
  return end(status == 0 && std::ferror(stderr) != 0 ? 1 : status, sentence);
}

template <class Work>
int run(CLI::App& app, int count, char** values, Work&& work) {
  return run(app, count, values, work, [&](int status, const std::string& sentence) {
    return sentence.empty() ? status : print_error(values[0], sentence.c_str());
  });
}

}  // namespace programs
