"""`hmdiff score` and `hmdiff export`: anybody's body predictions, and ours as a submission."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import procrustes as scipy_procrustes
from toy_bodies import stick_bodies
from toy_hand import COUNT, run_evaluate, write_toy_hand

from hmdiff.cli import main
from hmdiff.errors import UserError
from hmdiff.evaluation.export import export
from hmdiff.evaluation.freihand_files import read_submission
from hmdiff.evaluation.protocols import load_protocol
from hmdiff.evaluation.score_files import score_files
from hmdiff.kinds import BODY

NUMBER = 5
PARAMS = Path(__file__).parents[1] / "params.yaml"


@pytest.fixture
def bodies(tmp_path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True and predicted meshes (n, 6890, 3) and the rows of the joints, also as gt, pred, rows."""
    truth, regressor = stick_bodies(NUMBER, 3)
    noise = np.random.default_rng(0).normal(0, 0.02, truth.shape)
    predicted = truth + noise + [0.3, -0.2, 1.0]  # where the body is does not count
    ids = np.array([f"walk/{row}" for row in range(NUMBER)])
    np.savez(tmp_path / "gt.npz", vertices=truth.astype(np.float32), sample_id=ids)
    # In another order, to be matched by name.
    np.savez(
        tmp_path / "pred.npz", vertices=predicted[::-1].astype(np.float32), sample_id=ids[::-1]
    )
    np.save(tmp_path / "rows.npy", regressor)
    return truth, predicted, regressor


def by_definition(truth, predicted, regressor) -> dict[str, float]:
    """METRO's metrics, one sample at a time."""
    found: dict[str, list[float]] = {"MPVE": [], "MPJPE": [], "PA-MPJPE": []}
    index = [BODY.joints.index(name) for name in load_protocol("3dpw").joints]
    hips = [BODY.joints.index(name) for name in ("R_Hip", "L_Hip")]
    for true, own in zip(truth, predicted, strict=True):
        meshes = [mesh - regressor[BODY.root] @ mesh for mesh in (true, own)]
        found["MPVE"].append(np.linalg.norm(meshes[1] - meshes[0], axis=1).mean())
        joints = [regressor @ mesh for mesh in (true, own)]
        joints = [(pose - pose[hips].mean(0))[index] for pose in joints]
        found["MPJPE"].append(np.linalg.norm(joints[1] - joints[0], axis=1).mean())
        size = np.linalg.norm(joints[0] - joints[0].mean(0))
        target, aligned, _ = scipy_procrustes(*joints)
        found["PA-MPJPE"].append(size * np.linalg.norm(aligned - target, axis=1).mean())
    return {name: 1000 * float(np.mean(values)) for name, values in found.items()}


def score(folder: Path, name: str = "3dpw") -> dict:
    return score_files(
        name, folder / "gt.npz", folder / "pred.npz", folder, folder / "rows.npy", 200, 0
    )


def test_the_metrics_of_bodies_are_metros(bodies, tmp_path):
    record = score(tmp_path)
    assert record["n"] == NUMBER and record["matched_by"] == "sample_id"
    expected = by_definition(*bodies)
    assert record["means"].keys() == expected.keys()
    for name, value in expected.items():
        figure = record["means"][name]
        assert figure["mean"] == pytest.approx(value, abs=1e-2)  # the files are float32
        assert figure["low"] < figure["mean"] < figure["high"]


def test_a_body_without_a_true_mesh_is_scored_by_its_joints(bodies, tmp_path):
    truth, predicted, regressor = bodies
    np.savez(tmp_path / "gt.npz", joints=regressor @ truth)
    np.savez(tmp_path / "pred.npz", joints=regressor @ predicted)
    means, expected = score(tmp_path, "human36m")["means"], by_definition(*bodies)
    assert means.keys() == {"MPJPE", "PA-MPJPE"}
    for name, figure in means.items():
        assert figure["mean"] == pytest.approx(expected[name], abs=1e-6)


def spoil_nan(predicted: dict) -> None:
    predicted["vertices"][1, 7] = np.nan


def spoil_unit(predicted: dict) -> None:
    predicted["vertices"] *= 1000


def spoil_count(predicted: dict) -> None:
    predicted.update({name: values[:-1] for name, values in predicted.items()})


def spoil_name(predicted: dict) -> None:
    predicted["sample_id"] = np.array(["other", *predicted["sample_id"][1:]])


def spoil_shape(predicted: dict) -> None:
    predicted["vertices"] = predicted["vertices"][:, :100]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_nan, "walk/3 has numbers that are not finite"),
        (spoil_unit, "are these millimetres"),
        (spoil_count, "4 samples, but"),
        (spoil_name, "has no 'walk/4'"),
        (spoil_shape, "vertices"),
    ],
)
def test_bad_predictions_are_one_line_and_exit_code_2(
    bodies, tmp_path, monkeypatch, capsys, spoil, words
):
    with np.load(tmp_path / "pred.npz") as file:
        predicted = dict(file)
    spoil(predicted)
    np.savez(tmp_path / "pred.npz", **predicted)
    files = ["--gt", "gt.npz", "--pred", "pred.npz", "--regressor", "rows.npy"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hmdiff", "score", "--protocol", "3dpw", *files])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2 and words in said[-1] and said[-1].startswith("hmdiff: error: ")


def test_the_command_prints_json(bodies, tmp_path, monkeypatch, capsys):
    files = ["--gt", "gt.npz", "--pred", "pred.npz", "--regressor", "rows.npy"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hmdiff", "score", "--protocol", "3dpw", *files, "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert json.loads(capsys.readouterr().out)["protocol"] == "3dpw"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    """A toy hand with its evaluation, in the folders of a project."""
    folder = write_toy_hand(tmp_path_factory.mktemp("export"))
    run_evaluate(folder, folder / "runs/freihand_linear")
    for source, target in (
        ("prepared.h5", "prepared/hand/freihand.h5"),
        ("body", "models/hand"),
        ("sampling.npz", "models/sampling/hand.npz"),
        ("hand_linear", "models/train/hand_linear"),
    ):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / source, folder / target)
    return folder


def exported(folder: Path, out: Path, partial: bool) -> str:
    evaluation = folder / "runs/freihand_linear"
    return export(
        "freihand", evaluation, out, folder / "models", folder / "prepared", partial, PARAMS
    )


def test_an_incomplete_evaluation_is_not_taken_for_a_submission(evaluated, tmp_path):
    with pytest.raises(UserError, match="--allow-partial"):
        exported(evaluated, tmp_path / "pred.zip", False)
    assert not (tmp_path / "pred.zip").exists()


def test_an_export_holds_the_meshes_that_were_evaluated(evaluated, tmp_path):
    said = exported(evaluated, tmp_path / "pred.zip", True)
    assert f"of {COUNT} rendered images" in said and "not a submission" in said
    points = read_submission(tmp_path / "pred.zip")
    with np.load(evaluated / "runs/freihand_linear/predictions.npz") as file:
        coarse = file["coarse"]
    assert points.vertices.shape == (len(coarse), 778, 3)
    # The linear toy gives one mesh whatever the image; its joints are those of its own mesh.
    assert np.allclose(points.vertices, points.vertices[0], atol=2e-6)
    assert np.isfinite(points.joints).all() and np.ptp(points.joints) > 0.01
