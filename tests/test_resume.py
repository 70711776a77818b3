"""A training that was killed goes on, and ends with the bytes of one that was not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toy_trainings import server, write_inputs

from hmdiff.checkpoints import KEPT
from hmdiff.launch import LOST

STAGES = {"train": "train@toy", "pretrain_extractor": "pretrain_extractor@hand"}
KILLED = -9
FOLDERS = ("alone", "out", "two")


@pytest.fixture(scope="module")
def forks():
    with server() as run:
        yield run


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def wanted(inputs, forks) -> dict[str, dict[str, bytes]]:
    """What each stage writes when nothing happens, and no snapshot is due."""
    found = {}
    for stage in STAGES:
        assert forks(inputs, stage, seconds=1e6, out=stage) == 0, log(inputs)
        assert log(inputs).count("goes on") == 0 and not kept(inputs, stage)
        found[stage] = contents(inputs / stage)
    return found


@pytest.fixture
def work(inputs, tmp_path) -> Path:
    for name in ("toy.h5", "body", "sampling"):
        shutil.copy(inputs / name, tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def log(folder: Path) -> str:
    return (folder / "log").read_text()


def kept(folder: Path, stage: str) -> list[Path]:
    return sorted((folder / "checkpoints" / STAGES[stage]).glob("*.pt"))


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_moment_it_ends_with_the_same_bytes(forks, work, wanted, stage):
    """In a row: each run goes on where the last one died, one of them while it wrote."""
    faults = ["step:1", "step:2", "write:1", "rename:1", "rotate:1", "write:2", "step:1"]
    for fault in faults:
        assert forks(work, stage, fault) == KILLED, log(work)
        assert not (work / "out").exists()
        assert len(kept(work, stage)) <= KEPT + 1
    assert forks(work, stage) == 0, log(work)
    assert "goes on after step 3" in log(work)
    assert contents(work / "out") == wanted[stage]
    assert list((work / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(("stage", "step"), [("train", 1), ("train", 6), ("pretrain_extractor", 3)])
def test_killed_before_a_snapshot_it_starts_anew(forks, work, wanted, stage, step):
    assert forks(work, stage, f"step:{step}", seconds=1e6) == KILLED
    assert forks(work, stage, seconds=1e6) == 0
    assert contents(work / "out") == wanted[stage]


def test_processes_that_decode_images_change_nothing(forks, work, wanted):
    """Nor does their number, and none of them outlives a stop or keeps the next run waiting."""
    stage = "pretrain_extractor"
    assert forks(work, stage, "step:3", workers=1) == KILLED
    assert forks(work, stage, "term:2", workers=2) == 143, log(work)
    assert forks(work, stage, workers=1) == 0, log(work)
    assert "goes on after step 4" in log(work)
    assert contents(work / "out") == wanted[stage]


@pytest.mark.parametrize("stage", STAGES)
def test_asked_to_stop_it_saves_and_says_so(forks, work, wanted, stage):
    assert forks(work, stage, "term:2", seconds=1e6) == 143
    assert f"{STAGES[stage]}: stopped by SIGTERM after step 2 of 6; run it again" in log(work)
    assert [path.stem for path in kept(work, stage)] == [f"{2:012d}"]
    assert forks(work, stage, seconds=1e6) == 0
    assert contents(work / "out") == wanted[stage]


def test_of_a_damaged_snapshot_the_one_before_is_taken(forks, work, wanted):
    stage = "train"
    assert forks(work, stage, "step:5") == KILLED
    one_before, last = kept(work, stage)
    assert last.stem == f"{4:012d}"
    os.truncate(last, last.stat().st_size - 1)
    assert forks(work, stage) == 0
    assert "is damaged" in log(work) and "goes on after step 3" in log(work)
    assert contents(work / "out") == wanted[stage]
    assert not one_before.exists()


def test_where_all_are_damaged_it_starts_anew(forks, work, wanted):
    assert forks(work, "train", "step:5") == KILLED
    for path in kept(work, "train"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert forks(work, "train") == 0
    assert log(work).count("is damaged") == KEPT and "goes on" not in log(work)
    assert contents(work / "out") == wanted["train"]


def test_a_snapshot_of_other_settings_is_discarded(forks, work, wanted):
    assert forks(work, "train", "step:5", changes={"ema": 0.5}) == KILLED
    assert forks(work, "train") == 0
    assert "of other settings, inputs or code" in log(work) and "goes on" not in log(work)
    assert contents(work / "out") == wanted["train"]


def test_a_snapshot_of_other_inputs_is_discarded(forks, work, wanted):
    assert forks(work, "train", "step:5") == KILLED
    with open(work / "toy.h5", "ab") as file:
        file.write(b"\0")
    assert forks(work, "train") == 0
    assert "of other settings, inputs or code" in log(work) and "goes on" not in log(work)


def test_how_often_is_no_setting(forks, work, wanted):
    assert forks(work, "train", "step:5", seconds=0) == KILLED
    assert forks(work, "train", seconds=1e6) == 0
    assert "goes on after step 4" in log(work)
    assert contents(work / "out") == wanted["train"]


def test_two_processes_that_were_killed_go_on_as_one_to_the_same_losses(forks, work, inputs):
    """In single precision; more of it in test_distributed.py."""
    alone = {"precision": "fp32", "out": "alone"}
    assert forks(work, "train", seconds=1e6, **alone) == 0, log(work)
    assert forks(work, "train", "step:3", processes=2, precision="fp32") == [KILLED, LOST]
    assert forks(work, "train", seconds=1e6, precision="fp32") == 0, log(work)
    assert "goes on after step 2" in log(work)
    assert forks(work, "train", seconds=1e6, processes=2, precision="fp32", out="two") == [0, 0]
    wanted, *found = (
        [float(number) for line in lines[1:] for number in line.split(",")]
        for lines in ((work / out / "curve.csv").read_text().splitlines() for out in FOLDERS)
    )
    for numbers in found:
        assert numbers == pytest.approx(wanted, rel=1e-5)


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_two_at_the_same_training_are_one_clear_line(forks, work, wanted):
    lock = work / "checkpoints/train@toy/lock"
    lock.parent.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        assert forks(work, "train") == 2
        assert "train@toy is running already; wait for it" in log(work)
        other.kill()
    assert forks(work, "train", seconds=1e6) == 0
    assert contents(work / "out") == wanted["train"]
