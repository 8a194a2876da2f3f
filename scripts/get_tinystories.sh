#!/usr/bin/env bash
# Downloads TinyStories (Eldan and Li 2023, CDLA-Sharing-1.0) from the Hugging Face hub.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/get_tinystories.sh [--valid-only] [FOLDER]

Downloads TinyStoriesV2-GPT4-train.txt (2.2 GB) and TinyStoriesV2-GPT4-valid.txt (22 MB) into FOLDER (default: data).
A download that was cut goes on where it stopped; a file gets its name only when its size and SHA-256 are right.

  --valid-only   only the small file
  --help         this text

TINYMOE_HUB in the environment names another hub than https://huggingface.co, such as a mirror.
END
}

# The revision is fixed, so that the sums below stay right when main changes. The hub stores both files by their
# SHA-256; the sums here were taken from several projects that publish them for this revision, all of which agree.
readonly revision=f54c09fd23315a6f9c86f9dc80f725de7d8f9c64
readonly hub=${TINYMOE_HUB:-https://huggingface.co}
readonly base=${hub%/}/datasets/roneneldan/TinyStories/resolve/$revision

fail() {
  echo "get_tinystories: $*" >&2
  exit 1
}

size_of() {
  if [ -f "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi
}

sha256_of() {
  if command -v sha256sum >/dev/null; then
    sha256sum "$1" | cut -d ' ' -f 1
  elif command -v shasum >/dev/null; then
    shasum -a 256 "$1" | cut -d ' ' -f 1
  else
    fail "needs sha256sum or shasum to check $1"
  fi
}

# Resumes the download of the address $1 to the file $2. Gives up after 5 s without a connection and after 8 s without data.
download() {
  local show=--silent
  if [ -t 2 ]; then show=--progress-bar; fi
  if command -v curl >/dev/null; then
    curl --fail --location --continue-at - --connect-timeout 5 --speed-limit 1 --speed-time 8 "$show" --output "$2" "$1"
  elif command -v wget >/dev/null; then
    # wget waits for each address of a host in turn; this bounds them all together.
    if command -v timeout >/dev/null; then
      timeout 9 wget --quiet --spider --tries=1 --timeout=5 "$1" || return 1
    fi
    wget --quiet --continue --tries=1 --timeout=8 --output-document="$2" "$1"
  else
    fail "needs curl or wget"
  fi
}

# get NAME BYTES SHA256
get() {
  local name=$1 bytes=$2 sum=$3 file=$folder/$1 part=$folder/$1.part have
  if [ -f "$file" ]; then
    if [ "$(size_of "$file")" = "$bytes" ] && [ "$(sha256_of "$file")" = "$sum" ]; then
      echo "$file is here and right"
      return
    fi
    fail "$file is here but is not the $bytes bytes of TinyStories; remove it and run this again"
  fi

  if [ "$(size_of "$part")" -gt "$bytes" ]; then rm -f "$part"; fi
  if [ "$(size_of "$part")" -lt "$bytes" ]; then
    echo "$name: $bytes bytes from $hub, of which $(size_of "$part") are here"
    download "$base/$name" "$part" ||
      fail "could not download $name from $hub ($(size_of "$part") of $bytes bytes are here); is there a network? Run this again to go on"
  fi

  have=$(size_of "$part")
  if [ "$have" != "$bytes" ]; then
    if [ "$have" -gt "$bytes" ]; then rm -f "$part"; fi
    fail "$name has $have bytes where $bytes were expected; run this again"
  fi
  have=$(sha256_of "$part")
  if [ "$have" != "$sum" ]; then
    rm -f "$part"
    fail "$name has SHA-256 $have where $sum was expected; the download was removed"
  fi
  mv "$part" "$file"
  echo "$file is complete: $bytes bytes, SHA-256 as expected"
}

valid_only=false
folder=data
while [ $# -gt 0 ]; do
  case $1 in
    --valid-only) valid_only=true ;;
    --help | -h)
      usage
      exit 0
      ;;
    -*) fail "unknown option $1; see --help" ;;
    *) folder=$1 ;;
  esac
  shift
done

mkdir -p "$folder"
# TINYMOE_VALID_BYTES and TINYMOE_VALID_SHA256 let a test replace the real file by a small one.
get TinyStoriesV2-GPT4-valid.txt "${TINYMOE_VALID_BYTES:-22502601}" \
  "${TINYMOE_VALID_SHA256:-6874bae9a4c1a4e7edcf0e53b86c17817e9cf881fc75ff2368da457b80c0585d}"
if [ "$valid_only" = false ]; then
  get TinyStoriesV2-GPT4-train.txt 2227753162 6418d412de72888f52b5142c761ac21a582f7d1166f0bfbdb5f03ccfdec90443
fi
