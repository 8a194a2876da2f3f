#!/usr/bin/env python3
"""Plants faults in the headers, one at a time, and tells which of them the tests find.

  scripts/mutate.py --rooms train,layers --count 20         20 faults in these rooms, of all those that could be planted
  scripts/mutate.py --rooms text --list                     what could be planted, and nothing else

A copy of the project and a build of its tests lie in --folder. Each fault is built with the tests of its room.
If these pass, the tests of the rooms that use it are built and run too. A fault that all of them pass has survived: a
test is missing, or the change means nothing. A fault that does not compile does not count. One that runs for ten times
as long as the tests do without it is found. Each fault takes as long as the compiler: minutes.
"""
import argparse
import csv
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Whose tests look at a room: its own first, then those of rooms that use it.
TESTS = {"core": ["core", "layers", "train"], "files": ["files", "text", "checkpoint"], "text": ["text", "train", "sample"],
         "backend": ["backend", "layers", "train"], "cpu": ["cpu", "backend", "layers"], "layers": ["layers", "train", "sample"],
         "checkpoint": ["checkpoint", "train"], "train": ["train", "checkpoint"], "sample": ["sample"],
         "analysis": ["analysis", "sample"]}

# What is planted: a name, what it looks for in a line of code, and what it puts there.
KINDS = [("sign", r" \+ (?=[\w(])", " - "), ("sign", r" - (?=[\w(])", " + "), ("sign", r" \+= ", " -= "),
         ("sign", r" -= ", " += "),
         ("off by one", r" < (?=[\w(])", " <= "), ("off by one", r" <= ", " < "), ("off by one", r" > (?=[\w(])", " >= "),
         ("off by one", r" >= ", " > "), ("off by one", r" \+ 1(?=[;,) \]])", ""), ("off by one", r" - 1(?=[;,) \]])", ""),
         ("dropped term", r" [*/] [\w.]+(?:\([\w. ]*\))?(?=[;,)])", ""),
         ("dropped term", r"(?<=[\w)]) \+ [\w.]+(?:\([\w. ]*\))?(?=[;,)])", ""),
         ("stride", r"\.stride\b", ".cols"), ("logic", r" && ", " || "), ("logic", r" \|\| ", " && "),
         ("condition", r"\bif \((?!constexpr)(?=.*\) )", "if (!"),  # completed below
         ("missing check", r"\bif \((?=.*fail<)", "if (false && ")]
SKIPPED = re.compile(r"^\s*(#|template|static_assert|assert\(|using |friend |///|//|requires|concept)|operator|\bassert\(|<<")


def code_of(line):
    """The line with its strings and comments as blanks, of the same length."""
    blank = lambda found: " " * len(found.group())
    line = re.sub(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)\'', blank, line)
    return re.sub(r"//.*", blank, line)


def closed(code, at):
    """The place behind the parenthesis that closes the one before `at`; None if it is on another line."""
    depth = 1
    for place in range(at, len(code)):
        depth += {"(": 1, ")": -1}.get(code[place], 0)
        if depth == 0:
            return place
    return None


def faults_of(file):
    """(line, kind, line with the fault) for each fault that could be planted in a header."""
    lines = file.read_text(encoding="utf-8").split("\n")
    faults = []
    for number, line in enumerate(lines):
        code = code_of(line)
        if SKIPPED.search(code):
            continue
        checks = "fail<" in (code + (code_of(lines[number + 1]) if number + 1 < len(lines) else ""))
        for kind, pattern, instead in KINDS:
            if kind == "missing check":
                pattern = r"\bif \(" if checks else r"(?!)"
            elif kind != "condition" and "fail<" in code:
                continue  # words and numbers of a message
            for found in re.finditer(pattern, code):
                end = found.end()
                if kind in ("condition", "missing check"):
                    if kind == "condition" and (checks or "constexpr" in code):
                        continue
                    close = closed(code, end)
                    if close is None:
                        continue
                    opening = "if (!(" if kind == "condition" else "if (false && ("
                    changed = line[:found.start()] + opening + line[end:close] + ")" + line[close:]
                else:
                    changed = line[:found.start()] + instead + line[end:]
                if changed != line:
                    faults.append((number, kind, changed))
    return faults


