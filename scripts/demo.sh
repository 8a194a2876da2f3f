#!/usr/bin/env bash
# Builds the examples, trains a small Mixture-of-Experts model on stories for about three minutes, and generates three stories.
# With an NVIDIA GPU and CUDA's compiler, both run on the GPU, in bfloat16, with the same training options.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'END'
usage: scripts/demo.sh [--minutes M] [--preset NAME] [--out FOLDER] [--build FOLDER] [--embedded]

Trains on the stories in the file or folder in TINYMOE_DATA, else on those in data/, else on TinyStories from the Hugging
Face hub, else on tinymoe's embedded stories (--embedded: always on these).
END
}

minutes=3
preset=story
out=runs/demo
embedded=no
build=build/demo
while [ $# -gt 0 ]; do
  case $1 in
    --minutes) minutes=${2:?--minutes needs a number}; shift ;;
    --preset) preset=${2:?--preset needs a name}; shift ;;
    --out) out=${2:?--out needs a folder}; shift ;;
    --build) build=${2:?--build needs a folder}; shift ;;
    --embedded) embedded=yes ;;
    --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

say() { printf '\n== %s\n' "$*"; }

say "Dependencies"
scripts/install_dependencies.sh

say "Building the examples"
# Without a GPU, compiling for one would waste minutes.
cuda=(-DTINYMOE_CUDA=OFF)
if nvidia-smi -L >/dev/null 2>&1; then cuda=(-DTINYMOE_CUDA=AUTO -DTINYMOE_EXAMPLE_CUDA_PRESETS="$preset"); fi
generator=()
if command -v ninja >/dev/null && [ ! -f "$build/CMakeCache.txt" ]; then generator=(-G Ninja); fi
mkdir -p "$build"
if ! { cmake -S . -B "$build" "${generator[@]}" -DTINYMOE_BUILD_TESTS=OFF -DTINYMOE_BUILD_EXAMPLES=ON \
         -DTINYMOE_EXAMPLE_PRESETS="$preset" "${cuda[@]}" &&
       cmake --build "$build" --parallel "$(nproc)" --target train sample; } >"$build/log.txt" 2>&1; then
  tail -n 30 "$build/log.txt" >&2
  echo "demo: the build failed; the whole log is in $build/log.txt" >&2
  exit 1
fi
# Why no GPU is used: "tinymoe: no CUDA backend: there is no CUDA compiler …".
sed -n 's/^-- tinymoe: no CUDA backend: /The GPU will not be used: /p' "$build/log.txt"

# find_text FOLDER WORD: the largest text file in the folder that has the word in its name.
find_text() {
  find -L "$1" -maxdepth 1 -type f -name "*$2*.txt" -printf '%s %p\n' | sort -rn | head -n 1 | cut -d ' ' -f 2-
}

data=() source=
use_folder() {
  local training validation
  training=$(find_text "$1" train)
  [ -n "$training" ] || return 1
  validation=$(find_text "$1" valid)
  data=(--data "$training")
  [ -z "$validation" ] || data+=(--validation "$validation")
  source=$training
}

say "Data"
if [ "$embedded" = yes ]; then
  source=
elif [ -n "${TINYMOE_DATA:-}" ]; then
  if [ -f "$TINYMOE_DATA" ]; then
    data=(--data "$TINYMOE_DATA")
    source=$TINYMOE_DATA
  elif ! { [ -d "$TINYMOE_DATA" ] && use_folder "$TINYMOE_DATA"; }; then
    echo "demo: TINYMOE_DATA=$TINYMOE_DATA is neither a text file nor a folder with a *train*.txt" >&2
    exit 1
  fi
elif [ -d data ] && use_folder data; then
  :
elif scripts/get_tinystories.sh data && use_folder data; then
  :
fi
if [ -n "$source" ]; then echo "training on $source"; fi  # without one, train says that it makes stories up

say "Training for about $minutes minutes"
"$build/examples/train" --preset "$preset" --minutes "$minutes" --out "$out" --overwrite --checkpoint-every 500 --report "${data[@]}"

say "Three stories that the model wrote"
"$build/examples/sample" "$out" --stories 3 --quiet

say "The checkpoint is in $out; a page of the run: $out.html; more stories: $build/examples/sample $out --prompt \"One day\""
