"""`hmdiff doctor`: every broken set-up is a line with its remedy; only what is needed costs 1."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ruamel.yaml import YAML

from hmdiff.acquisition.catalogue import LICENSED, catalogue
from hmdiff.doctor import engines, findings, installation, machine
from hmdiff.doctor.findings import CHECKS, Context, Finding, examine
from hmdiff.errors import UserError
from hmdiff.files import write_json
from hmdiff.params import load_params

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def project(tmp_path, monkeypatch) -> Context:
    """A project without a repository, data or results."""
    for name in ("params.yaml", "dvc.yaml", "dvc.lock", "Snakefile", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("presets", ".dvc/config", "data/licensed"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, target)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Context(Path("params.yaml"))


def check(context: Context, label: str) -> list[Finding]:
    return [finding for _, finding in examine(context, [(label, dict(CHECKS)[label])])]


def one(context: Context, label: str) -> Finding:
    (finding,) = check(context, label)
    return finding


def change(context: Context, *keys: str, value: object) -> None:
    yaml = YAML()
    tree = yaml.load(context.params.read_text())
    section = tree
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    with context.params.open("w") as file:
        yaml.dump(tree, file)


def test_every_finding_that_is_not_ok_has_a_remedy():
    with pytest.raises(ValueError, match="needs a remedy"):
        Finding("warning", "something")


@pytest.mark.parametrize(
    ("error", "found", "remedy"),
    [
        (ZeroDivisionError("by zero"), "failed (ZeroDivisionError: by zero)", "own error"),
        (ImportError("no module named dvc"), "cannot import no module named dvc", "make setup"),
        (UserError("params.yaml: seed: wrong; mend it"), "params.yaml: seed: wrong", "mend it"),
    ],
)
def test_a_check_that_breaks_is_a_line_and_the_others_go_on(
    project, monkeypatch, error, found, remedy
):
    def broken(context):
        raise error

    monkeypatch.setattr(machine, "memory", broken)
    lines = list(examine(project, [("memory", "machine:memory"), ("disk", "machine:disk")]))
    assert [label for label, _ in lines] == ["memory", "disk"]
    assert lines[0][1].state == "problem"
    assert found in lines[0][1].found
    assert remedy in lines[0][1].remedy


def test_a_problem_that_many_checks_meet_is_told_once(project):
    project.params.unlink()
    several = [item for item in CHECKS if item[0] in ("models", "data", "disk")]
    lines = list(examine(project, several))
    assert len(lines) == 1
    assert lines[0][1].remedy == "run hmdiff in the project's folder"


def test_an_old_python_is_a_problem(project, monkeypatch):
    monkeypatch.setattr(installation, "LOWEST", (99, 0))
    assert one(project, "python").remedy.startswith("install Python 99.0")


def test_packages_are_compared_with_the_lock(project, monkeypatch):
    pins = {"numpy": metadata.version("numpy"), "scipy": "0.0.1", "no-such-package": "1"}
    lines = [f"{name}=={version} ; python_version >= '3' \\" for name, version in pins.items()]
    lines.append("    --hash=sha256:00")
    lines.append("tomli==1 ; python_version < '3.0' \\")
    Path("requirements.lock").write_text("\n".join(lines))
    lost, other = check(project, "packages")
    assert (lost.state, lost.found) == ("problem", "not installed: no-such-package")
    assert other.state == "warning"
    assert f"scipy {metadata.version('scipy')} for 0.0.1" in other.found
    assert "make setup" in lost.remedy and "make setup" in other.remedy


def test_a_build_for_one_platform_counts_as_the_locked_version(project, monkeypatch):
    Path("requirements.lock").write_text("torch==2.6.0 \\\n")
    monkeypatch.setattr(installation.metadata, "version", lambda name: "2.6.0+cpu")
    assert one(project, "packages").state == "ok"


def test_the_real_lock_can_be_read():
    pins = installation.pinned((ROOT / "requirements.lock").read_text())
    assert {"torch", "dvc", "snakemake", "mlflow"} <= set(pins)
    assert "pywin32" not in pins or sys.platform == "win32"


def test_another_checkout_s_code_is_a_problem(project):
    assert "cd into" in one(project, "project").remedy
    Path("hmdiff").mkdir()
    finding = one(project, "project")
    assert finding.state == "problem"
    assert f"not {Path('hmdiff').resolve()}" in finding.found


def test_too_little_memory_is_a_warning(project, monkeypatch):
    memory = load_params(Path("params.yaml")).memory
    assert machine.largest_stage(Path("dvc.yaml"), memory) == ("pretrain_extractor", 6.0)
    monkeypatch.setattr(machine, "container_limit", lambda: 10**9)
    finding = one(project, "memory")
    assert finding.state == "warning"
    assert "batch" in finding.remedy


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.max", "max\n", None),
        ("memory.max", "4096\n", 4096),
        ("memory/memory.limit_in_bytes", "1\n", 1),
    ],
)
def test_a_container_s_limit_is_read(tmp_path, name, text, limit):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert machine.container_limit(tmp_path) == limit


def test_a_full_disk_is_a_warning_and_real_data_need_more(project, monkeypatch):
    usage = shutil.disk_usage(".")._replace(free=10**9)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage)
    finding = one(project, "disk")
    assert finding.state == "warning" and "make room" in finding.remedy
    change(project, "acquire", "source", value="real")
    assert float(one(project, "disk").found.split()[-2]) > 10


def test_few_cores_are_a_warning(project):
    change(project, "compute", "threads_alone", value=4096)
    assert one(project, "processor").state == "warning"


def test_a_device_that_is_not_there_is_a_problem(project, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert one(project, "device").state == "ok" or shutil.which("nvidia-smi")
    change(project, "compute", "device", value="cuda:7")
    finding = one(project, "device")
    assert finding.state == "problem"
    assert finding.remedy == "write auto or cpu"


def test_a_gpu_that_torch_does_not_see_is_a_warning(project, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    for cuda, remedy in (("12.8", "update the driver"), (None, "make setup")):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        assert remedy in one(project, "device").remedy


def test_the_paper_preset_without_a_gpu_is_a_warning(project, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    change(project, "extractor", "body", "backbone", value="hrnet_w64")
    finding = one(project, "device")
    assert finding.state == "warning" and "hmdiff preset default" in finding.remedy


@pytest.mark.parametrize(("bf16", "state"), [(True, "ok"), (False, "warning")])
def test_a_gpu_is_named_with_its_memory_and_whether_it_has_bf16(project, monkeypatch, bf16, state):
    from hmdiff import compute

    card = SimpleNamespace(name="H100", total_memory=80 * 10**9)
    monkeypatch.setattr(compute, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    finding = one(project, "device")
    assert finding.state == state
    assert finding.found.startswith("H100, 80 GB")
    assert bf16 or finding.remedy == "compute.precision: fp32 in params.yaml"


def test_a_wrong_parameter_is_a_problem_that_names_it(project):
    change(project, "training", "batch", value=0)
    finding = one(project, "parameters")
    assert finding.state == "problem" and "training.batch" in finding.found


def test_a_missing_parameter_is_one_short_line(project):
    project.params.write_text("preset: default\n")
    finding = one(project, "parameters")
    assert finding.found == "params.yaml: seed: Field required"


def test_changes_by_hand_are_counted(project):
    assert "by hand" not in one(project, "preset").found
    change(project, "training", "samples", value=7)
    assert "1 values of it changed by hand" in one(project, "preset").found
    change(project, "preset", value="mine")
    finding = one(project, "preset")
    assert finding.state == "problem"
    assert finding.found.startswith("preset 'mine': unknown")


def test_data_that_are_asked_for_and_missing_are_problems(project):
    assert {finding.state for finding in check(project, "data")} == {"ok"}
    change(project, "acquire", "source", value="real")
    found = check(project, "data") + check(project, "models")
    assert {finding.state for finding in found} == {"problem"}
    assert any("hmdiff data fetch freihand" in finding.remedy for finding in found)


def test_a_half_placed_data_set_is_a_warning(project):
    first = catalogue()["freihand"].required[0]
    (LICENSED / "freihand" / first).write_text("[]")
    by_name = {finding.found.partition(":")[0]: finding for finding in check(project, "data")}
    assert by_name["freihand"].state == "warning"
    assert "lacks" in by_name["freihand"].found


def test_a_licensed_model_that_is_not_built_yet_is_a_warning(project):
    (LICENSED / "mano/MANO_RIGHT.pkl").write_bytes(b"x")
    write_json("models/hand/model.json", {"model": "mano", "source": "stand-in"})
    smpl, mano = check(project, "models")
    assert smpl.state == "ok"
    assert mano.state == "warning" and "dvc repro" in mano.remedy


def test_weights_that_are_named_and_missing_are_a_problem(project):
    change(
        project, "extractor", "body", "pretrained", value="data/licensed/backbone/hrnet.safetensors"
    )
    problem, warning = check(project, "weights")
    assert problem.state == "problem" and "write null" in problem.remedy
    assert warning.found.startswith("0 of ")


def test_imagenet_weights_that_no_package_has_are_a_problem(project):
    change(project, "extractor", "body", "pretrained", value="imagenet")
    problem, warning = check(project, "weights")
    assert problem.state == "problem" and "write null" in problem.remedy
    assert warning.found.startswith("0 of ")
    change(project, "extractor", "body", "backbone", value="tf_efficientnet_lite0")
    (warning,) = check(project, "weights")
    assert warning.found.startswith("0 of ")


def test_git_s_own_reason_is_told(project, monkeypatch):
    assert "git init" in one(project, "git").remedy
    subprocess.run(["git", "init", "-q"], check=True)
    assert one(project, "git").state == "warning"

    def missing(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(engines.subprocess, "run", missing)
    assert "install git" in one(project, "git").remedy


def test_outputs_that_are_away_are_a_warning(project):
    assert "outputs" in one(project, "dvc").found
    Path("dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    assert one(project, "dvc").state == "ok"
    Path("dvc.lock").unlink()
    assert one(project, "dvc").remedy == "`make tables`"
    shutil.rmtree(".dvc")
    assert one(project, "dvc").state == "problem"


def test_full_asks_dvc_what_is_stale(project):
    subprocess.run(["git", "init", "-q"], check=True)
    Path("dvc.yaml").write_text("stages:\n  a: {cmd: echo 1 > a, outs: [a]}\n")
    Path("dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    finding = one(Context(project.params, full=True), "dvc")
    assert (finding.state, "1 of 1 stages have changed, the first is a" in finding.found) == (
        "warning",
        True,
    )


def test_a_locked_folder_is_a_warning(project):
    Path(".snakemake/locks").mkdir(parents=True)
    assert one(project, "snakemake").state == "ok"
    Path(".snakemake/locks/0.input.lock").touch()
    assert "the next run frees" in one(project, "snakemake").remedy


def test_a_store_that_cannot_be_used_is_a_warning(project, monkeypatch):
    assert one(project, "tracking").state == "ok"
    Path("mlflow.db").write_text("no database, but long enough to be looked at" * 9)
    assert "move it away" in one(project, "tracking").remedy
    Path("mlflow.db").unlink()
    connection = sqlite3.connect("mlflow.db")
    connection.execute("CREATE TABLE runs (id TEXT)")
    connection.close()
    assert "0 runs" in one(project, "tracking").found
    # Nothing listens on the port that is reserved for that.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    finding = one(project, "tracking")
    assert finding.state == "warning" and "unset MLFLOW_TRACKING_URI" in finding.remedy
    assert "secret" not in finding.found


@pytest.mark.parametrize(("broken", "code"), [(False, 0), (True, 1)])
def test_the_command_reports_as_json_and_fails_on_problems_alone(
    project, monkeypatch, capsys, broken, code
):
    from hmdiff import cli

    checks = [("snakemake", "engines:snakemake"), ("dvc", "engines:dvc")]
    monkeypatch.setattr(findings.examine, "__defaults__", (checks,))
    if broken:
        Path("Snakefile").unlink()
    monkeypatch.setattr(sys, "argv", ["hmdiff", "doctor", "--json"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert (exit_.value.code or 0) == code
    lines = json.loads(capsys.readouterr().out)
    assert [line["check"] for line in lines] == ["snakemake", "dvc"]
    assert lines[0]["state"] == ("problem" if broken else "ok")
    assert lines[1]["state"] == "warning"
