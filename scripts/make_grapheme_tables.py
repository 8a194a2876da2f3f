#!/usr/bin/env python3
"""Writes include/tinymoe/text/pipeline/grapheme_data.hpp: where the normalizer Precompiled of the package `tokenizers` cuts
a text. Each table is asked of the package by character maps that tell one cut from another; only the code points that are
controls, and which of those that extend are spacing marks, come from the package regex, whose Unicode may be newer.
Usage: pip install tokenizers==0.23.3 regex && scripts/make_grapheme_tables.py > include/tinymoe/text/pipeline/grapheme_data.hpp
"""

import pathlib
import sys

import regex
from tokenizers import normalizers

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests/interop"))
from character_map import character_map

ACUTE, VIRAMA, KA = "\u0301", "\u094d", "\u0915"
points = [chr(c) for c in range(0x80, 0x110000) if not 0xD800 <= c < 0xE000]
change = normalizers.Precompiled(character_map({"a": "b", "©": "x", KA: "y"})).normalize_str


def keeps_accent(text):
    """Whether the last letter is part of a longer cluster: a short one is changed as a whole, with the accent."""
    return change(text + ACUTE).endswith(ACUTE)


def runs(found):
    result = []
    for c in sorted(map(ord, found)):
        if result and result[-1][1] == c - 1:
            result[-1][1] = c
        else:
            result.append([c, c])
    return result


def ranges(name, comment, found):
    lines, line = [], "   "
    for first, last in runs(found):
        entry = f"{{0x{first:x}, 0x{last:x}}}"
        if len(line) + len(entry) + 2 > 120:
            lines.append(line)
            line = "   "
        line += f" {entry},"
    print(f"/// {comment}\ninline constexpr CodePointRange {name}[] = {{\n" + "\n".join(lines + [line]) + "\n};\n")


extends = [c for c in points if change("a" + c) == "b"]
linkers = [c for c in extends if keeps_accent(KA + c + KA)]
print('''#pragma once
/// @file
/// Where the package tokenizers 0.23.3 cuts a text into grapheme clusters; written by scripts/make_grapheme_tables.py.

#include "tinymoe/text/unicode_tables.hpp"

// clang-format off
namespace tinymoe::inline v0_1::detail {
''')
ranges("grapheme_control_ranges", "What stands alone: Grapheme_Cluster_Break=Control.",
       [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and regex.match(r"\p{GCB=Control}", chr(c))])
ranges("grapheme_extending_ranges", "What belongs to the cluster before it: Extend, SpacingMark and ZWJ.", extends)
ranges("grapheme_spacing_ranges", "Of these the SpacingMark.", [c for c in extends if regex.match(r"\p{GCB=SpacingMark}", c)])
ranges("grapheme_prepending_ranges", "What belongs to the cluster after it: Prepend.", [c for c in points if keeps_accent(c + "a")])
ranges("pictographic_ranges", "Extended_Pictographic.", [c for c in points if keeps_accent(c + "\u200d©")])
ranges("conjunct_consonant_ranges", "Indic_Conjunct_Break=Consonant.",
       [c for c in points if c not in set(extends) and keeps_accent(c + VIRAMA + KA) and not keeps_accent(c + KA)])
ranges("conjunct_linker_ranges", "Indic_Conjunct_Break=Linker.", linkers)
print("}  // namespace tinymoe::inline v0_1::detail\n// clang-format on")
