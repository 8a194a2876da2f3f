#!/usr/bin/env bash
# Builds the benchmarks, runs them all and writes a table of results in Markdown to standard output.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'END'
usage: scripts/bench.sh [--quick] [--build FOLDER] [--only PARTS] [--kernels] [--minutes M] [--peer PYTHON]

Runs the benchmarks of bench/ one after the other and writes a table: figure, required, measured, limit, share of the
limit, PyTorch. All other output goes to standard error. Run it on an idle machine.

  --quick          few repetitions, to check that everything works
  --build FOLDER   where to build (default: build-bench)
  --only PARTS     some of step, decode, story, neighbour, products, text, quality and compile, with commas between
  --kernels        also single operations (Google Benchmark), to standard error
  --minutes M      of training for the quality figure (default: 5; 0: leave it out)
  --peer PYTHON    also the same models in PyTorch, with this interpreter, for the last column

Stories come from the file or folder in TINYMOE_DATA, else from data/. Without stories, the text and quality benchmarks are
left out.
END
}

quick=no
kernels=no
minutes=5
build='build-bench'
peer=''
only='step,decode,story,neighbour,products,text,quality,compile'
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=yes ;;
    --kernels) kernels=yes ;;
    --build) build=${2:?--build needs a folder}; shift ;;
    --minutes) minutes=${2:?--minutes needs a number}; shift ;;
    --only) only=${2:?--only needs parts}; shift ;;
    --peer) peer=${2:?--peer needs a Python interpreter}; shift ;;
    --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

for part in ${only//,/ }; do
  case $part in
    step | decode | story | neighbour | products | text | quality | compile) ;;
    *) echo "--only has no part $part" >&2; exit 2 ;;
  esac
done
wanted() { [[ ,$only, == *",$1,"* ]]; }

say() { printf '\n== %s\n' "$*" >&2; }

# Some machines preset it to a processor of 2013, which makes OpenBLAS slow.
unset OPENBLAS_CORETYPE

