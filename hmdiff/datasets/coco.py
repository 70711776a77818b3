"""COCO's keypoint annotations with fits of SMPL that others made.

``annotations/person_keypoints_train2017.json``, ``images/train2017/000000000009.jpg``, and the
fits of NeuralAnnot or, where those are not there, of SMPLify-X as I2L-MeshNet redistributes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hmdiff.datasets.coco_style import read_people, write_people
from hmdiff.datasets.fitted import Shot, first_present
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.tally import Tally
from hmdiff.params.data import CocoDataset

ANNOTATIONS, IMAGES = "annotations", "images/train2017"
PEOPLE = "person_keypoints_train2017.json"
FITS = ("MSCOCO_train_SMPL_NeuralAnnot.json", "coco_smplifyx_train.json")


def image_path(root: Path, number: int) -> Path:
    """Where image ``number`` lies."""
    return root / IMAGES / f"{number:012d}.jpg"


def write(root: Path, shots: Sequence[Shot]) -> None:
    """Write the annotations and NeuralAnnot's fits; the images are the caller's."""
    folder = root / ANNOTATIONS
    write_people(
        folder / PEOPLE, folder / FITS[0], lambda number: image_path(root, number).name, shots
    )


def fits_path(root: Path) -> Path:
    """The file of fits that :func:`read` takes; see :func:`fitted.first_present`."""
    return first_present(root / ANNOTATIONS, FITS)


def read(root: Path, params: CocoDataset, tally: Tally) -> Iterator[Sample]:
    """Every person with a fit; see :func:`hmdiff.datasets.coco_style.read_people`."""
    people = root / ANNOTATIONS / PEOPLE
    return read_people(people, fits_path(root), root / IMAGES, params, tally)
