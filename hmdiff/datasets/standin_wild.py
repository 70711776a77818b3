"""The rendered stand-ins of UP-3D, MuCo, COCO and MPII: single images of one or two people.

Each is written in its own layout. Cameras do not move, so that the fits are made in the camera's
frame at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmdiff.bodies.model import BodyModel
from hmdiff.checkpoints import UNSAVED, Checkpoints
from hmdiff.datasets import coco, mpii, muco, up3d
from hmdiff.datasets.camera import project, tight_box
from hmdiff.datasets.fitted import Person, Shot
from hmdiff.datasets.standins import posed_vertices, run_jobs, sample_subject, save_frame
from hmdiff.params.data import AnyDataset, WildStandIn
from hmdiff.rendering.backgrounds import sample_background
from hmdiff.rendering.poses import compose, pose_sequence
from hmdiff.rendering.scene import Mesh, render_frame, sample_light

# The model stands along y and looks along z; the camera's y points down, and it looks back at it.
TOWARDS = np.diag([1.0, -1.0, -1.0])
APART, DEEPER = 0.8, 0.4  # metres to the side, and how much further away the second person is


@dataclass(frozen=True)
class Native:
    """What sets one layout apart from the others."""

    image_path: Callable[[Path, int], Path]
    write: Callable[[Path, Sequence[Shot]], None]
    number: int  # the second part of the random seed
    everybody: bool  # each person of an image is a sample, not one alone
    alone: bool = False  # the layout has one person an image


NATIVES = {
    "up3d": Native(up3d.image_path, up3d.write, 103, everybody=False, alone=True),
    "muco": Native(muco.image_path, muco.write, 104, everybody=False),
    "coco": Native(coco.image_path, coco.write, 105, everybody=True),
    "mpii": Native(mpii.image_path, mpii.write, 106, everybody=True),
}


@dataclass(frozen=True)
class Picture:
    """An image to render."""

    root: Path
    number: int
    people: int
    seed: np.random.SeedSequence
    params: WildStandIn


def render(
    root: Path,
    folder: Path,
    params: WildStandIn,
    dataset: AnyDataset,
    seed: int,
    checkpoints: Checkpoints = UNSAVED,
) -> dict[str, int]:
    """Render the stand-in below ``root`` with the body model in ``folder``; samples per split."""
    native = NATIVES[params.layout]
    seeds = np.random.SeedSequence([seed, native.number])
    rng = np.random.default_rng(seeds.spawn(1)[0])
    jobs: list[Picture] = []
    left = params.train
    while left:
        enough = left >= 2 or not native.everybody
        pair = not native.alone and enough and rng.random() < params.pairs
        jobs.append(Picture(root, len(jobs) + 1, 1 + pair, seeds.spawn(1)[0], params))
        left -= jobs[-1].people if native.everybody else 1
    native.write(root, run_jobs(_render, jobs, folder, params.workers, checkpoints, (Shot, Person)))
    return {"train": params.train, "val": 0, "test": 0}


def _render(body: BodyModel, job: Picture) -> Shot:
    rng, frame = np.random.default_rng(job.seed), job.params.frame
    focal = np.full(2, frame * rng.uniform(1.0, 1.6))
    # Pixels a metre, as a share of the frame, as for the stand-in of 3DPW.
    distance = focal[0] / (frame * rng.uniform(0.24, 0.34))
    size, centre = (frame, frame), np.full(2, frame / 2)
    shot = Shot(job.number, size, focal, centre, ())
    people, meshes = [], []
    for index in range(job.people):
        aside = (index - (job.people - 1) / 2) * APART
        where = np.array([aside, 0, distance + index * DEEPER]) + rng.normal(0, 0.08, 3)
        subject = sample_subject(rng, body)
        poses = pose_sequence(rng, 1, job.params.yaw)
        poses[:, :3] = compose(TOWARDS, poses[:, :3])
        vertices = posed_vertices(body, poses, subject.betas)[0]
        translation = where - (vertices.min(0) + vertices.max(0)) / 2
        vertices += translation
        joints = body.regressor.double().numpy() @ vertices
        box = tight_box(project(vertices, shot.camera))
        people.append(Person(poses[0], subject.betas, translation, joints, box))
        meshes.append(Mesh(vertices, body.faces, subject.appearance))
    background = sample_background(rng, "train", size, "varied")
    image, _ = render_frame(meshes, shot.camera, background, sample_light(rng))
    save_frame(NATIVES[job.params.layout].image_path(job.root, job.number), image)
    return Shot(job.number, size, focal, centre, people)
