#!/usr/bin/env python3
"""Writes include/tinymoe/text/pipeline/unicode_data.hpp: what the package `tokenizers` knows of Unicode.

Its parts follow different versions (0.23: expressions 16, lower case and digits 17, normal forms 9, punctuation 8), so
each table is asked of the package itself, code point by code point. Only the numbers of the combining classes and the
pairs that compose come from Python's unicodedata, for those code points where the package reorders or composes.
Usage: pip install tokenizers==0.23.3 && scripts/make_pipeline_tables.py > include/tinymoe/text/pipeline/unicode_data.hpp
"""

import unicodedata

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn".split()
SCRIPTS = "Arabic Cyrillic Devanagari Greek Han Hangul Hebrew Hiragana Katakana Latin Thai".split()
HANGUL = range(0xAC00, 0xD7A4)
points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
everything = "".join(map(chr, points))


def matched(expression):
    splitter = pre_tokenizers.Split(Regex(expression), "removed", invert=True)
    return {ord(c) for piece, _ in splitter.pre_tokenize_str(everything) for c in piece}


def removed(splitter):
    return set(points) - {ord(c) for piece, _ in splitter.pre_tokenize_str(everything) for c in piece}


def runs(found):
    result = []
    for c in sorted(found):
        if result and result[-1][1] == c - 1:
            result[-1][1] = c
        else:
            result.append([c, c])
    return result


def rows(entries):
    lines, line = [], "   "
    for entry in entries:
        if len(line) + len(entry) + 2 > 120:
            lines.append(line)
            line = "   "
        line += f" {entry},"
    return "\n".join(lines + [line])


def array(kind, name, comment, entries):
    print(f"/// {comment}\ninline constexpr {kind} {name}[] = {{\n{rows(entries)}\n}};\n")


def ranges(name, comment, found):
    array("CodePointRange", name, comment, [f"{{0x{a:x}, 0x{b:x}}}" for a, b in runs(found)])


category = {}
for number, name in enumerate(CATEGORIES):
    for c in matched(r"\p{%s}+" % name):
        category[c] = number
unassigned = CATEGORIES.index("Cn")
starts, last = [], None
for c in range(0x110000):
    now = category.get(c, unassigned)  # surrogates are in no text
    if now != last:
        starts.append(c << 5 | now)
        last = now

print(f"""#pragma once
/// @file
/// What the package tokenizers {tokenizers.__version__} knows of Unicode; written by scripts/make_pipeline_tables.py.
/// Over 300 lines: tables.

#include <cstdint>

#include "tinymoe/text/unicode_tables.hpp"

// clang-format off
namespace tinymoe::inline v0_1::detail {{

/// The general categories, in the order of the tables.
enum class GeneralCategory : std::uint8_t {{
  {", ".join(name.lower() for name in CATEGORIES)}
}};
""")
array("std::uint32_t", "category_starts",
      "Where a run of code points of one category starts, times 32, plus the category; ascending.",
      [f"0x{v:x}" for v in starts])

word = matched(r"\w+")
letters = {c for c in points if CATEGORIES[category[c]][0] in "LM" or CATEGORIES[category[c]] in ("Nd", "Pc")}
assert letters <= word
ranges("further_word_ranges", r"What \\w has of expressions besides the categories L, M, Nd and Pc; ascending.".replace("\\\\", "\\"), word - letters)
plain_word = {ord(p[1]) for p, _ in pre_tokenizers.Whitespace().pre_tokenize_str(" ".join("a" + c for c in everything))
              if len(p) == 2 and p[0] == "a"}
ranges("only_expression_word_ranges", r"What \w has in expressions, but not in the pre-tokenizer Whitespace.", word - plain_word)
ranges("only_whitespace_word_ranges", r"The other way about.", plain_word - word)
ranges("punctuation_ranges", "What the pre-tokenizer Punctuation takes for it; ascending.",
       removed(pre_tokenizers.Punctuation("removed")))
digits = {ord(p) for p, _ in pre_tokenizers.Digits(False).pre_tokenize_str("a".join(everything)) if len(p) == 1 and p != "a"}
numbers = {c for c in points if CATEGORIES[category[c]][0] == "N"}
assert numbers <= digits
ranges("further_digit_ranges", "What the pre-tokenizer Digits has besides the categories N; ascending.", digits - numbers)

