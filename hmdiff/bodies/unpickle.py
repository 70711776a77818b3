"""A restricted unpickler for SMPL, MANO and 3DPW files: arrays come out, nothing is run.

The licensed files were pickled by Python 2, the models with chumpy and scipy objects inside. Only
the classes listed here are found; chumpy's and scipy's become inert records from which the arrays
are read, so neither chumpy nor a matching scipy is needed.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse as sp

from hmdiff.bodies.pickled_arrays import MakeArray, MakeScalar, PickledArray, PickledType
from hmdiff.errors import UserError

_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_LARGEST = 10**7  # entries of a list of lists, or rows or columns of a sparse matrix


class _NoBytes:
    """``bytes`` as it is called for those of an empty array; of a number it would claim memory."""

    __slots__ = ()

    def __call__(self) -> bytes:
        return b""


# What is handed out for a global.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): PickledType,
    ("builtins", "set"): set,
    ("builtins", "bytes"): _NoBytes(),
    ("builtins", "object"): object,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = MakeArray()
    _ALLOWED[f"{_core}.multiarray", "scalar"] = MakeScalar()


class _Record:
    """Takes the state of a foreign object and does nothing with it."""

    state: dict[str, Any]

    def __new__(cls, *_: Any) -> _Record:
        record = super().__new__(cls)
        record.state = {}
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class _Chumpy(_Record):
    """Of chumpy.ch.Ch, chumpy.reordering.Select and the like."""


class _Sparse(_Record):
    """Of a scipy.sparse matrix."""

    layout: type


class _Csc(_Sparse):
    layout = sp.csc_matrix


class _Csr(_Sparse):
    layout = sp.csr_matrix


class _Foreign(pickle.UnpicklingError):
    """An object that has no place in such a file."""


class _MakeRecord:
    """copyreg._reconstructor of protocols 0 and 1, which makes inert records only.

    An object without a dictionary instead of a function, so that no pickle can set attributes.
    """

    __slots__ = ()

    def __call__(self, cls: Any, base: Any, state: Any) -> _Record:
        if isinstance(cls, type) and issubclass(cls, _Record) and base is object and state is None:
            return cls()
        raise _Foreign(f"a {getattr(cls, '__name__', cls)} made by copyreg._reconstructor")


class _EncodeLatin1:
    """_codecs.encode, by which Python 3 writes bytes under protocol 2; latin1 only."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise _Foreign(f"text in {encoding}")
        return text.encode("latin1")


class _WholeLines:
    """A file that ends within no line: the unpickler below takes half a name for one."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.readinto, self._readline = file.read, file.readinto, file.readline

    def readline(self) -> bytes:
        line = self._readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line


class _Unpickler(pickle._Unpickler):
    """The one written in Python, whose memo is a dictionary.

    That of C is an array: ten bytes of a file that name the last place in it claim 64 GB.
    """

    def find_class(self, module: str, name: str) -> Any:
        module = _PYTHON_2.get(module, module)
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if (module, name) == ("copyreg", "_reconstructor"):
            return _MakeRecord()
        if (module, name) == ("_codecs", "encode"):
            return _EncodeLatin1()
        if module.partition(".")[0] == "chumpy":
            return _Chumpy
        if module.startswith("scipy.sparse") and name in ("csc_matrix", "csc_array"):
            return _Csc
        if module.startswith("scipy.sparse") and name in ("csr_matrix", "csr_array"):
            return _Csr
        raise _Foreign(f"{module}.{name}")


def read_pickle(path: Path) -> dict[str, Any]:
    """Top-level dictionary of a file; use :func:`as_array` on what is wanted.

    Raises:
        UserError: no such file, not a pickle, cut short, not a dictionary, or it holds an object
            that does not belong in such a file (named; nothing of it has run).
    """
    try:
        with open(path, "rb") as file:
            content = _Unpickler(_WholeLines(file), encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; put it in place or run the stage that writes it"
        ) from None
    except _Foreign as error:
        raise UserError(
            f"{path}: refused, for it holds {error}, which no model or annotation file "
            "of this field does; fetch the file from its official page again"
        ) from None
    # A damaged stream can fail in any of pickle's operations.
    except Exception as error:
        raise UserError(
            f"{path}: not a readable pickle ({type(error).__name__}); "
            "copy or download the file again"
        ) from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: holds a {type(content).__name__}, not a dictionary; "
            "copy or download the file again"
        )
    return content


def as_array(value: Any) -> np.ndarray | sp.csc_matrix | str:
    """The array, sparse matrix or text behind a value of a model file.

    Raises:
        ValueError: the value is something else, such as a chumpy formula that is not a selection.
    """
    try:
        return _as_array(value)
    except (TypeError, IndexError, OverflowError, AttributeError, RecursionError) as error:
        raise ValueError(f"is damaged ({error})") from None


def as_numbers(value: Any) -> np.ndarray:
    """``value``, an array, a number or nested lists of them, as float64.

    Raises:
        ValueError: it is something else, or lists that hold each other a thousandfold.
    """
    _check_amount(value)
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _check_amount(value: Any) -> None:
    waiting, count = [value], 0
    while waiting:
        item = waiting.pop()
        if isinstance(item, list | tuple):
            waiting += item
        count += 1
        if count + len(waiting) > _LARGEST:
            raise ValueError("lists without end")


def _as_array(value: Any) -> np.ndarray | sp.csc_matrix | str:
    if isinstance(value, _Sparse):
        return _sparse(value)
    if isinstance(value, _Chumpy):
        return _chumpy(value.state)
    if isinstance(value, str):
        return value
    _check_amount(value)
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"is not numeric but {array.dtype}")
    return array


def _chumpy(state: dict[str, Any]) -> np.ndarray:
    """Ch holds its value as ``x``; Select holds another object and the indices taken from it."""
    if "x" in state:
        return np.asarray(as_array(state["x"]))
    if "a" in state and "idxs" in state:
        taken = np.asarray(as_array(state["a"])).ravel()[np.asarray(as_array(state["idxs"]))]
        shape = state.get("preferred_shape")
        return taken if shape is None else taken.reshape([int(size) for size in shape])
    raise ValueError("is a chumpy formula without a stored value")


def _sparse(value: _Sparse) -> sp.csc_matrix:
    state = value.state
    shape = state.get("_shape", state.get("shape"))
    if shape is None or not {"data", "indices", "indptr"} <= state.keys():
        raise ValueError("is a sparse matrix without its arrays")
    parts = tuple(np.asarray(state[key]) for key in ("data", "indices", "indptr"))
    rows, columns = (int(size) for size in shape)
    if max(rows, columns) > _LARGEST or any(part.dtype.kind not in "biuf" for part in parts):
        raise ValueError("is a sparse matrix of no such model")
    matrix = value.layout(parts, shape=(rows, columns))
    matrix.check_format(full_check=True)
    return sp.csc_matrix(matrix)
