"""Does a rebuild from an empty cache give what is committed? Outputs by content, tables by number.

On the same machine every output has the same bytes, but for those that tell times or commits. On
another processor floating-point sums differ in their last bits, and a training carries that on; a
table's figure may then lie anywhere in its own committed 95 % interval.
"""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmdiff.dvclock import LOCK, recorded_hashes
from hmdiff.errors import UserError
from hmdiff.files import read_json

RESULTS = Path("results")
# Outputs that tell times, or the commit that they were made from: another run has others.
CHANGING = (
    "runs/speed.json", "results/table", "results/report.html",
    "results/figures/figure2.json", "results/figures/figure3.json",
)  # fmt: skip
RELATIVE = 1e-3  # of errors of the mesh sampling, which have no interval


@dataclass(frozen=True)
class Verdict:
    """What a rebuild has in common with the committed project.

    Attributes:
        same, changing: outputs of equal content; others of :data:`CHANGING`.
        differing: outputs that should be equal and are not, or that one side lacks.
        figures: how many numbers were compared.
        outside: lines about those that are out of tolerance or missing.
    """

    same: list[str]
    changing: list[str]
    differing: list[str]
    figures: int
    outside: list[str]

    @property
    def exact(self) -> bool:
        return not self.differing

    @property
    def close(self) -> bool:
        """Every committed figure is there again, within its tolerance."""
        return not self.outside

    def lines(self) -> Iterator[str]:
        """The verdict for a reader."""
        yield f"{len(self.same)} outputs have the committed content"
        yield f"{len(self.changing)} that tell times or commits do not"
        yield from (f"differs: {path}" for path in self.differing)
        inside = self.figures - len(self.outside)
        yield (
            f"{inside} of {self.figures} figures are within their tolerance: of tables the "
            f"committed 95 % interval, of the mesh sampling {RELATIVE:g} of the value"
        )
        yield from (f"outside: {line}" for line in self.outside)


def rebuild(project: Path, folder: Path) -> None:
    """Clone ``project``'s last commit into the new ``folder`` and run every stage there.

    Raises:
        UserError: it cannot be cloned, or a stage fails.
    """
    # The clone's own code, not the one that is installed.
    scripts = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": scripts, "PYTHONPATH": str(folder.absolute())}
    for command, where in (
        (["git", "clone", "--quiet", str(project.absolute()), str(folder.absolute())], project),
        (["dvc", "repro", "--force"], folder),
    ):
        done = subprocess.run(command, cwd=where, env=environment, check=False)
        if done.returncode:
            raise UserError(
                f"{where}: `{' '.join(command[:2])}` has failed; mend what it says above"
            )


def compare(project: Path, rebuilt: Path) -> Verdict:
    """The committed outputs and figures of ``project`` beside those of ``rebuilt``.

    Raises:
        UserError: one of them has no dvc.lock, or a result is not readable.
    """
    hashes = [recorded_hashes(folder / LOCK) for folder in (project, rebuilt)]
    for folder, found in zip((project, rebuilt), hashes, strict=True):
        if not found:
            raise UserError(f"{folder / LOCK}: records no output; run `dvc repro` there")
    ours, theirs = hashes
    paths = sorted(ours.keys() | theirs.keys())
    same = [path for path in paths if ours.get(path) == theirs.get(path)]
    others = [path for path in paths if path not in same]
    changing = [path for path in others if path.startswith(CHANGING)]
    wanted, found = (dict(_figures(folder / RESULTS)) for folder in (project, rebuilt))
    outside = [
        f"{name}: {found.get(name, (math.nan,))[0]:.6g}, not in {low:.6g} to {high:.6g}"
        for name, (_, low, high) in sorted(wanted.items())
        if not low <= found.get(name, (math.nan,))[0] <= high
    ]
    differing = [path for path in others if path not in changing]
    return Verdict(same, changing, differing, len(wanted), outside)


def damaged_objects(cache: Path) -> list[Path]:
    """Files of DVC's cache whose content is not what their name says.

    DVC itself believes a file that is still read-only.
    """
    return [
        path
        for path in sorted(cache.glob("files/md5/??/*"))
        if _md5(path) != path.parent.name + path.name.removesuffix(".dir")
    ]


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _figures(results: Path) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Name -> value, and between what a rebuild's value may lie; no times and no quoted ones."""
    for path in sorted(results.glob("table*.json")):
        for record in read_json(path):
            interval = record["ci_low"], record["ci_high"]
            # Table 7 is ours alone: it quotes nothing, and has a row for every joint.
            if record.get("quoted") or record["measured"] is None or None in interval:
                continue
            if record["metric"] == "FPS":
                continue
            keys = ("table", "row", "dataset", "joint", "metric")
            names = (str(record[key]) for key in keys if key in record)
            yield ", ".join(names), (record["measured"], *interval)
    for path in sorted(results.glob("sampling_*.json")):
        for name, value in _numbers(path.stem, read_json(path)):
            yield name, (value, value - abs(value) * RELATIVE, value + abs(value) * RELATIVE)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(f"{name}.{key}", part)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _numbers(f"{name}[{index}]", part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)
