"""Hypothesis strategies that damage valid files: bytes, JSON and YAML texts."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from hypothesis import strategies as st

# Texts that stand where a JSON value or a YAML scalar stood.
NUMBERS = (
    "0", "-1", "1e308", "-1e308", "1e-320", "1e999", "-0.0", "9007199254740993", "1" * 40,
    "1" * 400, "1" * 5000, "2147483648", "18446744073709551616", "NaN", "Infinity", "0.5",
)  # fmt: skip
PATHS = (
    '"../../../../etc/passwd"', '"/etc/passwd"', '"a/../../b"', '"."', '""', '"\\u0000"',
    '"C:\\\\boot.ini"', '"' + "n" * 5000 + '"', '"<script>alert(1)</script>"', '"\\ud800"',
    '"two\\nlines"',
)  # fmt: skip
OTHERS = ("null", "true", "[]", "{}", "[[]]", '{"a": [1]}', "[1, [2]]", "", "]", "}", ",")
ENDLESS = "[" * 20_000 + "]" * 20_000
HOSTILE = (*NUMBERS, *PATHS, *OTHERS, ENDLESS)
# What YAML makes of a text that JSON does not: dates, odd numbers, tags, references, blocks.
YAML = (
    *NUMBERS, *PATHS, *OTHERS, ".nan", ".inf", "-.inf", "2001-99-99", "2001-01-01", "0x1F", "0b2",
    "1_000", "1:60:60", "!!python/object/apply:os.mkdir [ran]", "!!python/name:os.system",
    "!!binary /w==", "&a [*a]", "*x", "{<<: 1}", "!!timestamp x", "!!int x", "!!float x",
    "!!set {a}", "!!omap [a]", "? {}", "{[1]: 2}", "- a", "|", "%", "@", "`", "!x y", "~", "\t",
    "---", "...", "[" * 500,
    "&a [&b [1, 1, 1], *b, *b, *b, *b]", "&a {<<: *a}",
    "".join(f"&l{n} [{'x' if n == 0 else ', '.join([f'*l{n - 1}'] * 9)}], " for n in range(9)),
)  # fmt: skip
# Sizes, offsets and numbers of a binary file at the ends of what they can be.
EXTREME = tuple(
    struct.pack(form, value)
    for form, value in (
        ("<I", 2**32 - 1), ("<I", 2**31), ("<I", 0), ("<Q", 2**64 - 1), ("<Q", 2**40), ("<Q", 0),
        ("<d", float("nan")), ("<d", float("inf")), ("<d", 1e308), ("<H", 0xFFFF), (">I", 2**31),
    )
)  # fmt: skip

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[\[\]{}]')
PLACES = st.integers(0, 2**32 - 1)  # taken modulo the number of places there are


@st.composite
def damaged_bytes(draw, whole: bytes, head: int = 0) -> bytearray:
    """``whole`` with one to four changes; every second one falls in the first ``head`` bytes.

    No plain bytes: Hypothesis keeps those of every case until the last one, a megabyte each for a
    file of that size.
    """
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place, how, extra = draw(PLACES), draw(st.integers(0, 6)), draw(st.integers(0, 255))
        span = head if head and place % 2 else len(data)
        at = (place // 2) % max(1, min(span, len(data)))
        if how == 0:
            del data[at:]
        elif how == 1:
            del data[at : at + 1 + extra % 16]
        elif how == 2:
            data[at:at] = data[at : at + 1 + extra]
        elif how == 3:
            new = EXTREME[extra % len(EXTREME)]
            data[at : at + len(new)] = new
        elif how == 4 and at < len(data):
            data[at] ^= 1 << extra % 8
        elif at < len(data):
            data[at] = extra
    return data


def _spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each value, key, list and object of a JSON text."""
    found, open_at = [], []
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            open_at.append(token.start())
        elif token[0] in "]}":
            found.append((open_at.pop(), token.end()))
        else:
            found.append(token.span())
    return found


@st.composite
def _changed_json(draw, text: str, places: list[tuple[int, int]]) -> bytes:
    for _ in range(draw(st.integers(1, 3))):
        # Few of the places are not numbers in long lists; every second change takes one of those.
        place = draw(PLACES)
        rest = (
            [span for span in places if not text[span[0] : span[0] + 1].isdigit()]
            if place % 2
            else places
        )
        start, end = (rest or places)[place // 2 % len(rest or places)]
        other = places[draw(PLACES) % len(places)]
        how = draw(st.integers(0, 7))
        if how == 0:
            new = ""
        elif how == 1:
            new = f"{text[start:end]}, {text[start:end]}"
        elif how == 2:
            new = text[slice(*other)]
        else:
            new = HOSTILE[draw(st.integers(0, len(HOSTILE) - 1))]
        text = text[:start] + new + text[end:]
        moved = len(new) - (end - start)
        places = [
            (a if a <= start else a + moved, b if b <= start else b + moved)
            for a, b in places
            if b <= start or a >= end or (a <= start and b >= end and (a, b) != (start, end))
        ] or [(0, len(text))]
    return text.encode("utf-8", "surrogatepass")


def damaged_json(text: str) -> st.SearchStrategy[bytes]:
    """``text``: some of its values replaced, removed, doubled or swapped; or damaged as bytes."""
    return st.one_of(_changed_json(text, _spans(text)), damaged_bytes(text.encode()))


def damaged_jsons(folder: Path) -> dict[Path, st.SearchStrategy[bytes]]:
    """How each JSON file below ``folder`` is damaged."""
    return {path: damaged_json(path.read_text()) for path in sorted(folder.rglob("*.json"))}


@st.composite
def _changed_yaml(draw, text: str) -> bytes:
    parts = text.split(" ")
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(parts) - 1))
        parts[at] = YAML[draw(st.integers(0, len(YAML) - 1))]
        if draw(st.booleans()):
            parts[at] += "\n"
    return " ".join(parts).encode("utf-8", "surrogatepass")


def damaged_yaml(text: str) -> st.SearchStrategy[bytes]:
    """``text``: some of what stands between blanks replaced; or damaged as bytes."""
    return st.one_of(_changed_yaml(text), damaged_bytes(text.encode()))
