"""Hypothesis strategies that damage pickles: their bytes, their operations, or what they hold."""

from __future__ import annotations

import os
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from hypothesis import strategies as st
from mutations import PLACES, damaged_bytes

RAN = "ran"  # what a pickle would leave in the current folder if anything of it were run


class _Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def _loop() -> list:
    loop: list = []
    loop.append(loop)
    return loop


def _laughs() -> list:
    """A thousand bytes that stand for 10 ** 13 numbers."""
    value: list = [0.0] * 10
    for _ in range(12):
        value = [value] * 10
    return value


# What stands where a value stood, calls among them.
VALUES = (
    None, True, -1, 10**400, float("nan"), 1e308, "text", "", b"bytes", "../../x", [], {}, set(),
    (1,), [[1.0], [1.0, 2.0]], _loop(), _laughs(), 1 + 2j, np.zeros(0), np.zeros((3, 0)),
    np.array(["a", "b"]), np.array([b"1"]), np.array([None, 1], object), np.full(72, np.nan),
    np.full((2, 72), 1e308), np.zeros((2, 72), np.complex64), np.float32(3), np.bool_(True),
    np.zeros(10, ">f4"), np.asfortranarray(np.zeros((3, 3))), sp.csc_matrix(np.eye(3)),
    _Call(os.mkdir, RAN), _Call(os.system, f"touch {RAN}"), _Call(eval, f"open({RAN!r}, 'w')"),
    _Call(print, "ran"), _Call(np.zeros, 2**60), _Call(np.ndarray, (2**40,)),
    _Call(bytes, 2**40),
)  # fmt: skip
# Operations to be put in: calls of what must not be found, and claims of memory.
SNIPPETS = (
    b"cos\nsystem\n(Vtouch ran\ntR", b"cos\nmkdir\n(Vran\ntR", b"cposix\nsystem\n", b"R", b"b",
    b"cbuiltins\neval\n(Vopen('ran', 'w')\ntR", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"0",
    b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\nscalar\n", b"\x81",
    b"c__builtin__\nbytes\n", b"c__builtin__\nobject\n", b"ccopy_reg\n_reconstructor\n",
    b"c_codecs\nencode\n(Vx\nVlatin1\ntR", b"cscipy.sparse.csc\ncsc_matrix\n",
    b"cchumpy.ch\nCh\n", b"}", b"]", b")", b"(", b"t", b"a", b"e", b"s", b"u", b"2", b"1", b"N",
    b".", b"J\xff\xff\xff\x7f", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\x7f", b"q\x00", b"h\x00",
    b"h\x05", b"X\xff\xff\xff\x7f", b"\x8e\xff\xff\xff\xff\xff\x00\x00\x00",
    b"\x8b\xff\xff\xff\x7f", b"G\x7f\xf0" + bytes(6), b"P1\n", b"Q", b"\x82\x01", b"d", b"l",
    b"V" + b"9" * 50 + b"\n", b"I99999999999999999999\n", b"I-1\n", b"U\x02V8", b"\x85", b"\x86",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x87",
)  # fmt: skip


@st.composite
def _changed_program(draw, data: bytes) -> bytearray:
    """The pickle ``data`` with operations put in, taken out or doubled."""
    starts = [position for _, _, position in pickletools.genops(data)]
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(draw(st.integers(1, 4))):
        at, how = draw(PLACES) % len(parts), draw(st.integers(0, 5))
        if how == 0 and len(parts) > 1:
            del parts[at]
        elif how == 1:
            parts.insert(at, parts[draw(PLACES) % len(parts)])
        else:
            parts.insert(at, SNIPPETS[draw(st.integers(0, len(SNIPPETS) - 1))])
    return bytearray().join(parts)  # as in damaged_bytes


@st.composite
def _changed_values(draw, content: dict) -> bytearray:
    """A pickle of ``content`` with values or parts of them replaced."""
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
        elif how == 2 and isinstance(old, np.ndarray) and old.dtype.kind in "iuf" and old.size:
            new = old.astype(np.float64)
            new.flat[draw(PLACES) % new.size] = draw(
                st.sampled_from([np.nan, np.inf, -1e308, 0.0, -1.0, 1e30])
            )
            content[key] = new
        else:
            content[key] = value
    return bytearray(pickle.dumps(content, protocol=draw(st.integers(0, 4))))


def damaged_pickle(data: bytes) -> st.SearchStrategy[bytearray]:
    """Of a pickle of a dictionary, one that is damaged in any of three ways."""
    content = pickle.loads(data)
    return st.one_of(damaged_bytes(data), _changed_program(data), _changed_values(content))
