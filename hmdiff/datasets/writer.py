"""Writing a prepared HDF5 file: streamed, verified, and renamed into place when whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import hmdiff
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.datasets.sample import SPLITS, Sample
from hmdiff.errors import UserError
from hmdiff.files import atomic_file, require_room
from hmdiff.kinds import Kind

BLOCK = 64  # rows written at once
UNITS = "metres, pixels, radians; camera frame: x right, y down, z forward"


@dataclass(frozen=True)
class Record:
    """One row: a sample, its crop as JPEG, the crop's intrinsics, and camera-frame joints."""

    sample: Sample
    jpeg: bytes
    camera: np.ndarray  # (3, 3)
    joints: np.ndarray  # (J, 3) metres; NaN where unknown


def write_prepared(
    path: str | Path,
    records: Iterable[Record],
    kind: Kind,
    attrs: Mapping[str, str],
    closing: Callable[[], Mapping[str, Any]] = dict,
) -> int:
    """Write ``records`` to ``path`` as they come; return how many there were.

    ``attrs`` are kept as given beside ``kind``, ``units``, ``splits`` and ``code_version``;
    PreparedFile needs ``dataset`` and ``source``. ``closing`` gives further attributes once all
    records have gone by. Vertices are stored where the first record's sample carries them.

    Raises:
        UserError: there was no record at all, a record holds a number that is not finite or an id
            for the second time, or what was written does not read back.
    """
    with atomic_file(path) as temporary:
        require_room(temporary.parent)
        with h5py.File(temporary, "w") as file:
            file.attrs.update(
                {
                    **attrs,
                    "kind": kind.name,
                    "units": UNITS,
                    "splits": list(SPLITS),
                    "code_version": hmdiff.__version__,
                }
            )
            written = _stream(file, _checked(path, records, kind), kind)
            file.attrs.update(closing())
        if not written:
            raise UserError(f"{path}: no sample to write; look at what acquire placed in data/raw")
        _verify(temporary, path, written)
    return written


def _checked(path: str | Path, records: Iterable[Record], kind: Kind) -> Iterator[Record]:
    """``records``, each of them looked at before it is written to ``path``."""
    remedy = "put back the annotations and run acquire again"
    seen: set[str] = set()
    for record in records:
        sample = record.sample
        if sample.sample_id in seen:
            raise UserError(f"{path}: sample {sample.sample_id}: is there twice; {remedy}")
        seen.add(sample.sample_id)
        numbers = {name: getattr(sample, name) for name in ("bbox", "pose", "betas", "vertices")}
        # Of the sample's own joints some may be unknown, the root and those of a mesh may not.
        known = ~np.isnan(record.joints).any(1) | (sample.joints is None)
        known[kind.root] = True
        numbers |= {"joints": record.joints[known], "camera": record.camera}
        for name, values in numbers.items():
            if values is not None and not np.isfinite(values).all():
                raise UserError(f"{path}: sample {sample.sample_id}: {name} not finite; {remedy}")
        yield record


def _stream(file: h5py.File, records: Iterable[Record], kind: Kind) -> int:
    written = 0
    block: list[Record] = []
    for record in records:
        if not file.keys():
            _create(file, kind, with_vertices=record.sample.vertices is not None)
        block.append(record)
        if len(block) == BLOCK:
            written += _flush(file, block, kind, written)
            block = []
    if block:
        written += _flush(file, block, kind, written)
    return written


def _create(file: h5py.File, kind: Kind, with_vertices: bool) -> None:
    def create(name: str, shape: tuple[int, ...], dtype: object) -> None:
        # One row a chunk for the large vertices, which are read singly; blocks for the rest.
        rows = 1 if name == "vertices" else BLOCK
        file.create_dataset(
            name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(rows, *shape)
        )

    create("image", (), h5py.vlen_dtype(np.uint8))
    create("sample_id", (), h5py.string_dtype())
    create("split", (), np.uint8)
    create("bbox", (4,), np.float32)
    create("camera", (3, 3), np.float32)
    create("pose", (kind.parameters,), np.float32)
    create("betas", (10,), np.float32)
    create("joints", (kind.joint_count, 3), np.float32)
    create("root", (3,), np.float32)
    create("valid_mesh", (), np.bool_)
    create("valid_joints", (kind.joint_count,), np.bool_)
    if with_vertices:
        create("vertices", (kind.vertices, 3), np.float32)


def _flush(file: h5py.File, block: list[Record], kind: Kind, start: int) -> int:
    large = (getattr(record.sample.vertices, "nbytes", 0) + len(record.jpeg) for record in block)
    require_room(Path(file.filename).parent, sum(large))
    rows = slice(start, start + len(block))
    for dataset in file.values():
        dataset.resize(rows.stop, axis=0)
    samples = [record.sample for record in block]
    joints = np.stack([record.joints for record in block])
    images = file["image"]  # looking it up costs as much as writing a row
    for row, record in enumerate(block, start):
        # Singly: h5py takes several of equal length for a matrix.
        images[row] = np.frombuffer(record.jpeg, np.uint8)
    file["sample_id"][rows] = [sample.sample_id for sample in samples]
    file["split"][rows] = [SPLITS.index(sample.split) for sample in samples]
    file["bbox"][rows] = np.stack([sample.bbox for sample in samples])
    file["camera"][rows] = np.stack([record.camera for record in block])
    file["pose"][rows] = np.stack([_or_nan(s.pose, kind.parameters) for s in samples])
    file["betas"][rows] = np.stack([_or_nan(s.betas, 10) for s in samples])
    file["root"][rows] = joints[:, kind.root]
    file["joints"][rows] = joints - joints[:, kind.root, None]
    file["valid_mesh"][rows] = [sample.valid_mesh for sample in samples]
    # NaN, and not zero, where a joint is unknown: what forgets the mask is found out.
    file["valid_joints"][rows] = np.isfinite(joints).all(-1)
    if "vertices" in file:
        file["vertices"][rows] = np.stack([sample.vertices for sample in samples])
    file.flush()  # so that nothing is left to write but what room is looked for next
    return len(block)


def _or_nan(value: np.ndarray | None, size: int) -> np.ndarray:
    return np.full(size, np.nan) if value is None else value


def _verify(temporary: Path, path: str | Path, count: int) -> None:
    """Read back the number of rows, the joints, and the first and last image of ``temporary``."""
    try:
        with PreparedFile(temporary) as file:
            known = np.isfinite(file.array("joints")).all(-1)
            whole = len(file) == count and bool((known == file.array("valid_joints")).all())
            for index in (0, count - 1):
                file.image(index)
    except UserError:  # it names the temporary file
        whole = False
    if not whole:
        raise UserError(
            f"{path}: does not read back as written; check the disk and run prepare again"
        )
