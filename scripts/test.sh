#!/usr/bin/env bash
# Installs what is missing, builds and runs every test. The last line is always "N passed, N failed, N skipped".
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/test.sh [--preset default|debug|cuda|asan|tsan] [--no-install] [arguments of ctest…]

  scripts/test.sh                   all tests of an optimised build
  scripts/test.sh -R layers         those whose name matches
  scripts/test.sh --preset asan     under the address and undefined-behaviour sanitizers
  scripts/test.sh --preset tsan     under the thread sanitizer
  --no-install                      take the machine as it is
END
}

# Until the tests have run, the truth is one failure: what was to be tested is not there.
passed=0 failed=1 skipped=0
trap 'status=$?; echo "$passed passed, $failed failed, $skipped skipped"; exit $status' EXIT

preset=default
install=yes
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --preset)
      preset=${2:?--preset needs a name}
      shift
      ;;
    --preset=*) preset=${1#*=} ;;
    --no-install) install=no ;;
    --help | -h)
      trap - EXIT
      usage
      exit 0
      ;;
    *) arguments+=("$1") ;;
  esac
  shift
done

cd "$(dirname "$0")/.."
build=build
if [ "$preset" != default ]; then build=build-$preset; fi

if [ $install = yes ]; then scripts/install_dependencies.sh; fi

# A compiler may take 2.5 GB: no more at once than there are cores, or memory for.
jobs=$(nproc)
available=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo 2>/dev/null || true)
limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || true)
if [[ $limit =~ ^[0-9]+$ ]] && { [ -z "$available" ] || [ $((limit >> 20)) -lt "$available" ]; }; then
  available=$((limit >> 20))
fi
if [ -n "$available" ] && [ $((available / 2500)) -lt "$jobs" ]; then jobs=$((available / 2500)); fi
if [ "$jobs" -lt 1 ]; then jobs=1; fi

# The presets ask for Ninja; make will do, and a folder that is there keeps what it has.
generator=()
if [ -f $build/CMakeCache.txt ]; then
  generator=(-G "$(sed -n 's/^CMAKE_GENERATOR:INTERNAL=//p' $build/CMakeCache.txt)")
elif ! command -v ninja >/dev/null; then
  generator=(-G "Unix Makefiles")
fi
# The programs get the presets and variants that a test runs, two of them in bfloat16 and with integer weights too: all
# of them take three minutes more. A folder that was configured for other presets keeps them.
presets=()
if [ ! -f $build/CMakeCache.txt ]; then
  presets=("-DTINYMOE_EXAMPLE_PRESETS=story;story_mixtral;story_dense;pocket;nanogpt;mymoe_pocket;deepseek_mini_pocket;\
characters;characters_4x2"
           "-DTINYMOE_EXAMPLE_NARROW_PRESETS=story;pocket"
           "-DTINYMOE_EXAMPLE_VARIANTS=dense;experts_8;bias;mix_0m3")
fi
cmake --preset "$preset" ${generator[@]+"${generator[@]}"} ${presets[@]+"${presets[@]}"}
cmake --build --preset "$preset" --parallel "$jobs"

results=$PWD/$build/results.xml
rm -f "$results"
status=0
ctest --preset "$preset" --parallel "$jobs" --output-junit "$results" ${arguments[@]+"${arguments[@]}"} || status=$?

# ctest marks a test that said "skip me" and one that it could not start both as "notrun"; the message tells them apart.
if [ -f "$results" ]; then
  read -r passed failed skipped < <(awk '
    /<testcase / { status = $0; sub(/.* status="/, "", status); sub(/".*/, "", status)
                   if (status == "run") ++passed; else if (status == "disabled") ++skipped; else ++failed }
    /<skipped message="SKIP_/ && status == "notrun" { --failed; ++skipped }
    END { print passed + 0, failed + 0, skipped + 0 }' "$results")
fi
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then failed=1; fi
if [ $((passed + failed)) -eq 0 ]; then
  echo "no test ran" >&2
  failed=1
fi
[ "$failed" -eq 0 ]
