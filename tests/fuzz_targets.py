"""What is fuzzed: for each reader a small valid file, how it is damaged, and how it is read."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from archives import tarred, zipped
from hypothesis import strategies as st
from mutations import HOSTILE, damaged_bytes, damaged_json, damaged_pickle, spans
from PIL import Image
from toy_layouts import WILD

import hmdiff.params
import hmdiff.presets
from hmdiff.acquisition.extract import unpack
from hmdiff.bodies.unpickle import as_array, read_pickle
from hmdiff.datasets import freihand, human36m, threedpw, up3d
from hmdiff.datasets.fitted import Person, Shot
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.datasets.registry import LAYOUTS
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.standin_wild import NATIVES
from hmdiff.datasets.tally import Tally
from hmdiff.datasets.writer import Record, write_prepared
from hmdiff.evaluation.freihand_files import read_submission, write_submission
from hmdiff.evaluation.npz_files import read_points
from hmdiff.evaluation.npz_rows import NpzRows
from hmdiff.evaluation.protocols import load_protocol
from hmdiff.evaluation.scoring import report, score_points
from hmdiff.extractor.features import FeatureFiles, features_writer, read_features
from hmdiff.kinds import BODY, HAND
from hmdiff.params import load_params

ROOT = Path(__file__).resolve().parent.parent


# Writes valid files into a folder; what is damaged there, how, and what reads it.
Target = Callable[[Path], tuple[dict[Path, st.SearchStrategy[bytes]], Callable[[], Any]]]


def still(kind) -> Any:
    """A body model that computes nothing: its mesh is a column of points ahead of the camera."""
    column = torch.zeros(kind.vertices, 3)
    column[:, :2] = torch.linspace(-0.5, 0.5, kind.vertices)[:, None]

    def vertices(pose: torch.Tensor, betas: torch.Tensor) -> torch.Tensor:
        return column + 0 * pose[:, :1, None]

    model = SimpleNamespace(
        kind=kind,
        regressor=torch.full((kind.joint_count, kind.vertices), 1 / kind.vertices),
        kinematic=lambda pose, betas: torch.zeros(len(pose), kind.parameters // 3, 3),
        vertices=vertices,
        root_relative=lambda mesh: (mesh - mesh.mean(1, keepdim=True), mesh.mean(1, keepdim=True)),
    )
    model.of_gender = lambda gender: model
    return model


STILL_BODY, STILL_HAND = still(BODY), still(HAND)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 16), (90, 60, 30)).save(path)


def shots() -> list[Shot]:
    joints = np.tile([0.0, 0.0, 5.0], (17, 1)) + np.linspace(0, 0.3, 17)[:, None]
    person = Person(
        np.full(72, 0.1), np.zeros(10), np.array([0.0, 0, 5]), joints, np.array([2.0, 3, 9, 30])
    )
    near = replace(person, translation=np.array([0.0, 0, 4]))
    return [
        Shot(n, (24, 16), np.full(2, 30.0), np.array([12.0, 8.0]), [person, near]) for n in (1, 2)
    ]


def _read(layout: str, root: Path, params: Any) -> Callable[[], list[Sample]]:
    model = STILL_HAND if layout == "freihand" else STILL_BODY

    def read() -> list[Sample]:
        samples = list(LAYOUTS[layout].read(root, model, params, Tally()))
        for sample in samples:
            LAYOUTS[layout].square(sample, params)
            if not sample.image.resolve().is_relative_to(root.resolve()):
                raise AssertionError(f"reads {sample.image}")
        LAYOUTS[layout].protocol(root, params)
        return samples

    return read


def _damaged_jsons(folder: Path) -> dict[Path, st.SearchStrategy[bytes]]:
    found = {}
    for path in sorted(folder.rglob("*.json")):
        text = path.read_text()
        found[path] = st.one_of(damaged_json(text, spans(text)), damaged_bytes(path.read_bytes()))
    return found


def wild(layout: str) -> Target:
    def make(root: Path):
        NATIVES[layout].write(root, shots())
        for shot in shots():
            picture(NATIVES[layout].image_path(root, shot.number))
        return _damaged_jsons(root), _read(layout, root, WILD[layout])

    return make


def make_up3d(root: Path):
    up3d.write(root, shots())
    for shot in shots():
        picture(up3d.image_path(root, shot.number))
    fit = root / up3d.FOLDER / "00001_body.pkl"
    names = root / up3d.FOLDER / up3d.LIST
    image = up3d.image_path(root, 1)
    damaged = {
        fit: damaged_pickle(pickle.loads(fit.read_bytes())),
        names: damaged_bytes(names.read_bytes()),
        image: damaged_bytes(image.read_bytes()),
    }
    return damaged, _read("up3d", root, WILD["up3d"])


def make_threedpw(root: Path):
    extrinsics = np.tile(np.eye(4), (2, 1, 1))
    camera = threedpw.CameraTrack(np.array([[30.0, 0, 12], [0, 30, 8], [0, 0, 1]]), extrinsics)
    joints = np.tile([0.0, 0, 5], (2, 24, 1)) + np.linspace(0, 0.5, 24)[:, None]
    person = threedpw.Person(
        np.zeros(10), np.full((2, 72), 0.1), np.zeros((2, 3)), joints, np.ones(2, bool)
    )
    for folder in threedpw.FOLDERS:
        threedpw.write_sequence(root, folder, f"walk_{folder}", [person], camera)
    path = root / threedpw.SEQUENCES / "train" / "walk_train.pkl"
    params = load_params(ROOT / "params.yaml").datasets["3dpw"]
    gendered = params.model_copy(update={"ground_truth": "gendered"})
    return {path: damaged_pickle(pickle.loads(path.read_bytes()))}, _read("3dpw", root, gendered)


def make_human36m(root: Path):
    camera = human36m.Camera(
        np.eye(3), np.array([0.0, 0, 4000]), np.full(2, 30.0), np.array([12.0, 8])
    )
    fit = {"pose": np.full(72, 0.1), "shape": np.zeros(10), "trans": np.zeros(3)}
    for subject in (*human36m.TRAIN_SUBJECTS, *human36m.TEST_SUBJECTS):
        frame = human36m.Frame(2, 1, 0, np.zeros((17, 3)) + np.arange(17)[:, None], fit)
        view = human36m.View(frame, 4, np.array([2.0, 3, 9, 12]), (24, 16))
        human36m.write_subject(root, subject, {4: camera}, [view])
    damaged = {
        path: strategy
        for path, strategy in _damaged_jsons(root).items()
        if "subject1_" in path.name or "subject9_" in path.name
    }
    params = load_params(ROOT / "params.yaml").datasets["human36m"]
    return damaged, _read("human36m", root, params)


def make_freihand(root: Path):
    joints = np.tile([0.0, 0.0, 0.7], (2, 21, 1)) + np.linspace(0, 0.1, 21)[:, None]
    cameras = np.tile(np.array([[450.0, 0, 112], [0, 450, 112], [0, 0, 1]]), (2, 1, 1))
    hands = freihand.Hands(
        cameras, joints, np.zeros((2, 778, 3)), np.zeros((2, 48)), np.zeros((2, 10))
    )
    for part in ("training", "evaluation"):
        freihand.write_lists(root, part, hands)
        for number in range(2):
            picture(freihand.image_path(root, part, number))
    params = load_params(ROOT / "params.yaml").datasets["freihand"]
    params = params.model_copy(update={"held_out": 1})
    return _damaged_jsons(root), _read("freihand", root, params)


def make_unpickler(root: Path):
    path = root / "model.pkl"
    content = {"v": np.ones((3, 2)), "f": np.arange(4, dtype=">u4"), "s": "lrotmin", "p": [1, 2.5],
               "g": np.float64(3), "o": np.array(["a", None], object)}  # fmt: skip

    def read() -> None:
        for value in read_pickle(path).values():
            try:
                as_array(value)
            except ValueError:  # as its callers expect
                continue

    return {path: damaged_pickle(content)}, read


def make_prepared(root: Path):
    path = root / "toy.h5"
    image = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 100, 0)).save(image, "JPEG")
    joints = np.tile(np.linspace(0, 1, 17)[:, None], 3)

    def records() -> Iterator[Record]:
        for number in range(3):
            split = ("train", "val", "test")[number]
            sample = Sample(f"s{number}", Path("x"), split, np.ones(4), np.eye(3), np.zeros(72),
                            np.zeros(10), np.zeros(3))  # fmt: skip
            yield Record(sample, image.getvalue(), np.eye(3), joints)

    write_prepared(path, records(), BODY, {"dataset": "toy", "source": "rendered"})

    def read() -> None:
        with PreparedFile(path) as file:
            dict(file.attrs)
            rows = file.indices("train")
            for name in ("bbox", "camera", "pose", "betas", "joints", "root", "valid_joints"):
                file.array(name)
            file.sample_ids()
            for row in rows:
                file.image(int(row), 4)
            meshed = rows[file.array("valid_mesh")[rows] != 0]
            file.meshes(meshed, STILL_BODY)

    return {path: damaged_bytes(path.read_bytes(), 4096)}, read


def make_features(root: Path):
    path = root / "toy.h5"
    attrs = {"dataset": "toy", "kind": "body", "source": "rendered"}
    with features_writer(path, 2, attrs) as writer:
        writer.append(
            {"image_feature": np.zeros((2, 4, 8), np.float16),
             "draws": np.zeros((2, 3, 4, 3), np.float32),
             **dict.fromkeys(("centre", "peak", "spread", "joints"),
                             np.zeros((2, 4, 3), np.float32)),
             "coarse": np.zeros((2, 12, 3), np.float32), "valid_mesh": np.ones(2, bool),
             "valid_joints": np.ones((2, 4), bool), "split": np.zeros(2, np.uint8),
             "copy": np.zeros(2, np.uint8), "sample_id": ["a", "b"]}
        )  # fmt: skip

    def read() -> None:
        read_features(path, "train")
        rows = FeatureFiles([path, path], "train")
        _ = rows.bytes, rows.counts
        rows.select(range(len(rows)))

    return {path: damaged_bytes(path.read_bytes(), 4096)}, read


YAML = (
    *HOSTILE[:-1], ".nan", ".inf", "-.inf", "2001-99-99", "2001-01-01", "0x1F", "0b2", "1_000",
    "1:60:60",
    "!!python/object/apply:os.system [touch ran]", "!!binary /w==", "&a [*a]", "*x", "{<<: 1}",
    "!!timestamp x", "!!int x", "!!float x", "!!set {a}", "!!omap [a]", "? {}", "{[1]: 2}", "- a",
    "|", "%",
    "&a [&b [1, 1, 1], *b, *b, *b, *b]", "@", "`", "!x y", "~", "\t", "---", "...", "[" * 500,
)  # fmt: skip
_SMALL = """\
preset: default
seed: 1
prepare:  # of crops
  size: 64
  chroma: "4:4:4"
