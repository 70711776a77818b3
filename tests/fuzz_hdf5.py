"""Readers of HDF5: prepared files and features, with hostile things in the places of arrays."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from fuzz_layouts import STILL
from fuzzing import Target
from hypothesis import strategies as st
from mutations import damaged_bytes
from PIL import Image

from hmdiff.datasets.prepared import PreparedFile
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.writer import Record, write_prepared
from hmdiff.extractor.features import FeatureFiles, features_writer, read_features
from hmdiff.kinds import BODY

OUTSIDE = 7777.0  # what stands in the HDF5 file that is none of a reader's business


def _replace(file: h5py.File, name: str, how: str, outside: Path) -> None:
    """Put something else in the place of a data set."""
    old = file[name]
    shape, dtype = old.shape, old.dtype
    del file[name]
    if how == "link":
        file[name] = h5py.ExternalLink(str(outside), "x")
    elif how == "soft":
        file[name] = h5py.SoftLink("/split")
    elif how == "loop":
        file[name] = h5py.SoftLink(f"/{name}")
    elif how == "group":
        file.create_group(name)
    elif how == "external":
        file.create_dataset(name, shape, "f4", external=[(str(outside), 0, h5py.h5f.UNLIMITED)])
    elif how == "virtual":
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource(str(outside), "x", (4,))
        file.create_virtual_dataset(name, layout)
    elif how == "huge":
        file.create_dataset(name, (2**50, *shape[1:]), "u1", chunks=(1, *shape[1:]))
    elif how == "zipped":
        file.create_dataset(name, (2**24, *shape[1:]), "u1", compression="gzip")
    elif how == "short":
        file.create_dataset(name, (1, *shape[1:]), dtype)
    elif how == "nan" and dtype.kind == "f":
        file[name] = np.full(shape, np.nan, dtype)
    elif how != "gone":
        file[name] = {"scalar": 1, "text": "x", "fields": np.zeros(3, "f4,i4")}.get(how, 1e308)


HOW = (
    "link", "soft", "loop", "group", "external", "virtual", "huge", "zipped", "short", "nan",
    "gone", "scalar", "text", "fields", "number",
)  # fmt: skip
ATTRIBUTES = (
    0, "", "../x", "body", np.arange(3), np.zeros(3, "f4,i4"), h5py.Empty("f"), b"\xff", 1e308,
    "\ud800".encode("utf-8", "surrogatepass"),
)  # fmt: skip


@st.composite
def _changed_hdf5(draw, whole: bytes, outside: Path) -> bytearray:
    stream = io.BytesIO(whole)
    with h5py.File(stream, "r+") as file:
        names, attributes = sorted(file), sorted(file.attrs)
        for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)):
            _replace(file, name, draw(st.sampled_from(HOW)), outside)
        if draw(st.booleans()):
            file.attrs[draw(st.sampled_from(attributes))] = draw(st.sampled_from(ATTRIBUTES))
    return bytearray(stream.getvalue())  # as in damaged_bytes


def _damaged_hdf5(path: Path) -> st.SearchStrategy[bytearray]:
    """Other things in the places of data sets and attributes, or damage to the bytes."""
    outside = path.parent / "outside.h5"
    with h5py.File(outside, "w") as file:
        file["x"] = np.full(4, OUTSIDE)
    whole = path.read_bytes()
    return st.one_of(_changed_hdf5(whole, outside), damaged_bytes(whole, 4096))


def _own(values: np.ndarray) -> None:
    assert not (values == OUTSIDE).any(), "read from another file"


def _prepared(root: Path) -> Target:
    path = root / "toy.h5"
    image = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 100, 0)).save(image, "JPEG")
    joints = np.tile(np.linspace(0, 1, 17)[:, None], 3)

    def records() -> Iterator[Record]:
        for number, split in enumerate(("train", "val", "test")):
            sample = Sample(f"s{number}", Path("x"), split, np.ones(4), np.eye(3), np.zeros(72),
                            np.zeros(10), np.zeros(3))  # fmt: skip
            yield Record(sample, image.getvalue(), np.eye(3), joints)

    write_prepared(path, records(), BODY, {"dataset": "toy", "source": "rendered"})

    def read() -> None:
        with PreparedFile(path) as file:
            dict(file.attrs)
            rows = file.indices("train")
            for name in ("bbox", "camera", "pose", "betas", "joints", "root", "valid_joints"):
                _own(file.array(name))
            file.sample_ids()
            for row in rows:
                file.image(int(row), 4)
            meshed = rows[file.array("valid_mesh")[rows] != 0]
            file.meshes(meshed, STILL["body"])

    return Target({path: _damaged_hdf5(path)}, read)


def _features(root: Path) -> Target:
    path = root / "toy.h5"
    attrs = {"dataset": "toy", "kind": "body", "source": "rendered"}
    points = np.zeros((2, 4, 3), np.float32)
    with features_writer(path, 2, attrs) as writer:
        writer.append(
            {"image_feature": np.zeros((2, 4, 8), np.float16),
             "draws": np.zeros((2, 3, 4, 3), np.float32), "centre": points, "peak": points,
             "spread": points, "joints": points, "coarse": np.zeros((2, 12, 3), np.float32),
             "valid_mesh": np.ones(2, bool), "valid_joints": np.ones((2, 4), bool),
             "split": np.zeros(2, np.uint8), "copy": np.zeros(2, np.uint8),
             "sample_id": ["a", "b"]}
        )  # fmt: skip

    def read() -> None:
        _own(read_features(path, "train").draws.numpy())
        rows = FeatureFiles([path, path], "train")
        _ = rows.bytes, rows.counts
        rows.select(range(len(rows)))

    return Target({path: _damaged_hdf5(path)}, read)


TARGETS = {"features": _features, "prepared": _prepared}
