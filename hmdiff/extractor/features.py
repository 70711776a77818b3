"""Features HDF5: what the frozen extractor says about every image, beside the ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

import hmdiff
from hmdiff.datasets.sample import SPLITS
from hmdiff.errors import UserError
from hmdiff.files import atomic_file

UNITS = "metres; root-relative camera frame: x right, y down, z forward"
ARRAYS = (
    "image_feature", "draws", "centre", "peak", "spread",
    "coarse", "joints", "valid_mesh", "valid_joints",
)  # fmt: skip


@dataclass(frozen=True)
class Features:
    """Rows of one or several features files; lengths in metres, root-relative camera frame."""

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
        return self.select([row * len(self) // count for row in range(count)])


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


def read_features(path: Path, split: str) -> Features:
    """Read one split of a features file, or of all ``*.h5`` of a folder in the order of names.

    Raises:
        UserError: nothing is there, a file is cut or lacks a data set, the files do not belong
            together, or no row is in ``split``.
    """
    paths = sorted(path.glob("*.h5")) if path.is_dir() else [path]
    if not paths:
        raise UserError(f"{path}: no features in it; run extract_features")
    parts = [_read_file(part, split) for part in paths]
    joined: dict = {}
    for field in fields(Features):
        values = [getattr(part, field.name) for part in parts]
        if field.name in ARRAYS:
            if len({value.shape[1:] for value in values}) > 1:
                raise UserError(
                    f"{path}: {field.name}: shapes differ among the files; "
                    "delete the odd one and run extract_features"
                )
            joined[field.name] = torch.cat(values)
        else:
            joined[field.name] = [item for value in values for item in value]
    features = Features(**joined)
    if not len(features):
        raise UserError(f"{path}: split: no row of {split!r}; run prepare with more samples")
    return features


def _read_file(path: Path, split: str) -> Features:
    remedy = f"run extract_features@{path.stem}"
    if not path.exists():
        raise UserError(f"{path}: no such file; {remedy}")
    try:
        with h5py.File(path, "r") as file:
            rows = np.flatnonzero(file["split"][:] == SPLITS.index(split))
            # Whole arrays are read first: h5py's own fancy indexing is far slower.
            arrays = {name: torch.from_numpy(file[name][:][rows]) for name in ARRAYS}
            ids = file["sample_id"].asstr()[:]
            dataset = str(file.attrs["dataset"])
    except OSError:
        raise UserError(f"{path}: is cut or not HDF5; delete it and {remedy}") from None
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}; delete it and {remedy}") from None
    return Features(
        **arrays, sample_id=[str(ids[row]) for row in rows], names=[dataset] * len(rows)
    )


class FeaturesWriter:
    """Rows are appended block by block; see :func:`features_writer`."""

    def __init__(self, file: h5py.File, count: int) -> None:
        self._file = file
        self._count = count
        self.written = 0

    def append(self, block: Mapping[str, np.ndarray | list[str]]) -> None:
        """Write the next rows: all of ``ARRAYS``, ``split`` and ``sample_id``."""
        rows = slice(self.written, self.written + len(block["split"]))
        for name, values in block.items():
            if name not in self._file:
                self._create(name, values)
            self._file[name][rows] = values
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
        with h5py.File(temporary, "w") as file:
            file.attrs.update({**attrs, "units": UNITS, "code_version": hmdiff.__version__})
            writer = FeaturesWriter(file, count)
            yield writer
        if writer.written != count:
            raise RuntimeError(f"{path}: {writer.written} of {count} rows were written")
