#!/usr/bin/env bash
# Builds, tests and measures the CUDA backend on a machine that has a GPU and perhaps no network; writes one report.
set -euo pipefail
cd "$(dirname "$0")/.."

stages=(configure build spills test memcheck racecheck bench peer)

usage() {
  cat <<'END_OF_USAGE'
usage: scripts/gpu_check.sh [--packages DIR] [--output FILE] [--build FOLDER] [--only STAGE]… [--minutes M]
                            [--limit STAGE=SECONDS]… [--python PYTHON]
       scripts/gpu_check.sh --pack DIR [--with-cmake]

Stages, in order: configure, build, spills (no kernel keeps registers in memory), test (the tests on the GPU), memcheck
and racecheck (the same under compute-sanitizer, the second a choice of them), bench (bench_cuda) and peer (PyTorch, if
python3 has one that finds the GPU). If a stage fails, the next ones still run and the report is written. Results of an
earlier call for the same build stay in the report, so that stages may be run one by one. Without a GPU it says so
and ends well. It fails if the build, a test or a measurement failed.

  --packages DIR         take the libraries from DIR, which --pack made: no network is needed. DIR may also hold their
                         sources, in folders named xtl, xtensor, nlohmann_json, cli11, catch2 and benchmark
  --output FILE          the report, in Markdown (default: docs/benchmarks/NAME-OF-THE-DEVICE.md); figures in JSON beside
  --build FOLDER         where to build (default: build-gpu); full logs lie in FOLDER/gpu_check
  --only STAGE           only this stage; may be given several times
  --minutes M            of all stages together (default: 8.7)
  --limit STAGE=SECONDS  of one stage
  --python PYTHON        the interpreter that has PyTorch (default: python3)
  --pack DIR             on a machine with apt: download the libraries into DIR, a few megabytes; then copy it over
  --with-cmake           with --pack: CMake and Ninja too, by pip
END_OF_USAGE
}
say() { echo "gpu_check: $*"; }
fail() {
  echo "gpu_check: $*" >&2
  exit 1
}

packages='' output='' build=build-gpu minutes=8.7 python=python3 pack='' with_cmake=no only=()
declare -A limit=([configure]=60 [build]=240 [spills]=20 [test]=90 [memcheck]=75 [racecheck]=60 [bench]=100 [peer]=180)
while [ $# -gt 0 ]; do
  case $1 in
    --packages) packages=${2:?--packages needs a folder}; shift ;;
    --output) output=${2:?--output needs a file}; shift ;;
    --build) build=${2:?--build needs a folder}; shift ;;
    --only) only+=("${2:?--only needs a stage}"); shift ;;
    --minutes) minutes=${2:?--minutes needs a number}; shift ;;
    --limit)
      setting=${2:?--limit needs STAGE=SECONDS}
      if ! [[ $setting =~ ^([a-z]+)=([0-9]+)$ ]] || [ -z "${limit[${BASH_REMATCH[1]}]:-}" ]; then
        fail "--limit $setting: expected one of ${stages[*]}, =, and seconds"
      fi
      limit[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]}
      shift
      ;;
    --python) python=${2:?--python needs an interpreter}; shift ;;
    --pack) pack=${2:?--pack needs a folder}; shift ;;
    --with-cmake) with_cmake=yes ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
for stage in "${only[@]}"; do
  [ -n "${limit[$stage]:-}" ] || fail "--only $stage: the stages are ${stages[*]}"
done

# ---- the libraries, for a machine without a network

