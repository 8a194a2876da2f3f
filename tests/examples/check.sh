#!/usr/bin/env bash
# The example programs as a user runs them: train, interrupt, resume, sample, chat, sweep, upcycle, devices, and mistakes.
# usage: check.sh CASE FOLDER, where the programs are in FOLDER
set -euo pipefail
train=$2/train sample=$2/sample quantize=$2/quantize convert=$2/convert tokenize=$2/tokenize sweep=$2/sweep chat=$2/chat upcycle=$2/upcycle report=$2/report prune=$2/prune describe=$2/describe
python=${TINYMOE_PYTHON:-python3}
project=$(cd "$(dirname "$0")/../.." && pwd)
export OMP_NUM_THREADS=2
# The programs would take a GPU by themselves; the cases that are about one give it back.
export CUDA_VISIBLE_DEVICES=
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
# expect_error SENTENCE COMMAND…: it must fail and say so.
expect_error() {
  local sentence=$1 status=0
  shift
  "$@" >output.txt 2>&1 || status=$?
  [ $status -ne 0 ] || fail "should have failed: $*"
  [ $status -lt 126 ] || fail "was not an error but a crash ($status): $*: $(tail -n 3 output.txt)"
  grep -qF -- "$sentence" output.txt || fail "said '$(tail -n 1 output.txt)' instead of '$sentence'"
}
# expect COMMAND…: it must succeed; its last lines are told if not.
expect() {
  "$@" >output.txt 2>&1 || fail "$*: $(tail -n 3 output.txt)"
}
# setting FOLDER NAME: a setting of a checkpoint.
setting() { sed -n "s/^ *\"$2\": \([^,]*\),*$/\1/p" "$1/config.json"; }
pocket() { "$train" --preset pocket --embedded 300 --batch 4 "$@"; }
# The same in the background, such that $! is the program itself and not a shell around it.
pocket_job() { exec "$train" --preset pocket --embedded 300 --batch 4 "$@"; }

# need_cuda: ends the case as skipped if the programs are built without CUDA.
need_cuda() {
  "$train" --preset story --device cuda --embedded 300 --steps 1 --out unused >output.txt 2>&1 || true
  if grep -q 'was built without CUDA' output.txt; then
    echo "SKIPPED: the programs are built without CUDA"
    exit 0
  fi
}