datasets:
  one: {layout: coco, crop: 1.2}
standins: {}
experiments: {}
finetunes: {}
methods: {}
evaluations: {}
"""
_PRESET = """\
preset: small
prepare: {size: 32}
add:
  datasets:
    two: {layout: mpii, crop: [1, 2]}
"""


@st.composite
def damaged_yaml(draw, text: str) -> bytes:
    parts = text.split(" ")
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(parts) - 1))
        parts[at] = YAML[draw(st.integers(0, len(YAML) - 1))]
        if draw(st.booleans()):
            parts[at] += "\n"
    return " ".join(parts).encode("utf-8", "surrogatepass")


def make_yaml(root: Path):
    path = root / "params.yaml"
    path.write_text(_SMALL)
    damaged = st.one_of(damaged_yaml(_SMALL), damaged_bytes(_SMALL.encode()))
    return {path: damaged}, lambda: load_params(path)


def make_presets(root: Path):
    """The checks of the whole, which take half a second, have a target of their own."""
    path, folder = root / "params.yaml", root / "presets"
    folder.mkdir()
    files = {path: _SMALL, folder / "default.yaml": "preset: default\nprepare: {size: 64}\n",
             folder / "small.yaml": _PRESET}  # fmt: skip
    for file, text in files.items():
        file.write_text(text)

    def read() -> None:
        path.write_text(_SMALL) if not path.exists() else None
        hmdiff.presets.apply_preset("small", path)

    damaged = {
        file: st.one_of(damaged_yaml(text), damaged_bytes(text.encode()))
        for file, text in files.items()
        if file != path
    }
    return damaged, read


def make_params(root: Path):
    """Any value at any place of the tree that the YAML was read to."""
    path = root / "tree.json"
    tree = hmdiff.params.read_yaml(ROOT / "params.yaml")
    text = json.dumps(tree)
    odd = json.dumps(tree).replace
    damaged = st.one_of(
        damaged_json(text, spans(text)),
        st.sampled_from([b"null", b"[]", b"1", odd('"seed"', '"sed"').encode()]),
    )
    return {path: damaged}, lambda: load_params(path)


NAMES = ("a/x.json", "../x", "/tmp/hmdiff-fuzz-ran", "a/../../x", ".", "", "a\\..\\x", "a//x", "a",
         "a/x.json/y", "n" * 300, "d/" * 400 + "x", "__MACOSX/x", "\udc80", "\n",
         "C:/x")  # fmt: skip
PAX = ({}, {"path": "/tmp/hmdiff-fuzz-ran"}, {"size": "-5"}, {"GNU.sparse.major": "1"},
       {"GNU.sparse.map": "0,x"}, {"size": "nan"}, {"mtime": "x"})  # fmt: skip


def make_zip(root: Path):
    whole = zipped({"a/x.json": b"[1]" * 40, "b.txt": b"text"})

    @st.composite
    def built(draw) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as file:
            for _ in range(draw(st.integers(1, 3))):
                info = zipfile.ZipInfo(draw(st.sampled_from(NAMES[:-3])) or "e")
                info.external_attr = (
                    draw(st.sampled_from([0, 0o100644, 0o120777, 0o20600, 0o40755])) << 16
                )
                info.compress_type = draw(st.sampled_from([0, 8, 12, 14]))
                file.writestr(info, b"x" * draw(st.sampled_from([0, 1, 3000])))
        return stream.getvalue()

    return _archive(root / "set.zip", st.one_of(damaged_bytes(whole), built()))


def make_tar(root: Path):
    whole = tarred({"a/x.json": b"[1]" * 40, "b.txt": b"text"})

    @st.composite
    def built(draw) -> bytes:
        stream = io.BytesIO()
        form = draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
        with tarfile.open(fileobj=stream, mode="w:gz", format=form, compresslevel=1) as file:
            for _ in range(draw(st.integers(1, 3))):
                info = tarfile.TarInfo(draw(st.sampled_from(NAMES)))
                info.type = bytes([draw(st.sampled_from(list(b"0123456789gxLKS\0")))])
                info.linkname = draw(st.sampled_from(["", "/etc/passwd", "../x"]))
                info.size = draw(st.sampled_from([0, 3, 2**33, 2**40]))
                info.pax_headers = draw(st.sampled_from(PAX))
                try:
                    file.addfile(info, io.BytesIO(b"abc" if info.size == 3 else b""))
                except (ValueError, OSError):
                    continue  # not to be told in this format, or cut: what is there stays
        return stream.getvalue()

    return _archive(root / "set.tar.gz", st.one_of(damaged_bytes(whole), built()))


def _archive(path: Path, strategy: st.SearchStrategy[bytes]):
    folder = path.parent / "out"

    def read() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        unpack(path, folder)

    return {path: strategy}, read


def make_npz(root: Path):
    protocol = load_protocol("human36m")
    joints = np.random.default_rng(0).normal(size=(2, 17, 3))
    gt, pred = root / "gt.npz", root / "pred.npz"
    np.savez(gt, joints=joints, sample_id=np.array(["a", "b"]))
    np.savez_compressed(pred, joints=joints.astype(np.float32), sample_id=np.array(["b", "a"]))

    def read() -> None:
        with NpzRows(gt) as true, NpzRows(pred) as predicted:
            truth, found = (
                read_points(true, protocol, truth=True),
                read_points(predicted, protocol, truth=False),
            )
            if found.joints is None or truth.joints is None:
                return
            samples = score_points(protocol, protocol.metrics, found, truth)
        json.dumps(report(protocol, samples, 2, 0), allow_nan=False)

    return {file: damaged_bytes(file.read_bytes(), 300) for file in (gt, pred)}, read


def make_submission(root: Path):
    path, packed = root / "pred.json", root / "pred.zip"
    write_submission(packed, np.zeros((1, 21, 3)), np.zeros((1, 778, 3)))
    path.write_bytes(zipfile.ZipFile(packed).read("pred.json"))
    damaged = _damaged_jsons(root) | {packed: damaged_bytes(packed.read_bytes())}

    def read() -> None:
        read_submission(path)
        read_submission(packed)

    return damaged, read


TARGETS: dict[str, Target] = {
    "3dpw": make_threedpw,
    "freihand": make_freihand,
    "human36m": make_human36m,
    "coco": wild("coco"),
    "mpii": wild("mpii"),
    "muco": wild("muco"),
    "up3d": make_up3d,
    "unpickler": make_unpickler,
    "prepared": make_prepared,
    "features": make_features,
    "yaml": make_yaml,
    "params": make_params,
    "presets": make_presets,
    "zip": make_zip,
    "tar": make_tar,
    "npz": make_npz,
    "submission": make_submission,
}
