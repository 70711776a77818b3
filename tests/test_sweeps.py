"""The stage sweep: one parameter, several values, on validation images and never on others."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from toy_hand import PARAMS, write_toy_hand
from toys import Stopped, checkpoint_params, stop_after

from hmdiff.errors import UserError
from hmdiff.params import load_params
from hmdiff.params.sweeps import SweepParams, check_sweeps
from hmdiff.stages import sweep as stage
from hmdiff.sweeps.settings import settings

ROOT = Path(__file__).resolve().parent.parent
TEST, TRAIN = 2, 0


def sweep_params(parameter: str, values: list, **changes) -> SweepParams:
    own = {"method": "hand", "experiment": "hand", "kind": "hand", "dataset": "freihand"}
    return SweepParams(parameter=parameter, values=values, images=None, **(own | changes))


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """The toy hand, its test images training images now, in the folders of the pipeline."""
    folder = write_toy_hand(tmp_path_factory.mktemp("sweeps"))
    for name in ("features", "prepared"):
        with h5py.File(folder / f"{name}.h5", "r+") as file:
            split = file["split"][:]
            file["split"][:] = np.where(split == TEST, TRAIN, split)
        (folder / name).mkdir()
        shutil.move(folder / f"{name}.h5", folder / name / "freihand.h5")
    (folder / "steps.json").write_text(json.dumps({"method": "hand", "steps": 2}))
    return folder


@pytest.fixture(autouse=True)
def without_mlflow(monkeypatch):
    """The runs that would be logged; MLflow itself takes seconds."""
    logged: list = []
    monkeypatch.setattr(stage, "log_run", lambda experiment, run, about: logged.append(run))
    return logged


def run(toy: Path, out: Path, what: SweepParams, features: str = "features", **changes) -> list:
    training = PARAMS.training.model_copy(
        update={"samples": 12, "batch": 4, "warmup": 4, "upsampler_samples": 4}
    )
    params = PARAMS.model_copy(update={"sweeps": {"toy": what}, "training": training, **changes})
    check_sweeps(params, "params.yaml")
    stage.run(
        "toy", toy / "hand", toy / "steps.json", toy / features, toy / "prepared",
        toy / "body", toy / "sampling.npz", out, params,
    )  # fmt: skip
    return json.loads((out / "toy.json").read_text())


def primary(found: list) -> dict:
    return {record["value"]: record for record in found if record["primary"]}


def test_a_value_of_the_reverse_process_is_measured_against_the_configured_one(
    toy, tmp_path, without_mlflow
):
    found = run(toy, tmp_path, sweep_params("reverse.chains", [1, 3]))
    rows = primary(found)
    assert list(rows) == [1, 2, 3]  # 2 is configured
    assert [row["configured"] for row in rows.values()] == [False, True, False]
    assert [row["chains"] for row in rows.values()] == [1, 2, 3]
    for value, row in rows.items():
        assert row["metric"] == "PA-MPVPE" and row["split"] == "val" and row["n"] == 6
        assert row["ci_low"] < row["measured"] < row["ci_high"]
        if value != 2:
            apart = row["measured"] - rows[2]["measured"]
            assert row["difference"] == pytest.approx(apart, abs=1e-9) and apart != 0
            assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert rows[2]["difference"] is None
    with open(tmp_path / "toy.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["reverse.chains"] for line in lines] == ["1", "2", "3"]
    assert float(lines[0]["PA-MPVPE"]) == pytest.approx(rows[1]["measured"], abs=1e-6)
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")
    (parent,) = without_mlflow
    assert [child.params["reverse.chains"] for child in parent.children] == [1, 2, 3]
    assert parent.children[0].metrics["PA-MPVPE"] == rows[1]["measured"]
    assert {child.tags["split"] for child in parent.children} == {"val"}
    assert "rendered" in parent.description and "toy" in parent.name


def test_steps_and_words_can_be_swept(toy, tmp_path):
    steps = primary(run(toy, tmp_path / "a", sweep_params("steps", [1, 3])))
    assert [row["steps"] for row in steps.values()] == [1, 2, 3] and steps[2]["configured"]
    words = primary(run(toy, tmp_path / "b", sweep_params("reverse.reduction", ["mean"])))
    assert list(words) == ["sum", "mean"]
    assert words["sum"]["measured"] == steps[2]["measured"]


def test_a_sweep_can_hand_dat_the_peak_of_u(toy, tmp_path):
    """Where the weight of u_c is asked for, which draws do not have."""
    weights = ["as_printed"]
    peak = primary(
        run(toy, tmp_path / "a", sweep_params("reverse.peak_weight", weights, prior="peak"))
    )
    draws = primary(run(toy, tmp_path / "b", sweep_params("reverse.peak_weight", weights)))
    assert peak["equal"]["measured"] != peak["as_printed"]["measured"]
    assert draws["equal"]["measured"] == draws["as_printed"]["measured"]


def test_several_values_of_the_reverse_process_can_be_swept_together(toy, tmp_path):
    several = [{"steps": 3, "chains": 1}, {"guided_steps": None, "solver": "dpmpp_2m"}]
    rows = primary(run(toy, tmp_path, sweep_params("reverse", several)))
    assert list(rows) == ["configured", "steps 3, chains 1", "guided_steps all, solver dpmpp_2m"]
    assert [(row["steps"], row["chains"]) for row in rows.values()] == [(2, 2), (3, 1), (2, 2)]
    assert [row["configured"] for row in rows.values()] == [True, False, False]
    assert rows["steps 3, chains 1"]["difference"] != 0


def test_only_validation_images_are_looked_at(toy, tmp_path):
    """All others are spoilt."""
    what = sweep_params("reverse.gamma", [0.1])
    run(toy, tmp_path / "a", what)
    (toy / "spoilt").mkdir()
    shutil.copy(toy / "features/freihand.h5", toy / "spoilt/freihand.h5")
    with h5py.File(toy / "spoilt/freihand.h5", "r+") as file:
        for row in np.flatnonzero(file["split"][:] == TRAIN):
            file["image_feature"][row] = np.nan
    run(toy, tmp_path / "b", what, features="spoilt")
    for name in ("toy.csv", "toy.json", "toy.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_value_of_the_training_is_trained_for_and_leaves_nothing_behind(toy, tmp_path):
    kept = checkpoint_params().model_copy(update={"folder": tmp_path / "kept"})
    what = sweep_params("training.learning_rate", [1e-3, 1e-2])
    rows = primary(run(toy, tmp_path / "out", what, checkpoint=kept))
    assert list(rows) == [1e-3, 4e-3, 1e-2] and rows[4e-3]["configured"]
    assert len({row["measured"] for row in rows.values()}) == 3
    assert not list((tmp_path / "kept").iterdir())


def test_what_diverges_is_a_row_that_says_so(toy, tmp_path):
    rows = primary(run(toy, tmp_path / "a", sweep_params("reverse.gamma", [1e30])))
    assert rows[1e30]["measured"] is None and "not finite" in rows[1e30]["failure"]
    assert rows[0.2]["measured"] > 0 and rows[0.2]["failure"] is None
    rows = primary(run(toy, tmp_path / "b", sweep_params("training.learning_rate", [1e30])))
    assert "not finite" in rows[1e30]["failure"]
    assert (tmp_path / "b/toy.png").exists()


def test_a_sweep_that_was_stopped_goes_on_to_the_same_bytes(toy, tmp_path, monkeypatch, capfd):
    kept = checkpoint_params(0).model_copy(update={"folder": tmp_path / "kept"})
    what = sweep_params("training.learning_rate", [1e-3, 1e-2])
    run(toy, tmp_path / "whole", what, checkpoint=kept)
    with monkeypatch.context() as patched:
        patched.setattr(stage, "_measure", stop_after(2, stage._measure))
        with pytest.raises(Stopped):
            run(toy, tmp_path / "out", what, checkpoint=kept)
    run(toy, tmp_path / "out", what, checkpoint=kept)
    assert "sweep@toy: goes on after step 2" in capfd.readouterr().err
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


def test_other_errors_are_not_taken_for_a_divergence(toy, tmp_path):
    with pytest.raises(UserError, match=r"nowhere/freihand\.h5: no such file"):
        run(toy, tmp_path, sweep_params("reverse.gamma", [1.0]), features="nowhere")
    assert not list(tmp_path.iterdir())


def test_numbers_ascend_and_each_stands_once():
    sweep = sweep_params("reverse.eta", [1, 0.5, 0])
    assert [s.value for s in settings(sweep, PARAMS, 2)] == [0.0, 0.5, 1.0]


BODY = {"kind": "body", "dataset": "3dpw"}


@pytest.mark.parametrize(
    ("parameter", "values", "changes", "reason"),
    [
        ("reverse.gama", [1], {}, "'reverse.gama' cannot be swept; take steps or one of reverse"),
        ("seed", [1], {}, "'seed' cannot be swept"),
        ("reverse.gamma", [-1], {}, "-1: Input should be greater than or equal to 0"),
        ("denoiser.self_heads", [3], {}, "3: Input should be 1, 2"),
        ("steps", [0.5], {}, "0.5 is no number of steps"),
        ("steps", [4, 4], {}, "stands there twice"),
        ("steps", [{"chains": 4}], {}, "{'chains': 4} is no value of steps"),
        ("reverse", [4], {}, "4 is no value of reverse"),
        ("reverse", [{"chain": 4}], {}, "chain: Extra inputs are not permitted"),
        ("reverse", [{"steps": 0}], {}, "0 is no number of steps"),
        ("reverse", [{"chains": 4}, {"chains": 4}], {}, "stands there twice"),
        (
            "reverse", [{"chains": 4, "guided_steps": 1}],
            {"method": "standard", "experiment": "image", **BODY}, "guided_steps is of the guida",
        ),
        ("steps", [4], {"method": "nobody"}, "method: 'nobody' is no method"),
        ("steps", [4], {"dataset": "3dpw"}, "dataset: '3dpw', but method hand has 'freihand'"),
        ("steps", [4], {"method": "hand_linear", "experiment": "hand_linear"}, "does not have"),
        (
            "training.batch", [4], {"method": "hand_linear", "experiment": "hand_linear"},
            "is a fine-tuning or linear",
        ),
        ("reverse.gamma", [1], {"method": "standard", "experiment": "image", **BODY}, "guidance"),
        ("steps", [4], {"method": "baseline_a", "experiment": "baseline_a", **BODY}, "reverse"),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_be_run_is_refused_when_it_is_read(parameter, values, changes, reason):
    params = PARAMS.model_copy(update={"sweeps": {"x": sweep_params(parameter, values, **changes)}})
    with pytest.raises(UserError, match=r"sweeps\.x") as line:
        check_sweeps(params, "params.yaml")
    assert reason in str(line.value) and "\n" not in str(line.value)


def test_the_entry_that_params_yaml_shows_is_valid(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("#   gamma: {parameter"))
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("sweeps: {}", f"sweeps:\n{line[1:]}"))
    assert load_params(path).sweeps["gamma"].values == (0.05, 0.2, 1.0)
