#!/usr/bin/env bash
# Plots the metrics of one or several training runs: loss, learning rate, and the balance of the experts' loads.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/plot.sh [--over tokens|step|seconds] [--out FILE] RUN…

A RUN is a checkpoint folder of train, with the metrics file beside it, or the metrics file itself (CSV). Each of several
runs has a colour; a single run also gets a map of its experts' loads. FILE is an .svg or a .png (default: RUN.svg of the
first run). Needs gnuplot (Debian: gnuplot-nox).

  scripts/plot.sh runs/story
  scripts/plot.sh --over seconds --out compared.png runs/dense runs/mixture
EOF
}
fail() {
  echo "plot: $*" >&2
  exit 1
}

over=tokens out='' runs=() quote="'"
while [ $# -gt 0 ]; do
  case $1 in
    --over) over=${2:?--over needs tokens, step or seconds}; shift ;;
    --out) out=${2:?--out needs a file}; shift ;;
    --help | -h) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) runs+=("$1") ;;
  esac
  shift
done
if [ ${#runs[@]} -eq 0 ]; then usage >&2; exit 2; fi
case $over in tokens | step | seconds) ;; *) fail "--over $over: there are tokens, step and seconds" ;; esac
command -v gnuplot >/dev/null || fail "gnuplot is missing (Debian: apt-get install gnuplot-nox)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
names=() mixtures=no end=0
for i in "${!runs[@]}"; do
  run=${runs[$i]%/}
  run=${run%.csv}
  [ -f "$run.csv" ] || fail "$run.csv is not there; train writes it"
  head -n 1 "$run.csv" | grep -q '^step,tokens,seconds,loss,' || fail "$run.csv is not what train writes"
  names+=("$(basename "$run")")
  # x, loss (a moving average of 20 steps), learning rate, load variation; and apart, x and validation.
  awk -F, -v over="$over" -v validation="$work/$i.validation" '
    NR == 1 { for (c = 1; c <= NF; ++c) column[$c] = c; next }
    { x = $column[over]
      if ($column["loss"] != "") {
        loss = loss == "" ? $column["loss"] : 0.95 * loss + 0.05 * $column["loss"]
        varies = varies == "" ? $column["load_variation"] : 0.95 * varies + 0.05 * $column["load_variation"]
        print x, loss, $column["learning_rate"], varies
      }
      if ($column["validation_loss"] != "") print x, $column["validation_loss"], $column["validation_bits_per_byte"] > validation
    }' "$run.csv" >"$work/$i.training"
  [ -s "$work/$i.training" ] || fail "$run.csv has no steps yet"
  end=$(awk -v end="$end" '$1 > end { end = $1 } END { print end }' "$work/$i.training")
  if [ -f "$run-loads.csv" ]; then cp "$run-loads.csv" "$work/loads" && mixtures=$work/loads; fi
done
if [ -z "$out" ]; then out=${runs[0]%/}; out=${out%.csv}.svg; fi
case $out in
  *.svg) terminal="svg size 1000,HEIGHT font 'sans,13' background rgb 'white'" ;;
  *.png) terminal="pngcairo size 1000,HEIGHT font 'sans,10'" ;;
  *) fail "$out: neither an .svg nor a .png" ;;
esac
map=no
if [ ${#runs[@]} -eq 1 ] && [ "$mixtures" != no ]; then map=yes; fi
if [ $map = yes ]; then rows=3 height=1000; else rows=2 height=700; fi

# curve NAME COLUMN STYLE: the plot command of a column of all runs.
curve() {
  local i pieces=()
  for i in "${!names[@]}"; do
    [ -s "$work/$i.$1" ] || continue
    pieces+=("'$work/$i.$1' using 1:$2 with $3 linetype $((i + 1)) title '${names[$i]//$quote/$quote$quote}' noenhanced")
  done
  if [ ${#pieces[@]} -eq 0 ]; then pieces=("NaN title 'nothing yet'"); fi
  local IFS=,
  echo "plot ${pieces[*]}"
}

{
  echo "set terminal ${terminal/HEIGHT/$height}"
  echo "set output '$work/picture'"
  echo "set multiplot layout $rows,2"
  echo "set grid lt 1 lw 0.5 lc rgb '#cccccc'; set border 3; set tics nomirror; set xlabel '$over'; set key top right"
  echo "set xrange [0:$end]"
  if [ "$over" != seconds ]; then echo "set format x '%.1s%c'"; fi
  echo "set title 'training loss, nats a token (moving average)'; $(curve training 2 lines)"
  echo "set title 'validation, bits per byte'; $(curve validation 3 'linespoints pointtype 7 pointsize 0.6')"
  echo "set title 'learning rate'; set yrange [0:]; $(curve training 3 lines)"
  echo "set title 'expert load, standard deviation / mean'; $(curve training 4 lines)"
  if [ $map = yes ]; then
    echo "set size 1, 0.33; set origin 0, 0; unset grid; unset key; set format x '%g'"
    echo "set datafile separator comma; set xlabel 'expert'; set ylabel 'mixture'; set cblabel 'share of even'"
    echo "set title 'validation tokens that each expert took, 1: a fair share'"
    awk -F, 'NR > 1 { if ($2 > e) e = $2; if ($1 > m) m = $1 }
             END { printf "set xrange [-0.5:%d.5]; set yrange [%d.5:0.5]\n", e, m }' "$mixtures"
    echo "set xtics 1; set ytics 1; set cbrange [0:2]; set palette defined (0 '#2166ac', 1 '#f7f7f7', 2 '#b2182b')"
    echo "set style fill solid noborder; plot '$mixtures' using 2:1:(0.5):(0.5):4 every ::1 with boxxyerror lc palette"
  fi
  echo "unset multiplot"
} >"$work/commands"
gnuplot "$work/commands" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "gnuplot failed"; }
mv "$work/picture" "$out"
echo "$out"
