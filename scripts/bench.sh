#!/usr/bin/env bash
# Builds the benchmarks, runs them all and writes a table of results in Markdown to standard output.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'END'
usage: scripts/bench.sh [--quick] [--build FOLDER] [--kernels] [--minutes M] [--peer PYTHON]

Runs the benchmarks of bench/ one after the other and writes a table: figure, required, measured, limit, share of the
limit. All other output goes to standard error. Run it on an idle machine.

  --quick          few repetitions, to check that everything works
  --build FOLDER   where to build (default: build-bench)
  --kernels        also single operations (Google Benchmark), to standard error
  --minutes M      of training for the quality figure (default: 5; 0: leave it out)
  --peer PYTHON    also the same model in PyTorch, with this interpreter; marked so in the table

Stories come from the file or folder in TINYMOE_DATA, else from data/. Without stories, the text and quality benchmarks are
left out.
END
}

quick=no
kernels=no
minutes=5
build='build-bench'
peer=''
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=yes ;;
    --kernels) kernels=yes ;;
    --build) build=${2:?--build needs a folder}; shift ;;
    --minutes) minutes=${2:?--minutes needs a number}; shift ;;
    --peer) peer=${2:?--peer needs a Python interpreter}; shift ;;
    --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

say() { printf '\n== %s\n' "$*" >&2; }

# Some machines preset it to a processor of 2013, which makes OpenBLAS slow.
unset OPENBLAS_CORETYPE

# The required value of a figure, if it has one.
required() {
  case $1 in
    'train, float32, 1024 tokens a step') echo '300 tok/s, aim 450' ;;
    'decode, float32, one stream') echo '80 tok/s' ;;
    'training memory, bytes a parameter without activations') echo '16 bytes' ;;
    'learn BPE 2048') echo '10 s' ;;
    'encode with BPE 2048') echo '2 s' ;;
    'bits per byte after 5 min of training') echo '1.05, aim 0.95' ;;
    'compile, g++ -O2') echo '20 s' ;;
    'compile, g++ -O2, peak memory') echo '1536 MiB' ;;
  esac
}

# The file in a folder of stories that the first matching pattern names.
story_file() {
  local folder=$1 pattern found
  shift
  for pattern in "$@"; do
    for found in "$folder"/$pattern; do
      if [ -f "$found" ]; then
        echo "$found"
        return
      fi
    done
  done
}

data=${TINYMOE_DATA:-data}
training=''
validation=''
if [ -f "$data" ]; then
  training=$data
elif [ -d "$data" ]; then
  training=$(story_file "$data" '*train*.txt')
  validation=$(story_file "$data" '*valid*.txt')
fi

say "Building in $build"
generator=()
if command -v ninja >/dev/null && [ ! -f "$build/CMakeCache.txt" ]; then generator=(-G Ninja); fi
cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DTINYMOE_BUILD_BENCH=ON -DTINYMOE_BUILD_TESTS=OFF \
  -DTINYMOE_BUILD_EXAMPLES=OFF >&2
cmake --build "$build" >&2

rows=$(mktemp)
trap 'rm -f "$rows"' EXIT

# Runs a program and collects its rows, which start with "| ", for the table.
measure() {
  local note=$1
  shift
  say "$*"
  "$@" | tee -a /dev/stderr | { grep '^| ' || true; } | sed "s/^| /| $note/" >>"$rows"
}

step=()
decode=()
text=()
compile=()
peer_arguments=()
if [ "$quick" = yes ]; then
  step=(--steps 1 --warmup 1)
  decode=(--tokens 4 --repeats 1)
  text=(--repeats 1)
  compile=(--runs 1)
  peer_arguments=(--steps 1 --tokens 4 --repeats 1)
  if [ "$minutes" != 0 ]; then minutes=0.1; fi
fi

measure '' "$build/bench/bench_step" "${step[@]}"
measure '' "$build/bench/bench_decode" "${decode[@]}"
if [ -n "$training" ]; then
  measure '' "$build/bench/bench_text" "$training" "${text[@]}"
else
  say "No stories in $data: text and quality are left out"
fi
if [ -n "$validation" ] && [ "$minutes" != 0 ]; then
  measure '' "$build/bench/bench_quality" "$training" "$validation" --minutes "$minutes"
fi
measure '' bench/compile.sh "${compile[@]}"
if [ -n "$peer" ]; then
  measure 'PyTorch: ' "$peer" bench/peer_torch.py "${peer_arguments[@]}"
fi
if [ "$kernels" = yes ]; then
  say "$build/bench/bench_kernels"
  "$build/bench/bench_kernels" --benchmark_min_time="$([ "$quick" = yes ] && echo 0.01 || echo 0.3)" >&2
fi

say "Results"
echo '| figure | required | measured | limit | share of the limit |'
echo '|---|---|---|---|---|'
while IFS='|' read -r _ figure measured limit share _; do
  figure=${figure# }
  figure=${figure% }
  echo "| $figure | $(required "$figure") |$measured|$limit|$share|"
done <"$rows"
