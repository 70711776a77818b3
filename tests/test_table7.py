"""Table 7: spread and error of the chains, joint by joint, before and after one scale."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from test_tables import load, write_summary

from hmdiff.errors import UserError
from hmdiff.evaluation import calibration
from hmdiff.stages import table7 as stage
from hmdiff.tables.paper import layout
from hmdiff.tables.runs import uncertainty_run
from hmdiff.tables.uncertainty import Record, build_uncertainty, write_uncertainty

IMAGES = 96  # as write_summary says


def write_spread(folder: Path, evaluation: str, factor: float = 2.0) -> None:
    """Errors that are ``factor`` times as large as the spread of their two joints says."""
    random = np.random.default_rng(0)
    spread = random.uniform(0.01, 0.05, (IMAGES, 2)).astype(np.float32)
    error = factor * spread[..., None] * random.normal(size=(IMAGES, 2, 3))
    np.savez(
        folder / evaluation / "predictions.npz",
        joint_error=error.astype(np.float32), joint_spread=spread,
    )  # fmt: skip


@pytest.fixture
def measured(tmp_path):
    for evaluation in layout(7).values():
        write_summary(tmp_path, evaluation)
        write_spread(tmp_path, evaluation)
    return tmp_path


def find(table, metric: str, joint: str = "all", row: str = "Ours") -> Record:
    (record,) = (r for r in table.records if (r.metric, r.joint, r.row) == (metric, joint, row))
    return record


def test_the_spread_is_the_deviation_of_a_coordinate_over_the_chains():
    chains = np.random.default_rng(1).normal(0, 0.03, (4, 500, 2, 3))
    assert calibration.spread_of(chains) == pytest.approx(np.full((4, 2), 0.03), rel=0.1)
    expected = np.sqrt(chains.var(axis=1, ddof=1).mean(-1))
    assert calibration.spread_of(chains) == pytest.approx(expected)
    assert not calibration.spread_of(chains[:, :1]).any()


def test_the_scale_makes_normal_errors_normal():
    random = np.random.default_rng(2)
    spread = random.uniform(0.01, 0.1, (4000, 3))
    error = 3 * spread[..., None] * random.normal(size=(4000, 3, 3))
    scale = calibration.fit_scale(error, spread)
    assert scale == pytest.approx(3, rel=0.02)
    for level in (0.5, 0.9):
        before, after = (
            calibration.covered(error, spread, level, by).mean() for by in (1.0, scale)
        )
        assert after == pytest.approx(level, abs=0.01) and before < 0.6 * level
    assert calibration.fit_scale(error, np.zeros_like(spread)) is None


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_correlations_are_scipys_joint_by_joint(kind):
    random = np.random.default_rng(3)
    first = random.normal(size=(40, 5)).round(1)  # with ties
    second = (first + random.normal(size=(40, 5))).round(1)
    oracle = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[kind]
    expected = [oracle(first[:, j], second[:, j]).statistic for j in range(5)]
    assert getattr(calibration, kind)(first, second) == pytest.approx(expected)
    low, high = calibration.correlation_interval(first, second, kind, 300, 0)
    assert low < np.mean(expected) < high


def test_the_table_has_every_joint_and_their_mean(measured):
    table = build_uncertainty(measured, load(), "abc")
    assert find(table, "Coverage 90%").measured < 0.7
    assert find(table, "Coverage 90% recalibrated").measured == pytest.approx(0.9, abs=0.05)
    assert find(table, "Coverage 50% recalibrated").measured == pytest.approx(0.5, abs=0.07)
    assert find(table, "Scale").measured == 2.0 and find(table, "Pearson").measured > 0.2
    for metric in ("Spread", "Error", "Spearman", "Coverage 50%"):
        whole = find(table, metric)
        parts = [find(table, metric, joint).measured for joint in ("Neck", "Head")]
        assert whole.measured == pytest.approx(np.mean(parts))
        assert whole.ci_low < whole.measured < whole.ci_high
    assert find(table, "Error").unit == "mm" and find(table, "Error").n == IMAGES
    caption = " ".join(table.notices)
    assert "N = 5 chains" in caption and "stand-ins" in caption


def test_without_a_validation_run_nothing_is_recalibrated(measured):
    write_summary(measured, "3dpw_dat", spread_scale=None)
    table = build_uncertainty(measured, load(), None)
    metrics = {record.metric for record in table.records if record.row == "Ours"}
    assert metrics == {"Spread", "Error", "Pearson", "Spearman", "Coverage 50%", "Coverage 90%"}
    paths = write_uncertainty(table, measured / "results")
    rows = list(csv.DictReader(paths[0].open()))
    assert rows[0]["Scale"] == "-" and rows[0]["Method"] == "Ours" and rows[3]["Scale"] != "-"


def test_the_stage_writes_prints_and_logs_the_same_table(measured, monkeypatch, capsys):
    logged = []
    monkeypatch.setattr(stage, "log_run", lambda *what: logged.append(what))
    stage.run(measured, measured / "results", load())
    assert "ours, not in the paper" in capsys.readouterr().out
    records = json.loads((measured / "results/table7.json").read_text())
    assert len(records) == len(layout(7)) * (3 * 8 + 1)
    ((experiment, run, _),) = logged
    assert experiment == "table7" and len(run.artifacts) == 3
    child = run.children[0]
    error = next(r for r in records if (r["joint"], r["metric"]) == ("all", "Error"))
    assert child.metrics["Error"] == error["measured"] and child.tags["row"] == "Ours"
    assert not any("%" in name for name in child.metrics)
    tex = (measured / "results/table7.tex").read_text()
    assert r"\toprule" in tex and "Both Features" in tex


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_text("no"), "predictions.npz"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "predictions.npz: missing or dam"),
        (lambda path: np.savez(path, joint_error=np.ones((3, 2, 3))), "joint_spread"),
        (lambda path: np.savez(path, joint_error=np.ones((3, 2, 3)), joint_spread=np.ones((3, 2))),
         "joint_spread: is"),
    ],
)  # fmt: skip
def test_damaged_predictions_are_one_line_that_names_the_stage(measured, spoil, message):
    spoil(measured / "3dpw_standard/predictions.npz")
    with pytest.raises(UserError, match=f"{message}.*evaluate@3dpw_standard") as caught:
        build_uncertainty(measured, load(), None)
    assert "\n" not in str(caught.value)


def test_one_chain_has_no_spread_to_speak_of(measured):
    write_summary(measured, "3dpw_dat", chains=1)
    with pytest.raises(UserError, match=r"needs chains that differ.*reverse\.chains"):
        build_uncertainty(measured, load(), None)


def test_the_rows_are_what_dvc_gives(measured):
    from ruamel.yaml import YAML

    deps = YAML(typ="safe").load(Path(__file__).parents[1] / "dvc.yaml")["stages"]["table7"]["deps"]
    given = {Path(dep).name for dep in deps if dep.startswith("runs/evaluate/")}
    assert given == set(layout(7).values())
    assert uncertainty_run(build_uncertainty(measured, load(), None), [], load()).children
