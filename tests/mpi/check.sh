#!/usr/bin/env bash
# Several processes on MPI: check.sh CASE RANKS [FOLDER], with the program of ranks.cpp and the folder of the programs.
# check.sh killed RANKS FOLDER TIMES: so many kills at random moments.
set -euo pipefail
ranks=$(realpath "$2") train=$(realpath "${3:-.}")/train times=${4:-3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

if ! command -v mpirun >/dev/null; then
  echo "SKIPPED: there is no mpirun"
  exit 0
fi

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
export OMP_NUM_THREADS=1
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0"  # MPI does not give all of its memory back
# Open MPI's options as variables: the same command works with other kinds of MPI, which know none of them.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_plm_rsh_agent=false PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
mpi() { timeout 60 mpirun "$@" </dev/null; }
# expect NUMBER COMMAND…: on so many processes it must succeed.
expect() {
  local number=$1
  shift
  mpi -n "$number" "$@" >output.txt 2>&1 || fail "$number processes, $*: $(tail -n 5 output.txt)"
}
# expect_end SENTENCE COMMAND…: mpirun's arguments; it must fail, say so, end within seconds and leave no process.
expect_end() {
  local sentence=$1 status=0 started=$SECONDS
  shift
  mpi "$@" >output.txt 2>&1 || status=$?
  [ $status -ne 0 ] || fail "should have failed: $*"
  [ $((SECONDS - started)) -lt 20 ] || fail "took $((SECONDS - started)) s to end: $*"
  [ -z "$sentence" ] || grep -qF -- "$sentence" output.txt || fail "'$(tail -n 5 output.txt)' lacks '$sentence'"
  for _ in $(seq 50); do
    [ -n "$(processes)" ] || return 0
    sleep 0.1
  done
  fail "is still there: $(processes)"
}
# The processes of this case: they were started in its folder.
processes() {
  local process
  for process in /proc/[0-9]*; do
    if [ "$(readlink "$process/cwd" 2>/dev/null)" = "$folder" ] && [[ $(readlink "$process/exe") =~ /(train|ranks|test_mpi|test_nccl)$ ]]; then
      echo "${process#/proc/}"
    fi
  done
}
# In float32: on a processor with AMX the default is bfloat16, in which an order of sums may change a loss by 1e-4.
pocket=("$train" --preset pocket --precision float32 --embedded 300 --batch 2 --sequence 32 --schedule constant --clip 1)
# losses FILE: the losses of its steps and evaluations.
losses() { awk -F , 'NR > 1 { print $1, $4 == "" ? $11 : $4 }' "$1"; }
# same_losses FILE OTHER: they agree to a share of 1e-6.
same_losses() {
  paste -d ' ' <(losses "$1") <(losses "$2") | awk '
    { d = $2 - $4; if (d < 0) d = -d; if ($1 != $3 || !(d <= 1e-6 * $4)) { print; bad = 1 } }
    END { exit bad || NR == 0 }'
}

case $1 in
  sums)
    for number in 1 2 3 4; do
      expect $number "$ranks" sums
      [ "$(grep -c '^ok$' output.txt)" = 1 ] || fail "$number processes: $(cat output.txt)"
    done
    ;;
  nccl)
    # GPUs that NCCL joins: sums of one process, and of as many as there are GPUs; and a run as the hosts' memory makes it.
    gpus=$("$ranks" count)
    if [ "$gpus" = 0 ]; then
      echo "SKIPPED: no NVIDIA GPU can be used here"
      exit 0
    fi
    for number in 1 2 3 4; do
      [ $number -le "$gpus" ] || break
      expect $number "$ranks" sums
      [ "$(grep -c '^ok$' output.txt)" = 1 ] || fail "$number processes: $(cat output.txt)"
    done
    expect_end "have the same GPU" -n 2 "$ranks" same
    if [ "$gpus" -ge 2 ]; then
      expect_end "rank 1: the disk is full" -n 2 "$ranks" leave
      expect_end "" -n 2 "$ranks" killed
      [ -x "$train" ] || exit 0
      of_story=("$train" --preset story --embedded 300 --batch 2 --sequence 32 --device cuda --precision float32 --steps 6
        --accumulation 4 --evaluate-every 3)
      expect 1 "${of_story[@]}" --out one
      expect 2 "${of_story[@]}" --out two
      grep -q "NCCL joins the GPUs" output.txt || fail "the run did without NCCL: $(cat output.txt)"
      same_losses one.csv two.csv || fail "other losses with two GPUs"
      expect 2 "${of_story[@]}" --expert-parallel 2 --out shared
      grep -q "NCCL joins the GPUs" output.txt || fail "the run with spread experts did without NCCL: $(cat output.txt)"
      same_losses one.csv shared.csv || fail "other losses with experts spread over two GPUs"
    fi
    ;;
  network)
    # Two machines, which are network namespaces with a link between them: a slow one, and one that is cut.
    here=tinymoe-$$a there=tinymoe-$$b
    make_machines() {
      ip netns add "$here" && ip netns add "$there" && ip link add eth0 netns "$here" type veth peer name eth0 netns "$there" &&
        ip -n "$here" addr add 10.77.0.1/24 dev eth0 && ip -n "$there" addr add 10.77.0.2/24 dev eth0 &&
        for machine in "$here" "$there"; do ip -n "$machine" link set lo up && ip -n "$machine" link set eth0 up || return 1; done
    }
    trap 'for machine in "$here" "$there"; do ip netns del "$machine" 2>/dev/null || true; done; rm -rf "$folder"' EXIT
    if ! mpirun --version 2>/dev/null | grep -q "Open MPI) 4" || ! make_machines >output.txt 2>&1; then
      echo "SKIPPED: it needs Open MPI 4, ip, and the right to make network namespaces: $(tail -n 1 output.txt)"
      exit 0
    fi
    # What starts processes on the other machine, in place of ssh.
    printf '#!/bin/sh\nshift\nexec ip netns exec %s unshare --uts sh -c "hostname there; $*"\n' "$there" >agent.sh
    chmod +x agent.sh
    unset OMPI_MCA_btl_vader_single_copy_mechanism
    export OMPI_MCA_plm_rsh_agent=$PWD/agent.sh OMPI_MCA_btl=tcp,self
    mpi() {
      timeout 60 ip netns exec "$here" unshare --uts sh -c 'hostname here; exec mpirun --host 10.77.0.1:2,10.77.0.2:2 --map-by node "$@"' sh "$@" </dev/null
    }
    expect 2 "$ranks" "sums apart"
    grep -qx ok output.txt || fail "$(cat output.txt)"
    if [ -x "$train" ]; then
      # A slow link: ten milliseconds, or a hundredth of what a local one takes; the kernel may have neither.
      tc -n "$here" qdisc add dev eth0 root netem delay 10ms 2>/dev/null ||
        tc -n "$here" qdisc add dev eth0 root tbf rate 100mbit burst 32kbit latency 400ms 2>/dev/null || echo "the link is not slow"
      "${pocket[@]}" --steps 4 --accumulation 4 --evaluate-every 2 --out one >log.txt
      expect 2 "${pocket[@]}" --steps 4 --accumulation 4 --evaluate-every 2 --out two
      same_losses two.csv one.csv || fail "other losses on two machines"
      expect 4 "${pocket[@]}" --steps 4 --accumulation 4 --evaluate-every 2 --expert-parallel 2 --out spread
      same_losses spread.csv one.csv || fail "other losses with experts spread over two machines"
    fi
    mpi -n 2 "$ranks" cut >output.txt 2>&1 &
    job=$!
    for _ in $(seq 300); do
      ! grep -q "they sum" output.txt || break
      sleep 0.05
    done
    grep -q "they sum" output.txt || fail "$(cat output.txt)"
    ip -n "$here" link set eth0 down
    # Both ranks end by themselves. mpirun would wait for its daemon on the other machine.
    for _ in $(seq 150); do
      [ -n "$(processes)" ] || break
      sleep 0.1
    done
    still=$(processes)
    for machine in "$here" "$there"; do ip netns pids "$machine" | xargs -r kill -KILL; done
    wait $job || true
    [ -z "$still" ] || fail "is still there: $still"
    grep -q "one of which hangs or has died" output.txt || fail "does not tell: $(cat output.txt)"
    ;;
  ends)
    # However a rank ends, all end.
    expect_end "rank 2: the disk is full" -n 3 "$ranks" leave
    expect_end "one of which hangs" -n 2 "$ranks" hang
    expect_end "one of which hangs" -n 2 "$ranks" "hang beside"
    expect_end "data.txt: is not here" -n 2 "$ranks" throw
    expect_end "" -n 3 "$ranks" killed
    ;;
  trains)
    # As one process trains: the losses, and with the same number of processes the same bits.
    expect 1 "${pocket[@]}" --steps 6 --accumulation 4 --evaluate-every 3 --out one
    for number in 2 3 4; do
      expect $number "${pocket[@]}" --steps 6 --accumulation 4 --evaluate-every 3 --out of-$number
      grep -q "^$number processes share the 4 micro-batches of a step" output.txt || fail "does not tell: $(cat output.txt)"
      [ "$(grep -c '^preset pocket' output.txt)" = 1 ] || fail "several processes print: $(cat output.txt)"
      [ "$(grep -c 'validation after step 6' output.txt)" = 1 ] || fail "several evaluations: $(cat output.txt)"
      same_losses of-$number.csv one.csv || fail "other losses with $number processes"
      [ "$(wc -l <of-$number.csv)" = "$(wc -l <one.csv)" ] || fail "rows are there twice: $(cat of-$number.csv)"
    done
    expect 3 "${pocket[@]}" --steps 6 --accumulation 4 --evaluate-every 3 --out again
    cmp again/model.safetensors of-3/model.safetensors || fail "other bits with the same number of processes"
    cmp again/optimizer.safetensors of-3/optimizer.safetensors || fail "other moments with the same number of processes"
    # Muon, which works on whole matrices; an average of the weights; checkpoints on the way.
    muon=("${pocket[@]}" --optimizer muon --average 0.9 --accumulation 4 --evaluate-every 2 --checkpoint-every 2)
    expect 1 "${muon[@]}" --steps 4 --out muon-1
    expect 4 "${muon[@]}" --steps 4 --out muon-4
    same_losses muon-4.csv muon-1.csv || fail "other losses by Muon"
    # The experts spread over groups of processes; a checkpoint does not know it.
    for shape in "2 2" "4 2" "4 4"; do
      read -r number together <<<"$shape"
      spread=("${pocket[@]}" --steps 6 --accumulation 4 --evaluate-every 3 --expert-parallel "$together")
      out=spread-$number-$together
      expect "$number" "${spread[@]}" --out "$out"
      grep -q "^the experts are spread over groups of $together" output.txt || fail "does not tell: $(cat output.txt)"
      same_losses "$out.csv" one.csv || fail "other losses with experts spread over $together of $number processes"
      expect "$number" "${spread[@]}" --out "$out-again"
      cmp "$out-again/model.safetensors" "$out/model.safetensors" || fail "other bits with experts spread over $together"
      cmp "$out-again/optimizer.safetensors" "$out/optimizer.safetensors" || fail "other moments with experts spread over $together"
    done
    expect 4 "${pocket[@]}" --steps 3 --accumulation 4 --evaluate-every 3 --expert-parallel 2 --out some
    expect 2 "${pocket[@]}" --steps 6 --resume some
    same_losses some.csv one.csv || fail "other losses when it goes on without spread experts"
    expect_end "expert parallelism in groups of 2 needs a number of processes" -n 3 "${pocket[@]}" --steps 1 --expert-parallel 2 --out no
    expect_end "has another number of processes that share experts than rank 0" \
      -n 1 "${pocket[@]}" --steps 1 --expert-parallel 2 --out no : -n 1 "${pocket[@]}" --steps 1 --out no
    # Without --accumulation each process takes as many micro-batches as one alone would.
    expect 2 "${pocket[@]}" --steps 1 --out default
    grep -q "^2 processes share the 2 micro-batches" output.txt || fail "another default: $(cat output.txt)"
    expect_end "1 micro-batch, which 2 processes cannot share" -n 2 "${pocket[@]}" --steps 1 --accumulation 1 --out few
    # A run goes on with any number of processes, and with as many micro-batches.
    expect 2 "${pocket[@]}" --evaluate-every 3 --steps 3 --accumulation 4 --out parts
    expect 3 "${pocket[@]}" --steps 5 --checkpoint-every 2 --resume parts
    expect 1 "${pocket[@]}" --steps 6 --resume parts
    sed -i '/^5,.*,,.*,[0-9.]*,[0-9.]*$/d' parts.csv  # the evaluation at an end that is none
    same_losses parts.csv one.csv || fail "other losses when it goes on: $(paste <(losses parts.csv) <(losses one.csv))"
    ;;
  data)
    # Rank 0 learns the tokenizer and encodes the texts; the others open what it has made.
    for i in {1..400}; do echo "Tom had $i pets and $((i * 7 % 31)) friends.<|endoftext|>"; done >all.txt
    text=("$train" --preset pocket --precision float32 --batch 2 --sequence 32 --accumulation 3 --schedule constant)
    "${text[@]}" --steps 3 --data all.txt --out one >log.txt
    mkdir temporary
    TMPDIR=$PWD/temporary expect 3 "${text[@]}" --steps 3 --data all.txt --out three
    [ "$(grep -c '^reading' output.txt)" = 1 ] || fail "several read: $(cat output.txt)"
    same_losses three.csv one.csv || fail "other losses"
    cmp one-data/training.tokens three-data/training.tokens || fail "other tokens"
    cmp one/tokenizer.json three/tokenizer.json || fail "another tokenizer"
    [ -z "$(ls temporary)" ] || fail "leaves $(ls temporary)"
    expect 2 "${text[@]}" --data all.txt --validation all.txt --bpe-dropout 0.1 --steps 1 --out dropped
    # A rank that throws in a step, as its tokens are overwritten: rank 0 saves the last step, and tells why all end.
    cp -r three-data bad-data
    rm three.csv
    mpi -n 1 "${text[@]}" --minutes 5 --data all.txt --overwrite --out three : \
      -n 1 "${text[@]}" --minutes 5 --data all.txt --out bad >output.txt 2>&1 &
    job=$!
    for _ in $(seq 300); do
      [ ! -f three.csv ] || [ "$(wc -l <three.csv)" -lt 3 ] || break
      sleep 0.05
    done
    size=$(stat -c %s bad-data/training.tokens)
    head -c $((size / 2)) /dev/zero | tr '\0' '\377' | dd of=bad-data/training.tokens bs=1 seek=200 conv=notrunc 2>log.txt
    started=$SECONDS
    if wait $job; then fail "trained with tokens of no vocabulary"; fi
    [ $((SECONDS - started)) -lt 15 ] || fail "took $((SECONDS - started)) s to end"
    grep -q '^train: rank 1: bad-data/training.tokens: expected tokens from 0 to .*; the last good checkpoint: three (step' output.txt ||
      fail "says something else: $(cat output.txt)"
    grep -q "(step $(tail -n 1 three.csv | cut -d , -f 1))" output.txt || fail "the last step is not saved: $(tail -n 1 three.csv)"
    # What a mistake of the command line, of a file and of one process come to: one sentence, before the first step.
    expect_end "missing.txt" -n 2 "${text[@]}" --steps 3 --data missing.txt --out missed
    expect_end "--nonsense" -n 2 "${text[@]}" --nonsense
    expect_end "rank 1 has another seed than rank 0;" \
      -n 1 "${pocket[@]}" --steps 9 --out other : -n 1 "${pocket[@]}" --steps 9 --out other --seed 7
    other=("$train" --preset pocket --precision float32 --embedded 301 --batch 2 --sequence 32 --schedule constant)
    expect_end "rank 1 has another training data than rank 0;" \
      -n 1 "${pocket[@]}" --steps 9 --out other : -n 1 "${other[@]}" --steps 9 --out other
    expect_end "rank 1 has another learning rate than rank 0 (0.5, not" \
      -n 1 "${pocket[@]}" --steps 9 --out other : -n 2 "${pocket[@]}" --learning-rate 0.5 --steps 9 --out other
    expect_end "rank 1 has another backend or processor" \
      -n 1 "${pocket[@]}" --steps 9 --out other : -n 1 env TINYMOE_CPU=baseline "${pocket[@]}" --steps 9 --out other
    # Ranks that would make other calls from the beginning.
    expect_end "rank 1 has another kind of work than rank 0;" -n 1 "${pocket[@]}" --steps 9 --out other : -n 1 "$train" --list
    expect_end "rank 1 has another kind of work than rank 0;" -n 1 "${pocket[@]}" --steps 9 --out other : -n 1 "$train" --help
    expect_end "rank 1 has another choice between --data and embedded stories than rank 0;" \
      -n 1 "${text[@]}" --data all.txt --steps 9 --out other : -n 1 "${pocket[@]}" --steps 9 --out other
    expect_end "rank 1: elsewhere: " -n 1 "${pocket[@]}" --steps 9 --out other : -n 1 "${pocket[@]}" --from elsewhere --out other
    [ ! -e other/model.safetensors ] || fail "trained all the same"
    ;;
  killed)
    # A process that dies, at some moments: all end, and the last checkpoint is whole and named. In each second run the
    # experts are spread.
    for ((kill = 1; kill <= times; ++kill)); do
      number=3 spread=()
      [ $((kill % 2)) = 0 ] || number=4 spread=(--expert-parallel 2)
      victim=$((kill / 2 % number))
      rm -rf run*
      mpi -n $number "${pocket[@]}" "${spread[@]}" --minutes 5 --checkpoint-every 1 --out run >output.txt 2>&1 &
      job=$!
      for _ in $(seq 300); do
        [ ! -f run/model.safetensors ] || break
        sleep 0.05
      done
      sleep 0.$(printf %03d $((RANDOM % 1000)))
      killed=0
      for process in $(processes); do
        if grep -zqx "OMPI_COMM_WORLD_RANK=$victim" "/proc/$process/environ"; then kill -KILL "$process" && killed=1; fi
      done
      [ $killed = 1 ] || { kill $job; echo "SKIPPED: this mpirun does not tell the processes their rank"; exit 0; }
      started=$SECONDS status=0
      wait $job || status=$?
      [ $status -ne 0 ] && [ $((SECONDS - started)) -lt 15 ] || fail "rank $victim: ended by $status after $((SECONDS - started)) s"
      [ -z "$(processes)" ] || sleep 2
      [ -z "$(processes)" ] || fail "is still there: $(processes)"
      [ $victim = 0 ] || grep -q 'the last good checkpoint: run (step [0-9]*)$' output.txt || fail "rank $victim of $number: names no checkpoint: $(cat output.txt)"
      step=$(sed -n 's/^ *"step": \([0-9]*\).*/\1/p' run/trainer.json)
      "${pocket[@]}" --steps $((step + 1)) --accumulation $number --resume run >log.txt 2>&1 || fail "cannot be resumed: $(tail -n 2 log.txt)"
    done
    echo "$times kills"
    # A signal that mpirun passes on ends a run with its checkpoint.
    rm -rf run*
    mpirun -n 2 "${pocket[@]}" --minutes 5 --out run >output.txt 2>&1 </dev/null &
    job=$!
    for _ in $(seq 300); do
      [ ! -f run.csv ] || [ "$(wc -l <run.csv)" -lt 3 ] || break
      sleep 0.05
    done
    kill -USR1 $job
    wait $job || fail "ended by $?: $(tail -n 3 output.txt)"
    grep -q 'interrupted by SIGUSR1; --resume goes on' output.txt || fail "not interrupted: $(cat output.txt)"
    ;;
  *) fail "unknown case $1" ;;
esac
echo "ok"
