"""The real pipeline at the smoke preset, from nothing to Table 6, once through each engine."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from engines import (
    assert_settled,
    copy_project,
    dvc,
    ran_by_dvc,
    ran_by_snakemake,
    run,
    snakemake,
)
from ruamel.yaml import YAML

pytestmark = pytest.mark.pipeline

TABLES = [f"table{number}" for number in range(1, 7)]
# What is timed differs from run to run, and so does the table that shows it.
TIMED = {"runs/speed.json", "results/table6.csv", "results/table6.tex", "results/table6.json"}


def smoke_project(folder: Path) -> Path:
    folder.mkdir()
    copy_project(folder)
    for stale in ("dvc.lock", "results"):
        path = folder / stale
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    run(folder, "hmdiff", "preset", "smoke")
    return folder


def stages(folder: Path) -> set[str]:
    return set(re.findall(r"^(\S+)", dvc(folder, "stage", "list", "--name-only"), re.MULTILINE))


def outputs(folder: Path) -> dict[str, str]:
    """Path and content hash of every output that dvc.lock records."""
    lock = YAML(typ="safe").load((folder / "dvc.lock").read_text())
    outs = [out for stage in lock["stages"].values() for out in stage["outs"]]
    return {out["path"]: out["md5"] for out in outs}


@pytest.fixture(scope="module")
def by_snakemake(tmp_path_factory) -> Path:
    folder = smoke_project(tmp_path_factory.mktemp("pipeline") / "snakemake")
    assert ran_by_snakemake(snakemake(folder)) == stages(folder)
    return folder


@pytest.fixture(scope="module")
def by_dvc(tmp_path_factory) -> Path:
    folder = smoke_project(tmp_path_factory.mktemp("pipeline") / "dvc")
    assert ran_by_dvc(dvc(folder, "repro")) == stages(folder)
    return folder


def test_snakemake_runs_every_stage_and_settles(by_snakemake):
    assert_settled(by_snakemake)


def test_dvc_runs_every_stage_and_settles(by_dvc):
    assert_settled(by_dvc)


def test_both_engines_write_the_same_bytes(by_snakemake, by_dvc):
    first, second = outputs(by_snakemake), outputs(by_dvc)
    assert first.keys() == second.keys()
    assert {path for path in first if first[path] != second[path]} <= TIMED


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_its_three_files_and_says_that_its_data_are_rendered(by_snakemake, table):
    results = by_snakemake / "results"
    records = json.loads((results / f"{table}.json").read_text())
    measured = [record for record in records if record["measured"] is not None]
    assert measured
    assert {record["source"] for record in measured} == {"rendered"}
    assert "rendered" in (results / f"{table}.tex").read_text()
    assert "\\toprule" in (results / f"{table}.tex").read_text()
    assert len((results / f"{table}.csv").read_text().splitlines()) > 2


def test_every_table_is_an_mlflow_experiment_with_a_run_a_row(by_snakemake):
    code = (
        "import mlflow; mlflow.set_tracking_uri('sqlite:///mlflow.db');"
        "[print(e.name, len(mlflow.search_runs([e.experiment_id])))"
        " for e in mlflow.search_experiments()]"
    )
    lines = run(by_snakemake, "python", "-c", code).splitlines()
    runs = dict(line.split() for line in lines if line.startswith("table"))
    assert sorted(runs) == TABLES
    assert all(int(count) >= 2 for count in runs.values())


def test_one_parameter_of_one_training_reruns_the_same_stages_in_both_engines(by_snakemake, by_dvc):
    expected = {
        "train@baseline_a", "select_steps@baseline_a", "evaluate@3dpw_baseline_a", "table3",
    }  # fmt: skip
    for folder in (by_snakemake, by_dvc):
        params = folder / "params.yaml"
        text = params.read_text()
        changed = re.sub(r"(baseline_a: \{kind: body, model: direct.*?depth: )1", r"\g<1>2", text)
        assert changed != text
        params.write_text(changed)
    assert ran_by_snakemake(snakemake(by_snakemake, "-n")) == expected
    assert ran_by_snakemake(snakemake(by_snakemake)) == expected
    assert ran_by_dvc(dvc(by_dvc, "repro")) == expected
    assert_settled(by_snakemake)
    assert_settled(by_dvc)


def test_touching_a_big_file_reruns_nothing(by_snakemake):
    for path in [*by_snakemake.glob("data/prepared/*/*.h5"), *by_snakemake.glob("models/*/*/*")]:
        os.utime(path)
    assert_settled(by_snakemake)
