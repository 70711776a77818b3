"""Several processes are one: the same losses, the same scores, the same ways to end.

Most of them are forks (toy_trainings.py); what starts processes of its own is run as a command.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_trainings import server, write_images

pytestmark = pytest.mark.distributed

ROOT = Path(__file__).resolve().parent.parent
LONG = {"train": {"samples": 403}, "pretrain_extractor": {"samples": 32, "batch": 8}}
STAGES = {"train": "train@toy", "pretrain_extractor": "pretrain_extractor@hand"}
KILLED, STOPPED = -9, 143
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def forks():
    with server() as run:
        yield run


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_images(folder, 24)
    for name in ("body", "sampling"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture(scope="module")
def alone(inputs, forks) -> dict[str, Path]:
    """What each training writes as one process."""
    for stage, changes in LONG.items():
        more = {"out": stage, "changes": changes, "precision": "fp32"}
        assert forks(inputs, stage, seconds=1e6, **more) == 0, said(inputs)
    return {stage: inputs / stage for stage in LONG}


@pytest.fixture
def work(inputs, tmp_path) -> Path:
    for name in ("toy.h5", "body", "sampling"):
        shutil.copy(inputs / name, tmp_path)
    return tmp_path


def said(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("log*")))


def curve(folder: Path) -> torch.Tensor:
    with open(folder / "curve.csv") as file:
        rows = [[float(value) for value in row.values()] for row in csv.DictReader(file)]
    return torch.tensor(rows, dtype=torch.float64)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest, over what it is a difference of."""
    assert one.shape == other.shape
    return float(((one - other).abs() / one.abs().clamp_min(1e-12)).max())


def close(folder: Path, wanted: Path, record) -> None:
    """The curve to 1e-5; the weights roughly, for Adam makes whole steps of the last bits."""
    found = difference(curve(wanted), curve(folder))
    record("largest relative difference of the curves", found)
    print(f"{folder.parent.name}: {found:.2e}")
    assert found < TOLERANCE
    ours, theirs = (load_file(one / "weights.safetensors") for one in (folder, wanted))
    for name, value in theirs.items():
        assert torch.allclose(ours[name].float(), value.float(), rtol=0.05, atol=5e-3), name


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("stage", STAGES)
def test_as_many_processes_train_as_one_does(forks, work, alone, stage, processes, record_property):
    more = {"processes": processes, "changes": LONG[stage], "precision": "fp32"}
    assert forks(work, stage, seconds=1e6, **more) == [0] * processes, said(work)
    close(work / "out", alone[stage], record_property)
    assert (work / "log").read_text().count("\n") == 1, "the first one tells"
    assert (work / "log1").read_text() == ""
