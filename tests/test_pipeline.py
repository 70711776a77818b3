"""The real pipeline at the smoke preset, from nothing to all tables, once through each engine.

DVC runs every stage as a user does. Snakemake's stages are forks of one process (warm.py), which
halves their processor time and may change no byte.
"""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from engines import (
    TIMED,
    assert_settled,
    dvc,
    dvc_repro,
    environment,
    outputs,
    ran_by_dvc,
    ran_by_snakemake,
    run,
    smoke_project,
    snakemake,
)
from warm import warm

pytestmark = pytest.mark.pipeline

TABLES = [f"table{number}" for number in range(1, 8)]


def stages(folder: Path) -> set[str]:
    return set(re.findall(r"^(\S+)", dvc(folder, "stage", "list", "--name-only"), re.MULTILINE))


def with_both(projects: dict[str, Path], forks: dict[str, str]) -> dict[str, set[str]]:
    """Run both engines side by side; the stages that each of them ran."""
    with ThreadPoolExecutor() as pool:
        by_snakemake = pool.submit(snakemake, projects["snakemake"], env=forks)
        by_dvc = pool.submit(dvc_repro, projects["dvc"])
        return {
            "snakemake": ran_by_snakemake(by_snakemake.result()),
            "dvc": ran_by_dvc(by_dvc.result()),
        }


@pytest.fixture(scope="module")
def forks() -> dict[str, str]:
    """An environment in which ``hmdiff`` starts at once."""
    with warm(environment()) as changed:
        yield changed


@pytest.fixture(scope="module")
def projects(tmp_path_factory, forks) -> dict[str, Path]:
    """The smoke pipeline, run from nothing by each engine."""
    folder = tmp_path_factory.mktemp("pipeline")
    projects = {engine: smoke_project(folder / engine) for engine in ("snakemake", "dvc")}
    every = stages(projects["dvc"])
    assert with_both(projects, forks) == {"snakemake": every, "dvc": every}
    return projects


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_after_every_stage_ran_neither_engine_has_anything_to_do(projects, engine):
    assert_settled(projects[engine])


def test_both_engines_write_the_same_bytes(projects):
    first, second = outputs(projects["snakemake"]), outputs(projects["dvc"])
    assert first.keys() == second.keys()
    assert {path for path in first if first[path] != second[path]} <= TIMED


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_its_three_files_and_says_that_its_data_are_rendered(projects, table):
    results = projects["snakemake"] / "results"
    records = json.loads((results / f"{table}.json").read_text())
    measured = [record for record in records if record["measured"] is not None]
    assert measured
    assert {record["source"] for record in measured} == {"rendered"}
    assert "rendered" in (results / f"{table}.tex").read_text()
    assert "\\toprule" in (results / f"{table}.tex").read_text()
    assert len((results / f"{table}.csv").read_text().splitlines()) > 2


def test_every_table_is_an_mlflow_experiment_with_a_run_a_row(projects):
    code = (
        "import mlflow; mlflow.set_tracking_uri('sqlite:///mlflow.db');"
        "[print(e.name, len(mlflow.search_runs([e.experiment_id])))"
        " for e in mlflow.search_experiments()]"
    )
    lines = run(projects["snakemake"], "python", "-c", code).splitlines()
    runs = dict(line.split() for line in lines if line.startswith("table"))
    assert sorted(runs) == TABLES
    assert all(int(count) >= 2 for count in runs.values())
    board = run(projects["snakemake"], "hmdiff", "runs", "--experiment", "training")
    assert "train@image (3dpw, human36m;" in board
    assert "pretrain_extractor@hand (freihand;" in board


def test_the_report_shows_tables_curves_and_what_every_stage_cost(projects):
    page = (projects["snakemake"] / "results/report.html").read_text()
    assert page.count("data:image/svg+xml") == 4 and "rendered stand-ins" in page
    shown = {group for group in re.findall(r'<th scope="row">(\w+)</th>', page)}
    assert shown >= {re.sub("@.*", "", name) for name in stages(projects["dvc"])} - {"report"}


def test_one_parameter_of_one_training_reruns_the_same_stages_in_both_engines(projects, forks):
    expected = {
        "train@baseline_a", "select_steps@baseline_a", "evaluate@3dpw_baseline_a", "table3",
        "report",
    }  # fmt: skip
    for folder in projects.values():
        params = folder / "params.yaml"
        text = params.read_text()
        changed = re.sub(r"(baseline_a: \{kind: body, model: direct.*?depth: )1", r"\g<1>2", text)
        assert changed != text
        params.write_text(changed)
    assert ran_by_snakemake(snakemake(projects["snakemake"], "-n")) == expected
    assert with_both(projects, forks) == {"snakemake": expected, "dvc": expected}


def test_touching_a_big_file_reruns_nothing(projects):
    folder = projects["snakemake"]
    for path in [*folder.glob("data/prepared/*/*.h5"), *folder.glob("models/*/*/*")]:
        os.utime(path)
    assert_settled(folder)
