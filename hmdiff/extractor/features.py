"""Features HDF5: what the frozen extractor says about every image, beside the ground truth."""

from __future__ import annotations

import copy
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

import hmdiff
from hmdiff.datasets.sample import SPLITS
from hmdiff.errors import UserError
from hmdiff.files import atomic_file, require_room
from hmdiff.hdf5 import DAMAGE, own_array

UNITS = "metres; root-relative camera frame: x right, y down, z forward"
ARRAYS = (
    "image_feature", "draws", "centre", "peak", "spread",
    "coarse", "joints", "valid_mesh", "valid_joints",
)  # fmt: skip


# How much of the files may be mapped at once, and what one look at a row maps at most: the pages
# about it that the system has in its cache come along.
_MAPPED, _AROUND = 2**28, 2**16


@dataclass(frozen=True)
class Features:
    """Rows of features files, in memory; lengths in metres, root-relative camera frame."""

    image_feature: Tensor  # f_I (n, 49, 128) float16
    draws: Tensor  # u_i (n, N, J, 3) float32, samples of U (Eq. 10)
    centre: Tensor  # (n, J, 3) mean of U (soft-argmax)
    peak: Tensor  # u_c (n, J, 3)
    spread: Tensor  # (n, J, 3) standard deviation of U
    coarse: Tensor  # (n, V_coarse, 3) true coarse mesh; NaN where there is none
    joints: Tensor  # (n, J, 3) true joints
    valid_mesh: Tensor  # (n,) bool
    valid_joints: Tensor  # (n, J) bool
    sample_id: list[str]
    names: list[str]  # data set of each row

    def __len__(self) -> int:
        return len(self.sample_id)

    def select(self, indices: Tensor | Iterable[int]) -> Features:
        """The rows ``indices``, in that order."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        chosen: dict = {name: getattr(self, name)[rows] for name in ARRAYS}
        for name in ("sample_id", "names"):
            values = getattr(self, name)
            chosen[name] = [values[row] for row in rows.tolist()]
        return Features(**chosen)

    def subset(self, count: int | None) -> Features:
        """At most ``count`` rows, evenly spaced, always the same ones; None takes all."""
        if count is None or count >= len(self):
            return self
        return self.select(spaced(len(self), count))


def spaced(rows: int, count: int | None) -> list[int]:
    """At most ``count`` of ``rows`` row numbers, evenly spaced; None takes all."""
    if count is None or count >= rows:
        return list(range(rows))
    return [row * rows // count for row in range(count)]


def unlabelled(arrays: Mapping[str, np.ndarray], sample_id: list[str]) -> Features:
    """Rows of which nothing is known but what the extractor saw (the ``arrays`` of ``extract``)."""
    seen = {name: torch.from_numpy(values) for name, values in arrays.items()}
    unknown = torch.full_like(seen["centre"], torch.nan)
    return Features(
        **seen,
        coarse=unknown,
        joints=unknown,
        valid_mesh=torch.zeros(len(unknown), dtype=torch.bool),
        valid_joints=torch.zeros(unknown.shape[:2], dtype=torch.bool),
        sample_id=sample_id,
        names=["unlabelled"] * len(unknown),
    )


class FeatureFiles:
    """Rows of one split of several features files, each read from the disk when it is asked for.

    The files are mapped into memory: what was read lately stays in the system's cache, which gives
    it up when memory is short. So a set of any size can be trained on, and a small one as fast as
    if it were held. What is mapped counts as memory of the process, so it is let go now and then.

    Args:
        paths: features files, whose rows follow one another.
        split: one of SPLITS.
        copies: whether augmented copies of an image (see extract_features) are rows too.

    Raises:
        UserError: a file is missing, is cut or lacks a data set, or the files do not belong
            together.
    """

    def __init__(self, paths: Sequence[Path], split: str, copies: bool = True) -> None:
        self._hold([_MappedFile(path, split, copies) for path in paths])
        first = self._parts[0].arrays
        for part, path in zip(self._parts, paths, strict=True):
            for name in ARRAYS:
                if part.arrays[name].shape[1:] != first[name].shape[1:]:
                    raise UserError(
                        f"{path}: {name}: its shape is not that of {paths[0]}; "
                        "delete the odd one and run extract_features"
                    )

    def _hold(self, parts: list[_MappedFile]) -> None:
        self._parts = parts
        self.sample_id = [name for part in parts for name in part.sample_id]
        self.names = [part.dataset for part in parts for _ in part.rows]
        self._ends = np.cumsum([len(part.rows) for part in parts])
        self._mapped = 0  # bytes, at most, since all were let go

    def restricted(self, indices: Tensor | Sequence[int]) -> FeatureFiles:
        """The rows ``indices`` alone, which ascend; nothing is read."""
        wanted = np.asarray(indices, dtype=np.int64)
        starts = [0, *self._ends[:-1].tolist()]
        pieces = np.split(wanted, np.searchsorted(wanted, self._ends[:-1]))
        found = object.__new__(FeatureFiles)
        found._hold(
            [
                part.restricted(rows - start)
                for part, rows, start in zip(self._parts, pieces, starts, strict=True)
            ]
        )
        return found

    def __len__(self) -> int:
        return len(self.sample_id)

    @property
    def counts(self) -> list[int]:
        """Rows of each file."""
        return [len(part.rows) for part in self._parts]

    @property
    def bytes(self) -> int:
        """What all rows would take in memory."""
        row = sum(array[:1].nbytes for array in self._parts[0].arrays.values())
        return row * len(self)

    def read(self, name: str, indices: Tensor | Iterable[int] | None = None) -> Tensor:
        """The rows ``indices`` (None: all) of one of ``ARRAYS``, in that order."""
        wanted = np.arange(len(self)) if indices is None else np.asarray(indices, dtype=np.int64)
        part_of = np.searchsorted(self._ends, wanted, side="right")
        arrays = [part.arrays[name] for part in self._parts]
        found = np.empty((len(wanted), *arrays[0].shape[1:]), arrays[0].dtype)
        for number in np.unique(part_of):
            here = part_of == number
            part = self._parts[number]
            inside = wanted[here] - (self._ends[number] - len(part.rows))
            found[here] = arrays[number][part.rows[inside]]
        self._mapped += found.nbytes + _AROUND * len(wanted)
        if self._mapped > _MAPPED:
            for part in self._parts:
                part.let_go()
            self._mapped = 0
        return torch.from_numpy(found)

    def select(self, indices: Tensor | Iterable[int]) -> Features:
        """The rows ``indices``, in that order, in memory."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        lists = {
            name: [getattr(self, name)[row] for row in rows.tolist()]
            for name in ("sample_id", "names")
        }
        return Features(**{name: self.read(name, rows) for name in ARRAYS}, **lists)


