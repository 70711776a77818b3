"""The rendered stand-in of 3DPW: outdoors, a moving camera, occluders, one or two people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmdiff.bodies.model import BodyModel
from hmdiff.checkpoints import UNSAVED, Checkpoints
from hmdiff.datasets import threedpw
from hmdiff.datasets.camera import intrinsics, to_camera
from hmdiff.datasets.meshes import kinematic_joints
from hmdiff.datasets.standins import (
    look_at,
    posed_vertices,
    run_jobs,
    sample_subject,
    save_frame,
)
from hmdiff.datasets.threedpw import CameraTrack, Person
from hmdiff.params.data import ThreeDPWDataset, ThreeDPWStandIn
from hmdiff.rendering.backgrounds import sample_background
from hmdiff.rendering.occluders import sample_occluder
from hmdiff.rendering.poses import pose_sequence
from hmdiff.rendering.scene import Appearance, Mesh, render_frame, sample_light

UP = np.array([0.0, 1.0, 0.0])
STRIDE = 6  # instants of motion between stored frames, so that few frames show many poses
DRIFT = 8.0  # degrees that the camera may walk about its subject
APART = 0.9  # metres between two people
MARGIN = 1.25  # side of the scenery over the frame's: the part that a panning camera sees


@dataclass(frozen=True)
class Scene:
    """A sequence to render."""

    root: Path
    split: str
    name: str
    people: int
    frames: int
    seed: np.random.SeedSequence
    params: ThreeDPWStandIn
    gendered: bool  # people have the bodies of their genders, else the neutral one


def render(
    root: Path,
    folder: Path,
    params: ThreeDPWStandIn,
    dataset: ThreeDPWDataset,
    seed: int,
    checkpoints: Checkpoints = UNSAVED,
) -> dict[str, int]:
    """Render the stand-in below ``root`` with the body models in ``folder``; persons per split."""
    gendered = dataset.ground_truth == "gendered"
    counts = {"train": params.train, "val": params.val, "test": params.test}
    seeds = np.random.SeedSequence([seed, 3])
    rng = np.random.default_rng(seeds.spawn(1)[0])
    jobs: list[Scene] = []
    for split, left in counts.items():
        number = 0
        while left:
            people = 2 if left >= 2 and rng.random() < params.pairs else 1
            frames = min(params.frames, left // people)
            name = f"outdoors_{split}_{number:05d}"
            jobs.append(
                Scene(root, split, name, people, frames, seeds.spawn(1)[0], params, gendered)
            )
            left -= people * frames
            number += 1
    run_jobs(_render, jobs, folder, params.workers, checkpoints)
    return counts


def _render(body: BodyModel, job: Scene) -> None:
    rng, params = np.random.default_rng(job.seed), job.params
    people, looks, meshes = [], [], []
    for index in range(job.people):
        person, appearance, vertices = _walk(rng, body, job, (index - (job.people - 1) / 2) * APART)
        people.append(person)
        looks.append(appearance)
        meshes.append(vertices)
    camera = _film(rng, job)
    scenery = _pan(rng, job, camera)
    light = sample_light(rng)
    for frame, extrinsics in enumerate(camera.extrinsics):
        scene = []
        for vertices, appearance in zip(meshes, looks, strict=True):
            seen = to_camera(vertices[frame], extrinsics[:3, :3], extrinsics[:3, 3])
            scene.append(Mesh(seen, body.faces, appearance))
        hiding = [
            sample_occluder(rng, mesh.vertices) for mesh in scene if rng.random() < params.occluders
        ]
        image, _ = render_frame([*scene, *hiding], camera.intrinsics, scenery[frame], light)
        save_frame(threedpw.image_path(job.root, job.name, frame), image)
    stored = {split: name for name, split in threedpw.FOLDERS.items()}[job.split]
    threedpw.write_sequence(job.root, stored, job.name, people, camera)


def _walk(
    rng: np.random.Generator, body: BodyModel, job: Scene, aside: float
) -> tuple[Person, Appearance, np.ndarray]:
    """Somebody about ``aside`` metres to the right; world-frame vertices (frames, V, 3)."""
    subject = sample_subject(rng, body)
    limit = max(job.params.yaw - DRIFT, 0)
    poses = pose_sequence(rng, job.frames * STRIDE, limit)[::STRIDE]
    steps = np.linspace(0, 1, job.frames)[:, None] * rng.normal(0, 0.12, 2)
    ground = np.array([aside, 0]) + rng.uniform(-0.1, 0.1, 2) + steps
    gender = str(rng.choice(list(threedpw.LETTERS)))
    if job.gendered:
        body = body.of_gender(threedpw.LETTERS[gender])
    vertices = posed_vertices(body, poses, subject.betas)
    joints = kinematic_joints(body, poses, subject.betas)
    translations = np.stack([ground[:, 0], -vertices[..., 1].min(1), ground[:, 1]], axis=1)
    translations[:, [0, 2]] -= joints[0, 0, [0, 2]]  # the root does not move with the pose
    person = Person(
        betas=subject.betas,
        poses=poses,
        translations=translations,
        joints=joints + translations[:, None],
        valid=np.ones(job.frames, bool),
        gender=gender,
    )
    return person, subject.appearance, vertices + translations[:, None]


def _film(rng: np.random.Generator, job: Scene) -> CameraTrack:
    """A hand-held camera that drifts about the people and turns a little."""
    frame = job.params.frame
    focal = frame * rng.uniform(1.0, 1.4)
    # Pixels a metre, as a share of the frame: one person fills about half of it.
    scale = frame * (rng.uniform(0.24, 0.34) if job.people == 1 else rng.uniform(0.22, 0.27))
    distance = focal / scale
    when = np.linspace(0, 1, job.frames)
    drift = np.radians(min(DRIFT, job.params.yaw))
    azimuth = rng.uniform(-drift, drift) * (1 - when) + rng.uniform(-drift, drift) * when
    height = rng.uniform(1.1, 1.9)
    target = np.array([rng.uniform(-0.25, 0.25), rng.uniform(0.8, 1.05), 0])
    shake = rng.normal(0, 0.03, 3) * when[:, None]
    roll = rng.normal(0, 0.03)
    extrinsics = np.tile(np.eye(4), (job.frames, 1, 1))
    for index, angle in enumerate(azimuth):
        position = np.array([distance * np.sin(angle), height, distance * np.cos(angle)])
        rotation, translation = look_at(position, target + shake[index], UP, roll)
        extrinsics[index, :3, :3], extrinsics[index, :3, 3] = rotation, translation
    return CameraTrack(intrinsics(focal, frame / 2), extrinsics)


def _pan(rng: np.random.Generator, job: Scene, camera: CameraTrack) -> list[np.ndarray]:
    """What is behind the people in each frame: a far scenery that shifts as the camera turns."""
    frame = job.params.frame
    side = round(frame * MARGIN)
    scenery = sample_background(rng, job.split, (side, side), "varied")
    forward = camera.extrinsics[:, 2, :3]
    shift = camera.intrinsics[0, 0] * np.stack([forward[:, 0], -forward[:, 1]], axis=1)
    corner = np.clip((side - frame) / 2 + shift - shift.mean(0), 0, side - frame).astype(int)
    return [scenery[y : y + frame, x : x + frame] for x, y in corner]
