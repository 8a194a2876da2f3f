"""Maps for the normalizer Precompiled, of the judges and of scripts/make_grapheme_tables.py."""

import struct


def character_map(changes):
    """The bytes of a Precompiled map: a double array of the keys, and their strings after zeros."""
    units, taken, bases, text = [0] * 4096, {0}, {0}, b""
    nodes = [(0, {})]
    for key, value in changes.items():
        place = nodes[0][1]
        for byte in key.encode():
            place = place.setdefault(byte, {})
        place[0] = value
    while nodes:
        at, children = nodes.pop()
        # Of one base alone, or a node would have the children of another, too.
        base = next(b for b in range(256, 3840) if b not in bases and all(b ^ label not in taken for label in children))
        bases.add(base)
        units[at] |= (at ^ base) << 10 | (0 in children) << 8
        for label, child in children.items():
            taken.add(base ^ label)
            if label == 0:
                units[base] = 1 << 31 | len(text)
                text += child.encode() + b"\0"
            else:
                units[base ^ label] = label
                nodes.append((base ^ label, child))
    blocks = max(taken) // 256 + 1
    return struct.pack(f"<{1 + 256 * blocks}I", 4 * 256 * blocks, *units[:256 * blocks]) + text