case $1 in
  resume)
    # Ten steps at once, and ten steps in two runs, give the same files bit for bit.
    pocket --steps 10 --schedule constant --out whole >log.txt
    pocket --steps 4 --schedule constant --out parts >log.txt
    pocket --steps 10 --schedule constant --out parts --resume >log.txt
    for file in model.safetensors optimizer.safetensors tokenizer.json config.json; do
      cmp whole/$file parts/$file || fail "$file differs"
    done
    [ "$(wc -l <whole.csv)" = "$(($(wc -l <parts.csv) - 1))" ] || fail "the metrics lack rows"  # one more evaluation
    # A finished run that is resumed evaluates again, and its metrics have each row once.
    cp whole.csv once.csv
    for _ in 1 2; do
      expect "$train" --embedded 300 --resume whole
      grep -q 'validation after step 10' output.txt || fail "was not evaluated"
    done
    cmp whole.csv once.csv || fail "rows are there twice: $(cat whole.csv)"
    # Stories have the same bits per byte held out and as a file of their own. An edit is seen, whatever the file's time.
    for i in {1..40}; do echo "Tom had $i pets.<|endoftext|>"; done >all.txt
    head -n 38 all.txt >some.txt
    tail -n 2 all.txt | sed 's/$/\r/' >rest.txt
    bits() {
      expect "$train" --preset pocket --tokenizer whole/tokenizer.json --steps 1 --sequence 16 --overwrite --out texts "$@"
      grep 'validation after' output.txt
    }
    [ "$(bits --data all.txt)" = "$(bits --data some.txt --validation rest.txt)" ] || fail "other bits per byte"
    cp -p all.txt time.txt
    edited=$(sed 's/Tom had 40/Ann had 40/' all.txt) && echo "$edited" >all.txt && touch -r time.txt all.txt
    [ "$(bits --data all.txt)" != "$(bits --data some.txt --validation rest.txt)" ] || fail "the old text's tokens were used"
    # A folder may be named, and what it holds need not be said again; from the best one the run goes on as well.
    cp -r whole named
    expect "$train" --embedded 300 --batch 4 --steps 12 --schedule constant --resume named
    grep -q 'going on from named, step 10' output.txt || fail "did not go on from the folder: $(tail -n 3 output.txt)"
    grep -q '^preset pocket' output.txt || fail "a checkpoint does not tell its preset"
    pocket --steps 12 --schedule constant --out elsewhere --resume whole >log.txt
    cmp named/model.safetensors elsewhere/model.safetensors || fail "another folder, other weights"
    expect_error "holds a checkpoint" pocket --steps 14 --schedule constant --out elsewhere --resume whole
    expect_error "holds a checkpoint" pocket --steps 14 --schedule constant --resume whole-best
    pocket --steps 14 --schedule constant --resume whole-best --overwrite >log.txt
    grep -q 'checkpoint: whole,' log.txt || fail "the best checkpoint is not of its run: $(tail -n 1 log.txt)"
    # A run goes on with its own recipe.
    expect "$train" --preset pocket --embedded 300 --batch 3 --steps 4 --learning-rate 1e-3 --schedule constant \
      --warmup 0 --optimizer lion --sequence 32 --out recipe
    expect "$train" --embedded 300 --steps 6 --resume recipe
    [ "$(sed -n '7p' recipe.csv | cut -d , -f 2,5)" = "480,0.001" ] || fail "another recipe: $(cat recipe.csv)"
    # What a checkpoint keeps cannot be changed in silence.
    for option in "--tokenizer named/tokenizer.json" "--balance-weight 0.1" "--z-weight 0.1" "--dropout 0.1" \
      "--attention-dropout 0.1" "--expert-dropout 0.1" "--jitter 0.1" "--bias-rate 0.1" "--routing-mass 0.4" \
      --balance-over-step; do
      expect_error "${option%% *} cannot be given with --resume" pocket --steps 14 --out named --resume $option
    done
    ;;
  places)
    # Where a run may write: a link, the current folder, a folder with other things in it. A second run is refused.
    mkdir volume here && ln -s volume/run link
    expect pocket --steps 2 --out link --metrics v1.2
    [ -f v1.2 ] && [ -f v1.2-loads.csv ] || fail "not the metrics' name: $(ls)"
    [ -L link ] && [ -f volume/run/model.safetensors ] && [ -d volume/run-best ] || fail "not through the link: $(find .)"
    (cd here && mkdir mine && expect pocket --steps 2 --out . && expect pocket --steps 4 --resume .)
    [ -f here/model.safetensors ] && [ -d here/mine ] && [ -f here-best/model.safetensors ] || fail "not here: $(find .)"
    # As a run leaves it that is killed while its first checkpoint is put in place.
    mkdir here/.tinymoe.new && cp here/*.* here/.tinymoe.new && rm here/model.safetensors here/tokenizer.json
    expect pocket --steps 6 --resume here
    [ -f here/tokenizer.json ] && [ ! -e here/.tinymoe.new ] || fail "not brought to an end: $(find here)"
    # And in its best checkpoint, before the run has one: what counts is in .tinymoe.new, whatever was put in place.
    for placed in model.safetensors trainer.json ""; do
      rm -rf cut cut-* && expect pocket --steps 2 --out cut && rm -r cut
      (cd cut-best && mkdir .tinymoe.new && mv -- *.* .tinymoe.new && if [ -n "$placed" ]; then cp .tinymoe.new/$placed .; fi)
      expect_error "cut-best: holds a checkpoint; give --resume" pocket --steps 2 --out cut
      expect_error "cut-best: holds a run that could not resume then" "$prune" here --experts 3 --out cut-best --overwrite
      expect_error "cut-best: holds a run that could not resume then" "$upcycle" --dense here --out cut-best --overwrite
      expect_error "cut-best: holds a run that could not resume then" "$quantize" here --weights int8 --out cut-best --overwrite
      expect pocket --steps 2 --out cut --overwrite
      [ ! -e cut-best/.tinymoe.new ] || fail "not brought to an end: $(find cut-best)"
    done
    # A run whose name ends as that of a best checkpoint is one of its own.
    expect pocket --steps 2 --out second-best
    expect pocket --steps 4 --resume second-best
    grep -q 'checkpoint: second-best, the best: second-best-best,' output.txt || fail "another run: $(tail -n 1 output.txt)"
    # The encoded texts go where a link points, and are a mistake before the text is read.
    for i in {1..40}; do echo "Tom had $i pets.<|endoftext|>"; done >texts.txt
    texts() { "$train" --preset pocket --tokenizer volume/run/tokenizer.json --steps 1 --sequence 16 --data "$@"; }
    ln -s volume/data texts-data && touch held-data
    expect texts texts.txt --out texts
    [ -f volume/data/training.tokens ] || fail "not through the link: $(find . -name '*.tokens')"
    expect_error "held-data: expected a folder or none, found a file" texts texts.txt --out held
    grep -q 'reading' output.txt && fail "was found after the text had been read"
    expect_error "missing.txt" texts missing.txt --out missed
    [ -z "$(ls -d missed* 2>/dev/null)" ] || fail "a mistake left $(ls -d missed*)"
    said=$(mkdir gone && cd gone && rmdir ../gone && pocket --steps 1 --out . 2>&1) && fail "wrote to a folder that is gone"
    [[ $said == *".: cannot be found: No such file or directory"* ]] || fail "another cause: $said"
    pocket_job --minutes 5 --checkpoint-every 1 --out run >log.txt &
    job=$!
    for _ in $(seq 100); do
      [ ! -f run/model.safetensors ] || break
      sleep 0.1
    done
    for other in run run/ ./here/../run; do
      expect_error "another run writes to it (process $job" pocket --steps 2 --out $other --overwrite
    done
    expect_error "run.csv: another run writes to it" pocket --steps 2 --out other --metrics run.csv --overwrite
    mkdir run/.ipynb_checkpoints && echo mine >run/notes.json
    kill -INT $job
    wait $job || fail "what appears in the folder ends the run: $(tail -n 1 log.txt)"
    expect_error "run.csv: holds the metrics of a run" pocket --steps 2 --out other --metrics run.csv
    [ -d run/.ipynb_checkpoints ] && [ -f run/notes.json ] || fail "what appears in the folder is lost"
    [ -z "$(find . -name '*.lock' -o -name '*.partial*' -o -name '.tinymoe*')" ] || fail "leaves $(find . -name '.*')"
    # Mistakes are told before the first step.
    mkdir project && echo mine >project/config.json && touch file
    expect_error "holds a config.json without model.safetensors" pocket --steps 2 --out project
    expect_error "expected a folder or none, found a file" pocket --steps 2 --out file
    expect_error "cannot be made: Not a directory" pocket --steps 2 --out file/run
    expect_error "expected a folder or none, found a file" pocket --steps 2 --out new --metrics file/run.csv
    mkdir new-loads.csv
    expect_error "new-loads.csv: expected a regular file" pocket --steps 2 --out new
    expect_error "File name too long" pocket --steps 2 --out "$(printf 'x%.0s' $(seq 254))"
    expect_error "/: is no folder for a model" pocket --steps 2 --out /
    expect_error "is a link to itself" "$train" --preset pocket --steps 2 --out "$(ln -s loop loop && echo loop)"
    [ "$(cat project/config.json)" = mine ] && [ ! -e new ] || fail "a mistake wrote something"
    ;;
  volume)
    # A mount point: all that a run writes lies in it.
    unshare -m true 2>/dev/null || { echo "SKIPPED: this process may not mount" && exit 0; }
    mkdir volume
    cat >in_volume.sh <<END
      mount -t tmpfs none volume && "$train" --preset pocket --embedded 300 --batch 4 --steps 3 --out volume &&
        "$train" --embedded 300 --batch 4 --steps 6 --resume volume/best --overwrite && cd volume &&
        "$sample" . --tokens 3 --quiet && ls -A . best && ls -A .. && ls -A .. | wc -l
END
    expect unshare -m bash in_volume.sh
    cp output.txt in_volume.txt
    # A link into a mount of the same device: the best ones go where the link goes.
    mkdir source bound && ln -s bound/run link
    expect unshare -m bash -c "mount --bind source bound && mkdir bound/run && \"$train\" --preset pocket --embedded 300 \\
      --batch 4 --steps 3 --out link"
    [ -d source/run-best ] && [ -f source/run.csv ] && [ ! -e link-best ] || fail "beside the link: $(find .)"
    mv in_volume.txt output.txt
    grep -q 'checkpoint: volume, the best: volume/best, .* metrics: volume/metrics.csv' output.txt || fail "$(cat output.txt)"
    [ "$(tail -n 1 output.txt)" = 3 ] || fail "writes outside of the volume: $(cat output.txt)"
    ;;
  report)
    # A run as one page: what is in it, hostile texts, and logs that are cut, missing or another run's. Where there is a
    # Chromium, the page is opened.
    opens() {
      if command -v python3 >/dev/null; then python3 "$project/tests/examples/report_page.py" "$@" || fail "$1"; fi
    }
    for i in {1..40}; do
      printf '%s\n' "Tom had $i <b onclick=\"window.hacked=1\">pets</b> & 'more'</script><script>window.hacked=1</script>.<|endoftext|>"
    done >hostile.txt
    run='<img src=x onerror=window.hacked=1>'
    expect pocket --data hostile.txt --sequence 32 --steps 30 --evaluate-every 10 --out "$run" --report
    grep -qF "report: $run.html" output.txt || fail "does not say where the report is: $(tail -n 1 output.txt)"
    for part in training architecture loads stories experts coloured worth; do
      grep -qF "id=\"$part\"" "$run.html" || fail "the report lacks $part"
    done
    [ "$(grep -o '<script' "$run.html" | wc -l)" = 1 ] || fail "a text became markup"
    opens "$run.html" --stories
    # A resumed run's report goes on; the story of each evaluation is there once.
    expect "$train" --data hostile.txt --steps 40 --resume "$run" --report page.html
    [ "$(grep -c '"event": *"story"' "$run.jsonl")" = 4 ] || fail "stories of the resumed run: $(grep -c story "$run.jsonl")"
    # A file that is no page is not replaced, before any work; a page is.
    cp "$run.csv" kept.csv && cp "$run/config.json" kept.json
    expect_error "is there already and is no page of a report" "$report" "$run" --out "$run.csv"
    expect_error "is there already and is no page of a report" "$report" "$run" --out "$run/config.json"
    expect_error "is there already and is no page of a report" "$train" --data hostile.txt --steps 50 --resume "$run" --report "$run.csv"
    expect_error "is the name of two files of this run" pocket --steps 1 --out new --report new.csv
    cmp "$run.csv" kept.csv && cmp "$run/config.json" kept.json || fail "a file of the run was replaced"
    # Cut while it was written: what is whole is shown.
    head -c -40 "$run.csv" >cut.csv && head -c -40 "$run.jsonl" >cut.jsonl
    expect "$report" "$run" --metrics cut.csv --json-lines cut.jsonl --out cut.html
    grep -q 'cut.csv: 1 line is cut or no row, and left out' cut.html || fail "does not say that a row is cut"
    grep -q 'id="coloured"' cut.html || fail "does not read what the run validated on"
    expect "$report" "$run" --data hostile.txt --tokens 500 --worth-tokens 0 --out some.html
    grep -q 'prune RUN --experts N' cut.html && grep -q 'Memory beside the weights' cut.html || fail "lacks memory or prune"
    # As a kill leaves it before the first file of a checkpoint is put in place.
    cp -r "$run" unplaced && (cd unplaced && mkdir .tinymoe.new && mv -- *.* .tinymoe.new)
    expect "$report" unplaced --data hostile.txt --tokens 500 --worth-tokens 0 --out unplaced.html
    grep -q 'id="experts"' unplaced.html || fail "does not find the model in .tinymoe.new"
    expect_error "is part of a checkpoint" "$tokenize" train hostile.txt --out unplaced/tokenizer.json
    expect "$describe" unplaced
    # prune reads the same stories.
    expect "$prune" "$run" --experts 3 --tokens 200 --out smaller
    grep -q $'\r' output.txt && fail "moves the cursor of a file"
    grep -q 'id="experts"' some.html && ! grep -q 'id="worth"' some.html || fail "other parts than asked for"
    # Several side by side.
    sed 's/,[0-9.]*,\([0-9.]*,[0-9.]*\)$/,0,\1/' "$run.csv" >other.csv
    expect "$report" "$run" other.csv --out both.html
    grep -q 'JSON lines are not there' both.html && fail "tells what such a page never has"
    grep -q 'id="comparison"' both.html || fail "runs are not compared"
    opens both.html
    expect_error "nothing.csv is not there" "$report" nothing
    expect_error "as train writes them" "$report" hostile.txt
    pocket --steps 40 --out second >log.txt
    expect_error "second.csv: is the log of another run" "$report" "$run" --metrics second.csv
    expect_error "are the logs of one run" "$report" "$run" second --metrics cut.csv
    expect "$report" second
    grep -q 'second: its JSON lines are not there' second.html || fail "does not say that there are no JSON lines"
    mkdir twin && cp -r second twin/second && cp second.csv twin
    expect "$report" second/ twin/second/ --out twins.html
    grep -q 'twin/second<' twins.html || fail "the name keeps its last slash"
    expect "$train" --embedded 300 --steps 42 --resume second --report
    grep -q 'second.jsonl: begins at step 41' second.html || fail "does not say where the JSON lines begin"
    rm second.csv second-loads.csv second.jsonl
    expect "$report" second
    for missing in 'second.csv: is not there, so the training is left out' 'give stories with --data'; do
      grep -q "$missing" second.html || fail "does not say what is missing: $missing"
    done
    # A long run: small, and opened within two seconds.
    awk 'BEGIN { print "step,tokens,seconds,loss,learning_rate,gradient_norm,tokens_per_second,balance_loss,z_loss," \
        "load_variation,validation_loss,validation_bits_per_byte"
      for (i = 1; i <= 100000; ++i) {
        loss = 2 + 500 / (i + 100) + sin(i * 12.9898) / 5
        printf "%d,%d,%.3f,%.6f,%.6g,%.5g,%.1f,%.5f,%.5f,%.4f,,\n", i, i * 1024, i / 11, loss, 0.005 * (1 - i / 1e5),
          1 + sin(i * 7.7) / 3, 11000 + 900 * sin(i * 3.3), 1.01, 0.1, 0.1 + sin(i) / 50
        if (i % 500 == 0) printf "%d,%d,%.3f,,,,,,,0.1000,%.6f,%.5f\n", i, i * 1024, i / 11, loss, loss / 2.6
      } }' >long.csv
    expect timeout 20 "$report" long.csv
    [ "$(stat -c %s long.html)" -lt 5000000 ] || fail "a long run's report has $(stat -c %s long.html) bytes"
    opens long.html --seconds 2
    ;;
  curves)
    # The command that trains presets for docs/presets.md replaces its part of the page, and no other.
    mkdir docs && cp "$project/docs/presets.md" docs
    curves() { "$project/scripts/preset_curves.sh" --minutes 0.02 --programs "${train%/*}" --runs "$folder/runs" "$@"; }
    expect_error "presets.md" curves --docs "$folder" --embedded 300
    if ! curves --only pocket --docs "$folder/docs" --embedded 300 --batch 4 >log.txt 2>&1; then
      grep -q 'there is no Chromium' log.txt || fail "$(tail -n 3 log.txt)"
      echo "SKIPPED: there is no Chromium"
      exit 0
    fi
    grep -Eq '^\| `pocket` \| [0-9.]+M \| [0-9.]+ \| ±[0-9]+ % \| [^|]+, [-0-9]+ \| !\[pocket\]\(pictures/presets/pocket.png\) \|$' \
      docs/presets.md || fail "no row: $(tail -n 3 docs/presets.md)"
    rows() { sed '1,/^## Five minutes$/d' "$1" | grep '^| `' | grep -v '^| `pocket`'; }
    rows docs/presets.md | cmp - <(rows "$project/docs/presets.md") || fail "rows of other presets are changed"
    [ "$(stat -c %s docs/pictures/presets/pocket.png)" -gt 2000 ] || fail "no picture"
    sed '/^## Five minutes$/,$d' docs/presets.md >now.txt
    sed '/^## Five minutes$/,$d' "$project/docs/presets.md" | cmp - now.txt || fail "another part of the page is changed"
    ;;
  output)
    # What a run prints: a view on a terminal, plain lines elsewhere, JSON lines for programs, or nothing.
    pocket --steps 30 --out plain >log.txt
    grep -q $'\033' log.txt && fail "moves the cursor of a file"
    grep -q '^step 30 ' log.txt || fail "no plain lines"
    pocket --steps 30 --out quiet --quiet >log.txt 2>&1
    [ ! -s log.txt ] || fail "prints: $(head -n 1 log.txt)"
    pocket --steps 30 --evaluate-every 10 --out json --json --quiet --json-lines file.jsonl >log.jsonl 2>error.txt
    [ ! -s error.txt ] || fail "prints: $(head -n 1 error.txt)"
    cmp log.jsonl file.jsonl || fail "prints other lines than the log has"
    pocket --steps 3 --out both --json 2>error.txt | grep -v '^{"event":' && fail "other lines among those of JSON"
    grep -q 'trained on' error.txt || fail "says nothing to people"
    expect_error "holds a checkpoint" pocket --steps 3 --out both --quiet
    command -v script >/dev/null || { echo "script(1) is missing, so no terminal was tried" && exit 0; }
    on_terminal() { TERM=$1 LC_ALL=$2 script -qec "$train --preset pocket --embedded 300 --steps 30 --out $3" terminal.txt >log.txt; }
    on_terminal xterm C.UTF-8 view || fail "fails on a terminal: $(tail -n 1 log.txt)"
    for part in 'loss   ' 'done   ' 'loads  ' 'memory ' $'\033\\[J'; do
      grep -q "$part" log.txt || fail "the view lacks $part"
    done
    on_terminal xterm C line && grep -q 'done   ' log.txt && fail "a view where UTF-8 is not shown"
    # The time left is seen at any width, and no line is as wide as the terminal.
    narrow() { TERM=xterm LC_ALL=$2 script -qec "stty cols $1 rows 24; $train --preset pocket --embedded 300 --steps 30 --out $3" terminal.txt >log.txt; }
    lines() { sed -n 's/\r/\n/gp' log.txt | sed 's/\x1b\[[0-9]*[AJK]//g' | grep '^step '; }
    for at in "80 C.UTF-8" "80 C" "40 C"; do
      narrow $at "columns-${at// /-}" || fail "fails on a narrow terminal: $(tail -n 1 log.txt)"
      lines >steps.txt || fail "no line of a step: $(cat log.txt)"
      grep -q '[0-9]:[0-9][0-9] left' steps.txt || fail "no time left in ${at% *} columns: $(cat steps.txt)"
      awk -v most="${at% *}" 'length >= most { exit 1 }' steps.txt || fail "wraps in ${at% *} columns: $(cat steps.txt)"
    done
    on_terminal dumb C.UTF-8 dumb && grep -q $'\033' log.txt && fail "moves the cursor of a dumb terminal"
    # Many stories show how far they are, beside the standard output.
    many() { TERM=xterm script -qec "$sample plain --stories 600 --tokens 60 $*" terminal.txt >log.txt || fail "$(tail -n 1 log.txt)"; }
    many '>stories.txt'
    grep -q 'stories: [0-9]* %' log.txt || fail "many stories show no progress: $(cat log.txt)"
    grep -q $'stories: [0-9]* %\033' stories.txt && fail "progress is among the stories"
    many '--quiet >quiet.txt'
    [ ! -s log.txt ] || fail "shows, though it shall be quiet: $(cat log.txt)"
    cmp stories.txt quiet.txt || fail "other stories"
    ;;
  interrupt)
    # Ctrl-C ends a run with a checkpoint.
    pocket_job --minutes 5 --no-recompute --out run >log.txt &
    job=$!
    for _ in $(seq 100); do
      grep -qs '^step' log.txt && break
      sleep 0.1
    done
    kill -INT $job
    wait $job || fail "an interrupted run is no failure"
    grep -q 'interrupted' log.txt || fail "nothing was said of the interruption"
    grep -q 'run-best' log.txt && fail "tells of a best checkpoint that is not there: $(tail -n 1 log.txt)"
    "$sample" run --tokens 5 --quiet >/dev/null || fail "no checkpoint"
    # The command of the last line has the flag as it was given.
    grep -q -- '--no-recompute' <<<"$(tail -n 1 log.txt)" || fail "lacks the flag: $(tail -n 1 log.txt)"
    bash -c "$(tail -n 1 log.txt | grep -o '[^ ]*train --resume.*' | sed 's/--minutes 5/--minutes 0.05/')" >output.txt 2>&1 ||
      fail "the command to go on is refused: $(tail -n 3 output.txt)"
    expect_error "recompute" "$train" --no-recompute=99999999999999999999
    expect_error "recompute" "$train" --recompute=false
    expect_error "balance-over-step" "$train" --balance-over-step=norm=
    expect_error "overwrite" "$train" --overwrite=false
    expect_error "--pieces is a flag: give it without a value" "$tokenize" encode a.json --pieces=2
    ;;
  signals)
    # What terminals and schedulers send, and a reader of the output who goes, end a run as Ctrl-C does.
    started() {
      for _ in $(seq 100); do
        grep -qs '^step' log.txt && break
        sleep 0.1
      done
    }
    for signal in HUP QUIT TERM USR1 USR2 ALRM VTALRM PROF XCPU PIPE XFSZ IO PWR STKFLT RTMIN+3; do
      name=SIG$signal
      [[ $signal != RT* ]] || name="a real-time signal"
      rm -f log.txt
      pocket_job --minutes 5 --out run --overwrite >log.txt 2>&1 &
      job=$!
      started
      kill -$signal $job
      wait $job || fail "a run that $signal interrupted is no failure: $(tail -n 1 log.txt)"
      grep -q "interrupted by $name; --resume goes on from step" log.txt || fail "$signal: $(tail -n 2 log.txt)"
      [ -f run/trainer.json ] || fail "$signal: no checkpoint"
      rm -r run*
    done
    pocket --minutes 5 --out run 2>error.txt | head -n 1 >log.txt || fail "a reader who goes is no failure: $(cat error.txt)"
    grep -q "interrupted by SIGPIPE" error.txt && [ -f run/trainer.json ] || fail "the pipe's end: $(cat error.txt)"
    rm -r run*
    (
      trap '' PIPE
      pocket --minutes 5 --out run 2>error.txt | head -n 1 >log.txt || fail "a reader who goes is no failure"
      grep -q "interrupted by SIGPIPE" error.txt && [ -f run/trainer.json ] || fail "the pipe's end: $(cat error.txt)"
    )
    rm -r run*
    # The program timeout signals twice at once. A second signal that a person sends ends the run; nohup's is no signal.
    timeout -s TERM 2 "$train" --preset pocket --embedded 300 --batch 4 --minutes 5 --out run >log.txt 2>&1 || true
    [ -f run/trainer.json ] || fail "timeout: $(tail -n 2 log.txt)"
    rm -r run*
    exec_slow() { exec "$train" --preset pocket --embedded 300 --batch 64 --accumulation 1000 --minutes 5 --out slow; }
    exec_slow >slow.txt 2>&1 &
    job=$!
    sleep 1
    kill -TERM $job
    sleep 0.3
    kill -TERM $job
    status=0
    wait $job || status=$?
    [ $status = 143 ] || fail "a second signal did not end the run at once: $status: $(tail -n 1 slow.txt)"
    (
      trap '' HUP
      rm log.txt
      pocket_job --steps 300 --out run >log.txt 2>&1 &
      job=$!
      started
      kill -HUP $job
      wait $job || fail "$(tail -n 1 log.txt)"
    )
    grep -q interrupted log.txt && fail "HUP is not ignored any more: $(tail -n 2 log.txt)"
    # Process 1, as in a container: the kernel drops signals that have no handler.
    if unshare --pid --fork true 2>/dev/null && [ -r /proc/$$/task/$$/children ]; then
      process_1() { exec unshare --pid --fork "$train" --preset pocket --minutes 1 --out one "$@"; }
      # terminate_after LINE: ends what unshare runs, as soon as it has said the line.
      terminate_after() {
        for _ in $(seq 100); do
          ! grep -qs "$1" one.txt || break
          sleep 0.1
        done
        sleep 0.5
        read -r child </proc/$job/task/$job/children || true  # no end of line
        kill -TERM $child
      }
      ended_by_term() {
        status=0
        wait $job || status=$?
        [ $status = 143 ] || fail "$1: $status: $(tail -n 1 one.txt)"
      }
      process_1 --embedded 3000000 >one.txt 2>&1 &
      job=$!
      terminate_after 'learning a tokenizer'
      ended_by_term "process 1 was not ended before the first step"
      process_1 --embedded 300 --batch 64 --accumulation 1000 >one.txt 2>&1 &
      job=$!
      terminate_after 'to validate'
      sleep 0.3
      kill -TERM $child || fail "process 1 did not save: $(tail -n 1 one.txt)"
      ended_by_term "a second signal did not end process 1"
    fi
    "$train" --list | head -n 1 >/dev/null || [ "${PIPESTATUS[0]}" = 141 ] || fail "a list that nobody reads to its end"
    ;;
  outputs)
    # Output that cannot be written is an error of every program, and no other file takes its place.
    pocket --steps 2 --out run >log.txt
    printf 'Once.\n<|endoftext|>\nUpon.\n<|endoftext|>\n' >stories.txt
    unwritable() {
      local status=0
      "$@" >/dev/full 2>error.txt </dev/null || status=$?
      [ $status = 1 ] && grep -q 'the standard output cannot be written: No space' error.txt ||
        fail "$* to a full device: $status: $(cat error.txt)"
      status=0
      "$@" >&- 2>error.txt </dev/null || status=$?
      [ $status = 1 ] && grep -q 'the standard output cannot be written: Bad file' error.txt ||
        fail "$* to a closed output: $status: $(cat error.txt)"
    }
    for program in "$train" "$sample" "$chat" "$tokenize" "$upcycle" "$sweep"; do unwritable "$program" --help; done
    unwritable "$train" --list
    unwritable pocket --steps 3 --out other
    [ -z "$(ls -d other* 2>/dev/null)" ] || fail "was not refused before any work: $(ls -d other*)"
    unwritable "$sample" run --tokens 5
    unwritable "$sample" run --stories 2 --tokens 5
    unwritable "$tokenize" encode run/tokenizer.json stories.txt
    told() { printf '/tokens 5\nOnce\n' | "$chat" run; }
    unwritable told
    # Without a standard input a conversation ends; what cannot be read is an error. Without the standard error there are
    # no messages, and no file has them instead.
    "$chat" run <&- >log.txt 2>&1 || fail "chat without an input: $(cat log.txt)"
    expect_error "the standard input cannot be read" "$chat" run </
    expect_error "the standard input cannot be read" "$tokenize" encode run/tokenizer.json </
    pocket --steps 2 --out silent >log.txt 2>&- <&- || fail "training without an input and messages"
    cmp run/model.safetensors silent/model.safetensors || fail "closed streams changed what was written"
    "$sample" run --tokens 5 2>&- >log.txt || fail "sample without messages"
    # A limit on files stops no more than what does not fit; the environment may be odd or empty.
    (
      ulimit -f 300
      expect_error "File too large" pocket --steps 4 --out limited
    )
    bash -c 'ulimit -n 3; exec "$@"' few "$sample" run --tokens 1 <&- >log.txt 2>error.txt && fail "no file could be opened"
    grep -q 'config.json: cannot be opened: Too many open files' error.txt || fail "few files: $(cat error.txt)"
    for threads in 0 -1 100000 odd; do
      OMP_NUM_THREADS=$threads "$sample" run --tokens 1 --quiet >log.txt 2>&1 || fail "$threads threads: $(cat log.txt)"
    done
    env -i COLUMNS=-5 TERM=odd TMPDIR=/nowhere "$sample" run --tokens 1 --quiet >log.txt || fail "an odd environment"
    ;;
  best)
    # The checkpoint of the lowest validation loss, with and without training state.
    pocket --steps 30 --evaluate-every 10 --average 0.9 --out run >log.txt
    [ -f run-best/trainer.json ] || fail "the best checkpoint cannot be resumed"
    [ -f run-best-weights/model.safetensors ] && [ ! -f run-best-weights/trainer.json ] || fail "no weights alone"
    expect "$sample" run-best-weights --tokens 5 --quiet
    cmp run-best/model.safetensors run-best-weights/model.safetensors >/dev/null && fail "the average was not taken"
    # A mistake replaces nothing, and a resumed run evaluates as often as before.
    expect_error "missing.txt" "$train" --preset pocket --data missing.txt --out run --overwrite
    [ -f run-best/model.safetensors ] && [ -f run-best-weights/model.safetensors ] || fail "the best checkpoints are gone"
    cp -r run before && cp run.csv before.csv
    expect_error "is too large" "$train" --preset pocket --embedded 300 --batch 1000000 --steps 3 --out run --overwrite
    diff -r run before && cmp run.csv before.csv || fail "a mistake replaced a run"
    cp -r run again && cp run.csv again.csv
    expect "$train" --embedded 300 --resume again --steps 50
    [ "$(grep -c 'validation after' output.txt)" = 2 ] || fail "evaluates at other steps: $(cat output.txt)"
    # What holds a model but no training state is not replaced, not even by --overwrite.
    expect_error "holds a model without training state" pocket --steps 1 --out run-best-weights
    expect_error "holds a model without training state" pocket --steps 1 --out run-best-weights --overwrite
    expect_error "holds weights only" pocket --steps 40 --out other --resume run-best-weights
    ;;
  presets)
    # Each small preset trains and writes; the list tells of each.
    "$train" --list >list.txt
    # (the other pockets learn in tests/analysis/presets.cpp)
    for preset in story story_mixtral pocket mymoe_pocket deepseek_mini_pocket; do
      grep -q "^$preset " list.txt || fail "$preset is not in the list"
      expect "$train" --preset $preset --embedded 300 --batch 2 --sequence 32 --steps 2 --out $preset
      expect "$sample" $preset --tokens 5 --quiet
    done
    grep -Eq '^sparse_moe +158.6 M +70.5 M' list.txt || fail "the list has other counts"
    # A preset recommends; the command line decides.
    nanogpt() { expect "$train" --preset nanogpt --embedded 300 --batch 1 --accumulation 1 --sequence 16 --steps 1 "$@"; }
    nanogpt --out recommended
    [ "$(setting recommended dropout)" = 0.1 ] || fail "the published dropout is not the default"
    grep -q ',4e-05,' recommended.csv || fail "onecycle does not start at a 25th of 1e-3: $(sed -n 2p recommended.csv)"
    nanogpt --dropout 0.25 --schedule constant --warmup 0 --learning-rate 2e-4 --out decided
    [ "$(setting decided dropout)" = 0.25 ] || fail "--dropout does not win"
    grep -q ',0.0002,' decided.csv || fail "--learning-rate does not win: $(sed -n 2p decided.csv)"
    ;;
  options)
    # Each option is taken and does something: other weights than without it.
    run() { expect "$train" --embedded 300 --batch 2 --sequence 32 --steps 3 --warmup 0 "$@"; }
    differs() {
      local preset=$1
      shift
      [ -d plain_$preset ] || run --preset $preset --out plain_$preset
      run --preset $preset --out other --overwrite "$@"
      cmp -s plain_$preset/model.safetensors other/model.safetensors && fail "$* changes nothing in $preset"
      return 0
    }
    for schedule in constant onecycle wsd; do differs pocket --schedule $schedule; done
    for optimizer in lion muon; do differs pocket --optimizer $optimizer; done
    differs pocket --rates norm=4,attention=0.5
    # Factors and rate of a preset belong to its optimizer.
    run --preset story --out of_preset
    grep -q '"decays": *"table=150"' of_preset/trainer.json || fail "the recipe of story is not stored"
    run --preset story --out none_of_it --rates none --decays none
    grep -q '"decays": *"", *$' none_of_it/trainer.json && grep -q '"rates": *""' none_of_it/trainer.json ||
      fail "the recipe's factors stay: $(cat none_of_it/trainer.json)"
    # Of a preset's stages a run has those that are shorter than its sequences, and none where a row is a story.
    growth() { grep -q "\"growth\": *\"$1\"" of_preset/trainer.json || fail "not the growth $1: $(cat of_preset/trainer.json)"; }
    story() { expect "$train" --preset story --embedded 300 --steps 1 --batch 1 --out of_preset --overwrite "$@"; }
    story && growth "64=0.1,128=0.35,256=0.75"
    story --sequence 128 && growth "64=0.1"
    story --sequence 128 --growth none && growth ""
    story --sequence 128 --batching padded && growth ""
    story --sequence 128 --from none_of_it && growth ""
    for optimizer in adamw lion; do
      run --preset story --optimizer $optimizer --out of_preset --overwrite
      grep -q '"decays": *""' of_preset/trainer.json || fail "$optimizer has the factors of muon"
      grep -qE '"learning_rate": *(0.005|0.001),' of_preset/trainer.json || fail "$optimizer has the rate of muon"
    done
    differs pocket --decays expert=3
    differs pocket --growth 16=0.5
    differs pocket --batching padded
    differs pocket --dropout 0.2
    differs pocket --attention-dropout 0.2
    differs pocket --expert-dropout 0.2
    differs pocket --balance-weight 1
    differs pocket --z-weight 1
    run --preset pocket --accumulation 2 --balance-weight 1 --out micro
    run --preset pocket --accumulation 2 --balance-weight 1 --balance-over-step --out step
    cmp -s micro/model.safetensors step/model.safetensors && fail "--balance-over-step changes nothing"
    differs mymoe_pocket --jitter 0.3
    differs deepseek_mini_pocket --bias-rate 0.5
    # Computing again gives the same bits in less memory; an average leaves the training alone.
    run --preset pocket --recompute --out again
    cmp plain_pocket/model.safetensors again/model.safetensors || fail "--recompute changes the weights"
    run --preset pocket --average 0.9 --out averaged
    cmp plain_pocket/model.safetensors averaged/model.safetensors || fail "--average changes the training"
    run --preset pocket --routing-mass 0.7 --out mass
    [ "$(setting mass routing_mass)" = 0.7 ] || fail "--routing-mass is not kept"
    # And what is out of range is refused, in a line without control characters.
    expect_error '--steps must be a whole number of 0 or more, found "<0x1B>[2J<0x0A>"' "$train" --steps $'\e[2J\n'
    expect_error '<0x1B>[2J' "$train" --a-new-option $'\e[2J'
    expect_error "--schedule" "$train" --schedule steep
    expect_error "--optimizer" "$train" --optimizer sgd
    expect_error "--batching" "$train" --batching loose
    expect_error "--average" "$train" --average 1
    expect_error "--bpe-dropout" "$train" --bpe-dropout 1.5
    for option in --dropout --attention-dropout --expert-dropout --jitter; do
      expect_error "$option" "$train" $option 1
      expect_error "$option" "$train" $option -0.1
    done
    expect_error "--routing-mass" "$train" --routing-mass 1.5
    expect_error "--bias-rate" "$train" --bias-rate -1
    expect_error "--bias-rate" "$train" --bias-rate 1.5
    expect_error "--sequence" "$train" --sequence 0
    expect_error "--beta2" "$train" --beta2 1
    ;;
  benchmark)
    expect "$train" --preset pocket --benchmark
    cp output.txt preset.txt
    for line in 'parameters +156480' 'decode of a token +[0-9.]+ ms +[0-9]+ tokens/s' \
      'prefill of a prompt of 64 tokens +[0-9.]+ ms' 'a training step of 256 tokens +[0-9.]+ ms' \
      'FLOPs\) of a decoded token +230656' 'activations of a training step +[0-9.]+ MiB' \
      'peak of training, all in all +[0-9.]+ MiB'; do
      grep -Eq "$line" preset.txt || fail "no line '$line': $(cat preset.txt)"
    done
    pocket --steps 1 --out run >log.txt
    expect "$train" --benchmark run --batch 2
    grep -q '^pocket:' output.txt || fail "the checkpoint's preset is not told"
    grep -q 'a training step of 128 tokens' output.txt || fail "--batch is not taken"
    expect_error "there is no such folder" "$train" --benchmark nowhere
    expect_error "--benchmark" "$train" --benchmark run --resume run
    ;;
  sweep)
    expect "$sweep" --steps 2 --embedded 300 --only dense --only experts_8 --only bias --csv results/sweep.csv
    [ "$(cut -d , -f 1 results/sweep.csv | tr '\n' ' ')" = "variant dense experts_8 bias " ] ||
      fail "not a row for each variant: $(cat results/sweep.csv)"
    grep -Eq '^dense,1000320,1000320,2196224,[0-9.]+,2,2048,[0-9.]+,[0-9.]+,0.0000,0.005,1337,[0-9.]+,4,60,2,0.0,float32,[0-9]+,[0-9]+$' \
      results/sweep.csv || fail "not the dense variant's row: $(cat results/sweep.csv)"
    grep -Eq '^dense +1.00M +1.00M +2.20M +0.005 +1337 +[0-9]+ +2 +[0-9.]+ +\+0 %$' output.txt || fail "no table: $(cat output.txt)"
    ! grep -q 'best rate' output.txt || fail "means of one run each: $(cat output.txt)"
    # The seed is the same for all, so a second sweep has the same losses. It replaces no results unless told to.
    untimed() { cut -d , -f 1-4,6-12,14- "$1"; }
    untimed results/sweep.csv >one.csv
    expect_error "is there already" "$sweep" --steps 2 --embedded 300 --only dense --csv results/sweep.csv
    untimed results/sweep.csv | cmp - one.csv || fail "results were lost"
    for file in run.csv other.json page.html its-curves.csv; do echo "step,tokens" >$file; done
    for file in run other its; do  # the last one's curves
      expect_error "is there already and is no" "$sweep" --steps 2 --embedded 300 --only dense --csv $file.csv --overwrite
    done
    expect_error "page.html: is there already and is no page" "$sweep" --steps 2 --embedded 300 --only dense --csv page.csv --report
    [ "$(cat run.csv other.json page.html its-curves.csv | sort -u)" = "step,tokens" ] || fail "a file that is no sweep's was replaced"
    expect "$sweep" --steps 2 --embedded 300 --only dense --only experts_8 --only bias --csv results/sweep.csv --overwrite
    untimed results/sweep.csv | cmp - one.csv || fail "a second sweep found other losses"
    # Learning rates, seeds and a sweep that goes on: what is there stays, and only what is missing is trained.
    two() { "$sweep" --only dense --only bias --csv results/many.csv --steps "$@"; }  # steps, --embedded and so on
    expect two 2 --embedded 300 --learning-rate 2e-3,8e-3 --repeats 2 --report
    [ "$(cut -d , -f 1,11,12 results/many.csv | tail -n +2 | sort -u | wc -l)" = 8 ] || fail "not eight runs: $(cat results/many.csv)"
    grep -Eq '^bias +0.00[28] +2 +[0-9.]+ ± [0-9.]+ +[+-][0-9.]+ ± [0-9.]+$' output.txt || fail "no means: $(cat output.txt)"
    grep -q 'id="learning-rates"' results/many.html || fail "no page of the rates"
    grep -q '"standard_error"' results/many.json || fail "no JSON"
    untimed results/many.csv >all.csv
    sed -i '3,6d' results/many.csv  # as if it had been interrupted
    expect_error "is there already" two 2 --embedded 300 --learning-rate 2e-3,8e-3 --repeats 2
    sed '2,$s/[0-9]*$/1/' results/many.csv >results/other.csv  # of another recipe
    expect_error "a recipe of the fingerprint" "$sweep" --only dense --csv results/other.csv --steps 2 --embedded 300 --resume
    expect_error "has --steps 2, and this sweep 3" two 3 --embedded 300 --resume
    expect_error "has --batch 4, and this sweep 5" two 2 --embedded 300 --batch 5 --resume
    expect_error "data of the fingerprint" two 2 --embedded 200 --resume
    expect_error "--resume" two 2 --resume --overwrite
    cp results/many.csv rest.csv
    expect two 2 --embedded 300 --learning-rate 2e-3,8e-3 --repeats 2 --resume
    head -n "$(wc -l <rest.csv)" results/many.csv | cmp - rest.csv || fail "rows that were there changed"
    untimed results/many.csv | sort | cmp - <(sort all.csv) || fail "a resumed sweep has other results"
    head -n 1 results/many.csv >results/begun.csv  # interrupted in its first run
    expect_error "has no results yet" "$report" results/begun.csv
    expect "$sweep" --steps 2 --embedded 300 --only dense --csv results/begun.csv --resume
    [ "$(wc -l <results/begun.csv)" = 2 ] || fail "a sweep without results does not go on: $(cat results/begun.csv)"
    # The group of sizes, in as far as the build has it: each by its own recipe.
    expect "$sweep" --group sizes --steps 2 --embedded 300 --csv results/sizes.csv
    [ "$(cut -d , -f 1,11,14 results/sizes.csv | tail -n +2 | head -n 1)" = "mix_0m3,0.02,2" ] || fail "not a mixture by its recipe: $(cat results/sizes.csv)"
    sed '2,$s/^mix_0m3,[0-9]*/mix_0m3,1/' results/sizes.csv >results/other.csv
    expect_error "mix_0m3 has parameters 1, and this sweep" "$sweep" --group sizes --steps 2 --embedded 300 --csv results/other.csv --resume
    # Validations on the way, of a sweep that was interrupted and went on.
    expect "$sweep" --steps 3 --embedded 300 --only dense --csv results/curves.csv --evaluate-minutes 1e-9
    expect "$sweep" --steps 3 --embedded 300 --only dense --only bias --csv results/curves.csv --evaluate-minutes 1e-9 --resume --report
    [ "$(cut -d , -f 1-5 results/curves-curves.csv | tail -n +2 | tr '\n' ' ')" = \
      "dense,0.005,1337,1,1024 dense,0.005,1337,2,2048 dense,0.005,1337,3,3072 bias,0.005,1337,1,1024 bias,0.005,1337,2,2048 bias,0.005,1337,3,3072 " ] ||
      fail "not the curves: $(cat results/curves-curves.csv)"
    grep -q 'id="curves"' results/curves.html || fail "no curves on the page"
    rm results/curves.html
    expect "$report" results/curves.csv
    grep -q 'id="curves"' results/curves.html || fail "report draws no curves"
    # Rates that are drawn lie between the two, and are the same again.
    expect "$sweep" --steps 2 --embedded 300 --only dense --csv results/many.csv --learning-rate 1e-3,1e-2 --draw 3 --overwrite
    [ "$(grep -c ^dense, results/many.csv)" = 3 ] || fail "not three rates: $(cat results/many.csv)"
    cut -d , -f 11 results/many.csv | tail -n +2 | awk '$1 < 1e-3 || $1 > 1e-2 { exit 1 }' || fail "rates outside: $(cat results/many.csv)"
    expect two 2 --embedded 300 --learning-rate 1e-2,1e-3 --draw 3 --resume
    ! grep -vE '^(dense|bias|variant),' results/many.csv && [ "$(wc -l <results/many.csv)" = 7 ] || fail "other rates: $(cat results/many.csv)"
    expect_error "--draw needs two values" "$sweep" --draw 3 --csv other.csv
    expect_error '--learning-rate must be' "$sweep" --learning-rate 1e-3,,2 --csv other.csv
    expect_error '--learning-rate must be' "$sweep" --learning-rate 1e-3,-1 --csv other.csv
    expect_error 'does not end in .json' "$sweep" --csv other.json
    # In bfloat16 too, where the build has it.
    if "$sweep" --steps 2 --embedded 300 --only bias --csv results/bfloat16.csv --precision bfloat16 >output.txt 2>&1; then
      grep -q '^bias,' results/bfloat16.csv || fail "no bfloat16: $(cat output.txt)"
    else
      grep -q "TINYMOE_EXAMPLE_NARROW_PRESETS" output.txt || fail "no bfloat16, and no reason: $(cat output.txt)"
    fi
    expect_error "--only" "$sweep" --only nothing
    expect_error "missing.txt" "$sweep" --data missing.txt --steps 1
    expect_error "missing.txt" "$sweep" --data missing.txt --steps 1 --csv results/sweep.csv --overwrite
    untimed results/sweep.csv | cmp - one.csv || fail "a mistake lost results"
    expect_error "sweep: /dev/full: " "$sweep" --steps 1 --embedded 300 --only dense --csv /dev/full
    said=$(ulimit -f 0 && "$sweep" --steps 1 --embedded 300 --only dense --csv full.csv 2>&1) && fail "results were lost"
    [[ $said == *"full-curves.csv"*"cannot be written: File too large"* ]] || fail "no cause: $said"
    ;;
  sample)
    pocket --steps 30 --out run >log.txt
    grep -Eq 'validation after step 30: loss [0-9.]+, [0-9.]+ bits per byte' log.txt || fail "no bits per byte"
    "$sample" run --prompt "The cat" --stories 2 --tokens 20 --seed 5 --quiet >one.txt
    "$sample" run --prompt "The cat" --stories 2 --tokens 20 --seed 5 --quiet >two.txt
    cmp one.txt two.txt || fail "the same seed wrote other stories"
    [ "$(grep -c 'The cat' one.txt)" = 2 ] || fail "the prompt is not in each story"
    "$sample" run --prompt "" --temperature 0 --top-k 5 --top-p 0.5 --repetition-penalty 1.2 --tokens 100 >/dev/null 2>&1
    printf 'One day. %.0s' $(seq 200) >long.txt
    "$sample" run --prompt "$(cat long.txt)" --tokens 80 --quiet >/dev/null || fail "a long prompt"
    # Several prompts are one batch, and each story the one that it is by itself.
    "$sample" run --prompt "The cat" --prompt "One day" --tokens 20 --seed 5 --quiet >batch.txt
    grep -q '^The cat' batch.txt && grep -q '^One day' batch.txt || fail "not a story for each prompt"
    "$sample" run --prompt "The cat" --tokens 20 --seed 5 --quiet >alone.txt
    head -n "$((1 + $(wc -l <alone.txt)))" batch.txt | tail -n +2 | cmp - alone.txt || fail "a batch writes other stories"
    "$sample" run --stories 20 --tokens 4 --quiet | grep -c '^--- story' | grep -qx 20 || fail "not twenty stories"
    "$sample" run --min-p 1 --tokens 20 --seed 5 --quiet >min.txt
    "$sample" run --temperature 0 --tokens 20 --quiet | cmp - min.txt || fail "--min-p 1 is not the likeliest token"
    "$sample" run --typical 0.2 --tokens 20 --seed 5 --quiet >typical.txt
    "$sample" run --tokens 20 --seed 5 --quiet | cmp -s - typical.txt && fail "--typical changes nothing"
    # How stories hang together, beside as many of a file. Where nothing can be counted, no share is shown.
    printf '%s<|endoftext|>' 'A girl named Lily ran. So Lily sat.' 'One two three four five.' 'Not counted.' >told.txt
    mkdir -p told && echo 'I ran.' >told/short.txt && echo '{"body": 1}' >told.jsonl
    "$sample" run --stories 2 --tokens 20 --quiet --coherence --compare told.txt --compare told >stories.txt 2>counts.txt
    grep -qE '^written +2 ' counts.txt || fail "what was written is not counted: $(cat counts.txt)"
    grep -qE '^told.txt +2 +13 +7 of 7 +100 % +1 of 1 +100 %$' counts.txt || fail "counts of the file: $(cat counts.txt)"
    grep -qE '^told +1 +2 +0 of 0 +- +0 of 0 +-$' counts.txt || fail "counts of the folder: $(cat counts.txt)"
    "$sample" run --stories 2 --tokens 20 --quiet | cmp - stories.txt || fail "counting changes the stories"
    "$sample" run --coherence --compare told.jsonl >stories.txt 2>counts.txt && fail "no story is in the file"
    [ ! -s stories.txt ] || fail "writes before it has read all: $(cat counts.txt)"
    expect_error "requires --coherence" "$sample" run --compare told.txt
    expect_error "no_stories.txt" "$sample" run --coherence --compare no_stories.txt
    # Each token that the model's files name ends a story, whatever the tokenizer's is.
    cp -r run ended
    sed -i "s/\"eos_token_id\": [0-9]*/\"eos_token_id\": [$(seq -s , 0 5000)]/" ended/config.json ended/generation_config.json
    [ "$("$sample" ended --prompt "The cat" --quiet)" = "The cat" ] || fail "a story goes on behind its end"
    # Integer weights are the same whether they are made on loading or before.
    for i in {1..20}; do echo "The cat had $i mice.<|endoftext|>"; done >cats.txt
    expect "$quantize" run --weights int4 --validation cats.txt --out small
    grep -Eq '^int4 +[0-9.]+ MiB  loss [0-9.]+, [0-9.]+ bits per byte  [+-][0-9.]+ %$' output.txt ||
      fail "no loss: $(cat output.txt)"
    "$sample" run --weights int4 --tokens 20 --seed 5 --quiet >loaded.txt
    "$sample" small --tokens 20 --seed 5 --quiet | cmp - loaded.txt || fail "other weights when they are made on loading"
    expect "$quantize" small --validation cats.txt
    grep -q '^int4 .* loss' output.txt || fail "no loss of stored weights: $(cat output.txt)"
    printf 'One day\n' | "$chat" run --weights int8 --tokens 5 >chat.txt 2>&1
    grep -q 'int8 weights' chat.txt || fail "chat has other weights: $(cat chat.txt)"
    for command in "--from small" "--resume small" "--benchmark small"; do
      expect_error "small: its weights are int4, which are for inference alone" "$train" $command --steps 1
    done
    expect_error "this model's are int8" "$sample" small --weights int8
    expect_error "need --device cpu" "$sample" small --device cuda
    expect_error "need --precision float32" "$sample" small --precision bfloat16
    expect_error "give --weights int8" "$quantize" run --out other
    expect_error "small: its weights are rounded to int4 already" "$quantize" small --weights int8 --validation cats.txt
    grep -q "^device" output.txt && fail "measured before it refused: $(cat output.txt)"
    expect_error "holds a checkpoint" "$quantize" run --weights int8 --out small
    expect_error "is the checkpoint itself" "$quantize" run --weights int8 --out run --overwrite
    cp -r run kept
    expect_error "holds a run that could not resume" "$quantize" run --weights int8 --out kept --overwrite
    diff -r run kept >&2 || fail "a refused quantize changes a run"
    expect_error "out is empty" "$quantize" run --weights int8 --out ""
    cp -r small changed
    sed -i 's/"weights": "int4"/"weights": "int5"/' changed/config.json
    expect_error 'changed/config.json: its weights are "int5"' "$sample" changed
    sed -i 's/"quantization_config"/"no_config"/' changed/config.json
    expect_error "floating-point numbers, found U8" "$sample" changed
    # A trace replaces a trace, and nothing else.
    cp run/tokenizer.json kept.json
    expect_error "run/tokenizer.json: is there already and is no trace" "$sample" run --trace run/tokenizer.json
    cmp run/tokenizer.json kept.json || fail "the tokenizer was replaced"
    for name in trace.json trace.npz; do
      for _ in 1 2; do expect "$sample" run --tokens 3 --trace $name; done
    done
    expect_error "min-p must be" "$sample" run --min-p 1.5
    expect_error "typical must be" "$sample" run --typical 0
    expect_error "temperature must be" "$sample" run --temperature -1
    expect_error "top-p must be" "$sample" run --top-p 0
    expect_error "repetition-penalty must be" "$sample" run --repetition-penalty 0
    expect_error "there is no such folder" "$sample" nowhere
    ;;
  experts)
    # A smaller checkpoint, its type, and the routing of a story for other programs.
    for i in {1..60}; do echo "The cat had $i mice. Tom saw them.<|endoftext|>"; done >cats.txt
    "$train" --preset pocket --data cats.txt --validation cats.txt --batch 4 --steps 40 --out run >log.txt
    expect "$prune" run --experts 3 --tokens 1000 --out run-3
    grep -q '^loss [0-9.]* with all experts$' output.txt && grep -q '^loss [0-9.]* without these:$' output.txt ||
      fail "no loss: $(cat output.txt)"
    grep -q 'Router<3, 2>' output.txt && grep -q '^struct Pruned' output.txt || fail "no type: $(cat output.txt)"
    "$describe" run-3 --name Pruned | grep -v '^//' >described.txt
    sed -n '/^#include/,/^struct/p' output.txt | cmp - described.txt || fail "describe tells another type: $(cat described.txt)"
    grep -q '"num_local_experts": 3' run-3/config.json || fail "not the hub's: $(cat run-3/config.json)"
    expect_error "run-3/config.json: is of an architecture that this program was not compiled for" "$sample" run-3
    expect "$prune" run --experts 2 --by load --validation cats.txt --out run-2 --name Small
    [ "$(grep -c 'of the load' output.txt)" -gt 0 ] && grep -q '^struct Small' output.txt || fail "$(cat output.txt)"
    expect_error "run-2: holds a checkpoint; give --overwrite" "$prune" run --experts 3 --out run-2
    expect_error "give --experts, --choices or both" "$prune" run --out other
    expect_error "leaves none out" "$prune" run --experts 100 --out other
    expect_error "of which a token takes 2" "$prune" run --experts 1 --out other
    expect_error "normalised gates" "$prune" run --choices 1 --out other
    expect_error "is the checkpoint itself" "$prune" run --experts 2 --out run --overwrite
    expect_error "run-best-data: has not what the run validated on; give stories with --validation" "$prune" run-best --experts 3 --out other
    [ ! -e other ] || fail "a mistake wrote something"
    "$sample" run --prompt "The cat" --tokens 20 --seed 5 --quiet >plain.txt
    for name in trace.npz trace.json; do
      "$sample" run --prompt "The cat" --tokens 20 --seed 5 --quiet --trace $name | cmp - plain.txt || fail "a trace changes the story"
    done
    expect_error '"trace.txt"; end its name with' "$sample" run --trace trace.txt
    if "$python" -c 'import numpy' 2>/dev/null; then
      "$python" "$project/tests/examples/trace.py" plain.txt trace.npz trace.json >&2 || fail "NumPy reads another trace"
    fi
    if "$python" -c 'import transformers, torch' 2>/dev/null; then
      "$python" -c "
