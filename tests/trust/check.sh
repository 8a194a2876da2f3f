#!/usr/bin/env bash
# Attacks the programs: a device that fails at any call, kills at any moment, full disks, files that shrink, little memory.
# After each attack the last good checkpoint is there, and a run that goes on from it ends with the bits of a run that
# nothing happened to. usage: check.sh CASE PROGRAMS LIBRARY [short|long|full [SEED]]
#
# PROGRAMS is the folder of train, sample and convert, LIBRARY is failing_device.so. `long` takes every
# call that a program makes, and `full` every reason for each, once and from then on; `short` a part of the calls. SEED
# chooses what is not taken as a whole.
set -euo pipefail
if [ "$1" = disk ] && [ -z "${TRUST_MOUNTS:-}" ]; then
  unshare -m true 2>/dev/null || { echo "SKIPPED: this process may not mount" && exit 0; }
  TRUST_MOUNTS=yes exec unshare -m bash "$0" "$@"
fi
case=$1 programs=$(realpath "$2") library=$(realpath "$3") form=${4:-short} seed=${5:-$RANDOM}
train=$programs/train sample=$programs/sample convert=$programs/convert
RANDOM=$seed
export OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=
# In memory where there is such a folder: a busy disk takes seconds for what a checkpoint waits for.
if [ -w /dev/shm ]; then export TMPDIR=${TMPDIR:-/dev/shm}; fi
folder=$(mktemp -d)
trap 'cd /; umount "$folder/work" "$folder/quota" 2>/dev/null || true; rm -rf "$folder" "${disk:-}"; [ -z "${group:-}" ] || rmdir "$group"' EXIT
cd "$folder"

fail() {
  echo "FAILED ($case $form $seed): $*" >&2
  exit 1
}
expect() { "$@" >output.txt 2>&1 || fail "$*: $(tail -n 3 output.txt)"; }

# A run of 2 steps with everything that a run writes: text to tokens, a checkpoint and the best ones, metrics and logs.
for i in {1..60}; do echo "Tom had $i pets. One was a red cat.<|endoftext|>"; done >stories.txt
steps=2
under=()  # what a program is started by
run() {
  "${under[@]}" "$train" --preset pocket --data "$folder/stories.txt" --batch 2 --sequence 16 --schedule constant --steps $steps \
    --checkpoint-every 1 --evaluate-every 1 --validation-stories 6 --json-lines log.jsonl --out run "$@"
}

# What a run in $1 has made, but for its times; over an older run the log is continued from wherever that came to.
made() {
  (
    cd "$1"
    sha256sum run/model.safetensors run/optimizer.safetensors run/tokenizer.json run/config.json \
      run-best/model.safetensors run-best-weights/model.safetensors run-data/*.tokens
    grep -vE '"(evaluated_)?seconds"' run/trainer.json
    cut -d , -f 1,2,4-6,8- run.csv
    [ "${2:-}" = over ] || grep -o '"event":"[a-z]*","step":[0-9]*,"tokens":[0-9]*' log.jsonl
    find . -mindepth 1 ! -path '*/.tinymoe*' ! -name '*partial*' ! -name '*.lock' -printf '%P %y\n' | grep -v '^\(output\|error\|failed\).txt' | sort
  )
}
# story.gguf of a checkpoint, and a checkpoint of it.
convert_there() { "${under[@]}" "$convert" ../finished/run story.gguf --overwrite; }
convert_back() { "${under[@]}" "$convert" story.gguf back --overwrite; }

# The jobs that are attacked: from the state in NAME.before, NAME_job makes the state in NAME.after, and NAME_again makes
# it, too, wherever the attack has left its folder.
again() { if [ -e run/trainer.json ] || [ -e run/.tinymoe.new/trainer.json ]; then run --resume; else run --overwrite; fi; }
fresh_job() { run; }
fresh_again() { again; }
resume_job() { run --resume; }
resume_again() { again; }
over_job() { run --overwrite; }
over_again() { run --overwrite; }
there_job() { convert_there; }
there_again() { convert_there; }
back_job() { convert_back; }
back_again() { convert_back; }
foreign_job() { "${under[@]}" "$convert" ../finished/run notes.gguf --overwrite; }
metrics_job() { "${under[@]}" "$train" --preset pocket --data "$folder/stories.txt" --steps 1 --out new --metrics other.csv; }

