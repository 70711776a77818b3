"""From the samples of a native layout to the rows of a prepared file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from hmdiff.bodies.model import BodyModel
from hmdiff.checkpoints import UNSAVED, Checkpoints
from hmdiff.datasets.crop import Square, UnreadableImage, crop_camera, crop_image, encode_jpeg
from hmdiff.datasets.meshes import camera_joints, camera_vertices
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.tally import UNREADABLE, Tally
from hmdiff.datasets.writer import Record
from hmdiff.params.data import PrepareParams

BATCH = 64  # samples posed, cropped and handed on together


def records(
    samples: Iterable[Sample],
    square: Callable[[Sample], Square],
    body: BodyModel,
    params: PrepareParams,
    tally: Tally,
    checkpoints: Checkpoints = UNSAVED,
) -> Iterator[Record]:
    """Crop the squares out of the samples' images and join the ground truth, in order.

    Joints that the native data lack are regressed from the mesh. Left out and counted are: a
    sample whose mesh is further from its own joints than ``fit_limit``, one whose root joint
    nobody knows, and an unreadable image. ``samples`` is drawn on a batch at a time. The number of
    threads changes nothing but the time: decoding and resizing release Python's lock. Crops that
    an earlier run has made are taken from ``checkpoints``; everything else is done again, for it
    is little beside them.

    Raises:
        UserError: too many images are unreadable, or a box is no box.
    """
    regressor, root = body.regressor.cpu().numpy(), body.kind.root

    def crop(task: tuple[Sample, np.ndarray]) -> bytes | UnreadableImage:
        sample, _ = task
        try:
            image = crop_image(sample.image, square(sample), params.size)
        except UnreadableImage as error:
            return error
        return encode_jpeg(image, params.quality, params.chroma)

    samples = iter(samples)
    tasks: list[tuple[Sample, np.ndarray]] = []  # of the batch that is cropped next
    with ThreadPoolExecutor(params.workers) as pool:

        def cropped(first: int) -> Iterator[dict[str, Any]]:
            while True:
                yield _packed(pool.map(crop, tasks))

        blocks = checkpoints.blocks(cropped)
        while batch := list(islice(samples, BATCH)):
            tally.read += len(batch)
            tasks.clear()
            for sample, mesh in zip(batch, camera_vertices(batch, body), strict=True):
                joints = camera_joints(sample, mesh, regressor, root)
                if sample.joints is not None and np.isnan(joints[root]).any():
                    tally.skip("unknown root", sample.sample_id)
                elif not fits(sample, mesh, regressor):
                    tally.skip("bad fit", sample.sample_id)
                else:
                    # Pose and betas alone do not tell whose model they are for.
                    kept = sample if sample.gender == "neutral" else replace(sample, vertices=mesh)
                    tasks.append((kept, joints))
            crops = _unpacked(next(blocks))
            for (sample, joints), (jpeg, error) in zip(tasks, crops, strict=True):
                if error:
                    tally.skip(UNREADABLE, error)
                else:
                    camera = crop_camera(sample.camera, square(sample), params.size)
                    yield Record(sample, jpeg, camera, joints)
            tally.check(params.skip_limit, finished=False)
    tally.check(params.skip_limit, finished=True)


def _packed(crops: Iterable[bytes | UnreadableImage]) -> dict[str, Any]:
    """A block of what became of a batch's images: JPEG bytes end to end, and errors."""
    made = [(b"", str(crop)) if isinstance(crop, UnreadableImage) else (crop, "") for crop in crops]
    return {
        "jpeg": np.frombuffer(bytearray().join(jpeg for jpeg, _ in made), np.uint8),
        "size": np.array([len(jpeg) for jpeg, _ in made], np.int64),
        "error": [error for _, error in made],
    }


def _unpacked(block: dict[str, Any]) -> Iterator[tuple[bytes, str]]:
    ends = np.cumsum(block["size"])
    for end, size, error in zip(ends, block["size"], block["error"], strict=True):
        yield block["jpeg"][end - size : end].tobytes(), error


def fits(sample: Sample, vertices: np.ndarray | None, regressor: np.ndarray) -> bool:
    """Whether the mesh agrees with the sample's own joints to ``fit_limit`` on average.

    The joints that the sample knows are first moved to a common mean, as I2L-MeshNet does.
    """
    if sample.fit_limit is None or sample.joints is None or vertices is None:
        return True
    gap = (regressor @ vertices - sample.joints)[~np.isnan(sample.joints).any(1)]
    return bool(np.linalg.norm(gap - gap.mean(0), axis=1).mean() <= sample.fit_limit)
