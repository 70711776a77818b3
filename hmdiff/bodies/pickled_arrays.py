"""numpy's arrays and scalars out of a pickle, checked before numpy sees any of it.

numpy believes the state that a pickle gives a dtype: a wrong one ends the process. So a dtype is
read by its name and byte order alone here, and an array has exactly the bytes that its shape needs.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

_NAME = re.compile(r"[<>|=]?[biufcSUO?]\d{0,9}")


class PickledType:
    """What stands for ``numpy.dtype`` in a file: numbers, text or objects, without fields."""

    __slots__ = ("dtype",)

    dtype: np.dtype

    def __new__(cls, name: str, *_: Any) -> PickledType:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError("a dtype of an unknown kind")
        made = super().__new__(cls)
        made.dtype = np.dtype("O" if name.strip("<>|=") == "O8" else name)
        return made

    def __setstate__(self, state: Any) -> None:
        """Of (version, byte order, subarray, names, fields, ...) the byte order."""
        if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise ValueError("a dtype with fields")
        self.dtype = self.dtype.newbyteorder(state[1])


class PickledArray(np.ndarray):
    """What stands for ``numpy.ndarray`` in a file; empty until its state comes."""

    def __new__(cls, *_: Any) -> PickledArray:
        return super().__new__(cls, (0,), np.int8)

    def __setstate__(self, state: Any) -> None:
        """(version, shape, dtype, whether in Fortran's order, bytes or list of objects)."""
        _, shape, kind, fortran, data = state
        dtype = _checked(kind)
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("an array of no shape")
        if dtype.kind == "O":
            size, found = math.prod(shape), len(data) if isinstance(data, list) else -1
        else:
            data = _as_bytes(data)
            size, found = math.prod(shape) * dtype.itemsize, len(data)
        if size != found:
            raise ValueError("an array with more or less than its shape says")
        super().__setstate__((1, shape, dtype, bool(fortran), data))


class MakeArray:
    """``numpy._core.multiarray._reconstruct``. No function: a pickle can set attributes of one."""

    __slots__ = ()

    def __call__(self, *_: Any) -> PickledArray:
        return PickledArray()


class MakeScalar:
    """``numpy._core.multiarray.scalar``."""

    __slots__ = ()

    def __call__(self, kind: Any, data: Any) -> np.generic:
        dtype = _checked(kind)
        if dtype.kind == "O":
            raise ValueError("a scalar that is an object")
        return np.frombuffer(_as_bytes(data), dtype, count=1)[0]


def _checked(kind: Any) -> np.dtype:
    if not isinstance(kind, PickledType):
        raise ValueError("an array without a dtype")
    return kind.dtype


def _as_bytes(data: Any) -> bytes:
    """Bytes as Python 3 stores them, or Python 2 (text to Python 3)."""
    if isinstance(data, str):
        return data.encode("latin1")
    if not isinstance(data, bytes):
        raise ValueError("an array without its bytes")
    return data
