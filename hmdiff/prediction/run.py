"""``hmdiff predict``: pictures in batches, finished ones skipped, one folder a person."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
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
from hmdiff.prediction.output import ARRAYS, OVERLAY, RECORD, SHEET, save
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
    taken: set[str] = field(default_factory=set)  # names of all folders, those under way too


def predict(recoverer: Recoverer, paths: Sequence[Path], options: Options) -> Outcome:
    """Write ``options.out``/NAME for every person of every picture, and the contact sheet.

    A picture that cannot be read is reported and left out. What an earlier run finished, with the
    same picture, box and settings, is not done again.
    """
    sources = find_sources(paths)
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
    # An earlier run may have been stopped after its last person and before its sheets.
    if len(done) > 1 and (outcome.written or not (options.out / SHEET.format("")).exists()):
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
        found = boxes_of(picture, options.detections)
        if found is None:
            _report(f"{picture.name}: not in the detections; add its boxes, or []", outcome)
        boxes = list(found or ())
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
        folder = options.out / name
        written = (folder / RECORD).exists()
        if name in outcome.taken or (folder.exists() and not written):
            line = f"{folder}: holds something else; rename {picture.name} or change --out"
            _report(line, outcome)
            continue
        outcome.taken.add(name)
        settings = {**record, "settings": recoverer.settings}
        if written and read_json(folder / RECORD) == settings:
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
    try:
        recoveries = recoverer.predict_many(
            [person.image for person in persons], [person.box for person in persons], options.focal
        )
    except UserError as error:
        if len(persons) == 1:
            _report(f"{persons[0].name}: {error}", outcome)
        else:  # whose fault it is
            for person in persons:
                _finish([person], recoverer, options, outcome)
        return
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
    """Persons cut out of the overlays ``names``, those of earlier runs too, in order of names."""
    cells = []
    for name in sorted(names):
        with np.load(out / name / ARRAYS) as arrays, Image.open(out / name / OVERLAY) as overlay:
            cells.append((name, thumbnail(overlay, arrays["crop"])))
    for number, sheet in enumerate(contact_sheets(cells), 1):
        suffix = "" if number == 1 else f"_{number}"
        with atomic_file(out / SHEET.format(suffix)) as temporary:
            sheet.save(temporary, "JPEG", quality=88)