# A control group for in_group; false where none can be made.
group=
make_group() {
  local place file
  for place in /sys/fs/cgroup/memory /sys/fs/cgroup; do
    file=memory.max
    [ $place = /sys/fs/cgroup ] || file=memory.limit_in_bytes
    group=$place/tinymoe-$$
    if mkdir "$group" 2>/dev/null; then
      limit=$group/$file
      [ -w "$limit" ] && return
      rmdir "$group"
    fi
  done
  group=
  return 1
}
# in_group MEGABYTES COMMAND…
in_group() {
  echo $(($1 << 20)) >"$limit" || fail "the control group's limit cannot be set"
  shift
  (echo $BASHPID >"$group/cgroup.procs" && "$@")
}

prepare() {
  local job
  mkdir finished fresh.before resume.before there.before back.before
  (cd finished && expect run && cp -r . ../fresh.after && cp -r . ../resume.after && cp -r . ../over.after)
  (cd resume.before && steps=1 && expect run)
  # Over an older file and an older checkpoint.
  # Through a link, which stays one.
  (cd there.before && expect "$convert" ../resume.before/run linked-story.gguf && ln -s linked-story.gguf story.gguf)
  (cd back.before && expect "$convert" ../resume.before/run story.gguf && expect convert_back)
  (cd back.before && expect "$convert" ../finished/run story.gguf --overwrite)
  # A run of other weights, with all that this one has.
  cp -r finished over.before
  (cd over.before && expect run --overwrite --seed 7)
  for job in there back; do
    cp -r $job.before $job.after
    (cd $job.after && expect convert_$job)
  done
  rm -f ./*.before/output.txt ./*.after/output.txt
  for job in "${jobs[@]}"; do made_of $job $job.after >$job.made; done
}

jobs=(fresh resume over there back)

# attack JOB ENVIRONMENT…: runs a job with the library in a folder work/ of its own. Sets `status`.
attack() {
  local job=$1
  shift
  rm -rf work failed.txt
  cp -r "$job.before" work
  status=0
  under=(env LD_PRELOAD="$library" FAILING_FOLDER="$folder/work" FAILING_LOG="$folder/failed.txt" "$@")
  (cd work && "${job}_job" >../output.txt 2>../error.txt) || status=$?
  under=()
}
same() { made_of "$1" "$2" | diff - "$1.made" >difference.txt; }
made_of() {
  case $1 in
    fresh | resume | over) made "$2" $1 ;;
    there) (cd "$2" && readlink story.gguf && sha256sum story.gguf) ;;
    back) (cd "$2" && sha256sum back/*.*) ;;
  esac
}
# Nothing was lost: the job done again ends where it would have ended at once, and nothing is left behind.
expect_whole() {
  local job=$1 what=$2
  case $job in
    resume)
      (cd work && expect run --resume) 2>error.txt || fail "$what: does not resume: $(cat error.txt)"
      ;;
    over)
      (cd work && expect "$sample" run --tokens 1 --quiet) 2>error.txt || fail "$what: no checkpoint is whole: $(cat error.txt)"
      if [ -e work/run-best/model.safetensors ] && [ ! -e work/run-best/.tinymoe.new ]; then
        (cd work && expect "$sample" run-best --tokens 1 --quiet) 2>error.txt || fail "$what: the best one is not whole: $(cat error.txt)"
      fi
      ;;
    there)
      cmp -s work/story.gguf there.before/story.gguf || same there work || fail "$what: the file is neither the old one nor the new one"
      ;;
    back)
      (cd work && expect "$convert" back check.gguf && rm check.gguf) 2>error.txt || fail "$what: the checkpoint is not whole: $(cat error.txt)"
      ;;
  esac
  (cd work && expect "${job}_again") 2>error.txt || fail "$what: cannot be done again: $(cat error.txt)"
  rm -f work/output.txt
  same "$job" work || fail "$what: another end: $(head -n 3 difference.txt)"
  local left
  left=$(cd work && find . \( -name '*partial*' -o -name '.tinymoe*' -o -name '*.lock' \))
  [ -z "$left" ] || fail "$what: is left behind: $left"
}

# fits_in REASON COMMAND…: whether a new run fits in work/, which is $what. Else it says REASON, and COMMAND makes room.
fits_in() {
  local reason=$1
  shift
  status=0
  (cd work && fresh_job >"$folder/output.txt" 2>"$folder/error.txt") || status=$?
  if [ $status = 0 ]; then
    same fresh work || fail "$what: another end: $(head -n 3 difference.txt)"
    return 0
  fi
  [ $status = 1 ] && grep -q "$reason" error.txt || fail "$what: $status: $(cat error.txt)"
  "$@"
  expect_whole fresh "$what"
  return 1
}

# Lists the calls of a job in `calls`, in order: "write /folder/file". $2: the kinds.
list_calls() {
  attack "$1" FAILING_AT=1 FAILING_FOR=1000000000 FAILING_AS=works FAILING_CALLS="$2"
  [ $status = 0 ] || fail "$1 does not work: $(cat error.txt)"
  touch failed.txt
  mapfile -t calls <failed.txt
}

# A device on which each write takes its time.
slow=(FAILING_AT=1 FAILING_FOR=1000000000 FAILING_AS=slow FAILING_CALLS=write,fsync,rename)

# The program that a job of this shell runs, which may be a child of it.
program_of() {
  local child=
  read -r child </proc/$1/task/$1/children || true # no end of line
  echo ${child:-$1}
}

# Puts the numbers of calls to try into `chosen`, of $1 in all: each one, or $2, one of each part. Not by $(…): bash
# draws other numbers there each time.
choose() {
  local n
  if [ "$form" != short ] || [ "$1" -le "$2" ]; then
    mapfile -t chosen < <(seq "$1")
  else
    chosen=()
    for ((n = 0; n < $2; ++n)); do chosen+=($((1 + (n * $1 + RANDOM % $1) / $2))); done
  fi
}
# Waits for a part of $1 milliseconds, by chance.
pause() {
  local time
  printf -v time '0.%03d' $((RANDOM % $1))
  sleep "$time"
}

quiet_wait() { while [ -e "${TRUST_PAUSE:-/nonexistent}" ]; do sleep 2; done; }

case $case in
  interrupted)
    [ -r /proc/$$/task/$$/children ] || { echo "SKIPPED: this kernel does not tell a process's children" && exit 0; }
    ;;
esac

case $case in
  device)
    prepare
    trials=0 errors=0 survived=0
    kinds=(open write,fsync,close,truncate rename,link,unlink,mkdir mmap,read,lock,stat,access,opendir)
    for job in "${jobs[@]}"; do
      for kind in "${kinds[@]}"; do
        list_calls $job "$kind"
        choose ${#calls[@]} 2
        for n in "${chosen[@]}"; do
          reasons=(ENOSPC EIO EROFS EDQUOT)
          if [[ ${calls[n - 1]} == write* ]]; then reasons+=(short); fi
          counts=(1 1000000000) # once, or from then on
          if [ "$form" != full ]; then
            reasons=("${reasons[RANDOM % ${#reasons[@]}]}")
            counts=("${counts[RANDOM % 2]}")
          fi
          for reason in "${reasons[@]}"; do
            for count in "${counts[@]}"; do
              quiet_wait
              attack $job FAILING_AT="$n" FAILING_FOR=$count FAILING_AS="$reason" FAILING_CALLS="$kind"
              [ -s failed.txt ] || continue
              what="$job: $reason at $(head -n 1 failed.txt), call $n of $kind, $count times"
              trials=$((trials + 1))
              if [ $status = 0 ]; then
                survived=$((survived + 1))
                same $job work || fail "$what: ended well with another result: $(head -n 3 difference.txt)"
                continue
              fi
              errors=$((errors + 1))
              [ $status = 1 ] || fail "$what: exit status $status: $(tail -n 3 error.txt)"
              tail -n 1 error.txt | grep -qE '^(train|convert): .*(work|run|story|stories|back|log|\.:)' ||
                fail "$what: names no file: $(tail -n 3 error.txt)"
              expect_whole $job "$what"
            done
          done
        done
      done
    done
    # What is somebody else's is not replaced, and a call that fails does not make it nobody's.
    mkdir foreign.before metrics.before
    echo "not a model" >foreign.before/notes.gguf
    cp finished/run.csv metrics.before/other.csv
    for job in foreign metrics; do
      for ((n = 1;; ++n)); do
        attack $job FAILING_AT=$n FAILING_AS=EIO FAILING_CALLS=open,read,mmap,lock,stat,access
        what="$job: EIO at $(cat failed.txt 2>/dev/null || true)"
        [ $status = 1 ] && tail -n 1 error.txt | grep -q '^\(convert\|train\): ' || fail "$what: exit status $status: $(cat error.txt)"
        for file in $job.before/*; do
          cmp -s "$file" "work/${file#*/}" || fail "$what: another's file is replaced"
        done
        left=$(cd work && find . -name '*partial*')
        [ -z "$left" ] || fail "$what: is left behind: $left"
        [ -s failed.txt ] || break
      done
      [ $n -gt 2 ] || fail "$job: no call looks at another's file"
    done
    for job in "${jobs[@]}"; do
      attack $job "${slow[@]}"
      [ $status = 0 ] || fail "$job on a slow device: $status: $(cat error.txt)"
      [ "$(wc -l <failed.txt)" -ge 3 ] || fail "$job: the device is not slow"
      same $job work || fail "$job on a slow device: another result: $(head -n 3 difference.txt)"
    done
    echo "$trials failures: $errors ended in a sentence, $survived changed nothing; each kept the last good checkpoint"
    ;;
  killed)
    prepare
    kills=0
    for job in "${jobs[@]}"; do
      list_calls $job open,write,fsync,close,truncate,rename,link,unlink,mkdir
      choose ${#calls[@]} 4
      for n in "${chosen[@]}"; do
        # Just after a call is just before the next one; in the middle there is a write alone.
        ways=(kill)
        if [[ ${calls[n - 1]} == write* ]]; then ways+=(torn); fi
        [ "$form" != short ] || ways=("${ways[RANDOM % ${#ways[@]}]}")
        for way in "${ways[@]}"; do
          quiet_wait
          attack $job FAILING_AT="$n" FAILING_AS=$way FAILING_CALLS=open,write,fsync,close,truncate,rename,link,unlink,mkdir
          [ -s failed.txt ] || continue
          kills=$((kills + 1))
          [ $status = 137 ] || fail "$job: $way at $(cat failed.txt): exit status $status"
          expect_whole $job "$job: $way at $(cat failed.txt), call $n"
        done
      done
    done
    echo "$kills kills; each kept the last good checkpoint and changed no bit"
    ;;
  random)
    # Killed by KILL at random moments of a long run with many saves, as the process is started, saves and reads. In each
    # second round the device is slow, so that most moments are amid a save.
    kills=100
    [ "$form" = short ] && kills=4
    [ "$form" = full ] && kills=1000
    steps=40
    mkdir whole killed
    (cd whole && expect run && rm output.txt)
    made whole >whole.made
    killed=0 rounds=0 finished=0 last=0
    while [ $killed -lt $kills ]; do
      rounds=$((rounds + 1))
      quiet_wait
      under=(exec)  # the process that is killed is the program
      [ $((rounds % 2)) = 0 ] || under+=(env LD_PRELOAD="$library" FAILING_FOLDER="$folder/killed" FAILING_LOG=/dev/null "${slow[@]}")
      (cd killed && again >../output.txt 2>../error.txt) &
      job=$!
      pause 300
      kill -9 $job 2>/dev/null || true
      status=0
      wait $job 2>/dev/null || status=$?
      if [ $status = 137 ]; then
        killed=$((killed + 1))
        under=()
        # The step of the checkpoint that is there, or is being put there, never falls.
        step=$(cat killed/run/.tinymoe.new/trainer.json killed/run/trainer.json 2>/dev/null | sed -n 's/^ *"step": \([0-9]*\),*$/\1/p' | head -n 1 || true)
        step=${step:-0}
        [ "$step" -ge $last ] || fail "kill $killed: the checkpoint of step $last is gone, step $step is there"
        last=$step
        if [ -e killed/run/trainer.json ]; then
          "$sample" killed/run --tokens 1 --quiet >/dev/null 2>error.txt || fail "kill $killed: $(cat error.txt)"
        fi
      elif [ $status = 0 ]; then
        finished=$((finished + 1))
        made killed | diff - whole.made >difference.txt || fail "kill $killed: another end: $(head -n 3 difference.txt)"
        rm -rf killed && mkdir killed
        last=0
      else
        fail "round $rounds: exit status $status: $(cat error.txt)"
      fi
    done
    under=()
    (cd killed && expect again)
    rm -f killed/output.txt
    made killed | diff - whole.made >difference.txt || fail "another end: $(head -n 3 difference.txt)"
    # The same of exports, on the slow device.
    steps=2
    prepare
    exports=0 exported=0
    while [ $exports -lt $(((kills + 4) / 4)) ]; do
      quiet_wait
      job_of_export=there
      [ $((exports % 2)) = 0 ] || job_of_export=back
      rm -rf work && cp -r $job_of_export.before work
      under=(exec env LD_PRELOAD="$library" FAILING_FOLDER="$folder/work" FAILING_LOG=/dev/null "${slow[@]}")
      (cd work && ${job_of_export}_job >../output.txt 2>../error.txt) &
      job=$!
      pause 200
      kill -9 $job 2>/dev/null || true
      status=0
      wait $job 2>/dev/null || status=$?
      under=()
      if [ $status = 137 ]; then
        exports=$((exports + 1))
        expect_whole $job_of_export "kill $exports of convert"
      else
        [ $status = 0 ] || fail "convert: exit status $status: $(cat error.txt)"
        exported=$((exported + 1))
        same $job_of_export work || fail "convert: another end: $(head -n 3 difference.txt)"
      fi
    done
    echo "$killed kills; $((finished + 1)) runs ended with the bits of an undisturbed one; $exports kills of convert, $exported ended well"
    ;;
  disk)
    # A disk that is full, at each size from none to enough, and one that becomes read-only.
    prepare
    mkdir work
    need=$(($(du -sk fresh.after | cut -f 1) * 3)) full=0 fits=0
    sizes=10
    [ "$form" = short ] && sizes=4
    for ((i = 1; i <= sizes; ++i)); do
      mount -t tmpfs -o size=$((need * i / sizes))k none work
      what="a disk of $((need * i / sizes)) KiB"
      if fits_in 'No space left on device' mount -o remount,size=1g work; then fits=$((fits + 1)); else full=$((full + 1)); fi
      umount work
    done
    [ $full -gt 0 ] && [ $fits -gt 0 ] || fail "$full sizes were too small and $fits enough"
    mount -t tmpfs -o size=1g none work
    cp -r resume.before/. work
    mount -o remount,ro work
    status=0
    (cd work && resume_job >../output.txt 2>../error.txt) || status=$?
    [ $status = 1 ] && grep -q 'run: .*Read-only file system' error.txt || fail "a read-only disk: $status: $(cat error.txt)"
    "$sample" work/run --tokens 1 --quiet >/dev/null 2>error.txt || fail "reading needs a disk to write: $(cat error.txt)"
    mount -o remount,rw work
    expect_whole resume "a read-only disk"
    umount work
    rmdir work
    # A quota, of btrfs, where this kernel and machine let us make such a disk.
    exceeded=0 granted=0 quotas="no quota, which btrfs would need"
    mkdir quota
    truncate -s 256M quota.img
    if mkfs.btrfs -q quota.img >output.txt 2>&1 && mount -o loop quota.img quota 2>output.txt && btrfs quota enable quota 2>output.txt; then
      btrfs quota rescan -w quota >output.txt
      for ((i = 1; i <= sizes; ++i)); do
        btrfs subvolume create quota/work >output.txt
        btrfs qgroup limit $((need * i / sizes))k quota/work
        ln -sfn quota/work work
        what="a quota of $((need * i / sizes)) KiB"
        if fits_in 'quota exceeded' btrfs qgroup limit none quota/work; then granted=$((granted + 1)); else exceeded=$((exceeded + 1)); fi
        btrfs subvolume delete quota/work >output.txt
      done
      [ $exceeded -gt 0 ] && [ $granted -gt 0 ] || fail "$exceeded quotas were too small and $granted enough"
      quotas="$exceeded quotas exceeded, $granted large enough"
    fi
    echo "$full full disks, $fits large enough, a read-only one; $quotas; each kept the last good checkpoint"
    ;;
  interrupted)
    # Once, INT and TERM save and end; the last line is the command that goes on. Twice, they end at once.
    signals=(INT TERM)
    [ "$form" != short ] || signals=(INT)
    for signal in "${signals[@]}"; do
      rm -rf whole cut && mkdir whole cut
      (cd whole && steps=120 && expect run)
      (cd cut && steps=120 && run >../output.txt 2>../error.txt) &
      job=$!
      for _ in $(seq 200); do
        ! grep -qs '^step' output.txt || break
        sleep 0.02
      done
      kill -$signal $(program_of $job)
      wait $job || fail "$signal: an interrupted run is no failure: $(cat error.txt)"
      grep -q "interrupted by SIG$signal" output.txt || fail "$signal: was not interrupted: $(tail -n 2 output.txt)"
      [[ $(tail -n 1 output.txt) == "to go on: "* ]] || fail "$signal: the last line is $(tail -n 1 output.txt)"
      (cd cut && eval "$(sed -n 's/^to go on: //p' ../output.txt)" >../again.txt 2>../error.txt) ||
        fail "$signal: the command does not go on: $(cat error.txt)"
      rm -f whole/output.txt
      diff <(made cut) <(made whole) >difference.txt || fail "$signal: another end: $(head -n 3 difference.txt)"
      ("$train" --preset pocket --embedded 300 --batch 64 --accumulation 1000 --minutes 5 --out slow >output.txt 2>&1) &
      job=$!
      for _ in $(seq 200); do
        ! grep -qs 'to validate' output.txt || break
        sleep 0.02
      done
      sleep 0.3
      child=$(program_of $job)
      kill -$signal $child
      sleep 0.3
      kill -$signal $child
      status=0
      wait $job 2>/dev/null || status=$?
      [ $status = $((128 + $(kill -l $signal))) ] || fail "$signal twice: exit status $status"
    done
    echo "${signals[*]}: once, it saves and ends; twice, it ends at once; the command in the last line goes on to the same bits"
    ;;
  shrinks)
    # Files that become shorter while they are mapped: a sentence that names the file, and the last checkpoint is whole.
    prepare
    place=$'a\e[2J folder'  # a name that a terminal would obey
    cp -r resume.before "$place"
    (cd "$place" && steps=100000 && run --resume >../output.txt 2>../error.txt) &
    job=$!
    for _ in $(seq 200); do
      ! grep -qs '^step' output.txt || break
      sleep 0.02
    done
    : >"$place/run-data/training.tokens"
    status=0
    wait $job || status=$?
    [ $status = 1 ] && grep -q '^train: .*training.tokens: became shorter' error.txt || fail "tokens: $status: $(cat error.txt)"
    ! grep -q $'\e' error.txt || fail "the name is told as it stands: $(cat -v error.txt)"
    "$sample" "$place/run" --tokens 1 --quiet >/dev/null 2>error.txt || fail "no checkpoint is left: $(cat error.txt)"
    for file in story.gguf run/model.safetensors; do
      rm -rf work && cp -r back.before work && cp -r finished/run work/run
      # The program waits in the call after the file was mapped, by the library, until the file is cut.
      status=0
      (
        cd work
        from=story.gguf to=back
        [ $file = story.gguf ] || { from=run to=other.gguf; }
        exec env LD_PRELOAD="$library" FAILING_FOLDER="$folder/work/$file" FAILING_CALLS=mmap FAILING_AT=1 FAILING_AS=shrink \
          FAILING_LOG="$folder/failed.txt" "$convert" $from $to --overwrite
      ) >output.txt 2>error.txt || status=$?
      [ $status = 1 ] && grep -q "^convert: .*$file: became shorter" error.txt || fail "$file: $status: $(cat error.txt)"
    done
    echo "token, GGUF and safetensors files that shrink are told by name"
    ;;
  starved)
    # Limits of memory from too little to enough, and threads from 1 to 4 times the cores.
    prepare
    little=0 enough=0
    # What is too little to start the program, ends it by a signal or in the loader, by 127; libraries count.
    starts() { (ulimit -v $(($1 * 1024)) && "$train" --help >/dev/null 2>&1) 2>/dev/null || [ $? -lt 126 ]; }
    below=1 least=4096
    while [ $((least - below)) -gt 1 ]; do
      middle=$(((least + below) / 2))
      if starts $middle; then least=$middle; else below=$middle; fi
    done
    for ((more = 0; enough < 2; more = more * 5 / 4 + 1)); do
      megabytes=$((least + more))
      rm -rf work && cp -r resume.before work
      what="ulimit -v of $megabytes MiB"
      status=0
      (ulimit -v $((megabytes * 1024)) && cd work && resume_job >../output.txt 2>../error.txt) || status=$?
      if [ $status = 0 ]; then
        enough=$((enough + 1))
        same resume work || fail "$what: another end"
      else
        little=$((little + 1))
        [ $status = 1 ] && grep -qE '^train: .*(memory|ulimit -v)' error.txt || fail "$what: $status: $(cat error.txt)"
        expect_whole resume "$what"
      fi
    done
    [ $little -gt 0 ] && [ $enough -gt 0 ] || fail "$little limits were too small and $enough enough"
    # A control group of the kernel's, which kills what takes more than it grants, where one can be made.
    fits=0 told=0 killed=0
    if [ "$(stat -f -c %T /var/tmp)" != tmpfs ] && make_group; then
      disk=$(mktemp -d /var/tmp/tinymoe.XXXXXX)  # files in memory would count
      below=1 least=4096
      while [ $((least - below)) -gt 1 ]; do
        middle=$(((least + below) / 2))
        if in_group $middle "$train" --list --quiet >/dev/null 2>&1; then least=$middle; else below=$middle; fi
      done
      for ((more = 8; fits < 2; more = more * 5 / 4 + 1)); do
        what="a control group of $((least + more)) MiB"
        rm -rf work "$disk/work" && cp -r resume.before "$disk/work" && ln -s "$disk/work" work
        status=0
        (cd "$disk/work" && in_group $((least + more)) resume_job >"$folder/output.txt" 2>"$folder/error.txt") || status=$?
        case $status in
          0) fits=$((fits + 1)) && same resume work || fail "$what: another end" ;;
          1) told=$((told + 1)) && grep -qE '^train: .*MiB in all' error.txt || fail "$what: $(cat error.txt)" ;;
          137) killed=$((killed + 1)) ;;  # within some MiB of what is enough
          *) fail "$what: $status, $(cat error.txt)" ;;
        esac
        [ $status = 0 ] || expect_whole resume "$what"
      done
      [ $killed -le 3 ] || fail "the kernel has killed $killed runs, each in a group of little more than the last"
      # Too little by far: told, and not killed.
      for batch in 64 256; do
        status=0
        (cd "$disk" && in_group $((least + 16)) "$train" --preset pocket --embedded 300 --batch $batch --sequence 64 --steps 1 \
          --out "$batch") >output.txt 2>error.txt || status=$?
        [ $status = 1 ] && grep -q '^train: .*MiB in all' error.txt || fail "a batch of $batch in $((least + 16)) MiB: $status, $(cat error.txt)"
        told=$((told + 1))
      done
      rm -rf work
    fi
    for threads in 1 2 3 $(($(nproc) * 4)); do
      rm -rf work && cp -r resume.before work
      (cd work && OMP_NUM_THREADS=$threads expect resume_job && rm output.txt)
      same resume work || fail "$threads threads: other bits: $(head -n 3 difference.txt)"
    done
    # Beside neighbours that keep all cores busy.
    neighbours=()
    for ((i = 0; i < $(nproc); ++i)); do
      timeout 60 bash -c 'while :; do :; done' &
      neighbours+=($!)
    done
    rm -rf work && cp -r resume.before work
    (cd work && expect resume_job && rm output.txt)
    kill "${neighbours[@]}"
    same resume work || fail "beside busy neighbours: other bits: $(head -n 3 difference.txt)"
    # The option that compares bits says the same of any number of threads, and leaves nothing.
    mkdir -p checked
    for threads in 1 2; do
      (cd checked && OMP_NUM_THREADS=$threads expect "$train" --preset pocket --embedded 300 --check-determinism &&
        tail -n 1 output.txt >../bits.$threads && rm output.txt)
    done
    grep -q '^two steps gave the same bits twice; after step 2 the loss is .* and the weights are [0-9a-f]\{16\}$' bits.1 &&
      cmp -s bits.1 bits.2 && [ -z "$(ls -A checked)" ] || fail "--check-determinism: $(cat bits.*) $(ls -A checked)"
    echo "$little limits of memory ended in a sentence, $enough were enough; $told and $fits of a control group's, $killed killed; 1 to $(($(nproc) * 4)) threads give the same bits"
    ;;
  *) fail "there is no case $case" ;;
esac
