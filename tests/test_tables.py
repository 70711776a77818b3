"""The tables: the paper's numbers and rows, ours beside them, and where each is from."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from hmdiff.errors import UserError
from hmdiff.evaluation.bootstrap import mean_interval
from hmdiff.machine import current_commit
from hmdiff.params import Params, load_params
from hmdiff.stages import table as stage
from hmdiff.tables.build import Record, build_table
from hmdiff.tables.notices import STAND_IN
from hmdiff.tables.paper import dataset_title, paper_table
from hmdiff.tables.render import latex_text, to_csv, to_latex, to_text, write_table
from hmdiff.tables.runs import table_run

ROOT = Path(__file__).parents[1]
NUMBERS = range(1, 7)
METRICS = {
    "3dpw": ["MPVE", "MPJPE", "PA-MPJPE"],
    "human36m": ["MPJPE", "PA-MPJPE"],
    "freihand": ["PA-MPVPE", "PA-MPJPE", "F@5", "F@15"],
}
# Rows and some cells as they stand in the paper, written down a second time.
ROWS = {
    1: ["Kanazawa et al. [21]", "GraphCMR [28]", "SPIN [27]", "Pose2Mesh [7]", "I2LMeshNet [40]",
        "VIBE [25]", "METRO [33]", "Mesh Graphormer [34]", "FastMETRO [6]", "Ours"],
    2: ["Hasson et al. [16] *", "Boukhayma et al. [5] *", "FreiHAND [64] *", "Pose2Mesh [7]",
        "I2LMeshNet [40]", "METRO [33]", "Mesh Graphormer [34]", "FastMETRO [6]", "Ours"],
    3: ["Baseline A", "Baseline B", "Ours"],
    4: ["Standard", "Pose Feature", "Both Features", "Ours (with DAT)"],
    5: ["Ours w/ H_U", "Disrupted", "Ours w/ u_c", "Ours w/o AS", "Ours"],
    6: ["FastMETRO [6]", "Ours"],
}  # fmt: skip
LAST = {
    1: (82.4, 72.7, 44.5, 49.3, 32.4),
    2: (5.7, 5.6, 0.781, 0.986),
    3: (82.4, 72.7, 44.5),
    4: (82.4, 72.7, 44.5, 40),
    5: (82.4, 72.7, 44.5),
    6: (49.3, 18),
}
EVIL = "<script>alert(1)</script>"
COUNT = 6
# The sum of all numbers of a table and how many there are: a slip in any cell shows.
SUMS = {
    1: (2577.8, 41), 2: (124.235, 31), 3: (690.1, 9),
    4: (1417.0, 16), 5: (1065.3, 15), 6: (142.5, 4),
}  # fmt: skip


@cache
def load() -> Params:
    return load_params(ROOT / "params.yaml")


def write_summary(folder: Path, evaluation: str, source: str = "rendered", **changes) -> Path:
    item = load().evaluations[evaluation]
    means = {
        name: {"mean": 50.25 + 10 * rank, "low": 48.0 + 10 * rank, "high": 53.0 + 10 * rank}
        for rank, name in enumerate(METRICS[item.dataset])
    }
    summary = {
        "evaluation": evaluation, "method": item.method, "dataset": item.dataset, "source": source,
        "n": 96, "steps": 20, "chains": 5, "seeds": [0], "gflop": 1.5, "means": means,
        "active_steps": 3.0, "spread_scale": 2.0, "protocol": {"joints": ["Neck", "Head"]},
        "trained": {
            "experiment": load().experiments[item.experiment].model_dump(mode="json"),
            "parameters": 196_675,
        },
        "reverse": load().reverse.model_dump(mode="json") | {"disrupted_reduction": "mean"},
    }  # fmt: skip
    path = folder / evaluation / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary | changes))
    return path


def write_samples(
    folder: Path, evaluation: str, offset: float = 0.0, first: int = 0, seed: int | None = None
) -> None:
    """Six samples whose every metric is 50, 51, ... plus ``offset``; ``seed`` adds rows to them."""
    names = METRICS[load().evaluations[evaluation].dataset]
    lines = [",".join(["sample_id", *names, *(["seed"] if seed is not None else [])])]
    for at in range(COUNT):
        values = [str(50 + at + offset)] * len(names) + ([str(seed)] if seed is not None else [])
        lines.append(",".join([f"{EVIL}{first + at}", *values]))
    path = folder / evaluation / "samples.csv"
    if seed:
        lines = [path.read_text().rstrip("\n"), *lines[1:]]
    path.write_text("\n".join(lines) + "\n")


def write_speed(folder: Path) -> Path:
    record = {"unit": "1/s", "low": 1.5, "high": 2.5, "repeats": 5, "chains": None, "steps": None}
    records = [
        record | {"name": "fastmetro_l", "value": 12.34},
        record | {"name": "hmdiff_paper", "value": 0.51, "chains": 25, "steps": 40},
        record | {"name": "hmdiff_configured", "value": 2.02, "chains": 5, "steps": 10},
        record | {"name": "hmdiff_fast", "value": 9.5, "chains": 5, "steps": 20},
    ]
    machine = {
        "device": "cpu", "cpus": 2, "threads": 2, "precision": "bf16", "torch": "2.0",
        "backbone": "resnet18", "image_size": 112,
    }  # fmt: skip
    facts = {"dataset": "human36m", "source": "rendered", "seed": 0, "machine": machine}
    path = folder / "speed.json"
    path.write_text(json.dumps({"records": records, **facts}))
    return path


@pytest.fixture
def measured(tmp_path):
    """A folder with all evaluations, and the timings."""
    for number in NUMBERS:
        for evaluation in paper_table(number).evaluations():
            write_summary(tmp_path / "evaluate", evaluation)
            write_samples(tmp_path / "evaluate", evaluation)
    write_speed(tmp_path)
    return tmp_path


def build(measured, number: int):
    return build_table(number, measured / "evaluate", measured / "speed.json", load(), "abc1234")


@pytest.mark.parametrize("number", NUMBERS)
def test_the_papers_rows_and_numbers_are_the_papers(number):
    table = paper_table(number)
    numbers = [value for row in table.rows.values() for value in row if value is not None]
    assert list(table.rows) == ROWS[number]
    assert table.rows[ROWS[number][-1]] == LAST[number]
    assert (round(sum(numbers), 3), len(numbers)) == SUMS[number]
    assert {len(row) for row in table.rows.values()} == {len(table.columns)}


@pytest.mark.parametrize("number", NUMBERS)
def test_a_table_needs_what_dvc_gives_it(number):
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    deps = stages[f"table{number}"]["deps"]
    given = {Path(dep).name for dep in deps if dep.startswith("runs/evaluate/")}
    assert set(paper_table(number).evaluations()) == given
    assert given <= load().evaluations.keys()


@pytest.mark.parametrize("number", NUMBERS)
def test_the_csv_is_laid_out_like_the_paper(measured, number):
    table = build(measured, number)
    header, *rows = csv.reader(io.StringIO(to_csv(table)))
    assert [row[0] for row in rows][: len(ROWS[number])] == ROWS[number]
    printed = [at for at, name in enumerate(header) if name.endswith("(paper)")]
    assert len(printed) == len(table.paper.columns) and printed[0] == 1
    assert all(header[at + 1].endswith(("(rendered)", "FPS (measured)")) for at in printed)
    rest = set(range(1, len(header))) - {at + more for at in printed for more in (0, 1)}
    assert all(header[at] == header[at - 1].replace("rendered", "verdict") for at in rest)
    for row in rows[: len(ROWS[number])]:
        quoted = [None if row[at] == "-" else float(row[at]) for at in printed]
        assert tuple(quoted) == table.paper.rows[row[0]]


@pytest.mark.parametrize("number", range(1, 6))
def test_a_linear_control_follows_the_papers_rows(measured, number):
    head, *_, last = csv.reader(io.StringIO(to_csv(build(measured, number))))
    cells = dict(zip(head, last, strict=True))
    assert cells["Method"] == "Linear map from U (control, ours)"
    assert {cell for name, cell in cells.items() if name.endswith("(paper)")} == {"-"}
    lacking = [name for name, cell in cells.items() if "rendered" in name and cell == "-"]
    assert len(lacking) == (number == 4)  # it needs no reverse steps


@pytest.mark.parametrize("number", NUMBERS)
def test_records_say_where_each_number_is_from(measured, number):
    paths = write_table(build(measured, number), measured / "results")
    records = json.loads(paths[-1].read_text())
    assert [path.suffix for path in paths] == [".csv", ".tex", ".json"]
    assert {path.stem for path in paths} == {f"table{number}"}
    for record in records:
        assert list(record) == [field.name for field in fields(Record)]
        assert record["table"] == number and record["commit"] == "abc1234"
        assert record["quoted"] == (record["measured"] is None) == (record["source"] == "paper")
        if record["quoted"]:
            assert record["paper"] is not None and record["seeds"] == []
        else:
            assert record["source"] == "rendered" and record["seeds"] == [0] and record["n"] > 0
    keys = [(record["row"], record["dataset"], record["metric"]) for record in records]
    assert len(set(keys)) == len(keys)
    assert sum(record["paper"] is not None for record in records) == SUMS[number][1]


def test_a_measured_cell_carries_value_interval_and_paper(measured):
    records = build(measured, 1).records.values()
    (record,) = (r for r in records if (r.row, r.dataset, r.metric) == ("Ours", "3dpw", "MPVE"))
    assert (record.paper, record.measured, record.ci_low, record.ci_high) == (82.4, 50.25, 48, 53)
    assert (record.n, record.unit) == (96, "mm")


def test_steps_needed_are_the_steps_that_were_found(measured):
    write_summary(measured / "evaluate", "3dpw_standard", steps=100)
    records = {r.row: r for r in build(measured, 4).records.values() if r.unit == "steps"}
    assert (records["Standard"].measured, records["Standard"].paper) == (100, 200)
    assert records["Ours (with DAT)"].measured == 20
    assert "Linear map from U (control, ours)" not in records  # it has no reverse process


def test_notices_say_what_a_row_is_not(measured):
    text = {number: " ".join(build(measured, number).notices) for number in NUMBERS}
    depth = load().experiments["baseline_b"].depth
    assert "Ours 1.50 GFLOP (5 chains of 20 steps, with DAT's backward passes), so 0.30" in text[3]
    assert f"Baseline B, {depth} blocks in one pass, 1.50, 5.00 times a chain's" in text[3]
    assert "the fewest of the candidates whose error on validation images" in text[4]
    assert "mean over the draws, in every step" in text[5]
    narrow = {number for number in NUMBERS if "intervals are too narrow" in text[number]}
    assert narrow == {1, 3, 4, 5, 6}  # FreiHAND's images are no sequences


def test_a_disrupted_row_that_sums_is_not_said_to_average(measured):
    reverse = load().reverse.model_dump(mode="json") | {"disrupted_reduction": "sum"}
    write_summary(measured / "evaluate", "3dpw_disrupted", reverse=reverse)
    assert "mean over the draws" not in to_text(build(measured, 5))


def test_a_commit_is_marked_dirty_only_when_code_or_parameters_changed(tmp_path):
    def git(*command: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *command], cwd=tmp_path, check=True, capture_output=True)

    assert current_commit(tmp_path) is None
    git("init")
    for name in ("params.yaml", "dvc.lock"):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    clean = current_commit(tmp_path)
    (tmp_path / "dvc.lock").write_text("2")
    assert clean and current_commit(tmp_path) == clean
    (tmp_path / "params.yaml").write_text("2")
    assert current_commit(tmp_path) == f"{clean}-dirty"


def test_table_6_measures_errors_and_speeds_of_both(measured):
    table = build(measured, 6)
    cells = {(row, column.metric): record for (row, column), record in table.records.items()}
    error = cells["FastMETRO [6]", "MPJPE"]
    assert not error.quoted and error.paper == 52.2 and error.measured == 50.25
    assert cells["FastMETRO [6]", "FPS"].measured == 12.34
    assert (cells["Ours", "FPS"].paper, cells["Ours", "FPS"].measured) == (18, 2.02)
    assert cells["Ours, the paper's N and steps", "FPS"].measured == 0.51
    assert cells["Ours (fast)", "FPS"].measured == 9.5
    assert cells["Ours (fast)", "MPJPE"].measured == 50.25
    text = " ".join(table.notices)
    assert "random weights" in text and "RTX 3090" in text
    size = load().experiments["fastmetro"].fastmetro
    assert f"widths {size.widths[0]} and {size.widths[1]}" in text and "0.20 million" in text
    assert "error with 5 chains of 20 steps, FPS with 5 chains of 10 steps" in text
    assert "The paper's N and steps: 25 chains of 40 steps, FPS only." in text
    assert ("Ours, the paper's N and steps", "MPJPE") not in cells


@pytest.mark.parametrize(
    ("offset", "row", "verdict"),
    [
        (20.0, "Baseline A", "reproduced"), (-20.0, "Baseline A", "refuted"),
        (0.0, "Baseline A", "undecided"),
        (20.0, "Linear map from U (control, ours)", "worse"),
        (-20.0, "Linear map from U (control, ours)", "better"),
    ],
)  # fmt: skip
def test_a_sure_difference_has_a_verdict(measured, offset, row, verdict):
    evaluations = measured / "evaluate"
    write_samples(evaluations, paper_table(3).measured[row]["3dpw"], offset)
    table = build(measured, 3)
    (part,) = (r for _, r in table.compared if (r.row, r.metric) == (row, "MPVE"))
    assert part.verdict == verdict and part.reference == "Ours"
    assert part.difference == part.difference_low == part.difference_high == offset
    assert part.difference_paper == (21.6 if row == "Baseline A" else None)
    cells = next(line for line in csv.DictReader(io.StringIO(to_csv(table)))
                 if line["Method"] == row)  # fmt: skip
    assert cells["MPVE (verdict)"] == verdict
    assert f'on the difference to "{part.reference}"' in to_latex(table)


def test_a_higher_f_score_is_better(measured):
    evaluations = measured / "evaluate"
    write_samples(evaluations, "freihand_linear", 1.0)
    verdicts = {record.metric: record.verdict for _, record in build(measured, 2).compared}
    assert verdicts == {
        "PA-MPVPE": "worse", "PA-MPJPE": "worse", "F@5": "better", "F@15": "better",
    }  # fmt: skip


def test_samples_that_are_no_table_are_one_line(measured):
    path = measured / "evaluate" / "3dpw_dat" / "samples.csv"
    path.write_text("sample_id,MPVE\na,1\nb,1,2,3\n")  # which pandas tells in two lines
    with pytest.raises(UserError, match=r"samples\.csv: not a table of samples .*; run") as line:
        build(measured, 3)
    assert "\n" not in str(line.value)


def test_the_interval_is_paired(measured):
    evaluations = measured / "evaluate"
    ours = [100.0, 200.0, 300.0, 400.0]
    theirs = [101.0, 203.0, 299.0, 405.0]  # larger by 2 +- 2, though all differ by hundreds
    for name, values in (("3dpw_dat", ours), ("3dpw_baseline_a", reversed(theirs))):
        ids = "abcd" if name == "3dpw_dat" else "dcba"  # pairs are found by id, not by order
        rows = [f"{i},{v},{v},{v}" for i, v in zip(ids, values, strict=True)]
        text = "\n".join(["sample_id,MPVE,MPJPE,PA-MPJPE", *rows])
        (evaluations / name / "samples.csv").write_text(text + "\n")
    _, part = build(measured, 3).compared[0]
    expected = np.sort([1.0, 3.0, -1.0, 5.0])
    low, high = mean_interval(expected, 20000, 1)
    assert part.difference == 2
    assert (part.difference_low, part.difference_high) == pytest.approx((low, high), abs=0.6)
    assert part.verdict == ("undecided" if part.difference_low <= 0 else "reproduced")


def test_rows_with_other_test_images_are_not_compared(measured):
    evaluations = measured / "evaluate"
    write_samples(evaluations, "3dpw_baseline_a", first=1)
    rows = {record.row for _, record in build(measured, 3).compared}
    assert rows == {"Baseline B", "Linear map from U (control, ours)"}


def test_seeds_that_disagree_make_a_difference_undecided(measured):
    evaluations = measured / "evaluate"
    for seed, offset in enumerate((30.0, 30.0, -20.0)):
        write_samples(evaluations, "3dpw_dat", seed=seed)
        write_samples(evaluations, "3dpw_baseline_a", offset, seed=seed)
    compared = {record.row: record for _, record in build(measured, 3).compared}
    part = compared["Baseline A"]
    assert part.difference == pytest.approx(40 / 3)
    assert part.difference_low < 0 < part.difference_high and part.verdict == "undecided"
    # What has no seeds of its own is compared with each of the reference's.
    assert compared["Linear map from U (control, ours)"].difference == 0


@pytest.mark.parametrize("number", NUMBERS)
def test_stand_ins_are_named_in_caption_and_text(measured, number):
    table = build(measured, number)
    titles = {dataset_title(column.dataset) for column in table.paper.columns}
    for printed in (to_latex(table), to_text(table)):
        assert STAND_IN in printed
        assert all(title in printed.split(STAND_IN)[1] for title in titles)


def test_real_images_are_not_called_stand_ins(tmp_path):
    for evaluation in paper_table(3).evaluations():
        write_summary(tmp_path, evaluation, source="real")
        write_samples(tmp_path, evaluation)
    table = build_table(3, tmp_path, None, load(), None)
    assert STAND_IN not in to_text(table) and "real images: 3DPW" in to_text(table)
    assert "(real)" in to_csv(table).splitlines()[0]


def test_one_rendered_data_set_does_not_taint_the_other(tmp_path):
    for evaluation in paper_table(1).evaluations():
        source = "real" if evaluation.startswith("3dpw") else "rendered"
        write_summary(tmp_path, evaluation, source=source)
        write_samples(tmp_path, evaluation)
    table = build_table(1, tmp_path, None, load(), None)
    assert f"{STAND_IN} (Human3.6M)" in to_text(table)
    assert table_run(table, [], load()).tags["source"] == "real,rendered"


def test_latex_prints_every_character_literally():
    printed = latex_text(r"a_b & 50% #1 $x {y} ~ ^ \ ↓")
    assert printed == (
        r"a\_b \& 50\% \#1 \$x \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"$\downarrow$"
    )


@pytest.mark.parametrize("number", NUMBERS)
def test_the_latex_is_a_booktabs_table_of_even_width(measured, number):
    lines = to_latex(build(measured, number)).splitlines()
    top, bottom = (next(i for i, line in enumerate(lines) if rule in line)
                   for rule in (r"\toprule", r"\bottomrule"))  # fmt: skip
    rows = (line for line in lines[top:bottom] if line.endswith(r"\\"))
    body = [line for line in rows if "multicolumn" not in line]
    columns = 1 + 2 * len(paper_table(number).columns)
    assert {line.count("&") - line.count(r"\&") for line in body} == {columns - 1}
    assert r"\midrule" in lines[top:bottom] and any("caption" in line for line in lines)
    assert not set("".join(lines)) & set("↓↑±")
    if number == 5:
        assert r"H\_U" in "".join(body)


def test_a_missing_evaluation_is_one_line_that_names_the_stage(tmp_path):
    write_summary(tmp_path, "3dpw_dat")
    with pytest.raises(UserError, match=r"dvc repro evaluate@3dpw_baseline_a") as caught:
        build_table(3, tmp_path, None, load(), None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"means": {}}, "MPVE"), ({"source": "painted"}, "source"), ({"n": None}, "n")],
)
def test_a_damaged_summary_is_one_line_that_names_the_field(measured, changes, what):
    write_summary(measured / "evaluate", "3dpw_dat", **changes)
    with pytest.raises(UserError, match=rf"summary\.json: .*{what}.*evaluate@3dpw_dat"):
        build(measured, 3)


def test_missing_timings_are_one_line_that_names_the_stage(measured):
    (measured / "speed.json").unlink()
    with pytest.raises(UserError, match="dvc repro speed"):
        build(measured, 6)
    with pytest.raises(UserError, match="dvc repro speed"):
        build_table(6, measured / "evaluate", None, load(), None)


def test_every_measured_row_is_a_run_with_params_metrics_and_tags(measured):
    params = load()
    run = table_run(build(measured, 1), [], params)
    assert len(run.children) == 6
    child = next(child for child in run.children if child.name == "Ours, 3DPW (rendered)")
    assert child.metrics["MPVE"] == 50.25 and child.metrics["MPVE low"] == 48
    assert child.params["reverse.gamma"] == params.reverse.gamma
    assert child.params["evaluations.guidance"] == "dat" and child.params["run.steps"] == 20
    assert child.tags == {
        "table": "table1", "row": "Ours", "method": "dat", "dataset": "3dpw",
        "source": "rendered", "commit": "abc1234",
    }  # fmt: skip
    other = next(child for child in run.children if child.name.startswith("Linear map from U"))
    assert other.tags["verdict MPVE"] == "undecided"
    assert other.metrics["MPVE difference"] == other.metrics["MPVE difference low"] == 0


def test_the_stage_prints_what_it_writes(measured, monkeypatch, capsys):
    logged = []
    monkeypatch.setattr(stage, "log_run", lambda *what: logged.append(what))
    params = load()
    out = measured / "results"
    stage.run(5, measured / "evaluate", out, None, params)
    assert "Table 5. Evaluation of DAT components." in capsys.readouterr().out
    ((experiment, run, _),) = logged
    assert experiment == "table5"
    assert sorted(run.artifacts) == sorted(out.glob("table5.*")) and len(run.artifacts) == 3


def test_without_a_repository_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert current_commit() is None
    monkeypatch.setenv("PATH", "")
    assert current_commit() is None
