#pragma once
/// @file
/// The main function of all programs: parse the command line, run, and print errors as one line.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <type_traits>

namespace programs {

/// Parses the command line and calls `work()`, which may return the exit code. An exception becomes one line on the
/// standard error, "train: …", and the exit code 1.
template <class Work>
int run(CLI::App& app, int count, char** values, Work&& work) {
  try {
    app.parse(count, values);
    if constexpr (std::is_void_v<decltype(work())>) {
      work();
      return 0;
    } else {
      return work();
    }
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  } catch (const std::exception& error) {
    std::cout.flush();
    std::fflush(stdout);
    std::fprintf(stderr, "%s: %s\n", std::filesystem::path(values[0]).filename().c_str(), error.what());
    return 1;
  }
}

}  // namespace programs