def read_features(path: Path, split: str) -> Features:
    """One split of a features file, in memory; see :func:`open_features`."""
    rows = open_features(path, split)
    return rows.select(range(len(rows)))


def open_features(path: Path, split: str) -> FeatureFiles:
    """One split of a features file; of every image the plain copy alone.

    Raises:
        UserError: the file is missing, is cut or lacks a data set, or no row is in ``split``.
    """
    rows = FeatureFiles([path], split, copies=False)
    if not len(rows):
        raise UserError(f"{path}: split: no row of {split!r}; run prepare with more samples")
    return rows


class _MappedFile:
    """The arrays of one features file, mapped, and which of their rows belong to a split."""

    def __init__(self, path: Path, split: str, copies: bool) -> None:
        remedy = f"run extract_features@{path.stem}"
        if not path.exists():
            raise UserError(f"{path}: no such file; {remedy}")
        try:
            with h5py.File(path, "r") as file:
                chosen = own_array(file, "split", "biu")[:] == SPLITS.index(split)
                if not copies:
                    chosen &= own_array(file, "copy", "biu")[:] == 0
                self.rows = np.flatnonzero(chosen)
                ids = own_array(file, "sample_id", "O").asstr()[:]
                self.sample_id = [str(ids[row]) for row in self.rows]
                self.dataset = str(file.attrs["dataset"])
                self._memory = _map(path)
                self.arrays = {
                    name: _array(self._memory, own_array(file, name, "biuf")) for name in ARRAYS
                }
                _check_shapes(self.arrays, len(ids))
        except OSError:
            raise UserError(f"{path}: is cut or not HDF5; delete it and {remedy}") from None
        except DAMAGE as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path}: is damaged ({reason}); delete it and {remedy}") from None

    def restricted(self, rows: np.ndarray) -> _MappedFile:
        """The same file with some of its rows."""
        found = copy.copy(self)
        found.rows = self.rows[rows]
        found.sample_id = [self.sample_id[row] for row in rows.tolist()]
        return found

    def let_go(self) -> None:
        """Leave what was read to the system's cache; the next look at it maps it again."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self._memory.madvise(mmap.MADV_DONTNEED)


def _check_shapes(arrays: Mapping[str, np.ndarray], count: int) -> None:
    draws, joints = arrays["draws"].shape[1:3]
    wanted = dict.fromkeys(("centre", "peak", "spread", "joints"), (joints, 3)) | {
        "draws": (draws, joints, 3),
        "coarse": (*arrays["coarse"].shape[1:2], 3),
        "image_feature": arrays["image_feature"].shape[1:2] + arrays["image_feature"].shape[2:3],
        "valid_mesh": (),
        "valid_joints": (joints,),
    }
    for name, shape in wanted.items():
        if arrays[name].shape != (count, *shape):
            raise ValueError(f"{name}: shape {arrays[name].shape}")


def _map(path: Path) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _array(memory: mmap.mmap, dataset: h5py.Dataset) -> np.ndarray:
    """One contiguous data set as an array over the file itself, which HDF5 need not be asked for.

    h5py's own reading of scattered rows is far slower.
    """
    offset = dataset.id.get_offset()
    if offset is None:  # empty, or written in chunks by something else
        return dataset[:]
    return np.ndarray(dataset.shape, dataset.dtype, memory, offset)


class FeaturesWriter:
    """Rows are appended block by block; see :func:`features_writer`."""

    def __init__(self, file: h5py.File, count: int) -> None:
        self._file = file
        self._count = count
        self.written = 0

    def append(self, block: Mapping[str, np.ndarray | list[str]]) -> None:
        """Write the next rows: all of ``ARRAYS``, ``split``, ``copy`` and ``sample_id``."""
        size = sum(getattr(values, "nbytes", 0) for values in block.values())
        # Texts are references, which HDF5 fills with nothing for all rows at once.
        require_room(Path(self._file.filename).parent, size + 16 * self._count)
        rows = slice(self.written, self.written + len(block["split"]))
        for name, values in block.items():
            if name not in self._file:
                self._create(name, values)
            self._file[name][rows] = values
        self._file.flush()
        self.written = rows.stop

    def _create(self, name: str, values: np.ndarray | list[str]) -> None:
        if isinstance(values, list):
            self._file.create_dataset(name, (self._count,), h5py.string_dtype())
        else:
            self._file.create_dataset(name, (self._count, *values.shape[1:]), values.dtype)


@contextmanager
def features_writer(path: Path, count: int, attrs: Mapping[str, str]) -> Iterator[FeaturesWriter]:
    """Write ``count`` rows to ``path``, which appears only when all of them are there.

    Args:
        attrs: ``dataset``, ``kind``, ``source`` and whatever else tells where the rows are from.
    """
    with atomic_file(path) as temporary:
        require_room(temporary.parent)
        with h5py.File(temporary, "w") as file:
            file.attrs.update({**attrs, "units": UNITS, "code_version": hmdiff.__version__})
            writer = FeaturesWriter(file, count)
            yield writer
        if writer.written != count:
            raise RuntimeError(f"{path}: {writer.written} of {count} rows were written")
