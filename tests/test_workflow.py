"""What the Snakefile asks of DVC: an answer is kept while it holds, a record is DVC's own text."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from dvc.utils.serialize import dumps_yaml
from ruamel.yaml import YAML

from hmdiff.errors import UserError
from hmdiff.workflow import plan
from hmdiff.workflow.commit import replaced
from hmdiff.workflow.lock import HELD, JOBS, LOCKS
from hmdiff.workflow.plan import Step, fingerprint, send, sent

ROOT = Path(__file__).resolve().parent.parent
LOCK = {
    "schema": "2.0",
    "stages": {
        "train@a": {
            "cmd": "run " + "--long-option value " * 20,
            "outs": [{"path": "a", "md5": "1"}],
        },
        "train@ab": {"cmd": "run", "params": {"params.yaml": {"x": [1, {"y": 2.5}]}}},
    },
}


def printed(value: dict) -> str:
    return dumps_yaml(value)


@pytest.mark.parametrize("name", ["train@a", "train@ab", "table1"])
def test_a_record_is_put_where_dvc_would_put_it(name):
    entry = {"cmd": "other " + "words " * 40, "outs": [{"path": "b", "hash": "md5", "size": 3}]}
    expected = YAML()
    data = expected.load(printed(LOCK))
    data["stages"][name] = entry
    stream = io.StringIO()
    expected.default_flow_style = False
    expected.dump(data, stream)
    assert replaced(printed(LOCK), printed({"stages": {name: entry}})) == stream.getvalue()


@pytest.mark.parametrize(
    "lock", ["stages: {}\n", "schema: '2.0'\nstages:\n  a:\n    cmd: b\nx: 1\n"]
)
def test_a_lock_of_another_layout_is_left_to_dvc(lock):
    assert replaced(lock, printed({"stages": {"a": {"cmd": "c"}}})) is None


def test_the_fingerprint_changes_with_files_and_settings_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data/deep").mkdir(parents=True)
    file, params = Path("data/deep/a.txt"), Path("params.yaml")
    file.write_text("one")
    params.write_text("seed: 0")
    paths = ["data", "models"]
    seen = [fingerprint(paths)]
    Path("data/__pycache__").mkdir()
    Path("elsewhere").write_text("x")
    os.utime(params)
    assert fingerprint(paths) == seen[0]
    for change in (
        lambda: file.write_text("more"),
        lambda: os.utime(file, ns=(1, 1)),
        lambda: Path("data/b.txt").touch(),
        lambda: file.unlink(),
        lambda: Path("models").touch(),
        lambda: params.write_text("seed: 1"),
        lambda: Path("dvc.lock").write_text("schema: '2.0'"),
    ):
        change()
        seen.append(fingerprint(paths))
    assert len(set(seen)) == len(seen)


HOLD = """
import sys
from hmdiff.workflow import lock
lock.free_dead_locks()
print("ready", flush=True)
sys.stdin.read()
"""


def started(folder: Path, how: str = "free_dead_locks") -> subprocess.Popen:
    """A process that reads the Snakefile in ``folder``, and goes on."""
    code = HOLD.replace("free_dead_locks", how)
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def hold(folder: Path, how: str = "free_dead_locks") -> subprocess.Popen:
    """One that has read it."""
    process = started(folder, how)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000])
def test_an_answer_of_dvc_that_was_kept_badly_is_asked_for_again(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    plan.KEPT.parent.mkdir(parents=True)
    plan.KEPT.write_text(text)
    answer = Step("train@a", "run", None, {}, [], [], False, False, 0)
    monkeypatch.setattr(plan, "_ask_dvc", lambda: ([answer], [], "mark"))
    assert plan.steps() == {"train@a": answer}


def test_locks_of_the_dead_are_freed_and_those_of_the_living_are_not(tmp_path):
    lock = tmp_path / LOCKS / "0.input.lock"
    lock.parent.mkdir(parents=True)
    with hold(tmp_path) as run:
        lock.touch()
        with hold(tmp_path) as beside:  # such as `snakemake -n`
            run.kill()
            run.wait()
            assert beside.communicate() == ("", "")
        assert lock.exists(), "somebody was still at the folder"
    with hold(tmp_path) as later:
        assert "which a killed run had left locked" in later.communicate()[1]
        assert not lock.exists()


def test_a_run_waits_for_the_jobs_that_a_killed_one_has_left(tmp_path):
    lock = tmp_path / LOCKS / "0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    with hold(tmp_path, "hold_as_job") as job, started(tmp_path) as run:
        assert "waiting for the jobs of a killed run" in run.stderr.readline()
        assert lock.exists()
        job.communicate()
        assert run.stdout.readline() == "ready\n"
        assert not lock.exists()
        with open(tmp_path / HELD, "r+") as held, pytest.raises(BlockingIOError):
            fcntl.lockf(held, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, JOBS)  # as a job that begins
        run.communicate()


def test_jobs_begin_as_soon_as_their_run_admits_them(tmp_path):
    with hold(tmp_path, "free_dead_locks(); lock.admit_jobs") as run:
        with hold(tmp_path, "hold_as_job") as job:
            job.communicate()
        run.communicate()


def test_a_job_knows_the_stages_of_the_run_that_sent_it_and_of_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stage = Step("a", "run", None, {"gpu": 1}, ["x"], ["y"], stale=True, rerun=True, dependents=2)
    monkeypatch.delenv("HMDIFF_RUN", raising=False)
    send({"a": stage})
    assert sent() == {"a": replace(stage, stale=False, rerun=False)}
    first = os.environ["HMDIFF_RUN"]
    send({"a": replace(stage, cmd="other")})
    assert sent()["a"].cmd == "other"
    monkeypatch.setenv("HMDIFF_RUN", first)
    with pytest.raises(UserError, match="another one is going on"):
        sent()
    monkeypatch.delenv("HMDIFF_RUN")  # a cluster that hands no environment on
    assert sent()["a"].cmd == "other"


def test_a_folder_that_cannot_be_locked_is_left_as_it_is(tmp_path):
    lock = tmp_path / LOCKS / "0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    (tmp_path / HELD).mkdir(parents=True)
    with hold(tmp_path) as run:
        assert run.communicate() == ("", "") and lock.exists()
