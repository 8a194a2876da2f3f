"""safetensors files, right and wrong, against the package safetensors: what it refuses tinymoe refuses, and what it reads tinymoe
reads, but for what LAXER and STRICTER say. What tinymoe writes the package reads.

The files are drawn at random: TINYMOE_JUDGE_FILES of them (2,000), from TINYMOE_JUDGE_SEED (0) on."""

import json
import os
import random
import re
import struct
import sys

import judge

safetensors = judge.need("safetensors")

BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4,
         "F32": 4, "U64": 8, "I64": 8, "F64": 8}
# Why tinymoe refuses what the package reads, by its sentence.
STRICTER = re.compile("|".join([
    "JSON has the key .* twice",  # the package takes the last
    "the header is not a JSON object",  # there is a space before it
    "expected an object with .* found array",  # a tensor is written as a list
    "__metadata__ is not an object",  # it is null
    "JSON is nested deeper than 4 levels",  # in a field that the format does not know
    "unknown dtype (C64|F4|F6_E2M3|F6_E3M2|F8_E8M0|F8_E4M3FNUZ|F8_E5M2FNUZ)$",
    '"shape": expected a whole number in range, found (9223372036854775808|18446744073709551615)$',  # without elements
]))
# What tinymoe reads and the package refuses: a 0 with a sign. Without it both must read the same.
LAXER = re.compile(rb"(?<=[\[,])-0(?=[,\]])")
NUMBERS = ["-0", "0.0", "1.0", "1e0", "01", "-1", "+1", "1_0", "0x1", "18446744073709551615", "18446744073709551616",
           "9223372036854775808", "1e400", "NaN", "null", "true", '"1"', "[1]", "{}", "", "1 2"]
NAMES = ['"a"', '""', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\/"', '"\\x41"', '"a\nb"', '"a\\nb"', '"é"', '"é\\u0065"',
         '"__metadata__"', "1", "null", '"' + "long" * 100 + '"', "'a'", '"\\u00e9"', '"\\u00"', '"\\', '"\x7f"', '"\t"']


def random_file(seed):
    """The bytes of a file: a right one, or spoilt in up to three ways."""
    draw = random.Random(seed)
    tensors, at = [], 0
    for number in range(draw.randrange(5)):
        kind = draw.choice(list(BYTES))
        shape = [draw.choice([0, 1, 1, 2, 3, 5]) for _ in range(draw.randrange(4))]
        size = BYTES[kind]
        for extent in shape:
            size *= extent
        tensors.append({"name": json.dumps(f"layer.{number}", ensure_ascii=False), "dtype": f'"{kind}"', "shape": [str(e) for e in shape],
                        "offsets": [str(at), str(at + size)], "more": [], "form": "object"})
        at += size
    data = draw.randbytes(at)
    metadata = draw.choice([None, "{}", '{"format":"pt"}', '{"a":"é","b":"\\u0001"}'])
    draw.shuffle(tensors)
    space, edges, length = "", ["", ""], None
    for _ in range(draw.choice([0, 1, 1, 1, 2, 3])):
        way = draw.randrange(13)
        tensor = draw.choice(tensors) if tensors else {"name": "", "shape": [], "offsets": ["0", "0"], "more": []}
        if way == 0:
            tensor["name"] = draw.choice(NAMES + [other["name"] for other in tensors])
        elif way == 1:
            tensor["dtype"] = draw.choice([f'"{kind}"' for kind in BYTES] + ['"f32"', '"F32 "', '""', "null", "7", '["F32"]', '"C64"', '"F4"',
                                                                             '"F6_E2M3"', '"F8_E8M0"', '"F8_E4M3FNUZ"', '"F\\u0033\\u0032"'])
        elif way == 2:
            place = draw.randrange(len(tensor["shape"]) + 1)
            if draw.random() < 0.3:
                tensor["shape"].insert(place, draw.choice(["1", "1", "0", "2"]))
            else:
                tensor["shape"][place : place + 1] = [draw.choice(NUMBERS)]
        elif way == 3:
            place = draw.randrange(2)
            old = (tensor["offsets"] + ["0", "0"])[place]
            near = [str(int(old) + draw.choice([-1, 1, 2]))] if old.isdecimal() else []
            tensor["offsets"][place : place + 1] = [draw.choice(NUMBERS + 10 * near)]
        elif way == 4:
            tensor["offsets"] = draw.choice([tensor["offsets"][:1], tensor["offsets"] + ["0"], tensor["offsets"][::-1], []])
        elif way == 5:
            tensor["more"].append(draw.choice(['"x":1', '"x":null', '"dtype":"F32"', '"shape":[]', '"x":[[[[[[1]]]]]]', '"x":', '"x":"\\ud800"',
                                               '"data_offsets":[0,0]', '"x":1e999', '"x":-', '"x":NaN', "1"]))
        elif way == 6:
            tensor["form"] = draw.choice(["list", "no dtype", "no shape", "no offsets", "null", "shape null", "offsets null"])
        elif way == 7:
            metadata = draw.choice(["null", "[]", '""', '{"a":1}', '{"a":null}', '{"a":"1","a":"2"}', '{"a":{"b":"c"}}', '{"":""}', '{1:"a"}',
                                    '{"a":"\\ud800"}', '{"a":"\\u0000"}', '{"a":"b",}'])
        elif way == 8:
            space = draw.choice([" ", "\n", "\t \r", "\f", "/**/", "\u00a0"])
        elif way == 9:
            edges[draw.randrange(2)] = draw.choice([" ", "\n", "        ", "\0", "x", ",", "{}", "\ufeff", "\v"])
        elif way == 10:
            length = draw.choice([0, 1, 7, -1, -2, 1 << 31, 100_000_001, (1 << 63), (1 << 64) - 1])
        elif way == 11:
            data = draw.choice([data[:-1], data + b"\0", b"", data * 2])
        elif tensors:
            tensors.append(dict(tensor))

    def written(tensor):
        dtype, shape = tensor["dtype"], f"[{','.join(tensor['shape'])}]"
        offsets = f"[{','.join(tensor['offsets'])}]"
        form = tensor["form"]
        if form == "list":
            return f"[{dtype},{shape},{offsets}]"
        if form == "null":
            return "null"
        members = [f'"dtype":{dtype}', f'"shape":{"null" if form == "shape null" else shape}',
                   f'"data_offsets":{"null" if form == "offsets null" else offsets}', *tensor["more"]]
        if form.startswith("no "):
            members = [m for m in members if not m.startswith(('"dtype', '"shape', '"data_offsets')[["dtype", "shape", "offsets"].index(form[3:])])]
        draw.shuffle(members)
        return "{" + f",{space}".join(members) + "}"

    members = [f'{tensor["name"]}{space}:{space}{written(tensor)}' for tensor in tensors]
    if metadata is not None:
        members.insert(draw.choice([0, len(members)]), f'"__metadata__":{metadata}')
    header = (edges[0] + "{" + f"{space},".join(members) + space + "}" + edges[1]).encode()
    if draw.random() < 0.5:
        header += b" " * (-len(header) % 8)
    if draw.random() < 0.15 and header:  # and a byte of it by chance
        place = draw.randrange(len(header))
        header = header[:place] + draw.choice([b"", bytes([draw.randrange(256)])]) + header[place + draw.randrange(2) :]
    if length is None:
        length = len(header)
    elif length < 0:
        length = max(0, len(header) + length)
    return struct.pack("<Q", length) + header + data


