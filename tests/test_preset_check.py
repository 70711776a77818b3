"""The rehearsal of a preset keeps all that makes it large, and runs the commands of dvc.yaml."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from engines import copy_project, ran_by_snakemake, run, snakemake

from hmdiff import cli, preset_check
from hmdiff.errors import UserError
from hmdiff.params import load_params
from hmdiff.preset_check import check_preset, shrink
from hmdiff.presets import apply_preset

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def work(tmp_path) -> Path:
    """A folder in which the paper's preset has been cut down, and the preset itself beside it."""
    for part in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / part, tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    apply_preset("paper", tmp_path / "params.yaml")
    shutil.copy(tmp_path / "params.yaml", tmp_path / "whole.yaml")
    shrink(tmp_path, "fp32")
    return tmp_path


def test_what_makes_the_preset_large_stays(work):
    whole, short = load_params(work / "whole.yaml"), load_params(work / "params.yaml")
    assert short.extractor["body"].backbone == "hrnet_w64"
    for kind, settings in whole.extractor.items():
        kept = {"samples", "warmup", "validations", "pretrained"}  # the last one is not at hand
        now = short.extractor[kind]
        assert now.model_dump(exclude=kept) == settings.model_dump(exclude=kept)
        assert now.samples == 2 * settings.batch
    for section in ("diffusion", "denoiser", "reverse", "prior", "experiments"):
        assert getattr(short, section) == getattr(whole, section), section
    assert whole.diffusion.steps == 200 and whole.reverse.chains == 25
    assert short.training.batch == whole.training.batch == 32  # not the default's
    assert short.training.samples == 2 * whole.training.batch
    assert whole.finetunes.keys() == short.finetunes.keys() != set()
    assert {item.samples for item in short.finetunes.values()} == {2 * whole.training.batch}
    assert {item.learning_rate for item in short.finetunes.values()} == {2e-5}
    assert short.datasets.keys() == whole.datasets.keys() and short.acquire.source == "rendered"


def test_every_training_runs_after_what_it_needs(work):
    commands = list(preset_check._commands(work))
    order = [name for name, _ in commands]
    params = load_params(work / "params.yaml")
    assert {name for name in order if name.startswith(("train@", "finetune@", "pretrain"))} == {
        *(f"train@{name}" for name in params.experiments),
        *(f"finetune@{name}" for name in params.finetunes),
        *(f"pretrain_extractor@{kind}" for kind in params.extractor),
    }
    assert [name for name in order if name.startswith("evaluate")] == ["evaluate@3dpw_dat"]
    assert not any(name.startswith(("table", "speed")) for name in order)
    for before, after in (
        ("body_models@smpl", "acquire@muco"),
        ("prepare@up3d", "pretrain_extractor@body"),
        ("pretrain_extractor@body", "extract_features@coco"),
        ("extract_features@mpii", "train@image"),
        ("train@image", "finetune@image_3dpw"),
        ("finetune@image_3dpw", "evaluate@3dpw_dat"),
    ):
        assert order.index(before) < order.index(after)
    assert "--base models/train/image" in dict(commands)["finetune@image_3dpw"]


def test_a_stage_that_fails_is_one_line_that_names_its_log(work, monkeypatch):
    (work / "logs").mkdir()
    with pytest.raises(UserError, match=r"train@x: ended with 2 \(hmdiff: error: .*train@x\.log"):
        preset_check._run("train@x", "hmdiff train x --nonsense", work)
    done = preset_check._run("help", "hmdiff --help", work)
    assert done.seconds > 0 and 0.01 < done.peak < 100
    assert "Commands" in (work / "logs/help.log").read_text()


def test_a_training_of_more_or_less_than_two_steps_does_not_pass(work):
    params = load_params(work / "params.yaml")
    folder = work / "models/train/image"
    folder.mkdir(parents=True)
    batch = params.training.batch
    (folder / "curve.csv").write_text(f"samples,v\n{batch},1\n{2 * batch},1\n")
    preset_check._verify("train@image", work)
    (folder / "curve.csv").write_text(f"samples,v\n{batch},1\n")
    with pytest.raises(UserError, match=f"train@image: did {batch}, not {2 * batch}"):
        preset_check._verify("train@image", work)
    folder = work / "runs/evaluate/3dpw_dat"
    folder.mkdir(parents=True)
    summary = {"n": 1, "steps": 40, "chains": 4}
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"did \(1, 40, 4\), not \(1, 40, 25\)"):
        preset_check._verify("evaluate@3dpw_dat", work)


def test_a_folder_in_use_and_an_unknown_preset_are_one_line(work, tmp_path_factory):
    with pytest.raises(UserError, match="is not empty"):
        check_preset("paper", ROOT, work, "fp32", print)
    with pytest.raises(UserError, match="preset 'papre': unknown"):
        check_preset("papre", ROOT, tmp_path_factory.mktemp("new"), "fp32", print)


def test_a_dry_run_of_the_paper_lists_every_stage_and_says_what_is_missing(tmp_path):
    copy_project(tmp_path)
    run(tmp_path, "hmdiff", "preset", "paper")
    output = snakemake(tmp_path, "-n", "all")
    params = load_params(tmp_path / "params.yaml")
    jobs = ran_by_snakemake(output)
    for name in params.datasets:
        assert {f"{stage}@{name}" for stage in ("acquire", "prepare", "extract_features")} <= jobs
        assert f"{name}: missing: " in output
    assert {f"finetune@{name}" for name in params.finetunes} <= jobs
    assert {f"table{number}" for number in range(1, 7)} <= jobs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_rehearsal_that_is_asked_to_stop_leaves_neither_a_folder_nor_a_process(
    tmp_path, monkeypatch, number
):
    started = []

    def start(command, **options):
        started.append(subprocess.Popen(["sleep", "600"]))
        return started[0]

    def wait(*_):
        os.kill(os.getpid(), number)

    def check(preset, project, folder, *_):
        (folder / "logs").mkdir()
        preset_check._run("toy", "hmdiff toy", folder)

    monkeypatch.setattr(preset_check, "subprocess", SimpleNamespace(Popen=start, STDOUT=None))
    monkeypatch.setattr(preset_check.os, "wait4", wait)
    monkeypatch.setattr(preset_check, "check_preset", check)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["hmdiff", "check", "smoke"])
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    # Tests that run in the background of a shell ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
            cli.main()
    finally:
        for handled, handler in before.items():
            signal.signal(handled, handler)
    assert number == signal.SIGINT or ended.value.code == 143
    assert list(tmp_path.iterdir()) == []
    assert started[0].poll() is not None
