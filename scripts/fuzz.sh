#!/usr/bin/env bash
# Builds the fuzzers with clang's sanitizers, runs each for a while, and prints what they did; or which lines they reach.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build-fuzz seconds=20 corpus=build-fuzz/corpus only=() list=no replay=no coverage=no jobs=1

usage() {
  cat <<'END'
usage: scripts/fuzz.sh [--seconds N] [--only NAME]… [--corpus FOLDER] [--replay | --coverage] [--list] [--jobs N]

Builds tests/fuzz with clang, libFuzzer and the address and undefined-behaviour sanitizers, runs each harness, and
prints a table: executions, edges covered, findings. Without options it takes 20 seconds of fuzzing for all harnesses
together, behind the build. It fails if there is a finding; that input lies in build-fuzz/findings.

  --seconds N      of fuzzing, divided between the harnesses that run, at least one each; 0 is the same as --replay
                   (default: 20)
  --only NAME      this harness alone; may be given several times
  --corpus FOLDER  where inputs that reach new code are kept for the next call (default: build-fuzz/corpus)
  --replay         no fuzzing: only the inputs that are kept, and the seeds
  --coverage       the same without sanitizers, built into build-fuzz-coverage, and then a table of the lines that were
                   reached, by file (llvm-cov)
  --jobs N         compilers at once (default: 1; each takes up to 2 GB)
  --list           the harnesses, each with the most bytes of an input and its dictionary, once they are built
END
}
fail() {
  echo "fuzz: $*" >&2
  exit 1
}

while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=${2:?--seconds needs a number}; shift ;;
    --only) only+=("${2:?--only needs a harness}"); shift ;;
    --corpus) corpus=${2:?--corpus needs a folder}; shift ;;
    --jobs) jobs=${2:?--jobs needs a number}; shift ;;
    --replay) replay=yes ;;
    --coverage) replay=yes coverage=yes build=build-fuzz-coverage ;;
    --list) list=yes ;;
    --help | -h) usage; exit 0 ;;
    *) fail "unknown argument $1; see --help" ;;
  esac
  shift
done
for number in "$seconds" "$jobs"; do
  [[ $number =~ ^[0-9]+$ ]] || fail "expected a whole number, found \"$number\""
done

# A clang that can link a fuzzer.
clang=''
trial=$(mktemp -d)
trap 'rm -rf "$trial"' EXIT
echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' >"$trial/trial.cpp"
for candidate in "${CXX:-}" clang++ clang++-{21,20,19,18,17,16,15,14}; do
  if [[ $candidate == *clang* ]] && command -v "$candidate" >/dev/null &&
    "$candidate" -fsanitize=fuzzer,address,undefined "$trial/trial.cpp" -o "$trial/trial" 2>/dev/null; then
    clang=$candidate
    break
  fi
done
if [ -z "$clang" ]; then
  fail "there is no clang++ that has libFuzzer and the address sanitizer: install clang and its compiler-rt (Debian: clang libclang-rt-14-dev)"
fi

if [ $coverage = yes ]; then
  llvm_cov=$("$clang" -print-prog-name=llvm-cov) llvm_profdata=$("$clang" -print-prog-name=llvm-profdata)
  for tool in "$llvm_cov" "$llvm_profdata"; do
    command -v "$tool" >/dev/null || fail "there is no $tool, which --coverage needs: install llvm (Debian: llvm)"
  done
fi

generator=()
if command -v ninja >/dev/null && [ ! -f $build/CMakeCache.txt ]; then generator=(-G Ninja); fi
cmake -S . -B $build ${generator[@]+"${generator[@]}"} -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$clang" \
  -DTINYMOE_FUZZ=ON -DTINYMOE_FUZZ_COVERAGE=$coverage \
  -DTINYMOE_BUILD_EXAMPLES=OFF -DTINYMOE_CUDA=OFF -DTINYMOE_MPI=OFF >"$trial/log" 2>&1 ||
  { cat "$trial/log" >&2; fail "cannot be configured"; }
cmake --build $build --target fuzz_tinymoe --parallel "$jobs" >"$trial/log" 2>&1 ||
  { cat "$trial/log" >&2; fail "cannot be built"; }

