"""From the samples of a native layout to the rows of a prepared file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets.crop import Square, crop_camera, crop_image, encode_jpeg
from hmdiff.datasets.meshes import camera_joints, camera_vertices
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.writer import Record
from hmdiff.params.data import PrepareParams

BATCH = 64  # samples posed, cropped and handed on together


def records(
    samples: Sequence[Sample], squares: Sequence[Square], body: BodyModel, params: PrepareParams
) -> Iterator[Record]:
    """Crop ``squares`` out of the samples' images and join the ground truth, in order.

    Joints that the native data lack are regressed from the mesh. A sample whose mesh is further
    from its own joints than ``fit_limit`` is left out. The number of threads changes nothing but
    the time: decoding and resizing release Python's lock.

    Raises:
        UserError: an image is missing or cannot be decoded.
    """
    regressor = body.regressor.cpu().numpy()

    def make(task: tuple[Sample, Square, np.ndarray]) -> Record:
        sample, square, joints = task
        image = crop_image(sample.image, square, params.size)
        return Record(
            sample=sample,
            jpeg=encode_jpeg(image, params.quality, params.chroma),
            camera=crop_camera(sample.camera, square, params.size),
            joints=joints,
        )

    with ThreadPoolExecutor(params.workers) as pool:
        for start in range(0, len(samples), BATCH):
            part = slice(start, start + BATCH)
            vertices = camera_vertices(samples[part], body)
            tasks = [
                (sample, square, camera_joints(sample, mesh, regressor))
                for sample, square, mesh in zip(samples[part], squares[part], vertices, strict=True)
                if fits(sample, mesh, regressor)
            ]
            yield from pool.map(make, tasks)


def fits(sample: Sample, vertices: np.ndarray | None, regressor: np.ndarray) -> bool:
    """Whether the mesh agrees with the sample's own joints to ``fit_limit`` on average.

    Both sets of joints are first moved to a common mean, as I2L-MeshNet does.
    """
    if sample.fit_limit is None or sample.joints is None or vertices is None:
        return True
    gap = regressor @ vertices - sample.joints
    return bool(np.linalg.norm(gap - gap.mean(0), axis=1).mean() <= sample.fit_limit)
