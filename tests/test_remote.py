"""Results travel: after a push and a pull, a fresh clone has everything and runs nothing."""

from __future__ import annotations

import shutil
import urllib.request
from pathlib import Path

import pytest
from engines import assert_settled, dvc, ran_by_dvc, run
from moto.server import ThreadedMotoServer
from test_engines import EVERY, make_project

SCORE = """\
import json
numbers = map(int, open("table1.txt").read().split())
json.dump({"total": sum(numbers)}, open("score.json", "w"))
"""
STAGE = """\
  score:
    desc: Add the table up.
    cmd: python score.py
    meta: {threads: 1, mem_mb: 100, gpu: 0}
    deps: [table1.txt]
    metrics:
    - score.json:
        cache: false
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A project whose pipeline has run, committed to git as a researcher would."""
    folder = make_project(tmp_path_factory.mktemp("remote") / "project")
    assert ran_by_dvc(dvc(folder, "repro")) == EVERY
    commit(folder, "Run everything")
    return folder


@pytest.fixture
def project(finished, tmp_path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(finished, folder, symlinks=True)
    return folder


@pytest.fixture
def bucket(monkeypatch) -> tuple[str, str]:
    """The endpoint of an S3 service on this machine, and a bucket's address in it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/results", method="PUT")).close()
    yield endpoint, "s3://results/hmdiff"
    server.stop()


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", message)


def clone(project: Path, folder: Path) -> Path:
    run(project.parent, "git", "clone", "-q", str(project), str(folder))
    return folder


def assert_same(project: Path, copy: Path) -> None:
    """``copy`` has the outputs of ``project`` and DVC runs nothing to get them."""
    assert ran_by_dvc(dvc(copy, "repro")) == set()
    for name in ("table1.txt", "table2.txt", "models/m1/value.txt", "made/all/x.txt"):
        assert (copy / name).read_text() == (project / name).read_text()


def test_a_folder_as_remote_gives_a_clone_everything(project, tmp_path):
    dvc(project, "remote", "add", "--default", "store", str(tmp_path / "store with spaces"))
    commit(project, "Name the remote")
    assert "pushed" in dvc(project, "push")
    copy = clone(project, tmp_path / "copy")
    assert not (copy / "models").exists()
    dvc(copy, "pull")
    assert_same(project, copy)
    assert_settled(copy)


def test_an_s3_bucket_as_remote_gives_a_clone_everything(project, tmp_path, bucket):
    endpoint, address = bucket
    dvc(project, "remote", "add", "--default", "store", address)
    dvc(project, "remote", "modify", "store", "endpointurl", endpoint)
    commit(project, "Name the remote")
    assert "pushed" in dvc(project, "push")
    assert "up to date" in dvc(project, "push")
    copy = clone(project, tmp_path / "copy")
    dvc(copy, "pull")
    assert_same(project, copy)


def test_one_table_alone_can_be_pulled(project, tmp_path):
    dvc(project, "remote", "add", "--default", "store", str(tmp_path / "store"))
    commit(project, "Name the remote")
    dvc(project, "push")
    copy = clone(project, tmp_path / "copy")
    dvc(copy, "pull", "train@m1")
    assert (copy / "models/m1/value.txt").exists() and not (copy / "models/m2").exists()


def test_metrics_and_experiments_show_what_a_parameter_changed(project):
    (project / "score.py").write_text(SCORE)
    with open(project / "dvc.yaml", "a") as stages:
        stages.write(STAGE)
    dvc(project, "repro")
    commit(project, "Score")
    dvc(project, "exp", "run", "--name", "stronger", "--set-param", "gain.m2=5")
    assert "total" in dvc(project, "metrics", "diff")
    shown = dvc(project, "exp", "show", "--csv")
    (row,) = (line for line in shown.splitlines() if line.startswith("stronger,"))
    assert ",70," in row  # 2 (1 + 2 + 3 + 4) + 5 (1 + 2 + 3 + 4)
    assert "train@m1" not in dvc(project, "status")