# The required value of a figure, if it has one.
required() {
  case $1 in
    'train, float32, 1024 tokens a step') echo '650 tok/s, aim 750' ;;
    'train, bfloat16, 1024 tokens a step') echo '1600 tok/s, aim 2500' ;;
    'prefill, float32, last logits') echo '2600 tok/s, aim 3200' ;;
    'prefill, bfloat16, last logits') echo '6000 tok/s, aim 9000' ;;
    'prefill, int8, last logits' | 'prefill, int4, last logits') echo '4000 tok/s, aim 8000' ;;
    'decode, float32, one stream') echo '120 tok/s, aim 125' ;;
    'decode, bfloat16, one stream') echo '200 tok/s, aim 225' ;;
    'decode, int8, one stream') echo '340 tok/s, aim 400' ;;
    'decode, int4, one stream') echo '600 tok/s, aim 750' ;;
    'train story_mixtral, float32' | 'train story_mixtral, bfloat16') echo '45000 tok/s, aim 70000' ;;
    'train story_mixtral, '*', plain -O3 against -march=native') echo '85 %' ;;
    'train story_mixtral, float32, logged against not') echo '101 %' ;;
    'AdamW over the yardstick model, float32') echo '110 ms, aim 95' ;;
    'product, float32 1024x1536x512') echo '360 GFLOP/s, aim 400' ;;
    'product, bfloat16 256x2816x512 for each of 8 experts') echo '2000 GFLOP/s, aim 2800' ;;
    'training memory, bytes a parameter without activations') echo '16 bytes' ;;
    'train story_mixtral, float32, beside one busy process') echo '45 % of alone' ;;
    'train story_mixtral, float32, beside two busy processes') echo '30 % of alone' ;;
    'learn BPE 2048') echo '10 s' ;;
    'encode with BPE 2048') echo '2 s' ;;
    'bits per byte after 5 min of training') echo '1.05, aim 0.95' ;;
    'compile, g++ -O2') echo '13 s' ;;
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
targets=()
for part in ${only//,/ }; do
  if [ "$part" != compile ]; then targets+=("bench_$part"); fi
done
if wanted story; then targets+=(bench_story_plain); fi
if [ "$kernels" = yes ]; then targets+=(bench_kernels); fi
if [ ${#targets[@]} -gt 0 ]; then cmake --build "$build" --target "${targets[@]}" >&2; fi

rows=$(mktemp)
peer_rows=$(mktemp)
pairs=$(mktemp)
trap 'rm -f "$rows" "$peer_rows" "$pairs"' EXIT

# Runs a program and collects its rows, which start with "| ", in a file.
measure() {
  local file=$1
  shift
  say "$*"
  "$@" | tee -a /dev/stderr | { grep '^| ' || true; } >>"$file"
}

# The speed of the program without -march=native as a share of the other's, run in turns: the median of three pairs.
plain_against_native() {
  local turn kind
  for turn in 1 2 3; do
    say "$build/bench/bench_story and bench_story_plain, $turn of 3"
    "$build/bench/bench_story_plain" "${story[@]}" | tee -a /dev/stderr | sed -n 's/^| /| plain | /p' >>"$pairs"
    "$build/bench/bench_story" "${story[@]}" | tee -a /dev/stderr | sed -n 's/^| /| native | /p' >>"$pairs"
  done
  for kind in float32 bfloat16; do
    awk -F' *[|] *' -v figure="train story_mixtral, $kind" '
      $3 == figure && $2 == "plain" { plain = $4 + 0 }
      $3 == figure && $2 == "native" { print 100 * plain / $4 }' "$pairs" | sort -n | sed -n 2p |
      xargs printf "| train story_mixtral, $kind, plain -O3 against -march=native | %.0f %% | | |\n" >>"$rows"
  done
}

step=()
decode=()
story=()
logs=(--seconds 60)
products=()
neighbour=()
text=()
compile=()
peer_arguments=()
if [ "$quick" = yes ]; then
  step=(--steps 1 --warmup 1)
  decode=(--tokens 4 --repeats 1 --streams 4)
  story=(--seconds 0.5)
  logs=(--seconds 1)
  products=(--seconds 0.1)
  neighbour=(--rounds 1 --seconds 1)
  text=(--repeats 1)
  compile=(--runs 1)
  peer_arguments=(--steps 1 --tokens 4 --repeats 1 --seconds 0.1)
  if [ "$minutes" != 0 ]; then minutes=0.1; fi
fi

if wanted step; then measure "$rows" "$build/bench/bench_step" "${step[@]}"; fi
if wanted decode; then measure "$rows" "$build/bench/bench_decode" "${decode[@]}"; fi
if wanted story; then
  measure "$rows" "$build/bench/bench_story" "${story[@]}"
  plain_against_native
  measure "$rows" "$build/bench/bench_story" --logs "${logs[@]}"
fi
if wanted neighbour; then measure "$rows" "$build/bench/bench_neighbour" "${neighbour[@]}"; fi
if wanted products; then measure "$rows" "$build/bench/bench_products" "${products[@]}"; fi
if [ -z "$training" ]; then
  say "No stories in $data: text and quality are left out"
elif wanted text; then
  measure "$rows" "$build/bench/bench_text" "$training" "${text[@]}"
fi
if [ -n "$validation" ] && [ "$minutes" != 0 ] && wanted quality; then
  measure "$rows" "$build/bench/bench_quality" "$training" "$validation" --minutes "$minutes"
fi
if wanted compile; then measure "$rows" bench/compile.sh "${compile[@]}"; fi
if [ -n "$peer" ]; then
  for kind in float32 bfloat16; do
    measure "$peer_rows" "$peer" bench/peer_torch.py --type "$kind" "${peer_arguments[@]}"
  done
fi
if [ "$kernels" = yes ]; then
  say "$build/bench/bench_kernels"
  "$build/bench/bench_kernels" --benchmark_min_time="$([ "$quick" = yes ] && echo 0.01 || echo 0.3)" >&2
fi

say "Results"
declare -A of_peer
while IFS='|' read -r _ figure measured _; do
  figure=${figure# }
  of_peer[${figure% }]=$measured
done <"$peer_rows"
echo '| figure | required | measured | limit | share of the limit | PyTorch |'
echo '|---|---|---|---|---|---|'
while IFS='|' read -r _ figure measured limit share _; do
  figure=${figure# }
  figure=${figure% }
  echo "| $figure | $(required "$figure") |$measured|$limit|$share|${of_peer[$figure]:- }|"
done <"$rows"
