"""What COCO and MPII share: people in COCO-style JSON, and a file of fits by annotation id."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

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
from hmdiff.params.data import CocoDataset, MPIIDataset


def read_people(
    people: Path, fits: Path, images: Path, params: CocoDataset | MPIIDataset, tally: Tally
) -> Iterator[Sample]:
    """Every annotated person who has a fit, in the order of the annotations; all train.

    Left out and counted are crowds, persons with fewer annotated keypoints than
    ``params.keypoints``, those whose box has no side of ``params.smallest_box`` pixels, and those
    without a fit. The joints are those of the fit.

    Args:
        people: COCO-style JSON; fits: ``{annotation id: {smpl_param, cam_param}}``.
        images: folder of the images; whatever folder a ``file_name`` names is left off.

    Raises:
        UserError: a file is missing or damaged; the line names it, the annotation and the key.
    """
    path, entry = people, "an image"
    with Index(people) as names, Index(fits, read_fits(fits)) as fitted:
        try:
            for image in entries(people, "images"):
                names.put(image["id"], image["file_name"])
            entry = "an annotation"
            for note in entries(people, "annotations"):
                number = note["id"]
                path, entry = people, f"annotation {number}"
                box = read_box(note["bbox"], params.smallest_box)
                if note.get("iscrowd"):
                    tally.skip("crowd", str(number))
                elif note.get("num_keypoints", params.keypoints) < params.keypoints:
                    tally.skip("few keypoints", str(number))
                elif box is None:
                    tally.skip("small box", str(number))
                elif (fit := fitted.get(number)) is None:
                    tally.skip("no fit", str(number))
                elif (name := names.get(note["image_id"])) is None:
                    raise ValueError(f"the images have no id {note['image_id']}")
                else:
                    path = fits
                    camera = fit["cam_param"]
                    yield Sample(
                        sample_id=f"{Path(name).stem}/{number}",
                        image=below(images, Path(name).name),
                        split="train",
                        bbox=box,
                        camera=read_camera(camera["focal"], camera["princpt"]),
                        **read_fit(fit["smpl_param"]),
                    )
        except DAMAGE as error:
            raise damaged(path, entry, error) from None


def write_people(
    people: Path, fits: Path, file_name: Callable[[int], str], shots: Sequence[Shot]
) -> None:
    """Write both files; ``file_name`` gives that of an image's number. The images are the caller's.

    Of the keypoints there is the number alone, which is all that the reader looks at.
    """
    images, notes, fitted = [], [], {}
    for shot in shots:
        width, height = shot.size
        images.append(
            {"id": shot.number, "file_name": file_name(shot.number),
             "width": width, "height": height}
        )  # fmt: skip
        camera = {"focal": shot.focal.tolist(), "princpt": shot.centre.tolist()}
        for person in shot.people:
            number = len(notes) + 1
            notes.append(
                {"id": number, "image_id": shot.number, "bbox": person.bbox.tolist(),
                 "category_id": 1, "iscrowd": 0, "num_keypoints": 17}
            )  # fmt: skip
            fitted[str(number)] = {"smpl_param": as_fit(person), "cam_param": camera}
    write_text(people, json.dumps({"images": images, "annotations": notes}))
    write_text(fits, json.dumps(fitted))
