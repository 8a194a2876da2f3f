#!/usr/bin/env bash
# Trains presets for some minutes each and writes their rows and curves into docs/presets.md.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'EOF'
usage: scripts/preset_curves.sh [--minutes M] [--programs FOLDER] [--runs FOLDER] [--docs FOLDER] [--machine NAME] [--only NAME]… OPTION…

Trains each preset for M minutes (default: 5) by FOLDER/train (default: build/examples) and replaces the part "Five minutes" of
presets.md in the folder of --docs (default: docs) after each of them, with a picture of each curve beside it, in pictures/presets/. Rows
of presets that are not trained now stay as they are. The runs go to the folder of --runs (default: runs/presets). Further options are
given to train. Run it with nothing else on the machine. Needs a Chromium for the pictures.

  scripts/preset_curves.sh --data data/tinystories-train.txt --validation data/tinystories-valid.txt
  scripts/preset_curves.sh --only story --minutes 0.2 --embedded 300
EOF
}
fail() {
  echo "preset_curves: $*" >&2
  exit 1
}

minutes=5 programs=build/examples runs=runs/presets docs=docs machine='' only=() options=()
while [ $# -gt 0 ]; do
  case $1 in
    --minutes) minutes=${2:?--minutes needs a number}; shift ;;
    --programs) programs=${2:?--programs needs a folder}; shift ;;
    --runs) runs=${2:?--runs needs a folder}; shift ;;
    --machine) machine=${2:?--machine needs a name}; shift ;;
    --docs) docs=${2:?--docs needs a folder}; shift ;;
    --only) only+=("${2:?--only needs a preset}"); shift ;;
    --help | -h) usage; exit 0 ;;
    *) options+=("$1") ;;
  esac
  shift
done
# Those that learn something in five minutes on two cores.
presets=(story story_mixtral story_dense pocket minimixtral_pocket nanogpt_pocket nanogpt_moe_pocket mymoe_pocket sparse_moe_pocket
  deepseek_mini_pocket)
if [ ${#only[@]} -eq 0 ]; then only=("${presets[@]}"); fi

# What is missing is told before the minutes are spent.
for program in train report; do
  [ -x "$programs/$program" ] || fail "$programs/$program is not there; build the examples, or name their folder with --programs"
done
page=$docs/presets.md heading='## Five minutes'
grep -qx "$heading" "$page" || fail "$page has no part \"$heading\""
python3 -c 'import sys; sys.path.insert(0, "scripts"); import page_picture; sys.exit(page_picture.find_chromium() is None)' ||
  fail "there is no Chromium for the pictures; on Debian: apt-get install chromium"

every=$(awk -v minutes="$minutes" 'BEGIN { steps = int(80 * minutes); print steps < 1 ? 1 : steps }')
mkdir -p "$runs" "$docs/pictures/presets"
machine=${machine:-$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)}  # where that says which

# The page with the row of a preset replaced or added: write_row PRESET ROW.
write_row() {
  local rows='' one preset=$1 row=$2
  for one in "${presets[@]}" "$preset"; do
    case $rows in *"| \`$one\` "*) continue ;; esac
    if [ "$one" = "$preset" ]; then
      rows+=$row$'\n'
    else
      rows+=$(sed "1,/^$heading\$/d" "$page" | grep -F "| \`$one\` " || true)
      rows=${rows%$'\n'}${rows:+$'\n'}
    fi
  done
  {
    sed "/^$heading\$/,\$d" "$page"
    printf '%s\n' "$heading" "" "Each preset trained for $minutes minutes on two cores, one after the other. Loads: standard deviation over mean, validation. Bits per
byte are of stories that the model did not learn from." "" "    scripts/preset_curves.sh$([ "$minutes" = 5 ] || echo " --minutes $minutes")$(
      [ ${#options[@]} -eq 0 ] || printf " %s" "${options[@]##*/}")" "" "| preset | tokens | bits per byte | loads | machine, day | bits per byte over the time |
|---|---|---|---|---|---|
${rows%$'\n'}"
  } >"$page.new"
  mv "$page.new" "$page"
}

for preset in "${only[@]}"; do
  run=$runs/$preset
  "$programs/train" --preset "$preset" --minutes "$minutes" --evaluate-every "$every" --out "$run" --overwrite \
    ${options[@]+"${options[@]}"} >&2
  "$programs/report" "$run" --tokens 0 >&2
  # The curves over the time, by themselves.
  scripts/page_picture.py "$run.html" "$docs/pictures/presets/$preset.png" --width 470 --select main --script '
    const figures = [...document.querySelectorAll(".over .grid-of")[1].querySelectorAll("figure")];
    const main = document.querySelector("main"); main.style.padding = "6px";
    main.replaceChildren(figures.find((figure) => figure.textContent.startsWith("Bits per byte")));'
  write_row "$preset" "$(tail -n 1 "$run.csv" | awk -F, -v preset="$preset" -v taken="${machine:-another machine}, $(date +%Y-%m-%d)" '{
    printf "| `%s` | %.2fM | %.3f | %s | %s | ![%s](pictures/presets/%s.png) |", preset, $2 / 1e6, $12,
      ($10 > 0 ? sprintf("±%.0f %%", 100 * $10) : ""), taken, preset, preset }')"
done
echo "$page"
