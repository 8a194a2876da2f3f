#!/usr/bin/env bash
# Makes the pictures of docs/report.md from a report: usage: scripts/report_pictures.sh REPORT.html FOLDER
set -euo pipefail
if [ $# -ne 2 ]; then
  echo "usage: scripts/report_pictures.sh REPORT.html FOLDER" >&2
  exit 2
fi
picture=$(dirname "$0")/page_picture.py
# A part of the page: the headline and the elements that are named, and nothing else.
"$picture" "$1" "$2/report_run.png" --width 1180 --select main --script '
  const main = document.querySelector("main"); main.style.padding = "16px"; const kept = [document.querySelector(".facts"), document.querySelector(".over")];
  for (const part of [...main.children]) if (!kept.includes(part)) part.remove();
  document.querySelectorAll(".over .grid-of figure:nth-child(n+7)").forEach((figure) => figure.remove());'
"$picture" "$1" "$2/report_experts.png" --width 1180 --select main --script '
  const main = document.querySelector("main"); main.style.padding = "16px"; const grid = document.createElement("div"), maps = [...document.querySelectorAll(".map")];
  grid.className = "grid-of";
  const scale = document.querySelector(".scale");
  grid.append(...maps.filter((map) => /^(Load of each expert, layer|Kinds)/.test(map.textContent)).slice(0, 6));
  main.replaceChildren(scale, grid);'
"$picture" "$1" "$2/report_story.png" --width 860 --select main --script '
  const main = document.querySelector("main"); main.style.padding = "16px";
  main.replaceChildren(document.querySelector(".traced"));
  const slider = document.querySelector("input[type=range]");
  slider.value = 1; slider.dispatchEvent(new Event("input"));'
