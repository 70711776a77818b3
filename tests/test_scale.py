"""Size: 400,000 records take what a few do, each; and what a preset costs adds up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from doc_commands import ROOT
from toy_bodies import write_toy_model

from hmdiff.benchmarks import scale, units
from hmdiff.benchmarks.random_models import make_sampling
from hmdiff.benchmarks.timing import exponent_interval
from hmdiff.budget import jobs as budget_jobs
from hmdiff.budget.assumptions import read_assumptions
from hmdiff.budget.jobs import Job, disk, feature_rows, jobs
from hmdiff.budget.measured import CPUCosts, Units, read_cpu_costs, read_units
from hmdiff.budget.schedule import side_by_side, split
from hmdiff.budget.table import write_table
from hmdiff.errors import UserError
from hmdiff.evaluation import npz_files
from hmdiff.kinds import BODY
from hmdiff.machine import FIELDS, record
from hmdiff.params import load_params
from hmdiff.presets import preset_params

ORDER = [
    Job("prepare@a", cpu=10), Job("prepare@b", cpu=30),
    Job("pre", gpu=100, needs=("prepare@a", "prepare@b")),
    Job("one", gpu=40, cpu=2, needs=("pre",)), Job("two", gpu=60, needs=("pre",)),
    Job("table", gpu=8, needs=("one", "two")),
]  # fmt: skip


@pytest.fixture(scope="module")
def paper():
    return preset_params("paper", ROOT)


@pytest.fixture
def measured(paper) -> Units:
    """Every unit of the preset: a second, but for the extractor."""
    values = {"train extractor": 2.0, "extract": 0.5}
    for name in paper.experiments:
        values |= {
            f"{what} {name}{how}": 1.0
            for what, how in (("train", ""), ("evaluate", " dat"), ("evaluate", " none"))
        }
    return Units(values, Path("units.json"), "cpu")


@pytest.fixture
def cpu(paper) -> CPUCosts:
    return CPUCosts(dict.fromkeys(paper.datasets, 0.01), score=0.25, feature_bytes=24_000)


def test_jobs_run_beside_each_other_as_far_as_they_do_not_wait_and_devices_last():
    assert side_by_side(ORDER, 1, 1) == 10 + 30 + 100 + 60 + 42 + 8
    assert side_by_side(ORDER, 1, 2) == 30 + 100 + 60 + 42 + 8
    assert side_by_side(ORDER, 2, 2) == side_by_side(ORDER, 64, 9) == 30 + 100 + 60 + 8


def test_a_job_that_is_split_leaves_what_no_gpu_makes_faster():
    assert split(ORDER, 1, 1.0, 2) == 30 + 100 + 42 + 60 + 8
    assert split(ORDER, 4, 1.0, 2) == 30 + 2 + (100 + 40 + 60 + 8) / 4
    assert split(ORDER, 4, 0.5, 2) == 30 + 2 + (100 + 40 + 60 + 8) / 2


def test_jobs_are_what_the_preset_counts_times_what_one_costs(paper, measured, cpu):
    given = read_assumptions()
    found = {job.name: job for job in jobs(paper, measured, cpu, given)}
    images = given.counts["3dpw"]
    assert found["prepare@3dpw"].cpu == pytest.approx(0.01 * images.all)
    val = sum(given.counts[name].val for name in paper.extractor["body"].datasets)
    assert found["pretrain_extractor@body"].gpu == 2.0 * 20_000_000 + 0.5 * 40 * val
    assert found["extract_features@3dpw"].gpu == 0.5 * (images.all + 3 * images.train)
    assert found["train@image"].gpu == 30_000_000 and found["train@image_3dpw"].gpu == 180_000
    assert found["train@linear"].gpu == 0
    tried = 10 + 20 + 40 + 100 + 200
    assert found["select_steps@dat"].gpu == pytest.approx(1000 * tried / 40)
    assert found["evaluate@3dpw_dat"].gpu == images.test
    assert found["evaluate@human36m_fast"].gpu == given.counts["human36m"].test * 5 / 40
    assert found["evaluate@3dpw_dat"].cpu == 0.25 * images.test
    names = list(found)
    assert all(names.index(need) < names.index(job.name)
               for job in found.values() for need in job.needs)  # fmt: skip
    parts = disk(paper, cpu, given, archives=5e9)
    rows = sum(feature_rows(given.counts[name], 4) for name in paper.datasets)
    assert parts["features"] == pytest.approx(rows * 24_000 / 1e9) and parts["archives"] == 5


def test_the_training_mixture_has_as_many_images_as_the_preset_says(paper):
    given = read_assumptions()
    mixture = [given.counts[name] for name in paper.extractor["body"].datasets]
    assert sum(part.train + part.val for part in mixture) == 475_000
    assert "475,000 images" in (ROOT / "presets/paper.yaml").read_text(encoding="utf-8")


def test_what_the_budget_lacks_is_one_line_with_the_command(paper, measured, cpu, tmp_path):
    del measured.values["train image"]
    with pytest.raises(UserError, match=r"units\.json: records: no 'train image'; .*hmdiff units"):
        jobs(paper, measured, cpu, read_assumptions())
    short = CPUCosts({}, 1.0, 1.0)
    with pytest.raises(UserError, match=r"no measured preparation"):
        budget_jobs.jobs(paper, measured, short, read_assumptions())
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"records": [{"name": "a"}]}')
    with pytest.raises(UserError, match="no unit costs"):
        read_units(wrong)
    with pytest.raises(UserError, match="hmdiff scale"):
        read_cpu_costs(wrong, wrong)
    wrong.write_text(Path(ROOT, "hmdiff/budget/assumptions.yaml").read_text().replace("1.0", "2"))
    with pytest.raises(UserError, match=r"wrong\.json: efficiency: .*mend the value"):
        read_assumptions(wrong)


def test_the_table_has_a_row_a_device_and_number_of_gpus(measured, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = [record(name, value, "s/image") for name, value in measured.values.items()]
    for device in ("cpu", "a GPU"):
        path = tmp_path / f"{device}.json"
        path.write_text(json.dumps({"device": device, "records": rows}))
    grown = [record(f"evaluate n=9 {what}", 3.0, "1") for what in ("records", "processor")]
    grown.append(record("features n=9 disk", 24_000, "bytes/record"))
    (tmp_path / "scale.json").write_text(json.dumps({"records": grown}))
    out = tmp_path / "cost.json"
    write_table(
        out, "paper", [tmp_path / "cpu.json", tmp_path / "a GPU.json"],
        ROOT / "results/readers.json", tmp_path / "scale.json", changes={"price": 10.0},
    )  # fmt: skip
    found = json.loads(out.read_text())
    assert [(row["device"], row["devices"]) for row in found["rows"]] == [
        (device, gpus) for device in ("cpu", "a GPU") for gpus in (1, 8, 64)
    ]
    one, eight, many = found["rows"][3:]
    assert one["USD, a job each"] == pytest.approx(10 * one["hours, a job each"], rel=1e-3)
    assert one["hours, a job each"] > eight["hours, a job each"] >= many["hours, a job each"]
    assert one["hours, jobs split"] > 7 * eight["hours, jobs split"]
    assert found["rows"][0]["USD, a job each"] < one["USD, a job each"]
    assert (tmp_path / "cost.csv").read_text().count("\n") == 7


def test_units_are_measured_for_every_network_and_way_of_running_it(paper, monkeypatch):
    """At toy sizes; those of a real preset are its parameters alone."""
    small = paper.extractor["body"].model_copy(
        update={"backbone": "resnet10t", "image_size": 56, "channels": (8, 8, 8)}
    )
    changes = {
        "extractor": {"body": small},
        "training": paper.training.model_copy(update={"batch": 2}),
        "reverse": paper.reverse.changed({"chains": 1}),
        "experiments": {
            name: paper.experiments[name] for name in ("image", "baseline_a", "linear")
        },
        "methods": {name: paper.methods[name] for name in ("dat", "standard", "baseline_a")},
    }
    monkeypatch.setattr(units, "STEPS", 3)
    work = units.Work(repeats=1, extractor_batch=2, extractor_steps=1, steps=1, images=1)
    found = units.records(paper.model_copy(update=changes), torch.device("cpu"), work)
    assert all(set(row) == set(FIELDS) and row["value"] > 0 for row in found)
    assert [row["name"] for row in found] == [
        "train extractor", "extract", "train image", "evaluate image dat", "evaluate image none",
        "train baseline_a", "evaluate baseline_a none",
    ]  # fmt: skip


def test_every_part_runs_at_any_size_and_what_was_measured_is_not_measured_again(
    tmp_path, monkeypatch
):
    write_toy_model(tmp_path / "models/body", BODY)
    (tmp_path / "models/sampling").mkdir()
    make_sampling(BODY).save(tmp_path / "models/sampling/body.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scale, "_in_a_process", scale._spend)
    monkeypatch.setattr(scale.scale_data, "FRAMES", 50)
    # The toy's joints are on no side of a body.
    monkeypatch.setattr(npz_files, "check_metro_order", lambda *_: None)
    params = scale.tiny(load_params(ROOT / "params.yaml"))
    params = params.model_copy(
        update={"evaluation": params.evaluation.model_copy(update={"bootstrap": 10})}
    )
    sizes = (120,)
    found = scale.records(tmp_path / "models", params, tmp_path / "work", sizes)
    values = {row["name"]: row["value"] for row in found}
    for part in scale.PARTS:
        assert values[f"{part} n=120 wall"] > 0 and values[f"{part} n=120 peak memory"] > 0
    assert [values[f"{part} n=120 records"] for part in scale.PARTS] == [120] * 3 + [108, 120, 11]
    assert values["features n=120 disk"] > 23_000
    assert not list(tmp_path.glob("work/*/*.h5")), "what takes room goes"
    for part in scale.PARTS:
        monkeypatch.setitem(scale.PARTS, part, None)
    assert scale.records(tmp_path / "models", params, tmp_path / "work", sizes) == found


def test_exponents_are_those_of_processor_and_wall_time_over_what_each_part_went_through():
    found = [
        {"name": f"{part} n={size} {what}", "value": value * size**power}
        for part in scale.PARTS
        for size in (10, 100, 1000)
        for what, value, power in (("records", 1, 1), ("wall", 3, 1.5), ("processor", 2, 1))
    ]
    values = {row["name"]: row["value"] for row in scale._exponents(found, (10, 100, 1000))}
    assert len(values) == 2 * len(scale.PARTS)
    assert values["load exponent wall"] == pytest.approx(1.5)
    assert values["load exponent processor"] == pytest.approx(1)


def test_growth_and_memory_beyond_the_bounds_are_named():
    found = [
        record("load n=9 peak memory", 1.9, "GB"), record("load exponent processor", 1.1, "1"),
        record("score n=9 peak memory", 2.1, "GB"), record("score exponent processor", 1.2, "1"),
    ]  # fmt: skip
    assert [line.partition(":")[0] for line in scale.failures(found)] == [
        "score n=9 peak memory", "score exponent processor",
    ]  # fmt: skip


def test_the_interval_of_an_exponent_holds_it_and_is_wider_where_times_scatter():
    sizes = [1, 2, 4, 8, 16]
    low, value, high = exponent_interval(sizes, [3 * size for size in sizes])
    assert low == pytest.approx(1) and value == pytest.approx(1) and high == pytest.approx(1)
    low, value, high = exponent_interval(sizes, [1, 2.4, 3.5, 8.5, 15])
    assert low < value < high and low < 1 < high


def test_the_derived_units_of_a_gpu_are_those_of_its_bench_and_enough_for_the_preset(paper, cpu):
    bench = json.loads((ROOT / "results/large/bench.json").read_text())["records"]
    seconds = {row["name"]: 1 / row["value"] for row in bench if row["unit"].endswith("/s")}
    units = read_units(ROOT / "hmdiff/budget/h200.json")
    extract = seconds["frames fastmetro_l hrnet_w64 B=8"]
    step = 128 * seconds["train g"] / 32
    assert units["extract"] == pytest.approx(extract, rel=1e-4)
    assert units["train extractor"] == pytest.approx(3 * extract, rel=1e-4)
    assert units["train image"] == pytest.approx(step, rel=1e-4)
    assert units["train baseline_b"] == pytest.approx(40 * step, rel=1e-4)
    loop = seconds["loop N=25 steps=40 B=1"]
    assert units["evaluate image dat"] == pytest.approx(loop, rel=1e-4)
    assert jobs(paper, units, cpu, read_assumptions())
