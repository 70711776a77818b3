"""What was trained: records, curves and hashes of the extractors and of the experiments."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmdiff.errors import UserError
from hmdiff.files import read_json, sha256

WEIGHTS = "weights.safetensors"
STEP = "samples"  # the column of a curve that says how many samples were seen


@dataclass(frozen=True)
class Training:
    """One folder of weights with its record and curve.

    Attributes:
        stage: the stage that wrote it: ``train`` or ``pretrain_extractor``.
        record: model.json or extractor.json.
        curve: rows of numbers; without the column ``samples`` it is a search, no training.
        digest: SHA-256 of the weights.
    """

    stage: str
    name: str
    folder: Path
    record: dict[str, Any]
    curve: list[dict[str, float]]
    digest: str

    @property
    def address(self) -> str:
        """The stage's name in dvc.yaml."""
        return f"{'finetune' if 'base' in self.record else self.stage}@{self.name}"

    @property
    def kind(self) -> str:
        """``body`` or ``hand``."""
        return self.record.get("kind", self.name)  # an extractor is named by it

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets that it was trained on."""
        return list(self.record.get("datasets", []))

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    @property
    def history(self) -> dict[str, list[tuple[int, float]]]:
        """Column -> (samples seen, or the row's number in a search; value)."""
        return {
            column: [(int(row.get(STEP, at)), row[column]) for at, row in enumerate(self.curve)]
            for column in self.curve[0]
            if column != STEP
        }

    @property
    def is_search(self) -> bool:
        return STEP not in self.curve[0]


def read_trainings(extractors: Path, trained: Path) -> list[Training]:
    """The extractors, then the experiments, each by name.

    Raises:
        UserError: there is none, or one lacks a file; the line names the stage to run.
    """
    folders = [
        *_folders(extractors, "pretrain_extractor", "extractor.json"),
        *_folders(trained, "train", "model.json"),
    ]
    if not folders:
        raise UserError(f"{trained}: nothing trained in it; run `dvc repro train@image`")
    return [_read(*folder) for folder in folders]


def _folders(parent: Path, stage: str, record: str) -> Sequence[tuple[str, Path]]:
    return [(stage, path) for path in sorted(parent.glob(f"*/{record}"))]


def _read(stage: str, path: Path) -> Training:
    folder = path.parent
    remedy = f"run `dvc repro {stage}@{folder.name}`"
    try:
        with open(folder / "curve.csv", newline="", encoding="utf-8") as file:
            curve = [
                {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)
            ]
        digest = sha256(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no such file; {remedy}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder}/curve.csv: not a table of numbers ({error}); {remedy}") from None
    if not curve:
        raise UserError(f"{folder}/curve.csv: holds no row; {remedy}")
    return Training(stage, folder.name, folder, read_json(path), curve, digest)
