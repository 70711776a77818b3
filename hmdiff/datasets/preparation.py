"""From the samples of a native layout to the rows of a prepared file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import numpy as np

from hmdiff.bodies.model import BodyModel
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
) -> Iterator[Record]:
    """Crop the squares out of the samples' images and join the ground truth, in order.

    Joints that the native data lack are regressed from the mesh. Left out and counted are: a
    sample whose mesh is further from its own joints than ``fit_limit``, one whose root joint
    nobody knows, and an unreadable image. ``samples`` is drawn on a batch at a time. The number of
    threads changes nothing but the time: decoding and resizing release Python's lock.

    Raises:
        UserError: too many images are unreadable, or a box is no box.
    """
    regressor, root = body.regressor.cpu().numpy(), body.kind.root

    def make(task: tuple[Sample, np.ndarray]) -> Record | UnreadableImage:
        sample, joints = task
        where = square(sample)
        try:
            image = crop_image(sample.image, where, params.size)
        except UnreadableImage as error:
            return error
        return Record(
            sample=sample,
            jpeg=encode_jpeg(image, params.quality, params.chroma),
            camera=crop_camera(sample.camera, where, params.size),
            joints=joints,
        )

    samples = iter(samples)
    with ThreadPoolExecutor(params.workers) as pool:
        while batch := list(islice(samples, BATCH)):
            tally.read += len(batch)
            tasks = []
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
            for made in pool.map(make, tasks):
                if isinstance(made, Record):
                    yield made
                else:
                    tally.skip(UNREADABLE, str(made))
            tally.check(params.skip_limit, finished=False)
    tally.check(params.skip_limit, finished=True)


def fits(sample: Sample, vertices: np.ndarray | None, regressor: np.ndarray) -> bool:
    """Whether the mesh agrees with the sample's own joints to ``fit_limit`` on average.

    The joints that the sample knows are first moved to a common mean, as I2L-MeshNet does.
    """
    if sample.fit_limit is None or sample.joints is None or vertices is None:
        return True
    gap = (regressor @ vertices - sample.joints)[~np.isnan(sample.joints).any(1)]
    return bool(np.linalg.norm(gap - gap.mean(0), axis=1).mean() <= sample.fit_limit)
