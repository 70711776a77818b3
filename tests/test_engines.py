"""Both engines agree on what is stale: the project's own Snakefile over a pipeline of seconds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from engines import (
    assert_settled,
    copy_engine,
    dvc,
    environment,
    ran_by_dvc,
    ran_by_snakemake,
    run,
    snakemake,
)

PARAMS = """\
sets: [x, y]
gain: {m1: 2, m2: 3}
pause: 0
"""

STEP = """\
import json, pathlib, sys, time
from ruamel.yaml import YAML

target, *sources = map(pathlib.Path, sys.argv[1:])
params = YAML(typ="safe").load(open("params.yaml"))
gain = params["gain"].get(target.name, 1)
values = []
for source in sources:
    for path in sorted(source.rglob("*.txt")) if source.is_dir() else [source]:
        values += [gain * int(word) for word in path.read_text().split()]
if target.suffix:
    path = target
else:
    target.mkdir(parents=True)
    path = target / "value.txt"
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text("0 ")
if target.name in params["gain"]:
    time.sleep(params["pause"])
path.write_text(" ".join(map(str, values)))
"""

STAGES = """\
stages:
  prepare:
    foreach: ${sets}
    do:
      desc: Prepare ${item}.
      cmd: python step.py made/all/${item}.txt raw/${item}.txt
      meta: {threads: 1, mem_mb: 100, gpu: 0}
      deps: [step.py, raw]
      outs: ["made/all/${item}.txt"]
  train:
    foreach: [m1, m2]
    do:
      desc: Train ${item} on the folder of all sets.
      cmd: python step.py models/${item} made/all
      meta: {threads: 1, mem_mb: 100, gpu: 0}
      deps: [made/all]
      params: ["gain.${item}"]
      outs: ["models/${item}"]
  table1:
    desc: One table of both.
    cmd: python step.py table1.txt models/m1 models/m2
    meta: {threads: 1, mem_mb: 100, gpu: 0}
    deps: [models/m1, models/m2]
    outs:
    - table1.txt:
        cache: false
  table2:
    desc: A table of the first.
    cmd: python step.py table2.txt models/m1
    meta: {threads: 1, mem_mb: 100, gpu: 0}
    deps: [models/m1]
    outs:
    - table2.txt:
        cache: false
"""

EVERY = {"prepare@x", "prepare@y", "train@m1", "train@m2", "table1", "table2"}


def make_project(folder: Path) -> Path:
    folder.mkdir()
    copy_engine(folder)
    (folder / "raw").mkdir()
    for name, text in {
        "params.yaml": PARAMS, "step.py": STEP, "dvc.yaml": STAGES,
        "raw/x.txt": "1 2", "raw/y.txt": "3 4", ".gitignore": "made/\nmodels/\nlogs/\n",
    }.items():  # fmt: skip
        (folder / name).write_text(text)
    run(folder, "git", "init", "-q")
    return folder


def content(path: Path) -> str | None:
    """Text of a file that another process may delete at any moment."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> dict[str, Path]:
    """The same pipeline, run from nothing by each engine."""
    folder = tmp_path_factory.mktemp("engines")
    by_snakemake = make_project(folder / "snakemake")
    assert ran_by_snakemake(snakemake(by_snakemake)) == EVERY
    by_dvc = make_project(folder / "dvc")
    assert ran_by_dvc(dvc(by_dvc, "repro")) == EVERY
    return {"snakemake": by_snakemake, "dvc": by_dvc}


@pytest.fixture
def project(finished, tmp_path) -> Path:
    """A finished project of this test's own."""
    folder = tmp_path / "project"
    shutil.copytree(finished["snakemake"], folder, symlinks=True)
    return folder


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_after_a_run_neither_engine_has_anything_to_do(finished, engine):
    assert_settled(finished[engine])


def test_both_engines_write_the_same_lock_and_results(finished):
    locks = [(folder / "dvc.lock").read_text() for folder in finished.values()]
    assert sorted(locks[0].splitlines()) == sorted(locks[1].splitlines())
    tables = [(folder / "table1.txt").read_text() for folder in finished.values()]
    assert tables[0] == tables[1] == "2 4 6 8 3 6 9 12"


def test_one_table_runs_only_what_it_needs(tmp_path):
    folder = make_project(tmp_path / "project")
    assert ran_by_snakemake(snakemake(folder, "table2")) == EVERY - {"train@m2", "table1"}
    assert not (folder / "models/m2").exists()


def test_touching_or_restoring_files_reruns_nothing(project):
    for path in [project / "raw/x.txt", *project.glob("models/*/*"), project / "step.py"]:
        os.utime(path)
    shutil.rmtree(project / "models")
    dvc(project, "checkout", "--quiet")
    assert_settled(project)


def test_a_changed_parameter_reruns_the_same_stages_in_both_engines(project, tmp_path):
    other = tmp_path / "other"
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("m2: 3", "m2: 5"))
    shutil.copytree(project, other, symlinks=True)
    expected = {"train@m2", "table1"}
    assert ran_by_snakemake(snakemake(project, "-n")) == expected
    assert ran_by_snakemake(snakemake(project)) == expected
    assert ran_by_dvc(dvc(other, "repro")) == expected
    assert (project / "table1.txt").read_text() == (other / "table1.txt").read_text()
    assert_settled(project)


def test_a_clock_that_was_set_back_hides_no_stale_stage(project):
    """Everything is dated a day after whatever is written now."""
    ahead = time.time() + 86400
    for path in [*project.rglob("*"), *project.glob("models/*/.snakemake_timestamp")]:
        os.utime(path, (ahead, ahead), follow_symlinks=False)
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("m2: 3", "m2: 5"))
    assert ran_by_snakemake(snakemake(project)) == {"train@m2", "table1"}
    assert (project / "table1.txt").read_text() == "2 4 6 8 5 10 15 20"
    assert_settled(project)


def test_a_deleted_output_is_made_again(project):
    (project / "table2.txt").unlink()
    assert ran_by_snakemake(snakemake(project)) == {"table2"}
    assert_settled(project)


def test_a_killed_job_leaves_nothing_that_looks_finished(project):
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("m1: 2", "m1: 7").replace("pause: 0", "pause: 60"))
    process = subprocess.Popen(
        ["snakemake", "--cores", "1"], cwd=project, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    half = project / "models/m1/value.txt"
    try:
        while process.poll() is None and content(half) != "0 ":
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert content(half) == "0 ", "the job was not killed half-way"
    params.write_text(params.read_text().replace("pause: 60", "pause: 0"))
    assert list(project.glob(".snakemake/locks/*")), "nothing was locked"
    assert ran_by_snakemake(snakemake(project)) == {"train@m1", "table1", "table2"}
    assert (project / "table2.txt").read_text() == "7 14 21 28"
    assert_settled(project)


def test_a_failing_stage_shows_its_error_and_stays_stale(project):
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("m1: 2", "m1: null"))
    lock = (project / "dvc.lock").read_text()
    assert "TypeError" in snakemake(project, check=False)
    assert (project / "dvc.lock").read_text() == lock
    assert "train@m1" in dvc(project, "status")
