"""The rendered stand-in of Human3.6M: a studio, four fixed cameras, seven subjects.

The cameras stand on an arc before the subject rather than around it, so that nobody is seen from
further round than ``yaw``. Test images exist for the camera of protocol P2 alone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from hmdiff.bodies.model import BodyModel
from hmdiff.checkpoints import UNSAVED, Checkpoints
from hmdiff.datasets import human36m
from hmdiff.datasets.camera import intrinsics, project, tight_box, to_camera
from hmdiff.datasets.human36m import TEST_SUBJECTS, TRAIN_SUBJECTS, Camera, Frame, View
from hmdiff.datasets.meshes import kinematic_joints
from hmdiff.datasets.standins import (
    Subject,
    look_at,
    posed_vertices,
    run_jobs,
    sample_subject,
    save_frame,
    split_evenly,
)
from hmdiff.params.data import Human36MDataset, Human36MStandIn
from hmdiff.rendering.backgrounds import sample_background
from hmdiff.rendering.poses import compose, pose_sequence
from hmdiff.rendering.scene import Mesh, render_frame, sample_light

UP = np.array([0.0, 0.0, 1.0])
# The model stands along y and faces z; in the studio z points up and the cameras are at -y.
UPRIGHT = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
# Places on the arc in halves of `yaw`; camera 4, the frontal one, stands near the middle.
ARC = {1: -1.0, 2: 1.0, 3: -1 / 3, 4: 1 / 3}
# Focal length over the frame's side, and metres: some 145 of 400 pixels a metre.
FOCAL, DISTANCE = 1.6, 4.4
PLACES = list(product(range(2, 17), (1, 2)))  # action and sub-action


@dataclass(frozen=True)
class SubAction:
    """A sequence to render."""

    root: Path
    split: str
    subject: int
    action: int
    subaction: int
    shots: tuple[tuple[int, int], ...]  # number of the stored frame, camera
    looks: np.random.SeedSequence  # of the subject: the same in all sequences
    seed: np.random.SeedSequence
    step: int  # between stored frames
    params: Human36MStandIn


def render(
    root: Path,
    folder: Path,
    params: Human36MStandIn,
    dataset: Human36MDataset,
    seed: int,
    checkpoints: Checkpoints = UNSAVED,
) -> dict[str, int]:
    """Render the stand-in below ``root`` with the body model in ``folder``; images per split."""
    everybody = (*TRAIN_SUBJECTS, *TEST_SUBJECTS)
    seeds = np.random.SeedSequence([seed, 36])
    looks = dict(zip(everybody, seeds.spawn(len(everybody)), strict=True))
    splits = {
        "train": [s for s in TRAIN_SUBJECTS if s not in dataset.val_subjects],
        "val": list(dataset.val_subjects),
        "test": list(TEST_SUBJECTS),
    }
    counts = {"train": params.train, "val": params.val, "test": params.test}
    jobs: list[SubAction] = []
    for split, subjects in splits.items():
        if not subjects:  # of val: METRO trains on all five
            counts[split] = 0
            continue
        cameras = [dataset.test_camera] if split == "test" else list(ARC)
        share = -(-counts[split] // len(subjects))
        for subject, images in zip(subjects, split_evenly(counts[split], share), strict=False):
            for place, shots in zip(PLACES, _shots(images, cameras, params.frames), strict=False):
                jobs.append(
                    SubAction(
                        root, split, subject, *place, shots, looks[subject], seeds.spawn(1)[0],
                        dataset.frame_step, params,
                    )
                )  # fmt: skip
    views: dict[int, list[View]] = defaultdict(list)
    for job, result in zip(
        jobs,
        run_jobs(_render, jobs, folder, params.workers, checkpoints, (View, Frame)),
        strict=True,
    ):
        views[job.subject].extend(result)
    for subject in everybody:
        cameras = _cameras(np.random.default_rng(looks[subject]), params)
        human36m.write_subject(root, subject, cameras, views[subject])
    return counts


def _shots(images: int, cameras: list[int], frames: int) -> list[tuple[tuple[int, int], ...]]:
    """Frame number and camera of ``images`` images, by sequence."""
    total = -(-images // len(cameras))
    lengths = split_evenly(total, max(frames, -(-total // len(PLACES))))
    left, shots = images, []
    for length in lengths:
        shots.append(tuple(product(range(length), cameras))[:left])
        left -= len(shots[-1])
    return shots


def _cameras(rng: np.random.Generator, params: Human36MStandIn) -> dict[int, Camera]:
    """The four cameras as one subject found them; millimetres."""
    cameras = {}
    for number, place in ARC.items():
        angle = np.radians(place * params.yaw / 2)
        position = DISTANCE * np.array([np.sin(angle), -np.cos(angle), 0])
        position[2] = rng.uniform(1.2, 1.7)
        target = np.array([0, 0, rng.uniform(0.85, 0.95)])
        rotation, translation = look_at(position, target, UP)
        centre = params.frame * (0.5 + rng.uniform(-0.01, 0.01, 2))
        focal = params.frame * FOCAL * (1 + rng.uniform(-0.002, 0.002, 2))
        cameras[number] = Camera(rotation, translation * 1000, focal, centre)
    return cameras


def _render(body: BodyModel, job: SubAction) -> list[View]:
    looks, rng = np.random.default_rng(job.looks), np.random.default_rng(job.seed)
    cameras = _cameras(looks, job.params)
    subject = sample_subject(looks, body)
    frames = _act(rng, body, subject, job)
    size = (job.params.frame, job.params.frame)
    scenes = {
        number: sample_background(rng, job.split, size, "studio")
        for number in sorted({camera for _, camera in job.shots})
    }
    light = sample_light(rng)
    towards = cameras[4].rotation.T @ light.direction  # in the world, from the middle of the arc
    views = []
    for number, which in job.shots:
        frame, world = frames[number]
        camera = cameras[which]
        vertices = to_camera(world, camera.rotation, camera.translation / 1000)
        matrix = intrinsics(camera.focal, camera.centre)
        image, _ = render_frame(
            [Mesh(vertices, body.faces, subject.appearance)],
            matrix,
            scenes[which],
            replace(light, direction=camera.rotation @ towards),
        )
        place = (job.subject, job.action, job.subaction, which, frame.index)
        save_frame(job.root / human36m.IMAGES / human36m.image_name(*place), image)
        box = tight_box(project(vertices, matrix))
        views.append(View(frame, which, _enlarge(box, job.params.box), size))
    return views


def _act(
    rng: np.random.Generator, body: BodyModel, subject: Subject, job: SubAction
) -> list[tuple[Frame, np.ndarray]]:
    """The stored frames of a sub-action, and the vertices of each in the world, metres."""
    length = job.shots[-1][0] + 1
    poses = pose_sequence(rng, length * job.step, job.params.yaw / 2)[:: job.step]
    poses[:, :3] = compose(UPRIGHT, poses[:, :3])
    vertices = posed_vertices(body, poses, subject.betas)
    path = rng.uniform(-0.25, 0.25, 2) + np.linspace(0, 1, length)[:, None] * rng.normal(0, 0.1, 2)
    translations = np.concatenate([path, -vertices[..., 2].min(1)[:, None]], axis=1)
    translations[:, :2] -= kinematic_joints(body, poses[:1], subject.betas)[0, 0, :2]
    vertices += translations[:, None]
    regressor = body.regressor.double().numpy()
    return [
        (
            Frame(
                action=job.action,
                subaction=job.subaction,
                index=index * job.step,
                joints=regressor @ vertices[index] * 1000,
                fit={
                    "pose": poses[index], "shape": subject.betas, "trans": translations[index]
                } if job.split != "test" else None,
            ),
            vertices[index],
        )
        for index in range(length)
    ]  # fmt: skip


def _enlarge(box: np.ndarray, factor: float) -> np.ndarray:
    margin = (factor - 1) / 2 * box[2:]
    return np.concatenate([box[:2] - margin, box[2:] + 2 * margin])
