#!/usr/bin/env python3
"""Writes include/tinymoe/text/unicode_tables.hpp: the code points that are letters (L*) and numbers (N*).

The tables in the tree follow Unicode 16.0.0, as the package `tokenizers` 0.23 does (all code points compared), and were
made with the package unicodedata2 of that version; without the package, Python's own unicodedata is used.
Usage: pip install unicodedata2==16.0.0 && scripts/make_unicode_tables.py > include/tinymoe/text/unicode_tables.hpp
"""

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata


def ranges_of(letter):
    """The maximal runs [first, last] of code points whose general category starts with `letter`."""
    runs = []
    for code_point in range(0x110000):
        if unicodedata.category(chr(code_point))[0] == letter:
            if runs and runs[-1][1] == code_point - 1:
                runs[-1][1] = code_point
            else:
                runs.append([code_point, code_point])
    return runs


def table(name, comment, runs):
    lines, line = [], "   "
    for first, last in runs:
        entry = f" {{0x{first:x}, 0x{last:x}}},"
        if len(line) + len(entry) > 120:
            lines.append(line)
            line = "   "
        line += entry
    lines.append(line)
    body = "\n".join(lines)
    return f"/// {comment}, ascending.\ninline constexpr CodePointRange {name}[] = {{\n{body}\n}};\n"


print(f"""#pragma once
/// @file
/// The letters and numbers of Unicode {unicodedata.unidata_version}; written by scripts/make_unicode_tables.py.

#include <cstdint>

// clang-format off
namespace tinymoe::detail {{

/// The code points from `first` to `last`, both included.
struct CodePointRange {{
  std::uint32_t first = 0, last = 0;
}};

{table("letter_ranges", "Code points of the general categories Lu, Ll, Lt, Lm and Lo", ranges_of("L"))}
{table("number_ranges", "Code points of the general categories Nd, Nl and No", ranges_of("N"))}
}}  // namespace tinymoe::detail
// clang-format on""")
