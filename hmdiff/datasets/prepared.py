"""Prepared HDF5: one file a data set, whatever its native layout was."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets.sample import SPLITS
from hmdiff.errors import UserError
from hmdiff.hdf5 import DAMAGE, own_array
from hmdiff.kinds import KINDS, Kind

DATASETS = {
    "image", "bbox", "camera", "split", "pose", "betas", "joints", "root", "valid_mesh",
    "valid_joints", "sample_id",
}  # fmt: skip
_DECODING = (OSError, SyntaxError, ValueError, TypeError, EOFError, Image.DecompressionBombError)


def row_shapes(kind: Kind) -> dict[str, tuple[int, ...]]:
    """The shape of a row of each data set; ``vertices`` need not be there."""
    return {
        "image": (), "sample_id": (), "split": (), "bbox": (4,), "camera": (3, 3),
        "pose": (kind.parameters,), "betas": (10,), "joints": (kind.joint_count, 3), "root": (3,),
        "valid_mesh": (), "valid_joints": (kind.joint_count,), "vertices": (kind.vertices, 3),
    }  # fmt: skip


class PreparedFile:
    """Read access to a prepared file.

    The file is opened when first needed and again in every process, because an HDF5 handle does
    not survive a fork. Rows are read one at a time: h5py's fancy indexing is far slower.

    Raises:
        UserError: (on first access) the file is missing, cut, or no prepared file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._images: h5py.Dataset | None = None  # looking it up costs as much as reading a row
        self._process = -1

    def __enter__(self) -> PreparedFile:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None, "_images": None, "_process": -1}

    def close(self) -> None:
        """Close the file in this process; the next access opens it again."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = self._images = None

    def __len__(self) -> int:
        return len(self._open()["split"])

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the file: dataset, kind, source, units, crop, protocol, splits, ..."""
        return dict(self._open().attrs)

    def indices(self, split: str) -> np.ndarray:
        """Rows of ``split``, ascending."""
        return np.flatnonzero(self.array("split") == SPLITS.index(split))

    def jpeg(self, index: int) -> bytes:
        """The JPEG bytes of one crop."""
        self._open()
        try:
            return self._images[index].tobytes()
        except DAMAGE as error:
            raise UserError(f"{self.path}: image {index}: {error}; {self._remedy()}") from None

    def image(self, index: int, size: int | None = None) -> np.ndarray:
        """(size, size, 3) uint8 RGB; at the stored size where ``size`` is None.

        A JPEG is decoded at a half, a quarter or an eighth where that is no smaller than ``size``.
        """
        try:
            with Image.open(io.BytesIO(self.jpeg(index))) as image:
                if size is not None:
                    image.draft("RGB", (size, size))
                    if image.size != (size, size):
                        image = image.resize((size, size), Image.Resampling.BILINEAR)
                return np.array(image)
        except _DECODING as error:
            raise UserError(f"{self.path}: image {index}: {error}; {self._remedy()}") from None

    def array(self, name: str) -> np.ndarray:
        """The whole of one data set other than ``image``.

        Raises:
            UserError: a part of it is damaged.
        """
        return self._rows(name, slice(None))

    def sample_ids(self) -> list[str]:
        """The sample ids, by row."""
        try:
            return [name.decode() for name in self.array("sample_id")]
        except UnicodeDecodeError:
            raise self._unreadable("sample_id") from None

    def meshes(self, indices: np.ndarray, body: BodyModel) -> np.ndarray:
        """(n, V, 3) float32 meshes of rows ``indices``, metres, relative to their own root joint.

        Raises:
            ValueError: a row has no mesh (``valid_mesh``).
        """
        indices = np.asarray(indices)
        if not len(indices):
            return np.empty((0, body.kind.vertices, 3), np.float32)
        # Of the small arrays, the span of the rows: a caller walks through the file in batches.
        first = int(indices.min())
        span = slice(first, int(indices.max()) + 1)
        valid = self._rows("valid_mesh", span)[indices - first]
        if not valid.all():
            raise ValueError(f"{self.path}: row {indices[~valid][0]} has no mesh")
        if "vertices" in self._open():
            stored = np.empty((len(indices), body.kind.vertices, 3), np.float32)
            for row, index in enumerate(indices):
                stored[row] = self._rows("vertices", int(index))
            vertices = torch.from_numpy(stored)
        else:
            poses, betas = (
                torch.from_numpy(self._rows(name, span)[indices - first])
                for name in ("pose", "betas")
            )
            vertices = body.vertices(poses, betas)
        return body.root_relative(vertices)[0].cpu().numpy()

    def _rows(self, name: str, rows: slice | int) -> np.ndarray:
        file = self._open()
        try:
            return file[name][rows]
        except DAMAGE:
            raise self._unreadable(name) from None

    def _unreadable(self, name: str) -> UserError:
        return UserError(
            f"{self.path}: {name} of {self.attrs['dataset']} is not readable; delete the file and "
            f"{self._remedy()}"
        )

    def _open(self) -> h5py.File:
        if self._file is None or self._process != os.getpid():
            if not self.path.exists():
                raise UserError(f"{self.path}: no such file; {self._remedy()}")
            try:
                file = h5py.File(self.path, "r")
            except DAMAGE:
                raise UserError(
                    f"{self.path}: is cut or not HDF5; delete it and {self._remedy()}"
                ) from None
            try:
                self._check(file)
            except DAMAGE as error:
                file.close()
                reason = " ".join(str(error).split())
                raise UserError(
                    f"{self.path}: is damaged ({reason}); delete it and {self._remedy()}"
                ) from None
            except UserError:
                file.close()
                raise
            self._file, self._images, self._process = file, file["image"], os.getpid()
        return self._file

    def _check(self, file: h5py.File) -> None:
        """Raise a UserError for what is missing, or one of DAMAGE for what is wrong."""
        missing = {"dataset", "kind", "source"} - set(file.attrs)
        missing |= DATASETS - set(file)
        if missing:
            raise UserError(
                f"{self.path}: has no {sorted(missing)[0]!r}, so it is no prepared file; "
                f"delete it and {self._remedy()}"
            )
        dict(file.attrs)  # all of them can be read
        for name, shape in row_shapes(KINDS[file.attrs["kind"]]).items():
            if name not in DATASETS and name not in file:
                continue
            found = own_array(file, name, "O" if name in ("image", "sample_id") else "biuf")
            if found.shape != (len(file["split"]), *shape):
                raise ValueError(f"{name}: shape {found.shape}")
        if h5py.check_vlen_dtype(file["image"].dtype) != np.uint8:
            raise ValueError("image: no bytes")
        if h5py.check_string_dtype(file["sample_id"].dtype) is None:
            raise ValueError("sample_id: no texts")

    def _remedy(self) -> str:
        return f"run prepare@{self.path.stem}"


class PreparedImages(Dataset):
    """Torch data set of rows ``indices``.

    An item is the image (3, S, S) uint8, the root-relative joints (J, 3) float32 in metres, and
    which of them are valid (J,) bool.
    """

    def __init__(self, path: str | Path, indices: Iterable[int], image_size: int) -> None:
        self.file = PreparedFile(path)
        self.rows = np.asarray(list(indices), dtype=np.int64)
        self.size = image_size
        self.joints = torch.from_numpy(self.file.array("joints")[self.rows])
        self.valid = torch.from_numpy(self.file.array("valid_joints")[self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        image = self.file.image(int(self.rows[item]), self.size)
        return torch.from_numpy(image).permute(2, 0, 1), self.joints[item], self.valid[item]