class Copy:
    """A copy of the files that git does not ignore, and a build of its tests."""

    def __init__(self, folder, jobs):
        self.source, self.build, self.jobs = folder / "source", folder / "build", jobs
        self.seconds = {}
        tracked = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        for name in tracked.decode().split("\0"):
            if name and (ROOT / name).is_file():
                self.put(name, (ROOT / name).read_bytes(), (ROOT / name).stat().st_mode)
        command = ["cmake", "-S", self.source, "-B", self.build, "-DCMAKE_BUILD_TYPE=Release", "-DTINYMOE_BUILD_EXAMPLES=OFF",
                   "-DTINYMOE_CUDA=OFF", "-DTINYMOE_MPI=OFF"]
        if shutil.which("ninja"):
            command += ["-G", "Ninja"]
        if self.run(command, 600)[0] != 0:
            sys.exit(f"mutate: cannot configure {self.build}")

    def put(self, name, content, mode=None):
        """Writes a file if it is another, so that nothing is built for nothing."""
        to = self.source / name
        if to.is_file() and to.read_bytes() == content:
            return
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(content)
        if mode is not None:
            to.chmod(mode)

    def run(self, command, limit):
        """The exit status, or None after so many seconds, and what it said."""
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit, check=False)
            return done.returncode, done.stdout.decode(errors="replace")
        except subprocess.TimeoutExpired:
            return None, ""

    def makes(self, room):
        status, said = self.run(["cmake", "--build", self.build, "--target", f"test_{room}", "--parallel", str(self.jobs)], 3600)
        self.said = said
        return status == 0

    def passes(self, room):
        """Whether the tests of a room pass, in ten times the time that they took without a fault."""
        program = next(self.build.rglob(f"test_{room}"))
        limit = 30 + 10 * self.seconds.get(room, 120)
        start = time.monotonic()
        status, self.said = self.run([program, "--abort"], limit)
        self.seconds.setdefault(room, time.monotonic() - start)
        return status == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", default=",".join(TESTS), help="folders of include/tinymoe (default: all that have tests)")
    parser.add_argument("--count", type=int, default=20, help="faults in all; 0: all that could be planted (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="chooses them (default: 1)")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build-mutation", help="of copy and build")
    parser.add_argument("--csv", type=pathlib.Path, help="each fault and what became of it")
    parser.add_argument("--jobs", type=int, default=1, help="compilers at once (default: 1)")
    parser.add_argument("--list", action="store_true", help="print the faults and end")
    options = parser.parse_args()
    rooms = options.rooms.split(",")
    for room in rooms:
        if room not in TESTS:
            parser.error(f"there is no room {room}; the rooms are {', '.join(TESTS)}")
    if options.count < 0 or options.jobs < 1:
        parser.error("--count must be 0 or more, and --jobs 1 or more")

    planned = []
    for room in rooms:
        for file in sorted((ROOT / "include/tinymoe" / room).rglob("*.hpp")):
            name = str(file.relative_to(ROOT))
            planned += [(room, name, *fault) for fault in faults_of(file)]
    every = len(planned)
    if options.count and options.count < every:
        planned = sorted(random.Random(options.seed).sample(planned, options.count), key=planned.index)
    if options.list:
        for room, name, number, kind, changed in planned:
            print(f"{name}:{number + 1}: {kind}: {changed.strip()}")
        print(f"{len(planned)} of {every} faults")
        return 0

    copy = Copy(options.folder.resolve(), options.jobs)
    for room in dict.fromkeys(test for room in rooms for test in TESTS[room]):
        if not copy.makes(room) or not copy.passes(room):
            sys.exit(f"mutate: the tests of {room} fail without a fault:\n{copy.said[-2000:]}")
    rows, survivors = [], []
    for room, name, number, kind, changed in planned:
        original = (ROOT / name).read_bytes()
        lines = original.decode().split("\n")
        before, lines[number] = lines[number], changed
        copy.put(name, "\n".join(lines).encode())
        outcome = "survived"
        for test in TESTS[room]:
            if not copy.makes(test):
                outcome = "does not compile"
            elif not copy.passes(test):
                outcome = f"found by {test}"
            if outcome != "survived":
                break
        copy.put(name, original)
        rows.append([room, name, number + 1, kind, outcome, before.strip(), changed.strip()])
        print(f"{name}:{number + 1}: {kind}: {outcome}\n    {before.strip()}\n    {changed.strip()}", flush=True)
    print("\n| room | faults | found | share |\n|---|---|---|---|")
    for room in rooms:
        outcomes = [row[4] for row in rows if row[0] == room and row[4] != "does not compile"]
        found = sum(outcome != "survived" for outcome in outcomes)
        if outcomes:
            print(f"| {room} | {len(outcomes)} | {found} | {100 * found / len(outcomes):.0f} % |")
    survivors = [row for row in rows if row[4] == "survived"]
    print(f"{len(rows)} of {every} faults planted, {len(survivors)} survived")
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["room", "file", "line", "kind", "outcome", "before", "after"], *rows])
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
