"""What breaks from outside (a disk, a file, a process, a clock) is one clear line and exit code 2,
and leaves nothing that looks finished."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_hand import PARAMS, run_evaluate, stage_inputs, write_toy_hand
from toy_trainings import write_inputs

from hmdiff import costs, tracking
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.errors import UserError
from hmdiff.evaluation.export import _predictions
from hmdiff.evaluation.selection import read_selected
from hmdiff.stages import select_steps
from hmdiff.tables.differences import _samples
from hmdiff.tables.measured import read_summary

SCRIPT = Path(__file__).with_name("toy_trainings.py")


# Disks -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def disks(tmp_path_factory) -> dict[str, tuple[int, str, list[str]]]:
    """Toy trainings whose outputs and checkpoints go to a small disk of their own: exit code, what
    each said, and what lies on its disk afterwards."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a disk (unshare -m)")
    root, requests, mounts, lists = tmp_path_factory.mktemp("disks"), [], [], []
    cases = {
        "train": ("train", "size=100k"),
        "pretrain_extractor": ("pretrain_extractor", "size=100k"),
        "read-only": ("train", "size=100k,ro"),
    }
    for name, (stage, options) in cases.items():
        folder = root / name
        disk = folder / "disk"
        disk.mkdir(parents=True)
        write_inputs(folder)
        request = {"folder": str(folder), "stage": stage}
        request |= {"out": "disk/out", "checkpoints": "disk/checkpoints"}
        requests.append(json.dumps(request) + "\n")
        mounts.append(f"mount -t tmpfs -o {options} tmpfs {disk}")
        lists.append(f"echo; ls -A {disk}")
    script = " && ".join([*mounts, f"{sys.executable} {SCRIPT}", *lists])
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        input="".join(requests), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    codes, *left = done.stdout.split("\n\n")
    return {
        name: (int(code), (root / name / "log").read_text(), lying.split())
        for name, code, lying in zip(cases, codes.split(), left, strict=True)
    }


@pytest.mark.parametrize("stage", ["train", "pretrain_extractor"])
def test_on_a_full_disk_a_training_ends_in_one_line_and_without_an_output(disks, stage):
    code, said, left = disks[stage]
    *warnings, last = said.strip().splitlines()
    assert code == 2
    assert last.startswith("hmdiff: error: ") and "No space left on device; free" in last
    assert len(warnings) == 5  # one a checkpoint, of six steps
    cause = "was not written ([Errno 28] No space left on device); "
    assert all(cause in line and line.endswith("goes on without") for line in warnings)
    assert left == ["checkpoints"]


def test_on_a_read_only_disk_a_training_ends_in_one_line_before_it_starts(disks):
    code, said, left = disks["read-only"]
    assert code == 2 and left == []
    assert said.count("\n") == 1
    assert "disk/checkpoints/train@toy: Read-only file system; free or open it, or let" in said


# Files -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return write_toy_hand(tmp_path_factory.mktemp("faults"))


DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "noise": lambda content: bytes(range(256)) * (len(content) // 256 + 1),
}
FILES = [
    "prepared.h5", "features.h5", "hand_linear/weights.safetensors", "hand_linear/model.json",
    "sampling.npz", "body",
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_intermediate_is_one_line_that_names_it(toy, tmp_path, name, damage):
    copy = tmp_path / Path(name).parts[0]
    (shutil.copytree if (toy / copy.name).is_dir() else shutil.copy)(toy / copy.name, copy)
    path = tmp_path / name
    if path.is_dir():
        path = max(path.iterdir(), key=lambda file: file.stat().st_size)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    key = {"hand_linear": "model"}.get(copy.name, copy.stem)
    with pytest.raises(UserError) as error:
        run_evaluate(toy, tmp_path / "out", **{key: copy})
    assert path.name in str(error.value) and ";" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


READERS = {
    "steps.json": lambda folder: read_selected(folder / "row/steps.json", "hand_linear"),
    "samples.csv": lambda folder: _samples(folder, "row", "PA-MPVPE"),
    "summary.json": lambda folder: read_summary(folder, "row", ["PA-MPVPE"]),
    "predictions.npz": lambda folder: _predictions(
        folder / "row/predictions.npz", "run it again; now"
    ),
}


@pytest.fixture(scope="module")
def evaluated(toy, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    run_evaluate(toy, folder / "row")
    paths = stage_inputs(toy, "hand_linear")
    select_steps.run("hand_linear", out=folder / "row/steps.json", params=PARAMS, **paths)
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_result_is_one_line_that_names_it(evaluated, tmp_path, name, damage):
    READERS[name](evaluated)
    shutil.copytree(evaluated / "row", tmp_path / "row")
    path = tmp_path / "row" / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(UserError) as error:
        READERS[name](tmp_path)
    assert name in str(error.value) and ";" in str(error.value)
    assert "\n" not in str(error.value)


def test_arrays_packed_as_nobody_does_are_one_line(toy, evaluated, tmp_path):
    """Zip has a bit for compressed patches, which Python reads as little as anybody writes them."""
    for name, source, read in (
        ("predictions.npz", evaluated / "row", READERS["predictions.npz"]),
        ("sampling.npz", toy, lambda folder: MeshSampling.load(folder / "row/sampling.npz")),
    ):
        content = bytearray((source / name).read_bytes())
        content[content.index(b"PK\x01\x02") + 8] |= 0x20
        (tmp_path / "row").mkdir(exist_ok=True)
        (tmp_path / "row" / name).write_bytes(content)
        with pytest.raises(UserError) as error:
            read(tmp_path)
        assert name in str(error.value) and ";" in str(error.value)
        assert "\n" not in str(error.value)


# Processes ---------------------------------------------------------------------------------------


# In a process of its own: torch raises its error wherever the main thread happens to be.
KILLED = """
import os, signal
import torch
from torch.utils.data import DataLoader, Dataset
from hmdiff import cli

class Fatal(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, row):
        if row == 2:  # as by the system when memory is short
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(1)

cli.app = lambda standalone_mode: list(DataLoader(Fatal(), num_workers=1))
cli.main()
"""


def test_a_killed_image_process_is_one_line():
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "hmdiff: error: a process that decodes or renders images was killed"
    )
    assert "lower compute.workers" in done.stderr
    assert done.stderr.count("\n") == 1


# Clock and server --------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_makes_no_cost_negative(tmp_path, monkeypatch):
    with costs.recorded("toy", tmp_path):
        monkeypatch.setattr(time, "time", lambda: 0.0)
    assert costs.read_costs(tmp_path)["toy"].seconds > 0


def test_a_server_that_goes_in_mid_run_is_one_warning_and_the_run_can_be_recorded_again(
    tmp_path, monkeypatch, capfd
):
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    # Not the relative default: MLflow keeps its connection for all tests of this process.
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run = tracking.Run(
        "parent",
        children=[
            tracking.Run("child", metrics={"x": 1.0}, tags={"sha": "a" * 64}, identity="sha")
        ],
    )
    whole = MlflowClient.log_batch

    def cut(self, run_id, metrics=(), **more):
        if metrics:
            raise ConnectionError("the server is gone")
        return whole(self, run_id, metrics=metrics, **more)

    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "log_batch", cut)
        assert not tracking.log_run("toy", run)
    assert "MLflow: parent was not recorded (the server is gone)" in capfd.readouterr().err
    assert tracking.log_run("toy", run)
    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs(
        [client.get_experiment_by_name("toy").experiment_id], "status = 'FINISHED'"
    )
    assert sorted(one.info.run_name for one in found) == ["child", "parent"]
