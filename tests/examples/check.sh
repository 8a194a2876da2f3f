#!/usr/bin/env bash
# The example programs as a user runs them: train, interrupt, kill, resume, sample, tokenize, and mistakes.
# usage: check.sh CASE TRAIN SAMPLE TOKENIZE
set -euo pipefail
train=$2 sample=$3 tokenize=$4
project=$(cd "$(dirname "$0")/../.." && pwd)
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=2
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
pocket() { "$train" --preset pocket --embedded 300 --batch 4 "$@"; }
# The same in the background, such that $! is the program itself and not a shell around it.
pocket_job() { exec "$train" --preset pocket --embedded 300 --batch 4 "$@"; }

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
    ;;
  kill)
    # Killed at random moments and resumed, a run ends where an undisturbed one does.
    pocket --steps 120 --schedule constant --checkpoint-every 3 --out whole >log.txt
    resume=()
    for round in 1 2 3 4 5; do
      pocket_job --steps 120 --schedule constant --checkpoint-every 3 --out killed "${resume[@]}" >log.txt 2>&1 &
      job=$!
      sleep "0.$((RANDOM % 8 + 1))"
      kill -9 $job 2>/dev/null || true
      wait $job 2>/dev/null || true
      [ ! -d killed ] || resume=(--resume)
      [ ! -d killed ] || "$sample" killed --tokens 1 --quiet >log.txt || fail "the checkpoint of round $round is not whole"
    done
    pocket --steps 120 --schedule constant --checkpoint-every 3 --out killed "${resume[@]}" >log.txt
    cmp whole/model.safetensors killed/model.safetensors || fail "the weights differ"
    cmp whole/optimizer.safetensors killed/optimizer.safetensors || fail "the optimizer's state differs"
    ;;
  interrupt)
    # Ctrl-C ends a run with a checkpoint.
    pocket_job --minutes 5 --out run >log.txt &
    job=$!
    for _ in $(seq 100); do
      grep -q '^step' log.txt && break
      sleep 0.1
    done
    kill -INT $job
    wait $job || fail "an interrupted run is no failure"
    grep -q 'interrupted' log.txt || fail "nothing was said of the interruption"
    "$sample" run --tokens 5 --quiet >/dev/null || fail "no checkpoint"
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
    expect_error "temperature must be" "$sample" run --temperature -1
    expect_error "top-p must be" "$sample" run --top-p 0
    expect_error "repetition penalty must be" "$sample" run --repetition-penalty 0
    expect_error "there is no such folder" "$sample" nowhere
    ;;
  tokenize)
    pocket --steps 1 --out run >log.txt
    head -c 4000 /dev/urandom >bytes.bin
    "$tokenize" encode run/tokenizer.json <bytes.bin >ids.txt
    "$tokenize" decode run/tokenizer.json <ids.txt >back.bin
    cmp -n 4000 bytes.bin back.bin || fail "bytes did not come back"
    expect_error "tokenizer.json" "$tokenize" encode nowhere/tokenizer.json
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
      trap '' XFSZ
      ulimit -f 200
      expect_error "model.safetensors" pocket --steps 4 --schedule constant --out run --resume --metrics other.csv
    )
    diff -r run before || fail "the last good checkpoint was touched"
    [ "$(ls -d run* | tr '\n' ' ')" = "run run-data run.csv " ] || [ "$(ls -d run* | tr '\n' ' ')" = "run run.csv " ] ||
      fail "something was left behind: $(ls -d run*)"
    ;;
  demo)
    # The README's first command on the embedded stories, shortened, with a build of its own.
    "$project/scripts/demo.sh" --embedded --minutes 0.05 --preset pocket --out "$folder/new/demo" --build "$folder/build" \
      >log.txt 2>&1 || fail "$(tail -n 5 log.txt)"
    grep -Eq 'step [0-9]+ +loss [0-9.]+ +[0-9]+ tokens/s +expert load .* left' log.txt || fail "no progress line"
    [ "$(grep -c 'makes up itself' log.txt)" = 1 ] || fail "not one line on the stories"
    grep -Eq 'loss [0-9.]+, [0-9.]+ bits per byte' log.txt || fail "no bits per byte"
    [ "$(grep -c '^Once upon a time' log.txt)" -ge 3 ] || fail "not three stories"
    grep -q "The checkpoint is in $folder/new/demo" log.txt || fail "no word of the checkpoint"
    [ -f new/demo/model.safetensors ] || fail "no checkpoint"
    # A wrong TINYMOE_DATA is one sentence.
    expect_error "TINYMOE_DATA=nowhere" env TINYMOE_DATA=nowhere "$project/scripts/demo.sh" --build "$folder/build"
    ;;
  *) fail "unknown case $1" ;;
esac
echo "ok"
