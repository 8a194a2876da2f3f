"""What the judges share: missing packages, the programs, and a folder that goes when they end."""

import importlib
import pathlib
import struct
import subprocess
import sys
import tempfile


def need(*packages):
    """The modules of these names; ends the test as skipped where one is missing."""
    modules = []
    for name in packages:
        try:
            modules.append(importlib.import_module(name))
        except ImportError as error:
            print(f"SKIPPED: {sys.executable} has no {name} ({error}); install it, or set TINYMOE_PYTHON to a Python that has it")
            sys.exit(77)
    return modules[0] if len(modules) == 1 else modules


def program(name):
    """The path of one of the example programs; ends the test as skipped where it is not built."""
    path = pathlib.Path(sys.argv[1]) / name
    if not path.exists():
        print(f"SKIPPED: {path} is not built")
        sys.exit(77)
    return str(path)


def tester():
    """The path of the test's own program."""
    return sys.argv[2]


def run(*command):
    """The standard output of a command that must succeed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"FAILED: {' '.join(map(str, command))}: exit status {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def refused(sentence, *command):
    """Runs a command that must fail in one sentence which has `sentence` in it; returns it."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    said = done.stderr.strip()
    if not 0 < done.returncode < 126:
        sys.exit(f"FAILED: {' '.join(map(str, command))}: exit status {done.returncode} instead of an error: {said[-2000:]}")
    if sentence not in said or "\n" in said:
        sys.exit(f"FAILED: {' '.join(map(str, command))}: said {said!r} instead of {sentence!r}")
    return said


def check(condition, sentence):
    if not condition:
        sys.exit(f"FAILED: {sentence}")


def write_things(path, contents):
    """A file for a tester: the bytes of each thing after their number."""
    path.write_bytes(b"".join(struct.pack("<I", len(content)) + content for content in contents))


def things(path):
    """The things of a tester's file."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        yield data[at + 4 : at + 4 + size]
        at += 4 + size


def new_folder():
    """A folder that is removed when the judge ends."""
    folder = tempfile.TemporaryDirectory(prefix="tinymoe-interop-")
    _kept.append(folder)
    return pathlib.Path(folder.name)


_kept = []