import torch, transformers
model, details = transformers.AutoModelForCausalLM.from_pretrained('run-3', output_loading_info=True)
assert not any(details.values()), details
assert model.config.num_local_experts == 3 and type(model).__name__ == 'MixtralForCausalLM'
assert torch.isfinite(model(torch.arange(8)[None]).logits).all()" >&2 || fail "transformers does not read it"
    fi
    ;;
  convert)
    # A checkpoint goes into a GGUF file and out of it: the weights are the same bytes, and so are the integers.
    expect pocket --steps 20 --out run
    expect "$convert" run run.gguf
    [ "$(cat output.txt)" = "run.gguf: pocket, F32" ] || fail "said $(cat output.txt)"
    expect "$convert" run.gguf again
    cmp run/model.safetensors again/model.safetensors || fail "the weights differ"
    ask() { "$sample" "$@" --prompt "Once upon a time" --temperature 0 --tokens 60 --quiet; }
    [ "$(ask run)" = "$(ask again)" ] || fail "the text differs"
    expect "$quantize" run --weights int8 --out small
    expect "$convert" small small.gguf
    expect "$convert" run rounded.gguf --type q8_0
    cmp small.gguf rounded.gguf || fail "the integers differ"
    expect_error "small.gguf: is there already; give --overwrite" "$convert" run small.gguf
    expect "$convert" run small.gguf --type bfloat16 --overwrite
    expect_error "run.csv: is there already and is no GGUF file" "$convert" run run.csv --overwrite
    grep -q '^step,tokens' run.csv || fail "the metrics were replaced"
    expect_error "take the model that they were made of" "$convert" small other.gguf --type q4_0
    expect_error "a checkpoint has float32" "$convert" run.gguf other --type q8_0
    expect_error "again: holds a checkpoint; give --overwrite" "$convert" run.gguf again
    expect_error "run: holds a run that could not resume then" "$convert" run.gguf run --overwrite
    expect_error "expected a GGUF file" "$convert" run/config.json other
    expect_error "absent: there is no such file; give a checkpoint's folder, or a GGUF file" "$convert" absent other
    expect_error "absent: there is no such file; give a folder of the hub, or its config.json" "$describe" absent
    head -c 5000 run.gguf >cut.gguf
    expect_error "cut.gguf: " "$convert" cut.gguf other
    ls other other.gguf >output.txt 2>/dev/null && fail "something was written: $(cat output.txt)"
    ;;
  chat)
    pocket --steps 30 --out run >log.txt
    printf '/help\n/tokens 8\n/seed 3\nOne day\n/again\n/nothing\n' | "$chat" run >one.txt 2>&1 ||
      fail "$(tail -n 3 one.txt)"
    grep -aq '/again' one.txt || fail "/help does not list the commands"
    grep -aq '^One day' one.txt || fail "the prompt was not continued: $(cat one.txt)"
    grep -aq 'there is no command /nothing' one.txt || fail "an unknown command is not told of: $(cat one.txt)"
    printf '/tokens 8\n/seed 3\nOne day\n' | "$chat" run 2>/dev/null | grep -a '^One day' >two.txt
    grep -a '^One day' one.txt | head -n 1 | cmp - two.txt || fail "the same seed wrote another story"
    # Edit the prompt, change the settings, go on; see the speed and the experts of each token.
    printf '/stats\n/experts\n/tokens 6\n/temperature 0.5\n/settings\nThe cat sat\n/edit cat -> dog\n/prompt\n' >commands.txt
    printf '/continue\n/edit bird -> cow\n/top-p 7\n/experts\n/stats\n/again\n/quit\nnever\n' >>commands.txt
    "$chat" run <commands.txt >three.txt 2>&1 || fail "$(tail -n 3 three.txt)"
    grep -aq '^temperature *0.5$' three.txt || fail "/settings does not show the temperature: $(cat three.txt)"
    grep -aq '^The dog sat$' three.txt || fail "/prompt does not show what was edited: $(cat three.txt)"
    [ "$(grep -ac '^The dog sat' three.txt)" = 3 ] || fail "the edited prompt was not written from: $(cat three.txt)"
    [ "$(grep -ac '[0-9] tokens after .*, the first in [0-9]* ms, then [0-9]* tokens/s' three.txt)" = 3 ] ||
      fail "no speed of three stories: $(cat three.txt)"
    [ "$(grep -ac '^\[experts of each token' three.txt)" = 3 ] || fail "no experts of three stories: $(cat three.txt)"
    grep -aq '^".*"  *[0-3]:[0-9][0-9] [0-3]:[0-9][0-9]' three.txt || fail "no experts of a token: $(cat three.txt)"
    grep -aq 'the prompt has no "bird"' three.txt || fail "a wrong edit is not told of"
    grep -aq 'top-p must be' three.txt || fail "a wrong setting is not told of"
    grep -aq 'never' three.txt && fail "/quit does not leave"
    expect_error "there is no such folder" "$chat" nowhere
    ;;
  upcycle)
    # A dense model becomes a mixture that gives the same logits, and is trained on.
    expect "$train" --preset story_dense --embedded 300 --batch 2 --sequence 32 --steps 3 --out dense
    expect "$upcycle" --dense dense --mixture story_mixtral --out mixture
    "$sample" dense --temperature 0 --tokens 10 --quiet >dense.txt
    "$sample" mixture --temperature 0 --tokens 10 --quiet | cmp - dense.txt || fail "the mixture writes another story"
    expect "$train" --from mixture --embedded 300 --batch 2 --sequence 32 --steps 3 --out trained
    grep -q '^preset story_mixtral$' output.txt || fail "the mixture's preset is not told"
    grep -q 'starting with the weights of mixture' output.txt || fail "does not start with the weights"
    cmp mixture/tokenizer.json trained/tokenizer.json || fail "not the mixture's tokenizer"
    expect "$train" --from mixture --embedded 300 --batch 2 --sequence 32 --steps 1 --learning-rate 1e-30 \
      --weight-decay 0 --out same
    cmp -s mixture/model.safetensors same/model.safetensors || fail "did not start with the mixture's weights"
    expect_error "there is no such folder" "$train" --from nowhere
    expect_error "--from" "$train" --from mixture --resume trained
    expect_error "holds a model without training state" "$train" --from mixture --embedded 300 --steps 1 --out mixture
    expect_error "is of another architecture" "$upcycle" --dense trained --out other
    ;;
  upcycle_characters)
    # A model of llama2.c becomes a mixture, and is trained on with ordinary stories, though its characters lack some.
    data=${TINYMOE_TEST_DATA:-$project/../shared/data}
    if [ ! -f "$data/llama2c/model.bin" ]; then
      echo "SKIPPED: development data is absent: llama2c/model.bin"
      exit 0
    fi
    expect "$upcycle" --llama2c "$data/llama2c/model.bin" --tokenizer "$data/llama2c/tokenizer.bin" --out mixture
    grep -q 'first logits: they differ by' output.txt || fail "the first logits were not compared"
    "$sample" mixture --temperature 0 --tokens 256 --quiet >story.txt
    head -c 200 "$data/llama2c/greedy.txt" | cmp -n 200 - story.txt || fail "the mixture writes another story: $(cat story.txt)"
    head -c 30000 "$data/tinystories-train.txt" >stories.txt
    printf '\n<|endoftext|>\nThis one has a \xc2\xabword\xc2\xbb that is left out.\n<|endoftext|>\n' >>stories.txt
    expect "$train" --from mixture --data stories.txt --batch 2 --sequence 64 --steps 4 --out trained
    grep -q 'left out 1 of [0-9]* stories' output.txt || fail "$(cat output.txt)"
    grep -q 'validation after step 4' output.txt || fail "was not trained: $(tail -n 3 output.txt)"
    ;;
  plot)
    # One run with its experts, and two runs together; what is no run is told.
    if ! command -v gnuplot >/dev/null; then
      echo "SKIPPED: gnuplot is not installed"
      exit 0
    fi
    pocket --steps 30 --evaluate-every 10 --out run >log.txt
    pocket --steps 20 --optimizer lion --out other_run >log.txt
    [ "$(head -n 1 run-loads.csv)" = "mixture,expert,pairs,share_of_even" ] || fail "no loads: $(ls)"
    expect "$project/scripts/plot.sh" run
    grep -q 'that each expert took' run.svg || fail "the experts are not drawn"
    grep -q 'learning rate' run.svg || fail "the learning rate is not drawn"
    expect "$project/scripts/plot.sh" --over seconds --out both.svg run.csv other_run/
    grep -q 'other_run' both.svg || fail "the second run is not drawn"
    expect_error "is not what train writes" "$project/scripts/plot.sh" run-loads
    # A dense run in the place of a mixture's has no experts to draw.
    expect "$train" --preset story_dense --embedded 300 --batch 2 --sequence 32 --steps 2 --out run --overwrite
    [ ! -e run-loads.csv ] || fail "the loads of the run before are still there"
    expect_error "nowhere.csv is not there" "$project/scripts/plot.sh" nowhere
    expect_error "neither an .svg nor a .png" "$project/scripts/plot.sh" --out run.gif run
    ;;
  device)
    # The cpu by itself and by name, and what is not there is one sentence.
    pocket --steps 2 --out itself >log.txt
    grep -Eq '^device cpu, (AMX, 2 threads, bfloat16|[^,]+, 2 threads, float32)$' log.txt ||
      fail "the device is not told: $(head -n 3 log.txt)"
    precision=$(sed -n 's/^device cpu, .*, //p' log.txt)
    pocket --steps 2 --device cpu --precision "$precision" --out named >log.txt
    cmp itself/model.safetensors named/model.safetensors || fail "the cpu by name trains otherwise"
    expect env TINYMOE_CPU=baseline "$sample" named --tokens 5 --device cpu
    grep -Eq '^device cpu, baseline(, row kernels [^,]+)?, 2 threads, float32$' output.txt || fail "sample does not tell the device: $(cat output.txt)"
    TINYMOE_CPU=mmx expect_error 'TINYMOE_CPU must be baseline, avx2, avx512, vnni or amx, found "mmx"' "$sample" named
    # Either precision trains, is measured, sampled and kept, and goes on in the other one.
    for precision in float32 bfloat16; do
      tells() { grep -Eq "^device cpu, [^,]+, 2 threads, $1\$" output.txt || fail "not in $1: $(cat output.txt)"; }
      expect pocket --steps 4 --schedule constant --precision $precision --out $precision
      tells $precision
      cp -r $precision parts
      expect "$train" --resume parts --embedded 300 --batch 4 --steps 6
      tells $precision
      expect pocket --steps 6 --schedule constant --precision $precision --out whole --overwrite
      cmp whole/model.safetensors parts/model.safetensors || fail "a resumed run in $precision has other weights"
      rm -r parts*
      for other in float32 bfloat16; do
        expect "$train" --resume $precision --embedded 300 --steps 6 --precision $other --out other --overwrite
        tells $other
        expect "$sample" other --tokens 5 --precision $other
        tells $other
        printf '/tokens 8\nOne day\n' | "$chat" other --precision $other >output.txt 2>&1 || fail "$(cat output.txt)"
        tells $other
      done
    done
    expect "$train" --benchmark whole --precision bfloat16 --batch 1 --sequence 32
    tells bfloat16
    ! cmp -s float32/model.safetensors bfloat16/model.safetensors || fail "the precisions train alike"
    rm -r other*
    for program in "pocket --steps 2 --out other" "$sample named" "$chat named"; do
      expect_error "float16, and the cpu computes in float32 or bfloat16; give one of them, or --device cuda" $program --precision float16
    done
    expect_error "--device" pocket --steps 2 --device gpu --out other
    expect_error "--precision" pocket --steps 2 --precision float64 --out other
    [ -z "$(ls -d other* 2>/dev/null)" ] || fail "a mistake wrote $(ls -d other*)"
    ;;
  no_gpu)
    # Built with CUDA, on a machine without a GPU: the cpu by itself; one sentence and no files if the GPU is asked for.
    need_cuda
    one_sentence() {
      expect_error "no NVIDIA GPU can be used here" "$@" --device cuda
      [ "$(grep -c . output.txt)" = 1 ] || fail "not one sentence: $(cat output.txt)"
      expect_error "no NVIDIA GPU can be used here" "$@" --device cuda --precision float32
    }
    one_sentence "$train" --preset story --embedded 300 --steps 1 --out other
    [ -z "$(ls -d other* 2>/dev/null)" ] || fail "wrote $(ls -d other*)"
    expect "$train" --preset story --embedded 300 --batch 1 --sequence 16 --steps 1 --out run
    grep -q '^device cpu, ' output.txt || fail "does not take the cpu: $(cat output.txt)"
    one_sentence "$sample" run
    one_sentence "$chat" run
    one_sentence "$train" --benchmark run
    ;;
  gpu)
    # A run goes from the GPU to the cpu and back, and either writes what it learnt.
    unset CUDA_VISIBLE_DEVICES
    need_cuda
    if grep -q 'no NVIDIA GPU can be used here' output.txt; then
      echo "SKIPPED: this machine has no GPU"
      exit 0
    fi
    story() { expect "$train" --preset story --embedded 300 --batch 2 --sequence 32 --schedule constant "$@"; }
    for precision in bfloat16 float16 float32; do
      story --steps 6 --precision $precision --out $precision
      grep -Eq "^device cuda, .*, $precision\$" output.txt || fail "not on the GPU in $precision: $(cat output.txt)"
      cp -r $precision parts
      expect "$train" --resume parts --embedded 300 --steps 8
      grep -Eq "^device cuda, .*, $precision\$" output.txt || fail "a run goes on in another precision: $(cat output.txt)"
      story --steps 8 --precision $precision --out whole --overwrite
      cmp whole/model.safetensors parts/model.safetensors || fail "a resumed run in $precision has other weights"
      rm -r parts*
      for device in cpu cuda; do
        expect "$train" --resume $precision --embedded 300 --device $device --steps 8 --out on_$device --overwrite
        expect "$sample" on_$device --tokens 20 --device cpu
        expect "$sample" on_$device --tokens 20 --device cuda --precision $precision
        printf '/tokens 8\nOne day\n' | "$chat" on_$device --precision $precision >chat.txt 2>&1 || fail "$(cat chat.txt)"
      done
      expect "$train" --benchmark $precision --precision $precision --batch 1 --sequence 32
    done
    ;;
  tokenize)
    pocket --steps 1 --out run >log.txt
    head -c 4000 /dev/urandom >bytes.bin
    "$tokenize" encode run/tokenizer.json <bytes.bin >ids.txt
    "$tokenize" decode run/tokenizer.json <ids.txt >back.bin
    cmp -n 4000 bytes.bin back.bin || fail "bytes did not come back"
    expect_error "tokenizer.json" "$tokenize" encode nowhere/tokenizer.json
    # A tokenizer replaces a tokenizer that no checkpoint has, and nothing else.
    echo 'Tom had a cat.<|endoftext|>' >cat.txt
    cp run/tokenizer.json kept.json
    expect_error "run/tokenizer.json: is part of a checkpoint" "$tokenize" train cat.txt --vocabulary 257 --out run/tokenizer.json
    expect_error "run.csv: is there already and is no tokenizer" "$tokenize" train cat.txt --vocabulary 257 --out run.csv
    cmp run/tokenizer.json kept.json || fail "the tokenizer was replaced"
    grep -q '^step,tokens' run.csv || fail "the metrics were replaced"
    for _ in 1 2; do expect "$tokenize" train cat.txt --vocabulary 257 --out learnt.json; done
    expect_error "only Llama 2's kind" "$tokenize" export run/tokenizer.json here.model
    ;;
  corpora)
    # The same stories give the same model, whatever their files: text, JSON, gzipped, in a folder or several.
    for i in {1..60}; do printf 'Tom had %d pets.\n<|endoftext|>\n' $i; done >a.txt
    for i in {1..60}; do printf '{"text": "Tom had %d pets.", "body": {"n": %d}}\n' $i $i; done >a.jsonl
    (echo '['; sed 's/"text"/"story"/; s/$/,/; $s/,$//' a.jsonl; echo ']') >a.json
    mkdir parts
    head -n 25 a.jsonl >parts/1.jsonl
    (echo '['; tail -n 35 a.jsonl | sed 's/$/,/; $s/,$//'; echo ']') >parts/2.json
    stories() { "$train" --preset pocket --steps 1 --batch 2 --sequence 16 --overwrite --out "$@"; }
    expect stories whole --data a.txt
    same() {
      expect stories other "$@"
      for file in model.safetensors tokenizer.json; do cmp whole/$file other/$file || fail "another $file: $*"; done
    }
    same --data a.jsonl
    same --data a.json --field story
    same --data parts
    same --data 'parts/[12].*'
    same --data parts/1.jsonl parts/2.json
    gzip -k a.txt a.json parts/2.json
    if stories other --data a.txt.gz >output.txt 2>&1; then
      same --data a.json.gz
      same --data parts/1.jsonl parts/2.json.gz
      head -c 100 a.txt.gz >cut.txt.gz
      expect_error "cut.txt.gz: is cut: its gzip data end at byte 100" stories other --data cut.txt.gz
      cut=$(($(wc -c <a.json.gz) - 20)) && head -c $cut a.json.gz >cut.json.gz
      expect_error "cut.json.gz: is cut" stories other --data cut.json.gz
    else
      grep -q 'a.txt.gz: is gzipped, and this program was built without zlib' output.txt || fail "$(tail -n 1 output.txt)"
    fi
    # A part, which a resumed run must name again.
    expect stories part --data a.txt --shuffle-seed 5 --skip 10 --stories 40 --validation-stories 8
    expect stories other --data a.jsonl --shuffle-seed 5 --skip 10 --stories 40 --validation-stories 8
    cmp part/model.safetensors other/model.safetensors || fail "another part"
    expect_error "the run to resume trained on" "$train" --data a.txt --shuffle-seed 6 --skip 10 --stories 40 \
      --validation-stories 8 --resume part --steps 2
    expect "$train" --data a.jsonl --shuffle-seed 5 --skip 10 --stories 40 --validation-stories 8 --resume part --steps 2
    expect_error "a.txt: expected 50 stories behind the first 11, found 49; there are 60 in all" \
      stories new --data a.txt --skip 11 --stories 50
    expect_error "expected more than 60 stories" stories other --data a.txt --validation-stories 60
    expect_error "--stories requires --data" stories new --stories 5
    expect_error "--stories must be a whole number of 1 or more" stories new --data a.txt --stories 0
    # Merges are left out of the stories to train on, as the seed says, and a resumed run keeps that.
    expect stories dropped --data a.txt --bpe-dropout 0.5
    expect stories other --data a.txt --bpe-dropout 0.5
    cmp dropped/model.safetensors other/model.safetensors || fail "other tokens for the same seed"
    expect stories other --data a.txt --bpe-dropout 0
    cmp whole/model.safetensors other/model.safetensors || fail "--bpe-dropout 0 changes the training"
    if cmp -s whole/model.safetensors dropped/model.safetensors; then fail "--bpe-dropout leaves nothing out"; fi
    expect "$train" --data a.txt --resume dropped --steps 2
    expect_error "the run to resume trained on" "$train" --data a.txt --resume dropped --bpe-dropout 0.1 --steps 3
    # What is wrong is told with its place, and nothing is written.
    sed '33s/}}$//' a.jsonl >cut.jsonl
    expect_error "cut.jsonl: line 33: JSON is cut or corrupt" stories new --data cut.jsonl
    expect_error 'a.jsonl: line 1: expected the field "story", found "text", "body"' stories new --data a.jsonl --field story
    expect_error 'line 1: expected the story as a string in "body", found object' stories new --data a.jsonl --field body
    cp a.jsonl wrong.txt
    expect_error "wrong.txt: begins as JSON; name it .jsonl or .json" stories new --data wrong.txt
    cp a.txt wrong.jsonl
    expect_error "wrong.jsonl: line 1: JSON is cut or corrupt at byte 1" stories new --data wrong.jsonl
    mkdir empty
    expect_error "empty: has no file of stories" stories new --data empty
    expect_error "no*.txt: no file has a name like this" stories new --data 'no*.txt'
    [ -z "$(ls -d new* 2>/dev/null)" ] || fail "a mistake left $(ls -d new*)"
    # Tokens of other projects: as those of the text they were made of.
    printf 'Tom had 1 pets.' | "$tokenize" encode whole/tokenizer.json >ids.txt
    bytes() { for id; do printf "\\x$(printf %02x $((id % 256)))\\x$(printf %02x $((id / 256)))"; done; }
    end=$(sed -n 's/.*"id": \([0-9]*\), "content": "<|endoftext|>".*/\1/p' whole/tokenizer.json)
    for i in {1..60}; do bytes $(cat ids.txt) "$end"; done >train.bin
    expect_error "train.bin: has tokens; give the --tokenizer that made them" stories new --data train.bin
    expect_error "train.bin: has tokens, of which no merge can be left out" \
      stories new --data train.bin --tokenizer whole/tokenizer.json --bpe-dropout 0.1
    for i in {1..60}; do printf 'Tom had 1 pets.\n<|endoftext|>\n'; done >text_of.txt
    expect stories of_tokens --data train.bin --tokenizer whole/tokenizer.json --stories 50 --validation-stories 5
    expect stories of_text --data text_of.txt --tokenizer whole/tokenizer.json --stories 50 --validation-stories 5
    cmp of_tokens/model.safetensors of_text/model.safetensors || fail "tokens and their text give different models"
    printf 'x' >>train.bin
    expect_error "train.bin: is cut or no token file" stories new --data train.bin --tokenizer whole/tokenizer.json
    expect_error "name files of one kind" stories new --data train.bin a.txt
    # The other programs read them as well.
    expect "$tokenize" train parts --vocabulary 300 --out tokenizer.json
    expect "$quantize" part --validation a.json
    ;;
  mistakes)
    printf 'A story.\n<|endoftext|>\nAnother \xff story.\n' >not_text.txt
    printf '' >empty.txt
    printf 'Short.\n<|endoftext|>\n' >short.txt
    expect_error "missing.txt" "$train" --preset pocket --data missing.txt --steps 1
    expect_error "not_text.txt" "$train" --preset pocket --data not_text.txt --steps 1
    expect_error "empty.txt" "$train" --preset pocket --data empty.txt --steps 1
    expect_error "257" "$train" --preset pocket --data short.txt --steps 1
    expect_error 'there is no preset "nothing"' "$train" --preset nothing
    expect_error "longer than the model's context" pocket --sequence 1000 --steps 1 --out run
    expect_error "--learning-rate" pocket --learning-rate -1
    expect_error "short.txt: line 1 is no event of a run" pocket --steps 1 --out logged --json-lines short.txt
    grep -q Short short.txt || fail "a foreign file is replaced"
    expect_error "short.txt" pocket --steps 1 --out logged --tensorboard short.txt
    pocket --steps 2 --out logged --json-lines logs/run.jsonl --tensorboard logs/events >log.txt
    grep -q '"event":"end","step":2' logs/run.jsonl || fail "the log has no end: $(cat logs/run.jsonl)"
    [ -s "$(ls logs/events/events.out.tfevents.*)" ] || fail "nothing for TensorBoard"
    pocket --steps 3 --out run >log.txt
    expect_error "holds a checkpoint" pocket --steps 3 --out run
    expect_error "the run to resume had batch 4" pocket --steps 5 --out run --resume --accumulation 2
    expect_error "there is no such folder" pocket --steps 5 --out other --resume
    expect_error "the last good checkpoint" pocket --steps 60 --out bad --learning-rate 1e30 --warmup 0 --clip 0 \
      --schedule constant --checkpoint-every 1
    [ ! -d bad ] || "$sample" bad --tokens 3 --quiet >/dev/null || fail "the last good checkpoint is not good"
    expect_error "trained on data of" "$train" --preset pocket --embedded 200 --batch 4 --steps 5 --out run --resume
    head -c 5000 run/model.safetensors >cut && cp -r run cut_run && mv cut cut_run/model.safetensors
    expect_error "cut_run/model.safetensors" "$sample" cut_run
    printf '{"model_type": "mixtral"' >cut_run/config.json
    expect_error "cut_run/config.json" "$sample" cut_run
    sed 's/"vocab": 512/"vocab": 511/' run/config.json >cut_run/config.json
    expect_error "not compiled for" "$sample" cut_run
    ;;
  full_disk)
    # A limit on the size of files stands for a full disk: the first checkpoint stays.
    pocket --steps 2 --schedule constant --out run >log.txt
    cp -r run before
    (
      ulimit -f 200
      expect_error "model.safetensors" pocket --steps 4 --schedule constant --out run --resume --metrics other.csv
    )
    diff -r run before || fail "the last good checkpoint was touched"
    [ "$(ls -d run* | tr '\n' ' ')" = "run run-best run-best-weights run-loads.csv run.csv " ] ||
      fail "something was left behind: $(ls -d run*)"
    ;;
  numbers)
    # Every option that is a number, as --help lists them: what is none is refused before any work, and by its name. One
    # function reads them all, so only six options of a kind get every value, and the others two in turn.
    options=0
    declare -A of_kind=()
    refuse() {
      local option=$1 kind=$2 value status tried=("${values[@]}")
      shift 2
      of_kind[$kind]=$((${of_kind[$kind]:-0} + 1))
      if [ ${of_kind[$kind]} -gt 6 ]; then tried=("${values[0]}" "${values[options % ${#values[@]}]}"); fi
      for value in "${tried[@]}"; do
        status=0
        "$@" "$option=$value" >output.txt 2>&1 || status=$?
        [ $status -ne 0 ] && [ $status -lt 126 ] || fail "$* $option=$value: exit status $status: $(cat output.txt)"
        head -n 1 output.txt | grep -qF -- "$option must be " || fail "$* $option=$value: $(cat output.txt)"
      done
      options=$((options + 1))
    }
    numbers_of() {
      "$@" --help >help.txt
      for option in $(sed -n 's/^ *\(--[a-z0-9-]*\) FLOAT.*/\1/p' help.txt); do
        values=(nan inf -inf -1 1e999 0x1p3 1,5)
        refuse "$option" real "$@"
      done
      for option in $(sed -n 's/^ *\(--[a-z0-9-]*\) U\?INT.*/\1/p' help.txt); do
        values=(nan -1 1e3 0x10 1.5 18446744073709551616)
        refuse "$option" whole "$@"
      done
    }
    mkdir run
    numbers_of "$train" --list
    numbers_of "$sweep"
    numbers_of "$sample" run
    numbers_of "$chat" run
    numbers_of "$upcycle" --out other
    numbers_of "$tokenize" train run
    [ $options -ge 60 ] || fail "only $options options were tried"
    # What a checkpoint tells the run that goes on is asked in the same way.
    pocket --steps 1 --out run --overwrite >log.txt
    # A float may be smaller than floats are; what fits no double or integer is told as such.
    expect "$sample" run --temperature 1e-60 --tokens 3
    expect_error 'found "1e-400", which does not fit a double' "$sample" run --temperature 1e-400
    expect_error 'found 1e+60, which is inf as a float' "$sample" run --temperature 1e60
    expect_error 'found "18446744073709551616", which does not fit a 64-bit integer' "$sample" run --seed 18446744073709551616
    sed -i 's/"learning_rate": [^,}]*/"learning_rate": -1/' run/trainer.json
    expect_error 'trainer.json: "learning_rate" must be a number above 0, found -1' pocket --steps 2 --resume run
    # Factors of parts come back from a checkpoint, and are asked in the same way.
    pocket --steps 1 --out factors --rates norm=4,feed-forward=0.5 --decays table=2 >log.txt
    grep -q '"rates": *"norm=4,feed-forward=0.5"' factors/trainer.json || fail "no factors: $(cat factors/trainer.json)"
    pocket --steps 2 --resume factors >log.txt
    grep -q '"decays": *"table=2"' factors/trainer.json || fail "a resumed run forgets its factors"
    expect_error 'found "norms=4"; the parts are embedding, position' pocket --rates router=1,norms=4
    expect_error 'found "norm"; the parts are' pocket --decays norm
    expect_error '--rates, norm must be a number of 0 or more, found -1' pocket --rates norm=-1
    expect_error '--rates, norm must be a number of 0 or more, found ""' pocket --rates norm=
    sed -i 's/"rates": *"[^"]*"/"rates": "norm=nan"/' factors/trainer.json
    expect_error 'trainer.json: rates, norm must be' pocket --steps 3 --resume factors
    # Sequences that grow come back from a checkpoint, as the preset's do; of those a run has what fits its length.
    pocket --steps 1 --out grown --growth 8=0.25,16=0.5 >log.txt
    grep -q '"growth": *"8=0.25,16=0.5"' grown/trainer.json || fail "no growth: $(cat grown/trainer.json)"
    pocket --steps 2 --resume grown >log.txt
    expect_error "had the growth of sequences 8=0.25,16=0.5; found none" pocket --steps 3 --resume grown --growth none
    pocket --steps 2 --out third --growth 8=0.3333333333333333 >log.txt
    pocket --steps 3 --resume third >log.txt
    expect_error '--growth, length must be' pocket --growth x=0.5
    expect_error 'found "16=0.5,8"' pocket --growth 16=0.5,8
    expect_error '--growth: the lengths must grow' pocket --growth 16=0.5,8=0.6
    expect_error 'below the full 64 tokens' pocket --growth 64=0.5 --data missing.txt  # before any text is read
    # What Muon works on stays as it is.
    pocket --steps 1 --out muon --optimizer muon >log.txt
    expect_error '--muon-experts and --muon-feed-forward cannot be changed' pocket --steps 2 --resume muon --no-muon-experts
    expect_error '--muon-experts and --muon-feed-forward cannot be changed' pocket --steps 2 --resume muon --no-muon-feed-forward
    pocket --steps 2 --resume muon --muon-experts >log.txt
    pocket --steps 2 --out other_muon --optimizer muon --no-muon-experts --no-muon-feed-forward >log.txt
    grep -q '"muon_feed_forward": *false' other_muon/trainer.json || fail "does not store --no-muon-feed-forward"
    cmp -s muon/model.safetensors other_muon/model.safetensors && fail "--no-muon-experts changes nothing"
    expect_error 'packed batches alone' pocket --growth 16=0.5 --batching padded
    # Negative zero is 0.
    pocket --steps 2 --schedule constant --clip -0 --weight-decay -0.0 --minutes -0 --out negative >log.txt
    pocket --steps 2 --schedule constant --clip 0 --weight-decay 0 --out zero >log.txt
    cmp negative/model.safetensors zero/model.safetensors || fail "-0 is not 0"
    grep -q -- '-0' negative/trainer.json && fail "-0 is in trainer.json"
    ;;
  demo)
    # The README's first command on the embedded stories, shortened, on what there is. It configures a build of its own;
    # of that only the plan is made, and its programs are those that are tested here.
    unset CUDA_VISIBLE_DEVICES
    mkdir tools
    cat >tools/cmake <<'END'
