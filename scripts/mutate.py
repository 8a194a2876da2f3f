#!/usr/bin/env python3
"""Plants faults in the headers and tells which of them the tests find.

  scripts/mutate.py --rooms train,layers --count 50         50 faults in each of these rooms, drawn at random
  scripts/mutate.py --rooms text --tests files,text         as many as usual, and the tests of these rooms alone, which is sooner
  scripts/mutate.py --rooms text --list                     what could be planted, and nothing else

A copy of the project and a build of its tests lie in --folder. All faults are built at once: where one is planted, the
code asks whether it is the chosen one, and else does what it did before (mutant schemata; Untch, Offutt and Harrold
1993). So a fault costs the time of the tests that reach it, up to the first that fails, and not that of a compiler.

A fault that no test finds has survived: a test is missing, or the change means nothing. One that no test reaches has
survived as well. What is computed while the code is compiled stays as it was, and what does not compile is left out. A
test that takes ten times as long as without a fault, or 8 GiB of memory, has found it.
"""
import argparse
import bisect
import concurrent.futures
import csv
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROOMS = ["core", "files", "text", "backend", "cpu", "layers", "checkpoint", "train", "sample", "analysis"]
MEMORY = 8 << 30  # bytes that a test may take

# What is planted: a name, what it looks for in the code, and what it puts there.
KINDS = [("sign", r" \+ (?=[\w(])", " - "), ("sign", r" - (?=[\w(])", " + "), ("sign", r" \+= ", " -= "),
         ("sign", r" -= ", " += "),
         ("off by one", r" < (?=[\w(])", " <= "), ("off by one", r" <= ", " < "), ("off by one", r" > (?=[\w(])", " >= "),
         ("off by one", r" >= ", " > "), ("off by one", r" \+ 1(?=[;,) \]])", ""), ("off by one", r" - 1(?=[;,) \]])", ""),
         ("dropped term", r" [*/] [\w.]+(?:\([\w. ]*\))?(?=[;,)])", ""),
         ("dropped term", r"(?<=[\w)]) \+ [\w.]+(?:\([\w. ]*\))?(?=[;,)])", ""),
         ("stride", r"\.stride\b", ".cols"), ("logic", r" && ", " || "), ("logic", r" \|\| ", " && ")]
SKIPPED = re.compile(r"^\s*(#|template|static_assert|using |friend |requires|concept|if constexpr)|if constexpr|operator|\bassert\(|<<|\\$|constexpr [^(]*=")

PLANTED = """#pragma once
// Written by scripts/mutate.py.
#include <cstdio>
#include <cstdlib>
#include <type_traits>
namespace tinymoe_fault {
inline const int chosen = [] {
  const char* number = std::getenv("TINYMOE_FAULT");
  return number != nullptr ? std::atoi(number) : -1;
}();
inline unsigned char reached[COUNT];
struct Report {
  ~Report() {
    const char* name = std::getenv("TINYMOE_REACHED");
    if (name == nullptr) return;
    if (std::FILE* file = std::fopen(name, "ab")) {
      std::fwrite(reached, 1, sizeof reached, file);
      std::fclose(file);
    }
  }
};
inline Report report;
constexpr bool planted(int number) {
  if (std::is_constant_evaluated()) return false;
  __atomic_store_n(&reached[number], 1, __ATOMIC_RELAXED);
  return number == chosen;
}
}  // namespace tinymoe_fault
"""


