"""Readers of the native layouts, each over a small valid data set of which one file is damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from fuzzing import ROOT, Target
from mutations import damaged_bytes, damaged_jsons
from pickle_mutations import damaged_pickle
from PIL import Image
from toy_layouts import WILD

from hmdiff.datasets import freihand, human36m, threedpw, up3d
from hmdiff.datasets.fitted import Person, Shot
from hmdiff.datasets.registry import LAYOUTS
from hmdiff.datasets.standin_wild import NATIVES
from hmdiff.datasets.tally import Tally
from hmdiff.kinds import BODY, HAND, Kind
from hmdiff.params import load_params


def _still(kind: Kind) -> Any:
    """A body model that computes nothing: its mesh is a column of points ahead of the camera."""
    column = torch.zeros(kind.vertices, 3)
    column[:, :2] = torch.linspace(-0.5, 0.5, kind.vertices)[:, None]
    model = SimpleNamespace(
        kind=kind,
        regressor=torch.full((kind.joint_count, kind.vertices), 1 / kind.vertices),
        kinematic=lambda pose, betas: torch.zeros(len(pose), kind.parameters // 3, 3),
        vertices=lambda pose, betas: column + 0 * pose[:, :1, None],
        root_relative=lambda mesh: (mesh - mesh.mean(1, keepdim=True), mesh.mean(1, keepdim=True)),
    )
    model.of_gender = lambda gender: model
    return model


STILL = {"body": _still(BODY), "hand": _still(HAND)}


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 16), (90, 60, 30)).save(path)


def _shots() -> list[Shot]:
    joints = np.tile([0.0, 0.0, 5.0], (17, 1)) + np.linspace(0, 0.3, 17)[:, None]
    person = Person(
        np.full(72, 0.1), np.zeros(10), np.array([0.0, 0, 5]), joints, np.array([2.0, 3, 9, 30])
    )
    near = replace(person, translation=np.array([0.0, 0, 4]))
    return [
        Shot(n, (24, 16), np.full(2, 30.0), np.array([12.0, 8.0]), [person, near]) for n in (1, 2)
    ]


def _reader(layout: str, root: Path, params: Any) -> Callable[[], None]:
    def read() -> None:
        for sample in LAYOUTS[layout].read(root, STILL[params.kind], params, Tally()):
            LAYOUTS[layout].square(sample, params)
            # Nobody opens the images here, which is where a name would lead elsewhere.
            assert sample.image.resolve().is_relative_to(root.resolve()), sample.image
        LAYOUTS[layout].protocol(root, params)

    return read


def _committed(layout: str, **changes: Any) -> Any:
    params = load_params(ROOT / "params.yaml").datasets[layout]
    return params.model_copy(update=changes)


def _wild(layout: str) -> Callable[[Path], Target]:
    def make(root: Path) -> Target:
        NATIVES[layout].write(root, _shots())
        return Target(damaged_jsons(root), _reader(layout, root, WILD[layout]))

    return make


def _up3d(root: Path) -> Target:
    up3d.write(root, _shots())
    for shot in _shots():
        _picture(up3d.image_path(root, shot.number))
    fit, names = root / up3d.FOLDER / "00001_body.pkl", root / up3d.FOLDER / up3d.LIST
    image = up3d.image_path(root, 1)
    damaged = {
        fit: damaged_pickle(fit.read_bytes()),
        names: damaged_bytes(names.read_bytes()),
        image: damaged_bytes(image.read_bytes()),
    }
    return Target(damaged, _reader("up3d", root, WILD["up3d"]))


def _threedpw(root: Path) -> Target:
    camera = threedpw.CameraTrack(
        np.array([[30.0, 0, 12], [0, 30, 8], [0, 0, 1]]), np.tile(np.eye(4), (2, 1, 1))
    )
    joints = np.tile([0.0, 0, 5], (2, 24, 1)) + np.linspace(0, 0.5, 24)[:, None]
    person = threedpw.Person(
        np.zeros(10), np.full((2, 72), 0.1), np.zeros((2, 3)), joints, np.ones(2, bool)
    )
    for folder in threedpw.FOLDERS:
        threedpw.write_sequence(root, folder, f"walk_{folder}", [person], camera)
    path = root / threedpw.SEQUENCES / "train" / "walk_train.pkl"
    params = _committed("3dpw", ground_truth="gendered")
    return Target({path: damaged_pickle(path.read_bytes())}, _reader("3dpw", root, params))


def _human36m(root: Path) -> Target:
    camera = human36m.Camera(
        np.eye(3), np.array([0.0, 0, 4000]), np.full(2, 30.0), np.array([12.0, 8])
    )
    fit = {"pose": np.full(72, 0.1), "shape": np.zeros(10), "trans": np.zeros(3)}
    for subject in (*human36m.TRAIN_SUBJECTS, *human36m.TEST_SUBJECTS):
        frame = human36m.Frame(2, 1, 0, np.zeros((17, 3)) + np.arange(17)[:, None], fit)
        view = human36m.View(frame, 4, np.array([2.0, 3, 9, 12]), (24, 16))
        human36m.write_subject(root, subject, {4: camera}, [view])
    damaged = {  # one subject that trains and one that tests
        path: strategy
        for path, strategy in damaged_jsons(root).items()
        if "subject1_" in path.name or "subject9_" in path.name
    }
    return Target(damaged, _reader("human36m", root, _committed("human36m")))


def _freihand(root: Path) -> Target:
    joints = np.tile([0.0, 0.0, 0.7], (2, 21, 1)) + np.linspace(0, 0.1, 21)[:, None]
    cameras = np.tile(np.array([[450.0, 0, 112], [0, 450, 112], [0, 0, 1]]), (2, 1, 1))
    hands = freihand.Hands(
        cameras, joints, np.zeros((2, 778, 3)), np.zeros((2, 48)), np.zeros((2, 10))
    )
    for part in ("training", "evaluation"):
        freihand.write_lists(root, part, hands)
        for number in range(2):
            _picture(freihand.image_path(root, part, number))
    params = _committed("freihand", held_out=1)
    return Target(damaged_jsons(root), _reader("freihand", root, params))


TARGETS = {
    "3dpw": _threedpw,
    "coco": _wild("coco"),
    "freihand": _freihand,
    "human36m": _human36m,
    "mpii": _wild("mpii"),
    "muco": _wild("muco"),
    "up3d": _up3d,
}