make_pack() {
  for tool in apt-get dpkg; do command -v $tool >/dev/null || fail "--pack needs $tool"; done
  mkdir -p "$pack"
  pack=$(cd "$pack" && pwd)
  local downloads
  downloads=$(mktemp -d)
  local xtl=xtl-dev
  if ! apt-cache show $xtl >/dev/null 2>&1; then xtl=libxtl-dev; fi
  # Where apt cannot fetch as its own user it says so and fetches as this one.
  (cd "$downloads" && apt-get -qq download catch2 libxtensor-dev $xtl nlohmann-json3-dev libcli11-dev \
    libbenchmark-dev libbenchmark1debian 2>&1 | { grep -v '^W: Download is performed unsandboxed' || true; }) >&2
  local package
  for package in "$downloads"/*.deb; do dpkg -x "$package" "$pack"; done
  if [ "$with_cmake" = yes ]; then
    "$python" -m pip --quiet download --no-deps --dest "$downloads" cmake ninja
    for package in "$downloads"/*.whl; do "$python" -m zipfile -e "$package" "$downloads/wheels"; done
    mkdir -p "$pack/tools"
    cp -r "$downloads"/wheels/cmake/data/{bin,share} "$pack/tools/"
    find "$downloads/wheels" -name ninja -type f -exec cp {} "$pack/tools/bin/" \;
    rm -rf "$pack"/tools/bin/{ccmake,cpack,ctest,cmake-gui} "$pack"/tools/share/{doc,man,vim,emacs,bash-completion,aclocal} \
      "$pack"/tools/share/cmake-*/Help
    chmod +x "$pack"/tools/bin/*
  fi
  rm -rf "$downloads" "$pack"/usr/share/{doc,man,lintian,pkgconfig,Catch2}
  say "$pack: $(du -sm "$pack" | cut -f1) MiB; copy it to the machine with the GPU, for --packages"
}
if [ -n "$pack" ]; then
  make_pack
  exit 0
fi

# ---- the machine

gpu_is_here() {
  case ${CUDA_VISIBLE_DEVICES-all} in '' | -1) return 1 ;; esac
  if command -v nvidia-smi >/dev/null; then nvidia-smi -L 2>/dev/null | grep -q '^GPU'; else [ -e /dev/nvidia0 ]; fi
}
if ! gpu_is_here; then
  say "no GPU can be used here; skipped"
  exit 0
fi
ask_gpu() { nvidia-smi --id=0 --query-gpu="$1" --format=csv,noheader 2>/dev/null | head -n 1 || true; }

nvcc=''
for candidate in "${CUDACXX:-}" "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc /usr/local/cuda-*/bin/nvcc; do
  if [ -n "$candidate" ] && [ -x "$candidate" ]; then
    nvcc=$candidate
    break
  fi
done
[ -n "$nvcc" ] || fail "there is a GPU, but no nvcc on the PATH, in CUDACXX or in /usr/local/cuda/bin"
toolkit=$(cd "$(dirname "$(readlink -f "$nvcc")")/.." && pwd)

if [ -n "$packages" ]; then
  [ -d "$packages" ] || fail "--packages $packages: there is no such folder"
  packages=$(cd "$packages" && pwd)
  if [ -x "$packages/tools/bin/cmake" ] && ! command -v cmake >/dev/null; then PATH=$packages/tools/bin:$PATH; fi
fi
command -v cmake >/dev/null || fail "there is no cmake; --pack with --with-cmake brings one"

# ---- stages

state=$build/gpu_check
mkdir -p "$state"
deadline=$(awk -v now="$SECONDS" -v minutes="$minutes" 'BEGIN { print int(now + 60 * minutes) }')

wanted() {
  [ ${#only[@]} -eq 0 ] && return
  local stage
  for stage in "${only[@]}"; do
    if [ "$stage" = "$1" ]; then return; fi
  done
  return 1
}
outcome() { echo "$2" >"$state/$1.outcome"; say "$1: $2"; }

# run STAGE command…: runs it with a time limit; writes a line to STAGE.outcome, and a log.
run() {
  local stage=$1 status=0 started=$SECONDS seconds
  shift
  seconds=$((deadline - SECONDS))
  if [ "${limit[$stage]}" -lt "$seconds" ]; then seconds=${limit[$stage]}; fi
  if [ "$seconds" -lt 3 ]; then
    outcome "$stage" "not run: the time was up"
    return
  fi
  timeout --kill-after=10 "$seconds" "$@" >"$state/$stage.log" 2>&1 </dev/null || status=$?
  local took=$((SECONDS - started))
  case $status in
    0) outcome "$stage" "passed, $took s" ;;
    124 | 137) outcome "$stage" "stopped after $took s" ;;
    *) outcome "$stage" "failed with status $status, $took s" ;;
  esac
}
passed() { grep -q '^passed' "$state/$1.outcome" 2>/dev/null; }

if wanted configure; then
  arguments=(-S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DTINYMOE_CUDA=ON -DTINYMOE_NATIVE=ON -DTINYMOE_BUILD_TESTS=ON
    -DTINYMOE_BUILD_BENCH=ON -DTINYMOE_BUILD_EXAMPLES=OFF -DTINYMOE_INSTALL=OFF "-DCMAKE_CUDA_COMPILER=$nvcc")
  capability=$(ask_gpu compute_cap)
  if [[ $capability =~ ^[0-9]+\.[0-9]+$ ]]; then arguments+=("-DCMAKE_CUDA_ARCHITECTURES=${capability/./}-real"); fi
  if command -v ninja >/dev/null && [ ! -f "$build/CMakeCache.txt" ]; then arguments+=(-G Ninja); fi
  if [ -n "$packages" ]; then
    arguments+=("-DCMAKE_PREFIX_PATH=$packages/usr;$packages")
    for library in xtl xtensor nlohmann_json cli11 catch2 benchmark; do
      if [ -d "$packages/$library" ]; then
        arguments+=("-DFETCHCONTENT_SOURCE_DIR_${library^^}=$packages/$library")
      fi
    done
  fi
  run configure cmake "${arguments[@]}"
fi
if wanted build; then
  # Programs built from other sources must not run, and their results must not be reported.
  rm -f "$build/tests/test_cuda" "$build/bench/bench_cuda" "$state/bench.json"
  for stage in spills test memcheck racecheck bench; do rm -f "$state/$stage".{outcome,log}; done
  run build cmake --build "$build" --parallel "$(nproc)" --target test_cuda bench_cuda
