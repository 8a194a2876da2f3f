#!/usr/bin/env bash
# Installs the build dependencies on Debian and Ubuntu; elsewhere says what is missing.
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/install_dependencies.sh [--bench] [--docs] [--judges] [--mpi]

Installs what is missing of a C++20 compiler, CMake, Ninja, xtensor, nlohmann-json, CLI11, Catch2, zlib and gnuplot by apt.
Does nothing when all of it is there. Without apt, says what is missing; CMake fetches the libraries itself.

  --bench   also Google Benchmark
  --docs    also Doxygen
  --mpi     also Open MPI, for training with several processes; without it the tests of that are skipped
  --judges  also what judges packages and file formats in tests: Conan, tokenizers, sentencepiece, safetensors and gguf, by
            pip into build-judges/, which tests find there. Without them these tests are skipped
  --help    this text
END
}

say() { echo "install_dependencies: $*"; }
fail() {
  say "$*" >&2
  exit 1
}

packages=(g++ cmake ninja-build git time curl ca-certificates libxtensor-dev nlohmann-json3-dev libcli11-dev catch2 gnuplot-nox
  zlib1g-dev)
judges=no
for argument in "$@"; do
  case $argument in
    --bench) packages+=(libbenchmark-dev) ;;
    --docs) packages+=(doxygen) ;;
    --mpi) packages+=(libopenmpi-dev openmpi-bin iproute2) ;;  # iproute2: for the test of a network
    --judges) judges=yes ;;
    --help | -h)
      usage
      exit 0
      ;;
    *) fail "unknown argument $argument; see --help" ;;
  esac
done

# Checks for a C++20 compiler and CMake, or fails with one sentence that says which is missing.
require_tools() {
  local compiler='' candidate missing=()
  for candidate in "${CXX:-}" c++ g++ clang++; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
      echo 'template <class T> concept C = true; int main() { return C<int> ? 0 : 1; }' |
      "$candidate" -std=c++20 -x c++ -fsyntax-only - 2>/dev/null; then
      compiler=$candidate
      break
    fi
  done
  if [ -z "$compiler" ]; then missing+=("a C++20 compiler (g++ 12 or clang++ 14)"); fi
  if ! command -v cmake >/dev/null; then missing+=("cmake (3.22)"); fi
  if [ ${#missing[@]} -gt 0 ]; then
    local sentence=${missing[0]}
    if [ ${#missing[@]} -gt 1 ]; then sentence+=" and ${missing[1]}"; fi
    fail "please install $sentence; the libraries CMake will fetch"
  fi
}

if [ $judges = yes ]; then
  folder=$(cd "$(dirname "$0")/.." && pwd)/build-judges
  if ! "$folder/bin/python" -c 'import conan, gguf, numpy, safetensors, sentencepiece, tokenizers' 2>/dev/null; then
    python3 -m venv "$folder" &&
      "$folder/bin/pip" install --quiet --disable-pip-version-check conan gguf numpy safetensors sentencepiece tokenizers ||
      say "the judges could not be installed: their tests are skipped"
  fi
fi

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  require_tools
  say "there is no apt here; a C++20 compiler and CMake are there, and CMake will fetch the libraries that are missing"
  exit 0
fi

is_installed() {
  [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=()
for package in "${packages[@]}"; do
  if ! is_installed "$package"; then missing+=("$package"); fi
done
if [ ${#missing[@]} -eq 0 ]; then
  say "all of it is here"
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null; then
    as_root=(sudo)
  else
    require_tools
    say "missing: ${missing[*]}; run this as root, or install sudo; CMake will fetch the libraries among them"
    exit 0
  fi
fi
apt_get() {
  ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@"
}

say "installing ${missing[*]}"
apt_get update || say "apt-get update failed; going on with the lists that are here"
for package in "${missing[@]}"; do
  # One at a time, so that a library missing in this release does not block the others.
  apt_get install --yes --no-install-recommends "$package" >/dev/null ||
    say "apt could not install $package; if it is a library, CMake will fetch it"
done
require_tools
say "done"