def theirs(content, path):
    """What the package reads: each tensor's type, shape and bytes, and the metadata; or its error."""
    try:
        tensors = safetensors.deserialize(content)
        path.write_bytes(content)
        with safetensors.safe_open(str(path), framework="np") as file:
            metadata = file.metadata()
    except safetensors.SafetensorError as error:
        return str(error)
    return {name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in tensors}, metadata or {}


def ours(lines):
    tensors, metadata = {}, {}
    for line in lines.decode().splitlines():
        parts = line.split(" ")
        if parts[0] == "t":
            shape = tuple(int(extent) for extent in parts[3].split(",") if extent)
            tensors[bytes.fromhex(parts[1]).decode()] = (parts[2], shape, bytes.fromhex(parts[4]))
        else:
            metadata[bytes.fromhex(parts[1]).decode()] = bytes.fromhex(parts[2]).decode()
    return tensors, metadata


def main():
    judge.need("numpy")  # the package asks for it
    count = int(os.environ.get("TINYMOE_JUDGE_FILES", "2000"))
    first = int(os.environ.get("TINYMOE_JUDGE_SEED", "0"))
    folder = judge.new_folder()
    counts = {"read by both": 0, "refused by both": 0, "refused by tinymoe alone": 0, "read by tinymoe alone": 0}
    for begin in range(first, first + count, 20000):
        files = [random_file(seed) for seed in range(begin, min(begin + 20000, first + count))]
        judge.write_things(folder / "in", files)
        judge.run(judge.tester(), folder / "in", folder / "out", folder)
        results = judge.things(folder / "out")
        for seed, file in enumerate(files, begin):
            found, written = next(results), next(results)
            expected = theirs(file, folder / "theirs")
            kind = "read by both"
            if found.startswith(b"e"):
                error = found[1:].decode().split("/read: ")[-1]
                kind = "refused by both" if isinstance(expected, str) else "refused by tinymoe alone"
                if not isinstance(expected, str) and not STRICTER.search(error):
                    sys.exit(f"FAILED: seed {seed}: {file!r} is refused: {error}; the package reads {expected}")
            else:
                if isinstance(expected, str) and LAXER.search(file):
                    kind = "read by tinymoe alone"
                    expected = theirs(LAXER.sub(b"0 ", file), folder / "theirs")
                if ours(found) != expected:
                    sys.exit(f"FAILED: seed {seed}: {file!r}: found {ours(found)}, expected {expected}")
                if theirs(written, folder / "theirs") != expected:
                    sys.exit(f"FAILED: seed {seed}: {file!r}: written as {written!r}")
            counts[kind] += 1
    judge.check(min(counts["read by both"], counts["refused by both"]) > count / 10, f"too few of a kind: {counts}")
    print("ok:", ", ".join(f"{number} files {what}" for what, number in counts.items()))


main()
