"""What each stage cost when it last ran here: logs/cost/STAGE.json, whichever engine ran it.

These files are a by-product and no output: nothing depends on them, and what was restored from
DVC's cache or pulled from a remote has none.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

import hmdiff
from hmdiff.errors import UserError
from hmdiff.files import read_json, write_json
from hmdiff.machine import this_machine

FOLDER = Path("logs/cost")


class StageCost(BaseModel):
    """One run of one stage.

    Attributes:
        stage: its address in dvc.yaml, such as ``train@image``.
        seconds: wall time since the program started, imports included.
        cpu_seconds: user and system time of the process and its ended children.
        peak_bytes: largest resident memory of the process, plus that of its largest ended child.
        machine: processor and cores.
        ended: when, in seconds since 1970; older records have none.
    """

    model_config = ConfigDict(extra="forbid")

    stage: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    machine: str
    ended: float | None = None

    @property
    def group(self) -> str:
        """The stage without what follows the ``@``."""
        return self.stage.partition("@")[0]


def address(stage: str, arguments: Mapping[str, Any]) -> str:
    """The name that dvc.yaml gives to ``stage`` when it is called with ``arguments``."""
    if arguments.get("base"):
        stage = "finetune"  # the same command
    if "number" in arguments:
        return f"{stage}{arguments['number']}"
    named = next((value for value in arguments.values() if isinstance(value, str)), None)
    if named is None and stage == "extract_features":
        named = arguments["out"].stem
    return f"{stage}@{named}" if named else stage


@contextlib.contextmanager
def recorded(stage: str, folder: Path = FOLDER) -> Iterator[None]:
    """Write what this process has cost once the block, its only work, has ended well."""
    yield
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts kilobytes
    cost = StageCost(
        stage=stage,
        seconds=time.monotonic() - hmdiff.STARTED,
        cpu_seconds=own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
        peak_bytes=unit * (own.ru_maxrss + children.ru_maxrss),
        machine=this_machine(),
        ended=time.time(),
    )
    write_json(folder / f"{stage}.json", cost.model_dump())


def read_costs(folder: Path = FOLDER) -> dict[str, StageCost]:
    """What was recorded, by stage; nothing where nothing was.

    Raises:
        UserError: a record is damaged.
    """
    costs = {}
    for path in sorted(folder.glob("*.json")):
        try:
            cost = StageCost.model_validate(read_json(path))
        except ValidationError as error:
            field = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
            raise UserError(f"{path}: {field}: not a stage's cost; delete the file") from None
        costs[cost.stage] = cost
    return costs
