"""Hypothesis strategies that damage valid files: bytes, JSON texts, pickles, archives' members."""

from __future__ import annotations

import os
import pickle
import pickletools
import re
import struct

import numpy as np
import scipy.sparse as sp
from hypothesis import strategies as st

# Texts that stand where a JSON value or a YAML scalar stood.
NUMBERS = (
    "0", "-1", "1e308", "-1e308", "1e-320", "1e999", "-0.0", "9007199254740993", "1" * 40,
    "1" * 5000, "2147483648", "18446744073709551616", "NaN", "Infinity", "0.5",
)  # fmt: skip
PATHS = (
    '"../../../../etc/passwd"', '"/etc/passwd"', '"a/../../b"', '"."', '""', '"\\u0000"',
    '"C:\\\\boot.ini"', '"' + "n" * 5000 + '"', '"<script>alert(1)</script>"', '"\\ud800"',
)  # fmt: skip
OTHERS = ("null", "true", "[]", "{}", "[[]]", '{"a": [1]}', "[1, [2]]", "", "]", "}", ",")
ENDLESS = "[" * 20_000 + "]" * 20_000
HOSTILE = (*NUMBERS, *PATHS, *OTHERS, ENDLESS)

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[\[\]{}]')
BIG = tuple(
    struct.pack(form, value)
    for form, value in (
        ("<I", 2**32 - 1), ("<I", 2**31), ("<I", 0), ("<Q", 2**64 - 1), ("<Q", 2**40), ("<Q", 0),
        ("<d", float("nan")), ("<d", float("inf")), ("<d", 1e308), ("<H", 0xFFFF), (">I", 2**31),
    )
)  # fmt: skip
_places = st.integers(0, 2**32 - 1)


@st.composite
def damaged_bytes(draw, whole: bytes, head: int = 0) -> bytes:
    """``whole`` with one to four changes; every second one falls in the first ``head`` bytes."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place, how = draw(_places), draw(st.integers(0, 6))
        span = head if head and place % 2 else len(data)
        at = (place // 2) % max(1, min(span, len(data)))
        extra = draw(st.integers(0, 255))
        if how == 0:
            del data[at:]
        elif how == 1:
            del data[at : at + 1 + extra % 16]
        elif how == 2:
            data[at:at] = data[at : at + 1 + extra]
        elif how == 3:
            data[at : at + 8] = BIG[extra % len(BIG)]
        elif how == 4 and at < len(data):
            data[at] ^= 1 << extra % 8
        elif at < len(data):
            data[at] = extra
    return bytes(data)


def spans(text: str) -> list[tuple[int, int]]:
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
def damaged_json(draw, text: str, places: list[tuple[int, int]]) -> bytes:
    """``text`` with one to three of its ``places`` replaced, removed, doubled or swapped."""
    for _ in range(draw(st.integers(1, 3))):
        # Few of the places are not numbers in long lists; every second change takes one of those.
        place = draw(_places)
        rest = [span for span in places if not text[span[0]].isdigit()] if place % 2 else places
        start, end = (rest or places)[place // 2 % len(rest or places)]
        other = places[draw(_places) % len(places)]
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


class _Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _loop() -> list:
    loop: list = []
    loop.append(loop)
    return loop


def _laughs() -> list:
    value: list = [0.0] * 10
    for _ in range(12):
        value = [value] * 10
    return value


VALUES = (
    None, True, -1, 10**400, float("nan"), 1e308, "text", "", b"bytes", "../../x", [], {}, set(),
    (1,), [[1.0], [1.0, 2.0]], _loop(), _laughs(), 1 + 2j, np.zeros(0), np.zeros((3, 0)),
    np.array(["a", "b"]), np.array([b"1"]), np.array([None, 1], object), np.full(72, np.nan),
    np.full((2, 72), 1e308), np.zeros((2, 72), np.complex64), np.float32(3), np.bool_(True),
    np.zeros(10, ">f4"), np.asfortranarray(np.zeros((3, 3))), sp.csc_matrix(np.eye(3)),
    _Call(os.mkdir, "/tmp/hmdiff-fuzz-ran"), _Call(eval, "1/0"), _Call(print, "ran"),
    _Call(np.zeros, 2**60), _Call(np.ndarray, (2**40,)), _Call(bytes, 2**40),
)  # fmt: skip
SNIPPETS = (
    b"cos\nsystem\n(Vtouch ran\ntR", b"cposix\nsystem\n", b"cbuiltins\neval\n", b"R", b"b", b"0",
    b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"\x81",
    b"cnumpy.core.multiarray\nscalar\n", b"c__builtin__\nbytes\n", b"c__builtin__\nobject\n",
    b"ccopy_reg\n_reconstructor\n", b"cscipy.sparse.csc\ncsc_matrix\n", b"cchumpy.ch\nCh\n", b"}",
    b"]", b")", b"(", b"t", b"a", b"e", b"s", b"u", b"2", b"1", b"N", b".", b"J\xff\xff\xff\x7f",
    b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\x7f", b"q\x00", b"h\x00", b"h\x05", b"X\xff\xff\xff\x7f",
    b"\x8e\xff\xff\xff\xff\xff\x00\x00\x00", b"\x8b\xff\xff\xff\x7f", b"G\x7f\xf0" + bytes(6),
    b"P1\n", b"Q", b"\x82\x01", b"V" + b"9" * 50 + b"\n", b"I99999999999999999999\n", b"d", b"l",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"U\x02V8", b"I-1\n", b"\x85", b"\x86", b"\x87",
)  # fmt: skip


def operations(data: bytes) -> list[int]:
    """Where each operation of a pickle begins."""
    return [position for _, _, position in pickletools.genops(data)]


@st.composite
def damaged_program(draw, data: bytes, starts: list[int]) -> bytes:
    """The pickle ``data`` with operations put in, taken out, doubled or moved."""
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(draw(st.integers(1, 4))):
        at, how = draw(_places) % len(parts), draw(st.integers(0, 5))
        if how == 0 and len(parts) > 1:
            del parts[at]
        elif how == 1:
            parts.insert(at, parts[draw(_places) % len(parts)])
        else:
            parts.insert(at, SNIPPETS[draw(st.integers(0, len(SNIPPETS) - 1))])
    return b"".join(parts)


@st.composite
def damaged_values(draw, content: dict) -> bytes:
    """A pickle of the dictionary ``content`` with values or parts of them replaced."""
    content = dict(content)
    for _ in range(draw(st.integers(1, 2))):
        key = draw(st.sampled_from(sorted(content)))
        value = VALUES[draw(st.integers(0, len(VALUES) - 1))]
        how, old = draw(st.integers(0, 4)), content[key]
        if how == 0:
            del content[key]
            content.setdefault("other", value)
        elif how == 1 and isinstance(old, list):
            content[key] = [value, *old[1:]]
        elif how == 2 and isinstance(old, np.ndarray) and old.size:
            new = old.astype(np.float64).copy()
            new.flat[draw(_places) % new.size] = draw(
                st.sampled_from([np.nan, np.inf, -1e308, 0.0, -1.0, 1e30])
            )
            content[key] = new
        else:
            content[key] = value
    return pickle.dumps(content, protocol=draw(st.integers(0, 4)))


def damaged_pickle(content: dict) -> st.SearchStrategy[bytes]:
    """Pickles of the dictionary ``content``, damaged in any of three ways."""
    data = pickle.dumps(content, protocol=2)
    return st.one_of(
        damaged_bytes(data), damaged_program(data, operations(data)), damaged_values(content)
    )
