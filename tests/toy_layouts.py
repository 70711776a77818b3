"""Small data sets of known content in every native layout, written by the layouts' own writers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets import freihand, human36m, muco, threedpw
from hmdiff.datasets.camera import intrinsics, project, tight_box
from hmdiff.datasets.fitted import Person, Shot
from hmdiff.datasets.standin_wild import NATIVES
from hmdiff.datasets.standins import look_at
from hmdiff.kinds import BODY
from hmdiff.params.data import CocoDataset, MPIIDataset, MuCoDataset, UP3DDataset

WILD = {
    "up3d": UP3DDataset(layout="up3d", kind="body", crop=1.2, smallest_box=20),
    "muco": MuCoDataset(layout="muco", kind="body", crop=1.25, smallest_box=20, fit_limit=25),
    "coco": CocoDataset(layout="coco", kind="body", crop=1.2, smallest_box=20, keypoints=6),
    "mpii": MPIIDataset(layout="mpii", kind="body", crop=1.25, smallest_box=20, keypoints=6),
}
SIZE = (300, 200)


@dataclass(frozen=True)
class Known:
    """What a sample must come back as; metres, camera frame, pixels of the full image."""

    vertices: np.ndarray | None
    joints: np.ndarray  # NaN where the layout has no such joint
    camera: np.ndarray


def mesh(
    body: BodyModel, pose: np.ndarray, betas: np.ndarray, move: np.ndarray | float = 0.0
) -> np.ndarray:
    """(V, 3) float64 vertices of one pose, moved."""
    inputs = (torch.as_tensor(value[None]) for value in (pose, betas))
    return body.vertices(*inputs)[0].double().numpy() + move


def noise_image(path: Path, size: tuple[int, int] = SIZE) -> None:
    """Write an image that compresses badly, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 60).convert("RGB").save(path)


# The four layouts of single images --------------------------------------------------------------


def person(rng: np.random.Generator, body: BodyModel, depth: float, shot: Shot) -> Person:
    pose, betas = rng.normal(0, 0.5, 72), rng.normal(size=10)
    move = np.array([*rng.normal(0, 0.2, 2), depth])
    vertices = mesh(body, pose, betas, move)
    joints = body.regressor.double().numpy() @ vertices
    return Person(pose, betas, move, joints, tight_box(project(vertices, shot.camera)))


def make_shots(body: BodyModel, count: int = 3, focal: float = 320.0) -> list[Shot]:
    """Images of two people each; the second one is nearer."""
    rng = np.random.default_rng(5)
    shots = []
    for number in range(1, count + 1):
        shot = Shot(number, SIZE, np.full(2, focal), np.array(SIZE) / 2, ())
        people = [person(rng, body, depth, shot) for depth in (6.0, 4.0)]
        shots.append(replace(shot, people=people))
    return shots


def write_shots(root: Path, layout: str, shots: list[Shot]) -> None:
    NATIVES[layout].write(root, shots)
    for shot in shots:
        noise_image(NATIVES[layout].image_path(root, shot.number))


def sampled(layout: str, shots: list[Shot]) -> list[tuple[Shot, Person]]:
    """The people of ``shots`` that the layout's reader yields, in its order."""
    if layout == "up3d":
        return [(shot, shot.people[0]) for shot in shots]
    if layout == "muco":  # the one nearer the camera
        return [(shot, shot.people[1]) for shot in shots]
    return [(shot, who) for shot in shots for who in shot.people]


def _wild(root: Path, layout: str, body: BodyModel) -> list[Known]:
    shots = make_shots(body)
    write_shots(root, layout, shots)
    known = []
    for shot, who in sampled(layout, shots):
        joints = who.joints.copy()
        if layout == "muco":
            joints[[i for i in range(BODY.joint_count) if i not in muco.KNOWN]] = np.nan
        vertices = mesh(body, who.pose, who.betas, who.translation)
        known.append(Known(vertices, joints, shot.camera))
    return known


# The three that are tested on -------------------------------------------------------------------


