#!/usr/bin/env bash
# What compiling a program that trains and samples costs: time and peak memory, the best of some runs.
set -euo pipefail

usage() {
  cat <<'END'
usage: bench/compile.sh [--runs N] [--run] [PROGRAM.cpp]

Compiles and links PROGRAM.cpp (default: bench/compile_program.cpp) with g++ -O2, with -O3 -march=native, and with
clang++ where it is installed. CPU time says what wall time would be with nobody else on the machine; the peak memory is
that of the largest process among the compiler's.

  --runs N   of each; the fastest counts (default: 3)
  --run      also runs what g++ -O2 made, to see that it works
END
}

here=$(cd "$(dirname "$0")" && pwd)
runs=3
execute=no
program=$here/compile_program.cpp
while [ $# -gt 0 ]; do
  case $1 in
    --runs) runs=${2:?--runs needs a number}; shift ;;
    --run) execute=yes ;;
    --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) program=$1 ;;
  esac
  shift
done

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# GNU time is not always installed; wait4 reports on a child and all children that it waited for.
cat >"$folder/measure.cpp" <<'END'
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <chrono>
#include <cstdio>
int main(int, char** arguments) {
  const auto started = std::chrono::steady_clock::now();
  const pid_t child = fork();
  if (child == 0) {
    execvp(arguments[1], arguments + 1);
    _exit(127);
  }
  int status = 1;
  rusage usage{};
  if (child < 0 || wait4(child, &status, 0, &usage) != child) return 1;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
#ifdef __APPLE__
  const double mebibytes = usage.ru_maxrss / 1048576.0;
#else
  const double mebibytes = usage.ru_maxrss / 1024.0;
#endif
  if (status != 0) {
    const bool ended = WIFEXITED(status);
    std::fprintf(stderr, "%s %s %d\n", arguments[1], ended ? "ended with status" : "was killed by signal",
                 ended ? WEXITSTATUS(status) : WTERMSIG(status));
    return 1;
  }
  const auto of = [](timeval time) { return double(time.tv_sec) + 1e-6 * double(time.tv_usec); };
  std::printf("%.2f %.2f %.0f\n", seconds.count(), of(usage.ru_utime) + of(usage.ru_stime), mebibytes);
}
END
"${CXX:-c++}" -O1 -o "$folder/measure" "$folder/measure.cpp"

flags=(-std=c++20 -fopenmp-simd -pthread -I "$here/../include")

measure() {
  local figure=$1 compiler=$2 best='' one
  shift 2
  if ! command -v "$compiler" >/dev/null; then return; fi
  for ((run = 0; run < runs; ++run)); do
    if ! one=$("$folder/measure" "$compiler" "${flags[@]}" "$@" -o "$folder/program" "$program" \
      2>"$folder/errors"); then
      echo "$figure: does not compile" >&2
      { grep -m 3 'error' "$folder/errors" || tail -n 5 "$folder/errors"; } >&2
      return
    fi
    if [ -z "$best" ] || awk "BEGIN { exit !(${one%% *} < ${best%% *}) }"; then best=$one; fi
  done
  local wall cpu memory
  read -r wall cpu memory <<<"$best"
  echo "| compile, $figure | $wall s | | |"
  echo "| compile, $figure, CPU time | $cpu s | | |"
  echo "| compile, $figure, peak memory | $memory MiB | | |"
}

measure 'g++ -O2' "${GXX:-g++}" -O2
if [ "$execute" = yes ]; then "$folder/program"; fi
measure 'g++ -O3 -march=native' "${GXX:-g++}" -O3 -march=native
measure 'clang++ -O2' "${CLANGXX:-clang++}" -O2
