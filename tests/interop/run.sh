#!/usr/bin/env bash
# usage: run.sh INTERPRETER JUDGE ARGUMENT…: runs a judge with $TINYMOE_PYTHON, else INTERPRETER, else what
# scripts/install_dependencies.sh --judges made, else python3.
set -euo pipefail
installed=$(dirname "$0")/../../build-judges/bin/python
if [ ! -x "$installed" ]; then installed=python3; fi
python=${TINYMOE_PYTHON:-${1:-$installed}}
shift
if ! command -v "$python" >/dev/null; then
  echo "SKIPPED: there is no $python; set TINYMOE_PYTHON to a Python with the packages that judge"
  exit 77
fi
# The programs would take a GPU by themselves; no judge writes beside its script, and none reads the network.
export CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=2 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
export HF_HUB_DISABLE_PROGRESS_BARS=1 TQDM_DISABLE=1 RUST_BACKTRACE=0
# In memory, where the thousands of files that some judges write need no disk.
if [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi
exec "$python" "$@"
