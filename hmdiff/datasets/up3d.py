"""UP-3D: one PNG and one pickled SMPLify fit a person.

``up-3d/00000_image.png``, ``up-3d/00000_body.pkl`` and ``up-3d/trainval.txt``, whose lines are
``/00000_image.png``. The pickle's camera is that of the authors' own renderer (classner/up,
3dfit/render.py): a world point X is at R(rt) X + t, the focal length is f, and the principal point
is the middle of the image.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.unpickle import as_array, read_pickle
from hmdiff.datasets.camera import body_to_camera, intrinsics, project, tight_box
from hmdiff.datasets.fitted import Shot
from hmdiff.datasets.meshes import RestRoot, camera_vertices
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.tally import Tally
from hmdiff.errors import UserError
from hmdiff.files import atomic_file, write_text
from hmdiff.params.data import UP3DDataset

FOLDER, LIST = "up-3d", "trainval.txt"
_BATCH = 64  # bodies posed together, for their boxes

# Size of each part of the pickle; what is None may be left out and is zero then.
_PARTS = {"pose": 72, "betas": 10, "t": 3, "f": 1, "trans": 3, "rt": 3}
_OPTIONAL = ("trans", "rt")


def image_path(root: Path, number: int) -> Path:
    """Where image ``number`` lies."""
    return root / FOLDER / f"{number:05d}_image.png"


def write(root: Path, shots: Sequence[Shot]) -> None:
    """Write the fit of the first person of each shot, and the list; the images are the caller's.

    The centre and the focal lengths of a shot must be what the layout can tell: the middle of the
    image and a single number.
    """
    for shot in shots:
        person = shot.people[0]
        value = {
            "pose": person.pose,
            "betas": person.betas,
            "trans": np.zeros(3),
            "rt": np.zeros(3),
            "t": person.translation,
            "f": float(shot.focal[0]),
        }
        with atomic_file(root / FOLDER / f"{shot.number:05d}_body.pkl") as temporary:
            temporary.write_bytes(pickle.dumps(value, protocol=2))
    lines = [f"/{image_path(root, shot.number).name}\n" for shot in shots]
    write_text(root / FOLDER / LIST, "".join(lines))


def read(root: Path, body: BodyModel, params: UP3DDataset, tally: Tally) -> Iterator[Sample]:
    """Every person of ``trainval.txt``, all train, with the neutral body that SMPLify fitted.

    ``bbox`` is the tight box of the projected mesh, which is that of the silhouette in the data
    set's ``_render_light.png``. The joints are those of the mesh.

    Raises:
        UserError: the list or a fit is missing or damaged.
    """
    samples = _read_fits(root, RestRoot(body))
    while batch := list(islice(samples, _BATCH)):
        for sample, vertices in zip(batch, camera_vertices(batch, body), strict=True):
            if not (vertices[:, 2] > 0).all():
                tally.skip("behind the camera", sample.sample_id)
                continue
            box = tight_box(project(vertices, sample.camera))
            if box[2:].max() < params.smallest_box:
                tally.skip("small box", sample.sample_id)
                continue
            yield replace(sample, bbox=box)


def _read_fits(root: Path, rest_root: RestRoot) -> Iterator[Sample]:
    """The samples, still without their boxes."""
    path = root / FOLDER / LIST
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: no such file, or no text; put back UP-3D's list") from None
    if not names:
        raise UserError(f"{path}: names no image; put back UP-3D's list")
    for name in names:
        stem = Path(name).name.removesuffix("_image.png")
        image = root / FOLDER / f"{stem}_image.png"
        place = root / FOLDER / f"{stem}_body.pkl"
        fit = _read_fit(place)
        try:
            pose, translation = body_to_camera(
                fit["pose"][None],
                fit["trans"][None],
                rest_root(fit["betas"]),
                Rotation.from_rotvec(fit["rt"]).as_matrix(),
                fit["t"],
            )
        except ValueError as error:
            raise UserError(f"{place}: pose, rt: {error}; put back the file of UP-3D") from None
        yield Sample(
            sample_id=stem,
            image=image,
            split="train",
            bbox=np.zeros(4),
            camera=intrinsics(fit["f"], np.array(_size(image)) / 2),
            pose=pose[0],
            betas=fit["betas"],
            translation=translation[0],
        )


def _read_fit(path: Path) -> dict[str, np.ndarray]:
    content = read_pickle(path)
    fit = {}
    for key, size in _PARTS.items():
        if key not in content and key not in _OPTIONAL:
            raise UserError(f"{path}: has no {key!r}; put back the file of UP-3D")
        try:
            value = as_array(content.get(key, np.zeros(size)))
            array = np.asarray(value, np.float64).reshape(-1)
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}: {key} {error}; put back the file of UP-3D") from None
        if len(array) != size or not np.isfinite(array).all():
            raise UserError(f"{path}: {key} is not {size} finite numbers; put back the file")
        fit[key] = array
    if fit["f"] <= 0:
        raise UserError(f"{path}: f is not positive; put back the file of UP-3D")
    return fit


def _size(image: Path) -> tuple[int, int]:
    """Width and height; zeros where the header is unreadable, for then cropping will count it."""
    try:
        with Image.open(image) as opened:
            return opened.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 0, 0
