"""MPII Human Pose in COCO-style JSON, as I2L-MeshNet's author redistributes it, with fits of SMPL.

``annotations/train.json``, ``images/015601864.jpg`` and NeuralAnnot's fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hmdiff.datasets.coco_style import read_people, write_people
from hmdiff.datasets.fitted import Shot, first_present
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.tally import Tally
from hmdiff.params.data import MPIIDataset

ANNOTATIONS, IMAGES = "annotations", "images"
PEOPLE = "train.json"
FITS = ("MPII_train_SMPL_NeuralAnnot.json",)


def image_path(root: Path, number: int) -> Path:
    """Where image ``number`` lies."""
    return root / IMAGES / f"{number:09d}.jpg"


def write(root: Path, shots: Sequence[Shot]) -> None:
    """Write the annotations and the fits; the images are the caller's."""
    folder = root / ANNOTATIONS
    write_people(
        folder / PEOPLE,
        folder / FITS[0],
        lambda number: image_path(root, number).relative_to(root).as_posix(),
        shots,
    )


def fits_path(root: Path) -> Path:
    """The file of fits that :func:`read` takes; see :func:`fitted.first_present`."""
    return first_present(root / ANNOTATIONS, FITS)


def read(root: Path, params: MPIIDataset, tally: Tally) -> Iterator[Sample]:
    """Every person with a fit; see :func:`hmdiff.datasets.coco_style.read_people`."""
    people = root / ANNOTATIONS / PEOPLE
    return read_people(people, fits_path(root), root / IMAGES, params, tally)
