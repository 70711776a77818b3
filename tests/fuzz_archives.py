"""Readers of archives and of what others send: data sets' archives, predictions, submissions,
pictures."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
from archives import tarred, zipped
from fuzzing import Target
from hypothesis import strategies as st
from mutations import damaged_bytes, damaged_json, damaged_jsons
from pickle_mutations import VALUES
from PIL import Image

from hmdiff.acquisition import extract
from hmdiff.acquisition.extract import unpack
from hmdiff.datasets.crop import Square, crop_image
from hmdiff.evaluation.freihand_files import read_submission, read_truth, write_submission
from hmdiff.evaluation.npz_files import read_points
from hmdiff.evaluation.npz_rows import NpzRows
from hmdiff.evaluation.protocols import load_protocol
from hmdiff.evaluation.scoring import report, score_points
from hmdiff.prediction.inputs import as_picture, read_detections

# Names of members; the last ones a zip cannot be given.
NAMES = ("a/x.json", "../ran", "/tmp/hmdiff-ran", "a/../../ran", ".", "", "a\\..\\ran", "a//x",
         "a", "a/x.json/y", "n" * 300, "d/" * 400 + "x", "__MACOSX/x", "C:/x", "two\nlines",
         "\udc80")  # fmt: skip
PAX = ({}, {"path": "/tmp/hmdiff-ran"}, {"size": "-5"}, {"GNU.sparse.major": "1"},
       {"GNU.sparse.map": "0,x"}, {"size": "nan"}, {"mtime": "x"})  # fmt: skip


def _archive(path: Path, whole: bytes, *more: st.SearchStrategy[bytes]) -> Target:
    folder = path.parent / "out"
    path.write_bytes(whole)

    def read() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with patch.object(extract, "FLOOR", 2**20):  # fewer zeros to write
            unpack(path, folder)

    return Target({path: st.one_of(damaged_bytes(whole), *more)}, read)


@st.composite
def _built_zip(draw) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for _ in range(draw(st.integers(1, 3))):
            info = zipfile.ZipInfo(draw(st.sampled_from(NAMES[:-1])) or "e")
            mode = draw(st.sampled_from([0, 0o100644, 0o120777, 0o20600, 0o40755]))
            info.external_attr = mode << 16
            info.compress_type = draw(st.sampled_from([0, 8, 12, 14]))
            file.writestr(info, b"x" * draw(st.sampled_from([0, 1, 3000])))
    return stream.getvalue()


@st.composite
def _built_tar(draw) -> bytes:
    stream = io.BytesIO()
    form = draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    with tarfile.open(fileobj=stream, mode="w", format=form) as file:
        for _ in range(draw(st.integers(1, 3))):
            info = tarfile.TarInfo(draw(st.sampled_from(NAMES)))
            info.type = bytes([draw(st.sampled_from(list(b"0123456789gxLKS\0")))])
            info.linkname = draw(st.sampled_from(["", "/etc/passwd", "../ran"]))
            info.size = draw(st.sampled_from([0, 3, 2**33, 2**40]))
            info.pax_headers = draw(st.sampled_from(PAX))
            try:
                file.addfile(info, io.BytesIO(b"abc" if info.size == 3 else b""))
            except (ValueError, OSError):
                continue  # not to be told in this format, or cut: what is there stays
    return _gzipped(stream.getvalue())


FILES = {"a/x.json": b"[1]" * 40, "b.txt": b"text"}


def _zip(root: Path) -> Target:
    return _archive(root / "set.zip", zipped(FILES), _built_zip())


def _tar(root: Path) -> Target:
    whole = tarred(FILES)
    # Inside of the compression, where damage is not noticed by a checksum.
    inside = damaged_bytes(gzip.decompress(whole)).map(_gzipped)
    return _archive(root / "set.tar.gz", whole, inside, _built_tar())


def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


# Predictions -------------------------------------------------------------------------------------


@st.composite
def _built_npz(draw, arrays: dict[str, np.ndarray]) -> bytes:
    """An .npz with other values, pickled objects among them, in the place of some arrays."""
    arrays = dict(arrays)
    for name in draw(st.lists(st.sampled_from(sorted(arrays)), min_size=1, unique=True)):
        value = draw(st.sampled_from(VALUES))
        if isinstance(value, list | tuple | set | dict):
            value = np.array(["a", "\ud800"])
        arrays[name] = np.asarray(value)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _npz(root: Path) -> Target:
    protocol = load_protocol("human36m")
    joints = np.random.default_rng(0).normal(size=(2, 17, 3))
    true = {"joints": joints, "sample_id": np.array(["a", "b"])}
    gt, pred = root / "gt.npz", root / "pred.npz"
    np.savez(gt, **true)
    np.savez_compressed(pred, joints=joints.astype(np.float32), sample_id=np.array(["b", "a"]))

    def read() -> None:
        with NpzRows(gt) as truth, NpzRows(pred) as predicted:
            samples = score_points(
                protocol, protocol.metrics, read_points(predicted, protocol, truth=False),
                read_points(truth, protocol, truth=True),
            )  # fmt: skip
        json.dumps(report(protocol, samples, 2, 0), allow_nan=False)

    damaged = {file: damaged_bytes(file.read_bytes(), 300) for file in (gt, pred)}
    damaged[gt] = st.one_of(damaged[gt], _built_npz(true))
    return Target(damaged, read)


def _submission(root: Path) -> Target:
    path, packed = root / "pred.json", root / "pred.zip"
    write_submission(packed, np.zeros((1, 21, 3)), np.zeros((1, 778, 3)))
    with zipfile.ZipFile(packed) as archive:
        path.write_bytes(archive.read("pred.json"))
    xyz, verts = json.loads(path.read_bytes())
    (root / "evaluation_xyz.json").write_text(json.dumps(xyz))
    (root / "evaluation_verts.json").write_text(json.dumps(verts))
    damaged = damaged_jsons(root) | {packed: damaged_bytes(packed.read_bytes())}

    def read() -> None:
        read_submission(path)
        read_submission(packed)
        read_truth(root)

    return Target(damaged, read)


def _detections(root: Path) -> Target:
    named, listed = root / "named.json", root / "listed.json"
    texts = {
        named: '{"a.jpg": [[1, 2, 30, 40], [5.5, 6, 7, 8]], "b/c": []}',
        listed: '[{"file_name": "a.jpg", "bbox": [1, 2, 30, 40]}]',
    }
    for path, text in texts.items():
        path.write_text(text)

    def read() -> None:
        for path in texts:
            read_detections(path)

    return Target({path: damaged_json(text) for path, text in texts.items()}, read)


def _picture(root: Path) -> Target:
    noise = Image.effect_noise((40, 30), 60)
    forms = {"a.png": "RGB", "b.jpg": "L", "c.gif": "P", "d.tif": "RGB", "e.bmp": "L",
             "f.webp": "RGB"}  # fmt: skip
    for name, mode in forms.items():
        noise.convert(mode).save(root / name)

    def read() -> None:
        for name in forms:
            as_picture(root / name)
            crop_image(root / name, Square(1, 2, 20), 8)

    return Target({path: damaged_bytes(path.read_bytes(), 100) for path in root.iterdir()}, read)


TARGETS = {
    "detections": _detections,
    "npz": _npz,
    "picture": _picture,
    "submission": _submission,
    "tar": _tar,
    "zip": _zip,
}