fi
tests=$build/tests/test_cuda
bench=$build/bench/bench_cuda
if wanted spills && ! command -v ctest >/dev/null; then
  outcome spills "not run: there is no ctest here"
elif wanted spills && passed build; then
  run spills ctest --test-dir "$build" -R 'cuda: no kernel spills' --output-on-failure
fi
if [ -x "$tests" ]; then
  if wanted test; then run test "$tests" --durations yes; fi
  sanitizer=''
  for candidate in "$(command -v compute-sanitizer || true)" "$toolkit/bin/compute-sanitizer" \
    "$toolkit/compute-sanitizer/compute-sanitizer"; do
    if [ -n "$candidate" ] && [ -x "$candidate" ]; then
      sanitizer=$candidate
      break
    fi
  done
  # A test asks for too much memory on purpose: the tests check errors of calls themselves.
  check=("$sanitizer" --error-exitcode 42 --report-api-errors no)
  # racecheck follows every access to shared memory, which is slow: only tests that use it, and gradients of whole models.
  shared='attention*,grouped products*,matmul is*,sort_by_expert*,gradients on a Cuda*'
  if [ -z "$sanitizer" ]; then
    for stage in memcheck racecheck; do
      if wanted $stage; then outcome $stage "not run: there is no compute-sanitizer here"; fi
    done
  else
    if wanted memcheck; then run memcheck "${check[@]}" --tool memcheck "$tests"; fi
    if wanted racecheck; then run racecheck "${check[@]}" --tool racecheck "$tests" "$shared"; fi
  fi
fi
if wanted bench && [ -x "$bench" ]; then
  rm -f "$state/bench.json"
  run bench "$bench" --output "$state/bench.json"
fi
if wanted peer; then
  if "$python" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else 1)' 2>/dev/null; then
    rm -f "$state/peer.json"
    run peer env PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 "$python" bench/peer_torch.py --device cuda --output "$state/peer.json"
  else
    outcome peer "not run: $python has no PyTorch that finds a GPU"
  fi
fi

# ---- the report

device=$(ask_gpu name)
if [ -z "$device" ]; then device=$(sed -n 's/^  "device": "\(.*\)".*/\1/p' "$state/bench.json" 2>/dev/null || true); fi
device=${device:-unknown GPU}
if [ -z "$output" ]; then output=docs/benchmarks/$(echo "$device" | tr -cs 'A-Za-z0-9\n' '-' | tr '[:upper:]' '[:lower:]').md; fi
mkdir -p "$(dirname "$output")"
commit=${TINYMOE_COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}
if [ -n "$(git status --porcelain --untracked-files=no 2>/dev/null)" ]; then commit+=', with changes that are not committed'; fi

# A stage's last lines in a code block; of a sanitizer, its summary.
tail_of() {
  [ -s "$state/$1.log" ] || return 0
  printf '\nThe end of %s:\n\n```\n' "$1"
  tail -n "$2" "$state/$1.log" | cut -c 1-300
  printf '```\n'
}
{
  printf '# %s\n\n' "$device"
  printf '%s; driver %s; %s; commit %s; by scripts/gpu_check.sh.\n\n' "$(date -u +%Y-%m-%d)" \
    "$(ask_gpu driver_version)" "$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/CUDA \1/p')" "$commit"
  printf '| stage | outcome |\n|---|---|\n'
  for stage in "${stages[@]}"; do
    printf '| %s | %s |\n' "$stage" "$(cat "$state/$stage.outcome" 2>/dev/null || echo 'not run')"
  done
  for stage in configure build spills test memcheck racecheck; do
    grep -q '^\(failed\|stopped\)' "$state/$stage.outcome" 2>/dev/null && tail_of $stage 60
    case $stage in
      test | memcheck | racecheck) passed $stage && tail_of $stage 4 ;;
    esac
  done
  printf '\n## Required and reached\n\n'
  if [ -x "$bench" ]; then
    peer=()
    if [ -s "$state/peer.json" ]; then peer=(--peer "$state/peer.json"); fi
    "$bench" --targets "$state/bench.json" "${peer[@]}" || true
  else
    echo 'Not known: bench_cuda is not built.'
  fi
  printf '\n## tinymoe\n\n'
  cat "$state/bench.log" 2>/dev/null || echo 'Not measured.'
  printf '\n## PyTorch\n\n'
  cat "$state/peer.log" 2>/dev/null || echo 'Not measured.'
} >"$output.part" || true
mv "$output.part" "$output"
for figures in bench peer; do
  suffix=''
  if [ $figures = peer ]; then suffix=-peer; fi
  if [ -s "$state/$figures.json" ]; then cp "$state/$figures.json" "${output%.md}$suffix.json"; fi
done
say "the report is $output"

for stage in configure build spills test memcheck racecheck bench; do
  if grep -q '^failed' "$state/$stage.outcome" 2>/dev/null; then exit 1; fi
done
for stage in configure build test; do  # these stages must have finished
  if grep -q '^\(stopped\|not run\)' "$state/$stage.outcome" 2>/dev/null; then exit 1; fi
done