print("/// A script's code points.\nstruct ScriptRange {\n  const char* script = nullptr;\n  CodePointRange range;\n};\n")
array("ScriptRange", "script_ranges", "Of some scripts, that expressions ask for.",
      [f'{{"{s.lower()}", {{0x{a:x}, 0x{b:x}}}}}' for s in SCRIPTS for a, b in runs(matched(r"\p{%s}+" % s))])

lower = normalizers.Lowercase()
pairs = {c: lower.normalize_str(chr(c)) for c in points if lower.normalize_str(chr(c)) != chr(c)}
assert [c for c, text in pairs.items() if len(text) > 1] == [0x130]  # its own case in the code
steps = []  # first, last, step, difference
for c, text in pairs.items():
    if c == 0x130:
        continue
    difference = ord(text) - c
    if steps and steps[-1][3] == difference:
        first, end, step, _ = steps[-1]
        if (step == 0 and c - end <= 2) or c - end == step:
            steps[-1] = [first, c, c - end, difference]
            continue
    steps.append([c, c, 0, difference])
print("""/// The code points first, first + step, … last become lower case by adding `difference`.
struct LowerCaseRun {
  std::uint32_t first = 0, last = 0, step = 1;
  std::int32_t difference = 0;
};
""")
array("LowerCaseRun", "lower_case_runs", "All but U+0130; ascending by `first`.",
      [f"{{0x{a:x}, 0x{b:x}, {s or 1}, {d}}}" for a, b, s, d in steps])

nfc, nfd, nfkd = normalizers.NFC(), normalizers.NFD(), normalizers.NFKD()
text, entries, composed = [], [], []
for c in points:
    if c in HANGUL:
        continue
    canonical, compatible = nfd.normalize_str(chr(c)), nfkd.normalize_str(chr(c))
    for form, parts in (("false", canonical), ("true", compatible)):
        if parts == (chr(c) if form == "false" else canonical):
            continue
        entries.append(f"0x{c << 8 | len(parts) << 1 | (form == 'true'):x}")
        text += [f"0x{ord(p):x}" for p in parts]
    if len(canonical) > 1:
        first, second = nfc.normalize_str(canonical[:-1]), canonical[-1]
        if len(first) == 1 and nfc.normalize_str(first + second) == chr(c):
            composed.append((ord(first), ord(second), c))
array("std::uint32_t", "decompositions",
      "A code point times 256, plus twice the length of its full decomposition, plus 1 if that is of NFKD alone. All but\n"
      "/// Hangul's, ascending. The decompositions themselves follow each other in `decomposed`.", entries)
array("std::uint32_t", "decomposed", "See `decompositions`.", text)
print("""/// Two code points that compose to one.
struct Composition {
  std::uint32_t first = 0, second = 0, composed = 0;
};
""")
array("Composition", "compositions", "All but Hangul's, ascending by `first`, then `second`.",
      [f"{{0x{a:x}, 0x{b:x}, 0x{c:x}}}" for a, b, c in sorted(composed)])

classes = []
for c in points:
    number = unicodedata.combining(chr(c))
    moved = number == 240 or nfd.normalize_str("a\u0345" + chr(c)) != "a\u0345" + chr(c)
    if number == 0 or not moved:
        continue
    if classes and classes[-1][1] == c - 1 and classes[-1][2] == number:
        classes[-1][1] = c
    else:
        classes.append([c, c, number])
print("""/// The combining class of code points, where it is not 0.
struct CombiningClass {
  std::uint32_t first = 0, last = 0;
  std::uint8_t number = 0;
};
""")
array("CombiningClass", "combining_classes", "Ascending.", [f"{{0x{a:x}, 0x{b:x}, {n}}}" for a, b, n in classes])

stripped = {c for c in points if normalizers.StripAccents().normalize_str(chr(c)) == ""}
ranges("accent_ranges", "What the normalizer StripAccents removes; ascending.", stripped)
print("""}  // namespace tinymoe::inline v0_1::detail
// clang-format on""")
