"""Unit costs that commands of this project have measured and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hmdiff.errors import UserError
from hmdiff.files import read_json


class Units:
    """Measured seconds by name; what is missing is one line that says what measures it."""

    def __init__(self, values: Mapping[str, float], path: Path, device: str) -> None:
        self.values, self.path, self.device = dict(values), path, device

    def __getitem__(self, name: str) -> float:
        try:
            return self.values[name]
        except KeyError:
            raise UserError(
                f"{self.path}: records: no {name!r}; measure it with `hmdiff units`"
            ) from None


def read_units(path: Path) -> Units:
    """The file that ``hmdiff units`` wrote.

    Raises:
        UserError: it is missing or holds something else.
    """
    record = read_json(path)
    try:
        values = {str(row["name"]): float(row["value"]) for row in record["records"]}
        return Units(values, path, str(record["device"]))
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: no unit costs; write them with `hmdiff units`") from None


@dataclass(frozen=True)
class CPUCosts:
    """Measured seconds of one process and bytes, none of which a GPU changes.

    Attributes:
        prepare: of one image, by data set.
        score: of one test image, its true mesh and both Procrustes fits included.
        feature_bytes: of one row of a features file.
    """

    prepare: Mapping[str, float]
    score: float
    feature_bytes: float


def read_cpu_costs(readers: Path, scale: Path) -> CPUCosts:
    """From ``hmdiff bench --only readers`` and ``hmdiff scale``, at the most records of each.

    Raises:
        UserError: a file is missing or holds something else.
    """
    prepare: dict[str, float] = {}
    try:
        for row in read_json(readers)["records"]:
            if row["unit"] == "images/s":
                name = row["name"].removeprefix("read@").partition(" ")[0]
                prepare[name] = 1 / row["value"]
        # The last size is the largest.
        values = {row["name"]: row["value"] for row in read_json(scale)["records"]}
        last = {name.partition(" n=")[0]: name.split()[1] for name in values if " n=" in name}
        scored = f"evaluate {last['evaluate']}"
        score = values[f"{scored} processor"] / values[f"{scored} records"]
        rows = values[f"features {last['features']} disk"]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise UserError(
            f"{readers}, {scale}: not the records that the budget needs; write them with "
            "`hmdiff bench --only readers` and `hmdiff scale`"
        ) from None
    return CPUCosts(prepare, score, rows)
