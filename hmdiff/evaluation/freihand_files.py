"""FreiHAND's files for evaluation: the true lists, and submissions as JSON or in a zip."""

from __future__ import annotations

import gc
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from hmdiff.errors import UserError
from hmdiff.evaluation.npz_rows import system_failed
from hmdiff.evaluation.scoring import Points
from hmdiff.files import ARRAY_DAMAGE, atomic_file
from hmdiff.kinds import HAND

MEMBER = "pred.json"
LARGEST = 2**31  # bytes of a submission; 3960 hands take 0.2 GB
DECIMALS = 7  # of metres
_SHAPES = {"xyz": (HAND.joint_count, 3), "verts": (HAND.vertices, 3)}


def read_truth(folder: Path) -> Points:
    """``evaluation_xyz.json`` and ``evaluation_verts.json`` in ``folder``.

    Raises:
        UserError: one is missing or damaged, or they are of different lengths.
    """
    xyz, verts = (
        _array(path, _parse(path, _bytes(path)), name)
        for name in _SHAPES
        for path in [folder / f"evaluation_{name}.json"]
    )
    return _points(str(folder), xyz, verts)


def read_submission(path: Path) -> Points:
    """A list of two lists, [xyz (n x 21 x 3), verts (n x 778 x 3)] in metres: JSON, or in a zip.

    Raises:
        UserError: the file is missing, cut, unsafe, or holds something else; the line names the
            sample where one is to blame.
    """
    content = _parse(path, _zipped(path) if path.suffix == ".zip" else _bytes(path))
    if not isinstance(content, list) or len(content) != 2:
        raise UserError(f"{path}: not a list of two lists, [xyz, verts]; write it as pred.py does")
    xyz, verts = (_array(path, values, name) for name, values in zip(_SHAPES, content, strict=True))
    return _points(str(path), xyz, verts)


def write_submission(path: Path, joints: np.ndarray, vertices: np.ndarray) -> None:
    """Write joints (n, 21, 3) and vertices (n, 778, 3), metres, as a submission's zip, at once."""
    lists = [np.round(values.astype(np.float64), DECIMALS) for values in (joints, vertices)]
    text = orjson.dumps([values.tolist() for values in lists])
    # A fixed date: the same predictions are the same bytes.
    member = zipfile.ZipInfo(MEMBER, date_time=(2019, 1, 1, 0, 0, 0))
    member.external_attr = 0o644 << 16
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(member, text, zipfile.ZIP_DEFLATED)


def _points(name: str, xyz: np.ndarray, verts: np.ndarray) -> Points:
    if len(xyz) != len(verts):
        raise UserError(
            f"{name}: {len(xyz)} samples in xyz, but {len(verts)} in verts; give each of them both"
        )
    return Points(name, xyz, verts)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(path) from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name the file in it") from None


def _missing(path: Path) -> UserError:
    return UserError(
        f"{path}: no such file; FreiHAND_pub_v2_eval.zip holds the truth, predictions are a .json "
        "or .zip"
    )


def _zipped(path: Path) -> bytes:
    """The bytes of pred.json at the top of a zip; nothing is unpacked to disk."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            unsafe = [name for name in members if name.startswith("/") or ".." in Path(name).parts]
            if unsafe:
                raise UserError(f"{path}: {unsafe[0]}: leads elsewhere; zip {MEMBER} alone")
            if MEMBER not in members:
                raise UserError(
                    f"{path}: has no {MEMBER} at its top; zip the file itself under that name"
                )
            if members[MEMBER].file_size > LARGEST:
                raise UserError(f"{path}: {MEMBER}: more than {LARGEST} bytes; zip another file")
            return archive.read(MEMBER)
    except FileNotFoundError:
        raise _missing(path) from None
    except ARRAY_DAMAGE as error:
        if system_failed(error):
            raise
        raise UserError(f"{path}: not a readable zip ({error}); zip {MEMBER} again") from None


def _parse(path: Path, text: bytes) -> Any:
    with _no_garbage_collection():
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
    try:  # Python's own writer puts NaN where there are such numbers, which is not JSON
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cut or not JSON ({error}); write or copy it again") from None


def _array(path: Path, values: Any, name: str) -> np.ndarray:
    """``values`` as (n, ...) float64."""
    count, numbers = _SHAPES[name]
    points = chain.from_iterable
    try:
        if all(len(value) == count for value in values) and set(map(len, points(values))) <= {
            numbers
        }:
            # Half the time that np.array takes for nested lists.
            size = len(values) * count * numbers
            flat = np.fromiter(points(points(values)), np.float64, size)
            return flat.reshape(-1, count, numbers)
    except (ValueError, TypeError, OverflowError):
        pass
    raise UserError(f"{path}: {_fault(values, name)}; predict MANO's joints and vertices in "
                    "FreiHAND's order")  # fmt: skip


def _fault(values: Any, name: str) -> str:
    shape = _SHAPES[name]
    if isinstance(values, list):
        for row, value in enumerate(values):
            found = _shape(value)
            if found != shape:
                return f"{name}: sample {row} has shape {found} instead of {shape}"
    return f"{name} is not a list of numbers of shape {shape}"


def _shape(value: Any) -> tuple[int, ...] | str:
    try:
        return np.array(value, np.float64).shape
    except (ValueError, TypeError, OverflowError):
        return "none (ragged, or not numbers)"


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of small lists are made at once; looking through them takes longer than parsing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