# A program for each file of harnesses.
export LLVM_PROFILE_FILE=/dev/null  # but for what a harness runs
all=''
declare -A program_of=()
for program in "$build"/tests/fuzz/fuzzers/*; do
  harnesses=$("$program")
  all+=${harnesses:+$harnesses$'\n'}
  for name in $(cut -d' ' -f1 <<<"$harnesses"); do program_of[$name]=$program; done
done
all=${all%$'\n'}
if [ $list = yes ]; then
  echo "$all"
  exit 0
fi
chosen=()
for name in ${only[@]+"${only[@]}"}; do
  grep -q "^$name " <<<"$all" || fail "there is no harness $name: expected one of $(cut -d' ' -f1 <<<"$all" | paste -sd' ')"
  chosen+=("$name")
done
if [ ${#only[@]} -eq 0 ]; then mapfile -t chosen < <(cut -d' ' -f1 <<<"$all"); fi
if [ "$seconds" -eq 0 ]; then replay=yes; fi
each=$((seconds / ${#chosen[@]}))
if [ $each -lt 1 ]; then each=1; fi

# Each exception walks through the stack that is kept for returned functions: 64 KiB for each size of frame, instead of
# 1 MiB, make JSON three times as fast. Memory that was freed is kept for 8 MiB, so that it stays in the caches. Whoever
# looks for the cause of a finding runs it with malloc_context_size=30, for whole stacks of what was allocated.
export ASAN_OPTIONS="detect_stack_use_after_return=1:max_uar_stack_size_log=16:quarantine_size_mb=8\
:malloc_context_size=3:allocator_may_return_null=0:${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS:-}"
findings=0
[ $coverage = yes ] || printf '%-24s %12s %8s %8s %9s\n' harness executions edges inputs findings
for name in "${chosen[@]}"; do
  program=${program_of[$name]}
  read -r _ longest dictionary < <(grep "^$name " <<<"$all")
  folder=$corpus/$name results=$build/findings/$name log=$build/findings/$name.log
  mkdir -p "$folder" "$results" "$trial/seeds/$name"
  rm -f "$results"/*
  TINYMOE_FUZZ=$name TINYMOE_FUZZ_SEEDS=$trial/seeds/$name "$program" >/dev/null
  folders=("$folder" "$trial/seeds/$name")
  if [ -d "tests/fuzz/corpus/$name" ]; then folders+=("tests/fuzz/corpus/$name"); fi
  options=(-max_len="$longest" -timeout=1 -rss_limit_mb=1024 -malloc_limit_mb=256 -artifact_prefix="$results/"
    -print_final_stats=1 -reload=0)
  # Where an input takes microseconds, the choice of the next one by how rare its features are takes as long.
  case $program in */fuzz_json | */fuzz_utf8 | */fuzz_options | */fuzz_numbers) options+=(-entropic=0) ;; esac
  if [ "$dictionary" != - ]; then options+=(-dict="tests/fuzz/dictionaries/$dictionary.dict"); fi
  if [ $replay = yes ]; then options+=(-runs=0); else options+=(-max_total_time=$each -detect_leaks=1); fi
  status=0
  LLVM_PROFILE_FILE=$trial/$name.profraw TINYMOE_FUZZ=$name \
    "$program" "${options[@]}" "${folders[@]}" >"$log" 2>&1 || status=$?
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
  found=$(find "$results" -type f | wc -l)
  if [ $status -ne 0 ] && [ "$found" -eq 0 ]; then found=1; fi
  findings=$((findings + found))
  if [ $coverage = yes ] && [ "$found" -eq 0 ]; then continue; fi  # nothing was counted
  printf '%-24s %12s %8s %8s %9s\n' "$name" "${executions:--}" "${edges:--}" "$(find "$folder" -type f | wc -l)" "$found"
  if [ "$found" -gt 0 ]; then
    grep -m 3 -E "^(SUMMARY|.*runtime error|.*what\(\)|ALARM|==[0-9]+==ERROR)" "$log" | sed 's/^/    /' || true
  fi
done
if [ $coverage = yes ]; then
  shopt -s nullglob
  profiles=("$trial"/*.profraw)
  [ ${#profiles[@]} -gt 0 ] || fail "no harness has told what it reached"
  "$llvm_profdata" merge "${profiles[@]}" -o "$build/coverage.profdata"
  mapfile -t programs < <(for name in "${chosen[@]}"; do echo "-object=${program_of[$name]}"; done | sort -u)
  echo
  # Columns 8 and 9 of the report are lines and those that were missed. A template has lines where it is instantiated.
  "$llvm_cov" report "${programs[@]}" -instr-profile="$build/coverage.profdata" | awk '
    match($1, /(include\/tinymoe|programs|examples)\/.*/) && $8 > 0 {
      row(substr($1, RSTART), $8, $8 - $9)
      lines += $8; reached += $8 - $9
    }
    function row(file, lines, reached) {
      if (!printed++) printf "%-56s %8s %8s %7s\n", "file", "lines", "reached", "share"
      printf "%-56s %8d %8d %5.0f %%\n", file, lines, reached, 100 * reached / lines
    }
    END { if (printed) row("all", lines, reached); exit !printed }' || fail "$llvm_cov has told of no file"
fi
if [ $findings -gt 0 ]; then fail "findings: $findings, in $build/findings"; fi
