"""The benchmark compares like with like: its plain versions give the pipeline's own numbers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toys import (
    make_body,
    make_features,
    make_sampling,
    make_trained,
    reverse_params,
    training_params,
)

from hmdiff.benchmarks import commands, growth, loop, picture, readers, reference, training
from hmdiff.benchmarks.timing import exponent, interleaved, rates, speed_up
from hmdiff.inference import Predictor
from hmdiff.machine import FIELDS, describe, record
from hmdiff.training.objective import Objective


@pytest.fixture(scope="module")
def rows():
    return make_features(6)


@pytest.fixture(scope="module")
def predictor(rows):
    return Predictor(make_trained(rows), make_body(), make_sampling())


@pytest.mark.parametrize("changes", [{}, {"gap": "excess", "reduction": "mean", "gamma": 0.5}])
def test_the_plain_loop_gives_the_numbers_of_the_pipelines(predictor, rows, changes):
    settings = reverse_params(chains=3, threshold=0.9, **changes)
    compared = loop.Loop(predictor, rows.subset(2), settings, 6)
    fast = compared.run()
    assert 0 < compared.active_steps < 6 * 3 * 2  # DAT goes off on the way
    torch.testing.assert_close(fast, compared.run_plain(), atol=1e-4, rtol=1e-4)


def test_the_plain_training_step_gives_the_numbers_of_the_pipelines(predictor, rows):
    model = predictor.model.network
    faces = torch.as_tensor(make_sampling().coarse_faces).long()
    objective = Objective(model, predictor.regressor_f, faces, training_params(), "fp32")
    batch = training.make_batch(rows, model)
    plain = reference.loss(model, batch, predictor.regressor_f, faces, objective.weights)
    torch.testing.assert_close(objective(batch)[0].sum(), plain, atol=1e-5, rtol=1e-4)


def test_operations_are_counted_a_chain_a_step_and_a_backward_pass(predictor, rows):
    settings = reverse_params(chains=2)
    compared = loop.Loop(predictor, rows.subset(2), settings, 5)
    context, forward, backward = compared._of_one()
    assert context == 2 * (49 + 4) * 128 * 256  # keys and values of f_I and of four joints
    assert backward > 0.9 * forward  # a product's gradient to its input is another product
    compared.active_steps = 7
    assert compared.operations() == 2 * context + 2 * 2 * 5 * forward + 7 * backward


def test_all_networks_are_measured_as_records(predictor, rows):
    faces = torch.as_tensor(make_sampling().coarse_faces).long()
    settings = reverse_params(chains=2)
    found = loop.records(predictor, rows.subset(2), settings, 3, repeats=2, peak_size=16)
    found += training.records(
        predictor.model.network, rows, predictor.regressor_f, faces, training_params(), "fp32",
        repeats=2, steps=1,
    )  # fmt: skip
    sizes = {"chains": (1, 2), "steps": (2, 4), "batch": (1, 2), "images": (1, 2)}
    found += growth.records(predictor, rows, settings, 2, sizes)
    assert all(set(row) == set(FIELDS) and row["n"] == 2 for row in found)
    assert all(row["low"] <= row["value"] <= row["high"] for row in found)
    names = {row["name"] for row in found}
    assert all(row["ratio_to"] in names for row in found if row["ratio_to"])
    assert {f"exponent {series}" for series in sizes} <= names


def test_things_take_turns_and_ratios_are_taken_repeat_by_repeat():
    order = []
    things = {name: (lambda name=name: order.append(name)) for name in "ab"}
    times = interleaved(things, repeats=2, warmup=1)
    assert order == list("ababab") and {len(times[name]) for name in "ab"} == {2}
    row = speed_up("faster", [1.0, 2.0, 4.0], "other", [3.0, 8.0, 4.0])
    assert (row["value"], row["low"], row["high"], row["ratio_to"]) == (3.0, 1.0, 4.0, "other")
    assert rates("r", 8, [2.0, 4.0], "images/s")["value"] == 3.0
    assert exponent([1, 2, 4], [5, 20, 80]) == pytest.approx(2)


def test_records_become_a_table_a_csv_and_a_picture(tmp_path, capsys):
    found = [record("a", [1.0, 2.0], "s"), record("b", 3.0, "x", ratio_to="a")]
    found += [record(f"time steps={n}", float(n), "s") for n in (1, 2)]
    describe(tmp_path / "bench.json", found, preset="smoke")
    picture.draw(found, tmp_path / "bench.svg")
    with open(tmp_path / "bench.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["ratio_to"] for row in rows] == ["", "a", "", ""]
    assert json.loads((tmp_path / "bench.json").read_text())["records"] == found
    assert "<svg" in (tmp_path / "bench.svg").read_text()
    assert "a " in capsys.readouterr().out


def test_commands_are_timed_with_the_processor_time_of_their_children(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(commands.commands()) == ["hmdiff --help"]  # nothing is run outside a project
    wall, work = commands.records(1, {"nothing": ("true",)})
    assert 0 <= work["value"] < 1 and wall["unit"] == "s" and work["unit"] == "CPU-s"


def test_make_is_not_called_where_it_would_set_up_or_run_something(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    for said, expected in (("2 jobs", False), ("Nothing to be done", True)):
        monkeypatch.setattr(commands, "_output", lambda command, said=said: said)
        monkeypatch.setattr(
            commands.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1)
        )
        found = commands.commands()
        assert ("no-op snakemake" in found) is expected and "no-op make tables" not in found


def test_readers_are_timed_on_rendered_copies_of_every_set_that_the_paper_uses():
    params = readers._params(Path(__file__).parent.parent, 30)
    assert set(params.datasets) == set(params.standins) == {
        "human36m", "3dpw", "up3d", "muco", "coco", "mpii", "freihand",
    }  # fmt: skip
    assert {item.train for item in params.standins.values()} == {30}
    assert params.acquire.source == "rendered"
