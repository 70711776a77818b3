"""What the rendered stand-ins share: seeds, workers, cameras, subjects and frames.

A stand-in is cut into jobs (a sequence, or a handful of hands) that know their own random seed.
So the bytes do not depend on the number of workers, nor on how often a rendering was killed.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from PIL import Image

from hmdiff.bodies.model import BodyModel
from hmdiff.checkpoints import UNSAVED, Checkpoints
from hmdiff.checkpoints.parts import Parts
from hmdiff.rendering.appearance import sample_clothing
from hmdiff.rendering.scene import Appearance

JPEG_QUALITY = 92  # of the rendered frames
BETA_LIMIT = 2.5  # standard deviations of shape; beyond them bodies look odd


class Placed(Protocol):
    """A job, as a dataclass, that writes files below ``root``."""

    root: Path


Job = TypeVar("Job", bound=Placed)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Subject:
    """Somebody's shape and looks."""

    betas: np.ndarray  # (10,)
    appearance: Appearance


def sample_subject(rng: np.random.Generator, body: BodyModel) -> Subject:
    """A subject: betas of a clipped unit normal, clothes (or the skin of a hand)."""
    betas = np.clip(rng.normal(size=10), -BETA_LIMIT, BETA_LIMIT)
    template = body.template.numpy()
    return Subject(betas, sample_clothing(rng, template, body.kind.name))


def posed_vertices(body: BodyModel, poses: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """(n, V, 3) float64 model output of ``poses`` (n, P) at one shape (10,), metres."""
    shape = torch.as_tensor(betas, dtype=torch.float32).expand(len(poses), -1)
    return body.vertices(torch.as_tensor(poses, dtype=torch.float32), shape).double().numpy()


def look_at(
    position: np.ndarray, target: np.ndarray, up: np.ndarray, roll: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """World-to-camera R (3, 3) and t (3,) of a camera at ``position`` that looks at ``target``.

    ``up`` (3,) is the world's; ``roll`` (radians) turns the picture about its axis.
    """
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    turned = np.cos(roll) * right + np.sin(roll) * down
    rotation = np.stack([turned, np.cross(forward, turned), forward])
    return rotation, -rotation @ position


def save_frame(path: Path, image: np.ndarray) -> None:
    """Write ``image`` (h, w, 3) uint8 as JPEG or PNG, by the name; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=JPEG_QUALITY)


def split_evenly(total: int, longest: int) -> list[int]:
    """``total`` as the fewest parts of at most ``longest``, which differ by one at most."""
    parts = -(-total // longest)
    return [total // parts + (index < total % parts) for index in range(parts)]


def run_jobs(
    render: Callable[[BodyModel, Job], Result],
    jobs: Sequence[Job],
    folder: Path,
    workers: int,
    checkpoints: Checkpoints = UNSAVED,
    types: tuple[type, ...] = (),
) -> list[Result]:
    """``render(body, job)`` for every job, in order, in ``workers`` processes.

    Each process loads the body model of ``folder`` once and computes in one thread: results must
    not depend on how many there are. One worker is this process itself. Jobs that an earlier run
    has finished are taken from ``checkpoints``; ``types`` are the dataclasses of the results.
    """
    parts = checkpoints.parts(types)
    if parts:
        parts.look(len(jobs))
    results = _run_all(partial(_run, render, parts), list(enumerate(jobs)), folder, workers)
    if parts:
        parts.gather(len(jobs), jobs[0].root)
    return results


def _run_all(
    run: Callable[[tuple[int, Job]], Result],
    jobs: Sequence[tuple[int, Job]],
    folder: Path,
    workers: int,
) -> list[Result]:
    if workers == 1:
        threads = torch.get_num_threads()
        try:
            _load(folder)
            return [run(job) for job in jobs]
        finally:
            torch.set_num_threads(threads)
    # A fork would inherit torch's threads in an unknown state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_load, initargs=(folder,)) as pool:
        return list(pool.map(run, jobs, chunksize=4))


_body: BodyModel | None = None  # of this process


def _load(folder: Path) -> None:
    global _body
    torch.set_num_threads(1)
    _body = BodyModel.load(folder)


def _run(
    render: Callable[[BodyModel, Job], Result], parts: Parts | None, numbered: tuple[int, Job]
) -> Result:
    assert _body is not None
    number, job = numbered
    if parts is None:
        return render(_body, job)
    return parts.make(number, lambda root: render(_body, replace(job, root=root)))
