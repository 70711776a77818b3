"""The rendered stand-in of FreiHAND: one right hand in 224 x 224 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.model_files import read_folder
from hmdiff.checkpoints import UNSAVED, Checkpoints
from hmdiff.datasets import freihand
from hmdiff.datasets.camera import intrinsics
from hmdiff.datasets.freihand import FRAME, Hands
from hmdiff.datasets.standins import (
    posed_vertices,
    run_jobs,
    sample_subject,
    save_frame,
    split_evenly,
)
from hmdiff.params.data import FreiHandDataset, FreiHandStandIn
from hmdiff.rendering.backgrounds import sample_background
from hmdiff.rendering.forearm import sample_forearm
from hmdiff.rendering.occluders import sample_occluder
from hmdiff.rendering.poses import sample_hand_orientation, sample_hand_pose
from hmdiff.rendering.scene import Mesh, render_frame, sample_light

BLOCK = 8  # hands of one subject
FOCAL = (420.0, 560.0)  # pixels; FreiHAND's lie about 480
SCALE = (600.0, 820.0)  # pixels a metre: a flat hand of 18 cm covers 108 to 148 of the 180 cropped


@dataclass(frozen=True)
class Block:
    """Hands of one subject to render, numbered from ``first`` in the list of ``part``."""

    root: Path
    part: str  # training or evaluation
    split: str
    first: int
    count: int
    total: int  # entries of the list: the distance between versions of one hand
    versions: int
    seed: np.random.SeedSequence
    components: np.ndarray  # (45, 45) hands_components of the model
    params: FreiHandStandIn


def render(
    root: Path,
    folder: Path,
    params: FreiHandStandIn,
    dataset: FreiHandDataset,
    seed: int,
    checkpoints: Checkpoints = UNSAVED,
) -> dict[str, int]:
    """Render the stand-in below ``root`` with the hand model in ``folder``; images per split."""
    seeds = np.random.SeedSequence([seed, 21])
    components = read_folder(folder)[1]["hands_components"]
    # The held-out samples come last, and subjects and backgrounds change with them.
    unique = -(-params.train // params.versions)
    lists = {
        "training": {"train": unique, "val": dataset.held_out},
        "evaluation": {"test": params.test},
    }
    jobs: list[Block] = []
    for part, splits in lists.items():
        first, total = 0, sum(splits.values())
        for split, count in splits.items():
            versions = params.versions if part == "training" else 1
            for size in split_evenly(count, BLOCK):
                jobs.append(
                    Block(
                        root, part, split, first, size, total, versions, seeds.spawn(1)[0],
                        components, params,
                    )
                )  # fmt: skip
                first += size
    blocks = run_jobs(_render, jobs, folder, params.workers, checkpoints, (Hands,))
    for part in lists:
        own = [vars(hands) for job, hands in zip(jobs, blocks, strict=True) if job.part == part]
        joined = {name: np.concatenate([hands[name] for hands in own]) for name in own[0]}
        freihand.write_lists(root, part, Hands(**joined))
    return {"train": unique * params.versions, "val": dataset.held_out, "test": params.test}


def _render(body: BodyModel, job: Block) -> Hands:
    rng = np.random.default_rng(job.seed)
    subject = sample_subject(rng, body)
    poses = np.stack(
        [
            np.concatenate(
                [
                    sample_hand_orientation(rng, job.params.yaw),
                    sample_hand_pose(rng, job.components),
                ]
            )
            for _ in range(job.count)
        ]
    )
    vertices = posed_vertices(body, poses, subject.betas)
    cameras = np.empty((job.count, 3, 3))
    for index in range(job.count):
        cameras[index], offset = _place(rng)
        vertices[index] += offset - vertices[index].mean(0)
        hand = Mesh(vertices[index], body.faces, subject.appearance)
        scene = [hand, sample_forearm(rng, hand)]
        if rng.random() < job.params.occluders:
            scene.append(sample_occluder(rng, hand.vertices))
        for version in range(job.versions):
            scenery = sample_background(rng, job.split, (FRAME, FRAME), "varied")
            image, _ = render_frame(scene, cameras[index], scenery, sample_light(rng))
            number = version * job.total + job.first + index
            save_frame(freihand.image_path(job.root, job.part, number), image)
    joints = body.regressor.double().numpy() @ vertices
    return Hands(cameras, joints, vertices, poses, np.tile(subject.betas, (job.count, 1)))


def _place(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics (3, 3), and where the middle of the hand is, metres, near the optical axis."""
    focal = rng.uniform(*FOCAL)
    depth = focal / rng.uniform(*SCALE)
    camera = intrinsics(focal, FRAME / 2)
    pixels = rng.normal(0, 5, 2)
    return camera, np.array([*(pixels * depth / focal), depth])