def blanked(text):
    """The text with its comments, and what is inside its quotes, as blanks: lines and places stay. And the same with blank
    comments alone."""
    code, without_comments = list(text), list(text)
    pattern = r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:[^"\\\n]|\\.)*"|(?<!\w)(?:u8|[uUL])?\'(?:[^\'\\\n]|\\.)+\''
    for found in re.finditer(pattern, text, re.S):
        comment = found.group()[0] == "/"
        for at in range(found.start() + (0 if comment else 1), found.end() - (0 if comment else 1)):
            if text[at] != "\n":
                code[at] = " "
                if comment:
                    without_comments[at] = " "
        if not comment:
            code[found.start()] = code[found.end() - 1] = '"'
    return "".join(code), "".join(without_comments)


class Header:
    """A header, and the expressions of its code."""

    def __init__(self, room, file):
        self.room, self.name = room, str(file.relative_to(ROOT))
        self.text = file.read_text(encoding="utf-8")
        self.code, self.without_comments = blanked(self.text)
        self.starts = [0] + [found.end() for found in re.finditer("\n", self.text)]
        self.partner, open_places = {}, []
        for place, sign in enumerate(self.code):
            if sign in "([{":
                open_places.append(place)
            elif sign in ")]}" and open_places:
                self.partner[place] = open_places.pop()
                self.partner[self.partner[place]] = place

    def line(self, place):
        return bisect.bisect_right(self.starts, place) - 1

    def begin_of_expression(self, place):
        """Where the expression with `place` in it begins: behind a comma, a bracket, a semicolon, an assignment or a keyword."""
        of_a_value = lambda opening: re.match(r"[\w>]", self.code[opening - 1])  # a brace: `Index{0}`, and not `if (…) {`
        while place > 0:
            sign = self.code[place - 1]
            if sign in ")]" and place - 1 in self.partner:
                opening = self.partner[place - 1]
                if sign == ")" and re.search(r"\b(if|for|while|switch|constexpr)\s*$", self.code[:opening][-40:]):
                    return place
                place = opening
                continue
            if sign == "}" and place - 1 in self.partner and of_a_value(self.partner[place - 1]):
                place = self.partner[place - 1]
                continue
            if sign in "([{};,?" or (sign == ":" and ":" not in (self.code[place - 2], self.code[place])):
                return place
            if sign == "=" and self.code[place] in " \n" and self.code[place - 2] in " +-*/|&^%":
                return place
            word = re.search(r"\b(return|throw|else|do)$", self.code[max(0, place - 8):place])
            if word and not re.match(r"\w", self.code[place]):
                return place
            place -= 1
        return None

    def end_of_expression(self, place):
        while place < len(self.code):
            sign = self.code[place]
            if sign in "([{" and place in self.partner:
                place = self.partner[place] + 1
                continue
            if sign in ")]};,?" or (sign == ":" and ":" not in (self.code[place - 1], self.code[place + 1])):
                return place
            place += 1
        return None

    def one_line(self, begin, end):
        """Text without comments and ends of lines."""
        return self.without_comments[begin:end].replace("\n", " ")

    def faults(self):
        """All faults that could be planted."""
        found_faults = []
        messages = []  # the places of errors' words
        for found in re.finditer(r"\bfail<[^;]*?>\(", self.code):
            messages.append((found.start(), self.partner.get(found.end() - 1, found.end())))
        for number, start in enumerate(self.starts):
            stop = self.starts[number + 1] - 1 if number + 1 < len(self.starts) else len(self.text)
            code = self.code[start:stop]
            next_line = self.code[stop + 1:self.starts[number + 2]] if number + 2 < len(self.starts) else ""
            if SKIPPED.search(code):
                continue
            for found in re.finditer(r"\b(if|while) \(", code):  # not if constexpr
                begin, end = start + found.end(), self.partner.get(start + found.end() - 1)
                if end is None:
                    continue
                inner = self.code[begin:end]
                begin += self.last_semicolon(inner)
                if re.search(r"(?<![=<>!+*/|&^%-])=(?!=)", self.code[begin:end]):
                    continue  # a declaration
                missing = "fail<" in code[found.start():] or "fail<" in next_line
                after = "false" if missing else f"!({self.one_line(begin, end)})"
                kind = "missing check" if missing else "condition"
                found_faults.append(Fault(self, start + found.start(), begin, end, kind, after))
            for kind, pattern, instead in KINDS:
                for found in re.finditer(pattern, code):
                    place = start + found.start()
                    if any(first <= place < last for first, last in messages):
                        continue
                    begin, end = self.begin_of_expression(place), self.end_of_expression(start + found.end())
                    if begin is None or end is None or end < start + found.end() or not self.code[begin:end].strip():
                        continue
                    if not self.balanced(begin, end) or SKIPPED.search(self.line_at(begin)):
                        continue
                    if instead in (" += ", " -= ") and self.code[end] == "?":
                        continue  # what is assigned goes on behind the question mark
                    after = self.one_line(begin, place) + instead + self.one_line(start + found.end(), end)
                    found_faults.append(Fault(self, place, begin, end, kind, after))
        return found_faults

    def line_at(self, place):
        """The code of the line in which the expression from `place` on begins."""
        place += len(self.code[place:]) - len(self.code[place:].lstrip())
        start = self.code.rfind("\n", 0, place) + 1
        return self.code[start:self.code.find("\n", place)]

    def balanced(self, begin, end):
        return all(begin <= self.partner.get(at, -1) < end for at in range(begin, end) if self.code[at] in "()[]{}")

    @staticmethod
    def last_semicolon(code):
        """The place behind the last semicolon that stands in no brackets; 0: there is none."""
        depth, last = 0, 0
        for at, sign in enumerate(code):
            depth += (sign in "([{") - (sign in ")]}")
            if sign == ";" and depth == 0:
                last = at + 1
        return last

    def planted(self, faults, path):
        """The text with these faults: in a nest of expressions each is planted where it belongs."""

        def here(place):
            return f'\n# {self.line(place) + 1} "{path}"\n'

        def render(begin, end, inside):
            text, at = "", begin
            inside = sorted(inside, key=lambda fault: (fault.begin, -fault.end))
            while inside:
                first = inside[0]
                same = [fault for fault in inside if (fault.begin, fault.end) == (first.begin, first.end)]
                within = [fault for fault in inside if fault.end <= first.end and fault not in same]
                inside = [fault for fault in inside if fault.begin >= first.end]  # one that overlaps is left out
                # A compiler that complains of a fault names it in place of the file.
                choice = "".join(f'\n# 1 "fault:{fault.number}"\n::tinymoe_fault::planted({fault.number}) ? ({fault.after}) : ' for fault in same)
                is_condition = any(fault.kind in ("condition", "missing check") for fault in same)
                original = render(first.begin, first.end, within)
                text += self.text[at:first.begin] + f" ({choice}{here(first.begin)}{'static_cast<bool>' if is_condition else ''}({original})){here(first.end)}"
                at = first.end
            return text + self.text[at:end]

        return render(0, len(self.text), faults).replace("#pragma once", f'#pragma once\n#include "tinymoe/core/planted.hpp"\n# 1 "{path}"', 1)


class Fault:
    def __init__(self, header, place, begin, end, kind, after):
        while begin < end and header.text[begin].isspace():
            begin += 1
        self.header, self.begin, self.end, self.kind, self.after = header, begin, end, kind, after.strip()
        self.line = header.line(place) + 1
        self.before = header.one_line(begin, end)
        self.lines = range(header.line(begin) + 1, header.line(end) + 2)
        self.number = None
        self.place = f"{header.name}:{self.line}"


class Copy:
    """A copy of the files that git does not ignore, and a build of its tests."""

    def __init__(self, folder, jobs, rooms):
        self.source, self.build, self.jobs, self.programs = folder / "source", folder / "build", jobs, [f"test_{room}" for room in rooms]
        tracked = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        self.originals = {}
        for name in tracked.decode().split("\0"):
            if name and (ROOT / name).is_file():
                self.originals[name] = (ROOT / name).read_bytes()

    def write(self, changed):
        """Writes all files, some changed; those that stay keep their time, so that nothing is built for nothing."""
        for name, content in {**self.originals, **changed}.items():
            to = self.source / name
            if to.is_file() and to.read_bytes() == content:
                continue
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(content)
            if (ROOT / name).exists():
                to.chmod((ROOT / name).stat().st_mode)

    def configure(self):
        command = ["cmake", "-S", self.source, "-B", self.build, "-DCMAKE_BUILD_TYPE=Release", "-DTINYMOE_BUILD_EXAMPLES=OFF",
                   "-DTINYMOE_CUDA=OFF", "-DTINYMOE_MPI=OFF", "-DCMAKE_CXX_FLAGS=-w -fmax-errors=0"]
        if shutil.which("ninja"):
            command += ["-G", "Ninja"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True)
        if done.returncode != 0:
            sys.exit(f"mutate: cannot configure {self.build}:\n{done.stdout[-2000:]}")

    def look_at(self, headers):
        """What a compiler says of the headers alone: soon, and before any template is made."""
        unit = "".join(f'#include "{name.removeprefix("include/")}"\n' for name in headers)
        command = ["c++", "-std=c++20", "-fsyntax-only", "-w", "-fmax-errors=0", "-I", self.source / "include", "-x", "c++", "-"]
        done = subprocess.run(command, input=unit, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True, errors="replace")
        return done.returncode == 0, done.stdout

    def make(self):
        command = ["cmake", "--build", self.build, "--parallel", str(self.jobs), "--target", *self.programs, "--", "-k"]
        command += ["0"] if (self.build / "build.ninja").exists() else []
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True, errors="replace")
        return done.returncode == 0, done.stdout

    def folder_of(self, test):
        return {each["name"]: each["value"] for each in test.get("properties", [])}.get("WORKING_DIRECTORY", self.build)

    def tests(self):
        """Name and command of each test of the rooms."""
        said = subprocess.run(["ctest", "--show-only=json-v1"], cwd=self.build, stdout=subprocess.PIPE, check=True).stdout
        return [Test(test["name"], test["command"], self.folder_of(test)) for test in json.loads(said)["tests"]
                if "command" in test and pathlib.Path(test["command"][0]).name in self.programs]


