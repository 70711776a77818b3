"""``hmdiff predict``: pictures in batches, finished ones skipped, one folder a person."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from hmdiff.errors import UserError
from hmdiff.files import atomic_file, read_json
from hmdiff.prediction.inputs import (
    Box,
    Picture,
    Source,
    boxes_of,
    check_box,
    count_pictures,
    find_sources,
    pictures,
)
from hmdiff.prediction.model import Recoverer
from hmdiff.prediction.output import OVERLAY, RECORD, save
from hmdiff.prediction.overlay import contact_sheets, thumbnail


@dataclass(frozen=True)
class Options:
    """How predictions are made and written; see ``hmdiff predict --help``."""

    out: Path
    bbox: Box | None = None
    detections: Mapping[str, list[Box]] | None = None
    focal: float | None = None
    formats: Sequence[str] = ()
    viewer: bool = True
    batch: int = 8
    every: int = 1


@dataclass(frozen=True)
class _Person:
    name: str
    image: Image.Image
    box: Box | None
    record: dict[str, Any]


@dataclass
class Outcome:
    """What a run did: names of the folders it wrote and skipped, and lines on what failed."""

    written: list[str]
    skipped: list[str]
    failed: list[str]


def predict(recoverer: Recoverer, paths: Sequence[Path], options: Options) -> Outcome:
    """Write ``options.out``/NAME for every person of every picture, and the contact sheet.

    A picture that cannot be read is reported and left out. What an earlier run finished, with the
    same picture, box and settings, is not done again.
    """
    sources = find_sources(paths, options.out)
    outcome = Outcome([], [], [])
    total = sum(_count(source, options.every) for source in sources)
    waiting: list[_Person] = []
    with tqdm(total=total, unit="picture", disable=None) as bar:
        for picture in _all_pictures(sources, options, outcome):
            waiting += _persons(picture, recoverer, options, outcome)
            while len(waiting) >= options.batch:
                _finish(waiting[: options.batch], recoverer, options, outcome)
                del waiting[: options.batch]
            bar.update()
        if waiting:
            _finish(waiting, recoverer, options, outcome)
    done = outcome.written + outcome.skipped
    if len(done) > 1 and outcome.written:
        _write_contact_sheets(done, options.out)
    return outcome


def _count(source: Source, every: int) -> int:
    try:
        return count_pictures(source, every)
    except UserError:
        return 1  # said when its turn comes


def _all_pictures(
    sources: Sequence[Source], options: Options, outcome: Outcome
) -> Iterator[Picture]:
    for source in sources:
        try:
            yield from pictures(source, options.every)
        except UserError as error:
            _report(error, outcome)


def _persons(
    picture: Picture, recoverer: Recoverer, options: Options, outcome: Outcome
) -> list[_Person]:
    """The persons of a picture that are still to be done."""
    boxes: list[Box | None] = [options.bbox]
    if options.detections is not None:
        boxes = list(boxes_of(picture, options.detections))
        if not boxes:
            _report(f"{picture.name}: no box in the detections; add one", outcome)
    persons: list[_Person] = []
    image: Image.Image | None = None
    for number, box in enumerate(boxes, 1):
        name = picture.name if number == 1 else f"{picture.name}.{number}"
        record = {
            "picture": picture.digest,
            "bbox": None if box is None else list(box),
            "focal": options.focal,
            "formats": list(options.formats),
            "viewer": options.viewer,
        }
        path = options.out / name / RECORD
        if path.exists() and read_json(path) == {**record, "settings": recoverer.settings}:
            outcome.skipped.append(name)
            continue
        try:
            image = image or picture.read()
        except UserError as error:
            _report(error, outcome)
            break
        try:
            if box is not None:
                check_box(box, image.size)
        except UserError as error:
            _report(f"{name}: {error}", outcome)
            continue
        persons.append(_Person(name, image, box, record))
    return persons


def _finish(
    persons: Sequence[_Person], recoverer: Recoverer, options: Options, outcome: Outcome
) -> None:
    recoveries = recoverer.predict_many(
        [person.image for person in persons], [person.box for person in persons], options.focal
    )
    for person, recovery in zip(persons, recoveries, strict=True):
        save(
            recovery,
            person.image,
            options.out / person.name,
            formats=options.formats,
            viewer=options.viewer,
            record=person.record,
        )
        outcome.written.append(person.name)


def _report(line: object, outcome: Outcome) -> None:
    outcome.failed.append(str(line))
    tqdm.write(f"hmdiff: warning: {line}", file=sys.stderr)


def _write_contact_sheets(names: Sequence[str], out: Path) -> None:
    """Small overlays of all of ``names``, those of earlier runs too, in the order of names."""
    cells = []
    for name in sorted(names):
        with Image.open(out / name / OVERLAY) as overlay:
            cells.append((name, thumbnail(overlay)))
    for number, sheet in enumerate(contact_sheets(cells), 1):
        suffix = "" if number == 1 else f"_{number}"
        with atomic_file(out / f"contact_sheet{suffix}.png") as temporary:
            sheet.save(temporary, "PNG")
