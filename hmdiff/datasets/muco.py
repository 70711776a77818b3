"""MuCo-3DHP as I2L-MeshNet redistributes it: composited people, motion capture in the camera frame.

``annotations/MuCo-3DHP.json`` is COCO-style, with a camera (``f``, ``c``) an image and 21 joints a
person in millimetres; ``annotations/smpl_param.json`` has SMPLify-X fits of some annotations by
their id; the images lie below ``images/`` under their ``file_name``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmdiff.datasets.fitted import (
    DAMAGE,
    Shot,
    as_fit,
    below,
    damaged,
    read_box,
    read_camera,
    read_fit,
    read_fits,
)
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.streaming import Index, entries
from hmdiff.datasets.tally import Tally
from hmdiff.files import write_text
from hmdiff.kinds import BODY
from hmdiff.params.data import MuCoDataset

ANNOTATIONS, IMAGES = "annotations", "images"
PEOPLE, FITS = "MuCo-3DHP.json", "smpl_param.json"

# The 21 joints of `keypoints_cam`, in the file's order, by their names in Kind.joints where they
# mean the same. I2L-MeshNet, too, compares the top of the head with the regressor's row "Head";
# thorax, spine and the middle of the head are other points than its neck, torso and nose.
JOINTS = (
    "Head", "(Thorax)", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist",
    "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Pelvis", "(Spine)", "(Head)",
    "(R_Hand)", "(L_Hand)", "(R_Toe)", "(L_Toe)",
)  # fmt: skip
KNOWN = tuple(index for index, name in enumerate(BODY.joints) if name in JOINTS)
TO_KIND = tuple(JOINTS.index(BODY.joints[index]) for index in KNOWN)
PELVIS = JOINTS.index("Pelvis")


def image_path(root: Path, number: int) -> Path:
    """Where the writer's image ``number`` lies."""
    return root / IMAGES / "unaugmented_set" / f"{number:06d}.jpg"


def write(root: Path, shots: Sequence[Shot]) -> None:
    """Write both annotation files; the images are the caller's. Unknown joints are written as 0."""
    images, notes, fits = [], [], {}
    for shot in shots:
        width, height = shot.size
        name = image_path(root, shot.number).relative_to(root / IMAGES).as_posix()
        images.append(
            {"id": shot.number, "file_name": name, "width": width, "height": height,
             "f": shot.focal.tolist(), "c": shot.centre.tolist()}
        )  # fmt: skip
        for person in shot.people:
            number = len(notes)
            joints = np.zeros((len(JOINTS), 3))
            joints[list(TO_KIND)] = person.joints[list(KNOWN)] * 1000
            notes.append(
                {"id": number, "image_id": shot.number, "bbox": person.bbox.tolist(),
                 "keypoints_cam": joints.tolist()}
            )  # fmt: skip
            fits[str(number)] = as_fit(person)
    folder = root / ANNOTATIONS
    write_text(folder / PEOPLE, json.dumps({"images": images, "annotations": notes}))
    write_text(folder / FITS, json.dumps(fits))


def read(root: Path, params: MuCoDataset, tally: Tally) -> Iterator[Sample]:
    """Of every image the person whose pelvis is nearest the camera, as I2L-MeshNet; all train.

    Where that person has no fit, there are joints alone.

    Raises:
        UserError: a file is missing or damaged; the line names it, the entry and the key.
    """
    people, fits = root / ANNOTATIONS / PEOPLE, root / ANNOTATIONS / FITS
    path, entry = people, "an annotation"
    with Index(people) as nearest, Index(fits, read_fits(fits)) as fitted:
        try:
            for note in entries(people, "annotations"):
                entry = f"annotation {note['id']}"
                known = nearest.get(note["image_id"])
                if known is None or _depth(note) < _depth(known):
                    nearest.put(note["image_id"], note)
            entry = "an image"
            for image in entries(people, "images"):
                path, entry = people, f"image {image['id']}"
                note = nearest.get(image["id"])
                if note is None:
                    tally.skip("nobody in the image", str(image["id"]))
                    continue
                box = read_box(note["bbox"], params.smallest_box)
                if box is None:
                    tally.skip("small box", str(note["id"]))
                    continue
                sample = {
                    "sample_id": f"{image['id']}/{note['id']}",
                    "image": below(root / IMAGES, image["file_name"]),
                    "bbox": box,
                    "camera": read_camera(image["f"], image["c"]),
                    "joints": _joints(note),
                }
                path, entry = fits, f"annotation {note['id']}"
                fit = fitted.get(note["id"])
                yield Sample(
                    split="train",
                    fit_limit=params.fit_limit / 1000,
                    **sample,
                    **({} if fit is None else read_fit(fit)),
                )
        except DAMAGE as error:
            raise damaged(path, entry, error) from None


def _depth(note: dict[str, Any]) -> float:
    return float(note["keypoints_cam"][PELVIS][2])


def _joints(note: dict[str, Any]) -> np.ndarray:
    """(17, 3) metres; NaN where MuCo has no such joint."""
    stored = np.array(note["keypoints_cam"], float).reshape(len(JOINTS), 3)
    joints = np.full((BODY.joint_count, 3), np.nan)
    joints[list(KNOWN)] = stored[list(TO_KIND)] / 1000
    return joints
