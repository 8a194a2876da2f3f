#!/usr/bin/env bash
# Makes the source archive of a release, the same to the byte for the same commit, and checks that it builds alone.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'END'
usage: scripts/release.sh [--out FOLDER] [--url ADDRESS] [--draft]

Writes tinymoe-VERSION.tar.gz of the last commit into FOLDER (default: build-release), its SHA-256, the version's section
of CHANGELOG.md as notes, and the recipe as Conan Center wants it. Then it installs the archive's copy and builds and runs
a program with it.

  --out FOLDER    where to write
  --url ADDRESS   where the archive will lie, for Conan's conandata.yml; default: its place on this machine
  --draft         of a version that is not released yet, or with changes that are not committed, which are left out
END
}
say() { echo "release: $*"; }
fail() {
  echo "release: $*" >&2
  exit 1
}

out=build-release url='' draft=no
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=${2:?--out needs a folder}; shift ;;
    --url) url=${2:?--url needs an address}; shift ;;
    --draft) draft=yes ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

git rev-parse HEAD >/dev/null 2>&1 || fail "this folder is no clone of git's: releases are made of commits"
numbers=$(git show HEAD:include/tinymoe/core/version.hpp | sed -n 's/^#define TINYMOE_VERSION_[A-Z]* //p' | tr '\n' ' ')
version=$(tr ' ' . <<<"${numbers% }")
changes=$(git show HEAD:CHANGELOG.md | awk -v version="$version" \
  '/^## / { within = $2 == version } within')
[ -n "$changes" ] || fail "CHANGELOG.md has no section of version $version; write what changes for a user"
if [ $draft = no ]; then
  if [ -n "$(git status --porcelain)" ]; then fail "there are changes that are not committed; commit them, or give --draft"; fi
  if grep -q '^## .*not released' <<<"$changes"; then
    fail "CHANGELOG.md says that $version is not released yet; write the date there, or give --draft"
  fi
fi

mkdir -p "$out"
out=$(cd "$out" && pwd)
name=tinymoe-$version
archive=$out/$name.tar.gz
# The times are the commit's, and gzip keeps neither a name nor a time.
pack() { git -c tar.umask=0022 archive --format=tar --prefix="$name/" HEAD | gzip --no-name -9; }
pack >"$archive.part"
pack | cmp - "$archive.part" || fail "two archives of one commit differ"
mv "$archive.part" "$archive"
sum=$(sha256sum "$archive" | cut -d ' ' -f 1)
echo "$sum  $name.tar.gz" >"$archive.sha256"
tail -n +2 <<<"$changes" | sed '/./,$!d' >"$out/$name.md"

# Conan Center's folders: config.yml, and for all versions a recipe, what it downloads, and the test of the package. Its
# hooks also ask for an address of the project, and that the package has no CMake files of its own.
recipes=$out/conan-center/recipes/tinymoe
rm -rf "$recipes"
mkdir -p "$recipes/all/test_package"
printf 'versions:\n  "%s":\n    folder: all\n' "$version" >"$recipes/config.yml"
printf 'sources:\n  "%s":\n    url: "%s"\n    sha256: "%s"\n' "$version" "${url:-file://$archive}" "$sum" \
  >"$recipes/all/conandata.yml"
git show HEAD:conanfile.py | sed 's|"packaging/conan"|"test_package"|' >"$recipes/all/conanfile.py"
git show HEAD:packaging/conan/conanfile.py | sed 's|"../../tests/consumer"|None|' >"$recipes/all/test_package/conanfile.py"
for file in CMakeLists.txt main.cpp other.cpp story_teller.hpp; do
  git show "HEAD:tests/consumer/$file" >"$recipes/all/test_package/$file"
done

# A draft has a smaller program, which compiles in a fifth of the time.
if [ $draft = yes ]; then export TINYMOE_LIGHT_CONSUMER=ON; fi

alone=$(mktemp -d)
trap 'rm -rf "$alone"' EXIT
tar -xzf "$archive" -C "$alone"
say "builds a program with $name alone"
{
  cmake -S "$alone/$name" -B "$alone/build" -DTINYMOE_BUILD_TESTS=OFF -DTINYMOE_BUILD_EXAMPLES=OFF -DTINYMOE_CUDA=OFF &&
    cmake --install "$alone/build" --prefix "$alone/prefix" &&
    cmake -S "$alone/$name/tests/consumer" -B "$alone/consumer" -DCMAKE_PREFIX_PATH="$alone/prefix" \
      -DTINYMOE_ASKED="$version" -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF &&
    cmake --build "$alone/consumer"
} >"$out/log.txt" 2>&1 || fail "the archive does not build alone; see $out/log.txt"
"$alone/consumer/consumer" | grep -q "^tinymoe $version: .* yes$" || fail "the archive's program says something else"
say "$archive"
say "SHA-256 $sum"