def _threedpw(root: Path, _: str, body: BodyModel) -> list[Known]:
    rng = np.random.default_rng(1)
    regressor, known = body.regressor.double().numpy(), []
    for folder in threedpw.FOLDERS:
        extrinsics = np.tile(np.eye(4), (2, 1, 1))
        for frame in range(2):
            position = np.array([rng.normal(0, 0.5), rng.normal(0, 0.3), 4.0])
            turn = look_at(position, rng.normal(0, 0.2, 3), np.array([0.0, 1, 0]), 0.1)
            extrinsics[frame, :3, :3], extrinsics[frame, :3, 3] = turn
        camera = threedpw.CameraTrack(intrinsics(300.0, (150.0, 100.0)), extrinsics)
        people = []
        for _ in range(2):
            betas, poses = rng.normal(size=10), rng.normal(0, 0.5, (2, 72))
            moves = rng.normal(0, 0.2, (2, 3))
            shapes = torch.as_tensor(np.tile(betas, (2, 1)))
            joints = body.kinematic(torch.as_tensor(poses), shapes).double().numpy()
            people.append(
                threedpw.Person(betas, poses, moves, joints + moves[:, None], np.ones(2, bool))
            )
            for frame, matrix in enumerate(extrinsics):
                world = mesh(body, poses[frame], betas, moves[frame])
                seen = world @ matrix[:3, :3].T + matrix[:3, 3]
                known.append(Known(seen, regressor @ seen, camera.intrinsics))
        threedpw.write_sequence(root, folder, f"walk_{folder}", people, camera)
        for frame in range(2):
            noise_image(threedpw.image_path(root, f"walk_{folder}", frame))
    return known


def _human36m(root: Path, _: str, body: BodyModel) -> list[Known]:
    rng = np.random.default_rng(2)
    regressor, known = body.regressor.double().numpy(), []
    for subject in (*human36m.TRAIN_SUBJECTS, *human36m.TEST_SUBJECTS):
        rotation, move = look_at(
            np.array([rng.normal(0, 0.5), 0.2, 4.0]), np.zeros(3), np.array([0.0, 1, 0])
        )
        camera = human36m.Camera(rotation, move * 1000, np.full(2, 300.0), np.array([150.0, 100]))
        views = []
        for index in (0, 5):
            pose, betas = rng.normal(0, 0.5, 72), rng.uniform(-2, 2, 10)
            translation = rng.normal(0, 0.2, 3)
            world = mesh(body, pose, betas, translation)
            seen = world @ rotation.T + move
            test = subject in human36m.TEST_SUBJECTS
            fit = None if test else {"pose": pose, "shape": betas, "trans": translation}
            frame = human36m.Frame(3, 1, index, regressor @ world * 1000, fit)
            matrix = intrinsics(camera.focal, camera.centre)
            views.append(human36m.View(frame, 4, tight_box(project(seen, matrix)), SIZE))
            known.append(Known(None if test else seen, regressor @ seen, matrix))
            name = human36m.image_name(subject, 3, 1, 4, index)
            noise_image(root / human36m.IMAGES / name)
        human36m.write_subject(root, subject, {4: camera}, views)
    return known


def _freihand(root: Path, _: str, body: BodyModel) -> list[Known]:
    rng = np.random.default_rng(3)
    known = []
    for part, count, versions in (("training", 5, 2), ("evaluation", 2, 1)):
        poses, betas = rng.normal(0, 0.3, (count, 48)), rng.normal(size=(count, 10))
        vertices = np.stack(
            [mesh(body, *both, [0.0, 0, 0.7]) for both in zip(poses, betas, strict=True)]
        )
        joints = body.regressor.double().numpy() @ vertices
        cameras = np.stack([intrinsics(rng.uniform(400, 500), 112.0) for _ in range(count)])
        hands = freihand.Hands(cameras, joints, vertices, poses, betas)
        freihand.write_lists(root, part, hands)
        for number in range(count * versions):
            noise_image(freihand.image_path(root, part, number), (224, 224))
        for index in range(count):
            # The last two training samples are held out, and have one version then.
            times = versions if part == "evaluation" or index < count - 2 else 1
            known += [Known(vertices[index], joints[index], cameras[index])] * times
    return known


WRITERS: dict[str, Callable[[Path, str, BodyModel], list[Known]]] = {
    "3dpw": _threedpw,
    "human36m": _human36m,
    "freihand": _freihand,
    **dict.fromkeys(WILD, _wild),
}
