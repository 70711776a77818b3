"""Figures 2 and 3 as the page shows them: the PNG inline, and what its stage says of it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from hmdiff.errors import UserError
from hmdiff.files import read_json


@dataclass(frozen=True)
class Plate:
    """A picture for an ``img`` element with its caption."""

    name: str
    uri: str
    caption: str


def read_plate(folder: Path, name: str) -> Plate:
    """``folder``/NAME.png with the caption in NAME.json.

    Raises:
        UserError: one of them is missing; the line names the stage to run.
    """
    remedy = f"run `dvc repro {name}`"
    picture, facts = folder / f"{name}.png", folder / f"{name}.json"
    for path in (picture, facts):
        if not path.exists():
            raise UserError(f"{path}: no such file; {remedy}")
    caption = read_json(facts).get("caption")
    if not isinstance(caption, str):
        raise UserError(f"{facts}: caption: no text; {remedy}")
    data = base64.b64encode(picture.read_bytes()).decode()
    return Plate(name, f"data:image/png;base64,{data}", caption)