class Test:
    def __init__(self, name, command, folder):
        limited = ["bash", "-c", f'ulimit -v {MEMORY >> 10}; exec "$@"', "bash"]
        self.name, self.command, self.folder, self.seconds, self.reaches = name, limited + command, folder, None, set()

    def passes(self, fault=None, reached=None, limit=600):
        environment = dict(os.environ, TINYMOE_FAULT=str(-1 if fault is None else fault))
        if reached:
            environment["TINYMOE_REACHED"] = str(reached)
        process = subprocess.Popen(self.command, env=environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            return process.wait(limit) in (0, 4)  # 4: it was skipped
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            return False


def faults_in(message, faults):
    """The numbers of the faults that a compiler's errors name: in the errors themselves, else in what belongs to them, else
    by their lines."""
    lacking = set(re.findall(r"/source/(\S+?):\d+:\d+: fatal error: \S+: No such file", message))
    if lacking:  # a library that is not installed
        return {fault.number for fault in faults if fault.header.name in lacking}
    errors, blocks, block = set(), [], []
    for line in message.split("\n"):
        if re.match(r"In file included from|.*: In (instantiation|substitution|function|member)", line):
            blocks.append(block)
            block = []
        if ": error:" in line or ": fatal error:" in line:
            errors.update(re.findall(r"^fault:(\d+):", line))
        block.append(line)
    if errors:
        return {int(number) for number in errors}
    wrong = "\n".join("\n".join(block) for block in blocks + [block] if any("error:" in line for line in block))
    named = {int(number) for number in re.findall(r"fault:(\d+):", wrong)}
    if named:
        return named
    places = {(name, int(line)) for name, line in re.findall(r"/source/(\S+?):(\d+)", wrong)}
    return {fault.number for fault in faults if any((fault.header.name, line) in places for line in fault.lines)}


def plant(copy, faults):
    """Builds as many of these faults as compile; gives them, and those that do not."""
    for number, fault in enumerate(faults):
        fault.number = number
    numbers = PLANTED.replace("COUNT", str(max(1, len(faults)))).encode()
    left_out, configured = [], False
    while True:
        by_header = {}
        for fault in faults:
            by_header.setdefault(fault.header, []).append(fault)
        changed = {header.name: header.planted(own, copy.source / header.name).encode() for header, own in by_header.items()}
        changed["include/tinymoe/core/planted.hpp"] = numbers
        copy.write(changed)
        right, said = copy.look_at(sorted({fault.header.name for fault in faults}))
        if right:
            if not configured:
                copy.configure()
                configured = True
            right, said = copy.make()
        if right:
            return faults, left_out
        wrong = faults_in(said, faults)
        if not wrong & {fault.number for fault in faults}:
            sys.exit(f"mutate: the build fails, and not where a fault is planted:\n{said[-4000:]}")
        print(f"{len(wrong)} faults do not compile", flush=True)
        left_out += [fault for fault in faults if fault.number in wrong]
        faults = [fault for fault in faults if fault.number not in wrong]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", default=",".join(ROOMS), help="folders of include/tinymoe (default: all that have tests)")
    parser.add_argument("--tests", default=",".join(ROOMS), help="rooms whose tests run (default: all)")
    parser.add_argument("--count", type=int, default=20, help="faults in each room; 0: all that could be planted (default: 20)")
    parser.add_argument("--checks", type=int, default=0, help="checks left out besides, in each room (default: 0)")
    parser.add_argument("--seed", type=int, default=1, help="chooses them (default: 1)")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build-mutation", help="of copy and build")
    parser.add_argument("--csv", type=pathlib.Path, help="each fault and what became of it")
    parser.add_argument("--jobs", type=int, default=1, help="compilers or tests at once (default: 1)")
    parser.add_argument("--list", action="store_true", help="print the faults and end")
    options = parser.parse_args()
    rooms, tested = options.rooms.split(","), options.tests.split(",")
    for room in rooms + tested:
        if room not in ROOMS:
            parser.error(f"there is no room {room}; the rooms are {', '.join(ROOMS)}")
    if options.count < 0 or options.checks < 0 or options.jobs < 1:
        parser.error("--count and --checks must be 0 or more, and --jobs 1 or more")

    faults, every, headers = [], 0, []
    for room in rooms:
        here = []
        for file in sorted((ROOT / "include/tinymoe" / room).rglob("*.hpp")):
            headers.append(Header(room, file))
            here += headers[-1].faults()
        every += len(here)
        if options.count and options.count < len(here):
            draw = random.Random(f"{options.seed} {room}")
            drawn = draw.sample(here, options.count)
            checks = [fault for fault in here if fault.kind == "missing check" and fault not in drawn]
            drawn += draw.sample(checks, min(options.checks, len(checks)))
            here = sorted(drawn, key=here.index)
        faults += here
    if options.list:
        for fault in faults:
            print(f"{fault.place}: {fault.kind}: {fault.before} -> {fault.after}")
        print(f"{len(faults)} of {every} faults")
        return 0

    copy = Copy(options.folder.resolve(), options.jobs, tested)
    planned = len(faults)
    faults, left_out = plant(copy, faults)
    tests = copy.tests()
    with tempfile.TemporaryDirectory() as folder:
        for number, test in enumerate(tests):
            reached, start = pathlib.Path(folder) / str(number), time.monotonic()
            passed = test.passes(reached=reached)
            test.seconds = time.monotonic() - start
            records = reached.read_bytes() if reached.exists() else b""
            parts = [records[at:at + planned] for at in range(0, len(records), max(1, planned))]
            test.reaches = {at for part in parts for at, value in enumerate(part) if value}
            if not passed:
                print(f"left out, since it does not pass without a fault: {test.name}", flush=True)
                test.reaches = set()
    tests.sort(key=lambda test: test.seconds)
    print(f"{len(faults)} of {every} faults planted; {len(tests)} tests, {sum(test.seconds for test in tests):.0f} s without one", flush=True)

    def outcome(fault):
        reaching = [test for test in tests if fault.number in test.reaches]
        for test in reaching:
            if not test.passes(fault.number, limit=5 + 10 * test.seconds):
                return f"found by {test.name}"
        return "survived" if reaching else "not reached"

    rows = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for fault, result in zip(faults, pool.map(outcome, faults)):
            rows.append([fault.header.room, fault.header.name, fault.line, fault.kind, result, fault.before, fault.after])
            if not result.startswith("found"):
                print(f"{fault.place}: {fault.kind}: {result}\n    {fault.before}\n    {fault.after}", flush=True)
    print("\n| room | faults | found | not reached | share |\n|---|---|---|---|---|")
    for room in rooms:
        outcomes = [row[4] for row in rows if row[0] == room]
        found = sum(outcome.startswith("found") for outcome in outcomes)
        if outcomes:
            print(f"| {room} | {len(outcomes)} | {found} | {outcomes.count('not reached')} | {100 * found / len(outcomes):.0f} % |")
    survivors = sum(not row[4].startswith("found") for row in rows)
    print(f"{len(rows)} faults, {survivors} survived; {len(left_out)} more did not compile")
    if options.csv:
        rows += [[fault.header.room, fault.header.name, fault.line, fault.kind, "does not compile", fault.before, fault.after] for fault in left_out]
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["room", "file", "line", "kind", "outcome", "before", "after"], *rows])
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