#!/usr/bin/env bash
set -e
if [ "$1" != --build ]; then exec "$cmake" "$@"; fi
"$cmake" "$@" -- -n
mkdir -p "$2/examples"
cp "$train" "$sample" "$2/examples"
END
    chmod +x tools/cmake
    cmake=$(command -v cmake) train=$train sample=$sample PATH=$PWD/tools:$PATH \
      "$project/scripts/demo.sh" --embedded --minutes 0.05 --preset pocket \
      --out "$folder/new/demo" --build "$folder/build" >log.txt 2>&1 || fail "$(tail -n 5 log.txt)"
    grep -Eq 'step [0-9]+ +loss [0-9.]+ +[0-9]+:[0-9]+ left +[0-9]+ tokens/s +expert load' log.txt || fail "no progress line"
    [ "$(grep -c 'makes up itself' log.txt)" = 1 ] || fail "not one line on the stories"
    grep -Eq 'loss [0-9.]+, [0-9.]+ bits per byte' log.txt || fail "no bits per byte"
    [ "$(grep -c '^Once upon a time' log.txt)" -ge 3 ] || fail "not three stories"
    grep -q "The checkpoint is in $folder/new/demo" log.txt || fail "no word of the checkpoint"
    [ -f new/demo/model.safetensors ] || fail "no checkpoint"
    grep -q '<html' new/demo.html || fail "no page of the run"
    # A wrong TINYMOE_DATA is one sentence.
    expect_error "TINYMOE_DATA=nowhere" env TINYMOE_DATA=nowhere cmake="$(command -v cmake)" train="$train" sample="$sample" \
      PATH="$PWD/tools:$PATH" "$project/scripts/demo.sh" --build "$folder/build"
    ;;
  *) fail "unknown case $1" ;;
esac
echo "ok"
