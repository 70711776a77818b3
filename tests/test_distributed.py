"""Several processes are one: the same losses, the same scores, the same ways to end.

Most of them are forks (toy_trainings.py); what starts processes of its own is run as a command.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from toy_hand import write_toy_hand
from toy_trainings import server, write_inputs

from hmdiff.extractor.batchnorm import _Normalise
from hmdiff.files import write_json
from hmdiff.launch import LOST

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
    write_inputs(folder, 24)
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


@pytest.mark.parametrize("stage", STAGES)
def test_killed_as_two_it_goes_on_as_one_and_as_four(forks, work, alone, stage, record_property):
    more = {"changes": LONG[stage], "precision": "fp32"}
    assert forks(work, stage, "step:3", processes=2, **more) == [KILLED, LOST], said(work)
    shutil.copytree(work / "checkpoints", work / "others")
    for processes, folder in ((1, "checkpoints"), (4, "others")):
        codes = forks(
            work, stage, seconds=1e6, processes=processes, checkpoints=folder, out=folder + "out",
            **more,
        )  # fmt: skip
        assert codes in (0, [0] * processes), said(work)
        assert (work / "log").read_text().count("goes on after step 2") == 1
        close(work / f"{folder}out", alone[stage], record_property)
        assert list((work / folder).iterdir()) == []


def test_whichever_is_asked_to_stop_all_stop_after_the_same_step_and_it_is_saved_once(
    forks, work, alone, record_property
):
    more = {"changes": LONG["train"], "precision": "fp32", "processes": 2, "seconds": 1e6}
    assert forks(work, "train", "term:2", struck=1, **more) == [STOPPED, STOPPED], said(work)
    assert (work / "log").read_text().count("stopped by SIGTERM after step 2 of 51") == 1
    assert (work / "log1").read_text() == ""
    kept = list((work / "checkpoints/train@toy").glob("*.pt"))
    assert [path.stem for path in kept] == [f"{2:012d}"]
    assert forks(work, "train", **more) == [0, 0], said(work)
    close(work / "out", alone["train"], record_property)


def test_who_loses_another_one_ends_at_once_and_the_first_without_a_word(forks, work):
    more = {"changes": LONG["train"], "processes": 3, "seconds": 1e6}
    assert forks(work, "train", "step:2", struck=1, **more) == [LOST, KILLED, LOST], said(work)
    assert (work / "log").read_text() == ""
    assert "another process of this job has ended" in (work / "log2").read_text()


@pytest.mark.parametrize("stage", STAGES)
def test_more_processes_than_images_in_a_batch_are_one_clear_line(forks, work, stage):
    codes = forks(work, stage, processes=3, changes={"samples": 8, "batch": 2})
    assert codes == [2, 2, 2], said(work)
    line = (work / "log").read_text()
    assert line.count("\n") == 1 and "2 images are too few for 3 processes" in line


def test_a_loss_that_is_not_finite_names_the_samples_of_all(forks, work):
    changes = {"samples": 64, "batch": 8, "learning_rate": 1e20, "clip": 1e30}
    assert forks(work, "train", processes=2, changes=changes) == [2, 2], said(work)
    assert (work / "log").read_text().count("the loss is not finite at step") == 1
    assert "for 8 samples" in (work / "log").read_text()


def test_an_evaluation_has_the_same_bytes_on_one_and_on_three(forks, tmp_path):
    """And where it was begun by three and ended by two, or by one."""
    write_toy_hand(tmp_path)
    write_json(tmp_path / "hand.json", {"method": "hand", "steps": 2})
    assert forks(tmp_path, "evaluate", seconds=1e6, out="one") == 0, said(tmp_path)
    assert forks(tmp_path, "evaluate", seconds=1e6, out="three", processes=3) == [0, 0, 0]
    for processes in (1, 2):
        codes = forks(tmp_path, "evaluate", "rotate:2", processes=3)
        assert codes[0] == KILLED, said(tmp_path)
        out = {"out": f"again{processes}", "processes": processes}
        assert forks(tmp_path, "evaluate", **out) in (0, [0] * processes), said(tmp_path)
        assert "goes on after step 2" in (tmp_path / "log").read_text()
    for path in (tmp_path / "one").iterdir():
        for other in ("three", "again1", "again2"):
            assert (tmp_path / other / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_gradient_of_shared_statistics_is_that_of_batch_norm():
    """Alone, where nothing is to be shared, in double precision."""
    values = torch.randn(6, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(6, 3, 4, 5, dtype=torch.float64)
    found = []
    for normalise in (
        lambda x: _Normalise.apply(x, 1e-5)[0],
        lambda x: torch.nn.functional.batch_norm(x, None, None, training=True),
    ):
        output = normalise(values)
        (gradient,) = torch.autograd.grad((output * weights).sum(), values)
        found.append((output.detach(), gradient))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


# Commands


@pytest.fixture
def project(tmp_path) -> Path:
    """A folder in which ``hmdiff pretrain-extractor`` trains for 60 steps."""
    write_inputs(tmp_path, 24)
    (tmp_path / "prepared").mkdir()
    (tmp_path / "toy.h5").rename(tmp_path / "prepared/freihand.h5")
    settle(tmp_path, processes=2)
    return tmp_path


def settle(project: Path, processes: int, samples: int = 480) -> None:
    yaml = YAML()
    tree = yaml.load(ROOT / "params.yaml")
    tree["compute"].update(device="cpu", precision="fp32", workers=0, processes=processes)
    tree["checkpoint"]["seconds"] = 0
    tree["extractor"]["hand"].update(
        datasets=["freihand"], image_size=56, channels=[16, 16, 16], samples=samples, batch=8,
        warmup=2, validations=2,
    )  # fmt: skip
    yaml.dump(tree, project / "params.yaml")


def started(project: Path, *before: str, prepared: str = "prepared") -> subprocess.Popen:
    command = ["pretrain-extractor", "hand", "--prepared", prepared, "--out", "out"]
    uri = f"sqlite:///{project}/mlflow.db"
    return subprocess.Popen(
        [*before, shutil.which("hmdiff"), *command], cwd=project, text=True,
        env=os.environ | {"MLFLOW_TRACKING_URI": uri},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def until_saved(project: Path, job: subprocess.Popen) -> list[psutil.Process]:
    """The processes of a job that has saved something, in their order."""
    while not list(project.glob("runs/checkpoints/*/*.pt")):
        assert job.poll() is None, job.communicate()
        time.sleep(0.05)
    found = psutil.Process(job.pid).children()
    return sorted(found, key=lambda one: int(one.environ()["RANK"]))


def ended(job: subprocess.Popen) -> tuple[int, str]:
    said = job.communicate(timeout=300)[1]
    return job.returncode, said


def test_asked_to_stop_a_command_saves_once_and_goes_on_as_one_process(project):
    from mlflow import MlflowClient

    job = started(project)
    processes = until_saved(project, job)
    job.send_signal(signal.SIGTERM)
    code, line = ended(job)
    assert code == STOPPED and line.count("\n") == 1, line
    assert "stopped by SIGTERM after step" in line
    assert not any(process.is_running() for process in processes)
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("training").experiment_id])
    assert found.info.status == "KILLED"
    settle(project, processes=1)
    code, line = ended(started(project))
    assert code == 0 and "goes on after step" in line, line
    assert client.get_run(found.info.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("struck", [0, 1])
def test_a_process_that_is_killed_ends_the_command_with_one_line(project, struck):
    job = started(project)
    processes = until_saved(project, job)
    processes[struck].kill()
    code, line = ended(job)
    assert code == 2 and line.count("\n") == 1, line
    assert f"process {struck} of 2 was ended by SIGKILL" in line
    assert not any(process.is_running() for process in processes)


def test_who_started_them_takes_them_along(project):
    job = started(project)
    processes = until_saved(project, job)
    job.kill()
    job.communicate(timeout=300)
    psutil.wait_procs(processes, timeout=60)
    assert not any(process.is_running() for process in processes)


def test_what_all_fail_by_is_one_line(project):
    code, line = ended(started(project, prepared="nowhere"))
    assert code == 2 and line.count("\n") == 1, line
    assert "nowhere/freihand.h5: no such file" in line


def test_torchrun_and_accelerate_give_the_bytes_that_the_command_gives(project):
    settle(project, processes=2, samples=32)
    torchrun = [shutil.which("torchrun"), "--nproc-per-node", "2"]
    accelerate = [shutil.which("accelerate"), "launch", "--cpu", "--num_processes", "2"]
    accelerate += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    found = []
    for before in ([], torchrun, accelerate):
        code, line = ended(started(project, *before))
        assert code == 0, line
        found.append([path.read_bytes() for path in sorted((project / "out").iterdir())])
    assert found[0] == found[1] == found[2]
