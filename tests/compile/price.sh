#!/usr/bin/env bash
# price.sh FOLDER PROGRAM.cpp COMPILER FLAG…: the cost of compiling, relative to reference.cpp in the same run, so that it
# depends little on the machine. CPU seconds: the minimum of the runs so far, of three at most; usually one is enough. It
# fails if a figure is more than a tenth above the figure below; then find the cause, or change the figure and give the
# reason in the commit.
set -euo pipefail
export LC_ALL=C

# of the reference:   time memory
declare -A limit=([include]="0.58 1.17" [program]="3.50 2.45")

folder=$1 program=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
if ! command -v /usr/bin/time >/dev/null; then
  echo "SKIPPED: there is no /usr/bin/time"
  exit 0
fi
mkdir -p "$folder"

# measure FILE COMPILER FLAG…: adds the file's seconds and kilobytes to what was measured of it.
measure() {
  local file=$1
  shift
  /usr/bin/time -f '%U %M' -o "$folder/measured" "$@" -O2 -w -c "$file" -o "$folder/object.o"
  tail -n 1 "$folder/measured" >>"$folder/$(basename "$file").runs"
}
# least FILE COLUMN
least() { sort -n -k "$2" "$folder/$(basename "$1").runs" | awk -v column="$2" 'NR == 1 { print $column }'; }

# Whether both figures are within their limits.
within() {
  local status=0 figure file time memory
  for figure in include program; do
    file=$here/empty.cpp
    if [ $figure = program ]; then file=$program; fi
    read -r time memory <<<"${limit[$figure]}"
    awk -v figure=$figure -v time="$time" -v memory="$memory" -v s="$(least "$file" 1)" -v k="$(least "$file" 2)" \
      -v rs="$(least "$here/reference.cpp" 1)" -v rk="$(least "$here/reference.cpp" 2)" 'BEGIN {
        printf "%s: %.1f s and %.0f MB, %.2f and %.2f of the reference; at most %.2f and %.2f\n", figure, s, k / 1000,
               s / rs, k / rk, 1.1 * time, 1.1 * memory
        exit s / rs > 1.1 * time || k / rk > 1.1 * memory
      }' || status=1
  done
  return $status
}

rm -f "$folder"/*.runs
for ((run = 0; run < 3; ++run)); do  # in turn, so that a busy minute slows all of them
  for file in "$here/reference.cpp" "$here/empty.cpp" "$program"; do measure "$file" "$@"; done
  if within; then exit 0; fi
done
exit 1
