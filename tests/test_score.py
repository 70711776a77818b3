"""`hmdiff score` on bodies: the protocols' numbers, matched samples, memory, clear errors."""

from __future__ import annotations

import json
import re
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from toy_bodies import stick_bodies

from hmdiff import cli
from hmdiff.bodies.row_orders import GRAPHCMR
from hmdiff.evaluation import scoring
from hmdiff.evaluation.npz_rows import NpzRows
from hmdiff.evaluation.protocols import load_protocol, score
from hmdiff.files import write_json
from hmdiff.kinds import BODY

COUNT = 10


def bodies(seed: int = 0, count: int = COUNT) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True and predicted meshes (float32, as people store them), and the regressor."""
    truth, regressor = stick_bodies(count, seed)
    predicted = truth + np.random.default_rng(seed).normal(0, 0.03, truth.shape) + 0.5
    # A joint as a whole is off, so that the joints' errors do not average out.
    predicted += np.random.default_rng(1).normal(0, 0.03, (count, 17, 3))[:, np.arange(6890) % 17]
    return truth.astype(np.float32), predicted.astype(np.float32), regressor


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("score me")
    truth, predicted, regressor = bodies()
    np.savez(folder / "gt.npz", vertices=truth)
    np.savez(folder / "pred.npz", vertices=predicted)
    (folder / "body").mkdir()
    np.save(folder / "body" / "regressor.npy", regressor)
    write_json(folder / "body" / "model.json", {"model": "smpl", "source": "stand-in"})
    return folder


def run(capsys, monkeypatch, *arguments) -> tuple[int, str, str]:
    """Exit code, output and errors of `hmdiff score`."""
    monkeypatch.setattr(sys, "argv", ["hmdiff", "score", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.fixture
def hmdiff(capsys, monkeypatch, files):
    def call(protocol: str, gt: str | Path = "gt.npz", pred: str | Path = "pred.npz", *more):
        common = ["--body", files / "body", "--bootstrap", 200]
        return run(capsys, monkeypatch, "--protocol", protocol, "--gt", files / gt,
                   "--pred", files / pred, *common, *more)  # fmt: skip

    return call


def numbers(hmdiff, protocol: str, gt="gt.npz", pred="pred.npz", *more) -> dict[str, float]:
    code, out, error = hmdiff(protocol, gt, pred, *more, "--json")
    assert code == 0, error
    return {name: figure["mean"] for name, figure in json.loads(out)["means"].items()}


def by_hand(regressor, truth, predicted, origin: list[int]) -> dict[str, float]:
    """MPVE and MPJPE by METRO's index lists; the joints are about the mean of ``origin``."""
    order = [3, 2, 1, 4, 5, 6, 16, 15, 14, 11, 12, 13, 8, 10]
    vertex, joint = [], []
    for true, own in zip(truth.astype(float), predicted.astype(float), strict=True):
        j, k = regressor @ true, regressor @ own
        vertex.append(np.linalg.norm((own - k[0]) - (true - j[0]), axis=1).mean())
        j, k = (x - x[origin].mean(0) for x in (j, k))
        joint.append(np.linalg.norm(k[order] - j[order], axis=1).mean())
    return {"MPVE": 1000 * np.mean(vertex), "MPJPE": 1000 * np.mean(joint)}


@pytest.mark.parametrize(("protocol", "origin"), [("3dpw", [1, 4]), ("3dpw_gendered", [0])])
def test_meshes_are_scored_about_the_root_of_the_protocol(hmdiff, protocol, origin):
    """METRO's root is the middle of the hips, SPIN's the regressed pelvis."""
    truth, predicted, regressor = bodies()
    found = numbers(hmdiff, protocol)
    wanted = by_hand(regressor, truth, predicted, origin)
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-6)
    assert set(found) == {"MPVE", "MPJPE", "PA-MPJPE"}


def test_the_two_protocols_of_3dpw_differ(hmdiff):
    first, second = numbers(hmdiff, "3dpw"), numbers(hmdiff, "3dpw_gendered")
    assert abs(first["MPJPE"] - second["MPJPE"]) > 0.1
    assert first["PA-MPJPE"] == pytest.approx(second["PA-MPJPE"], rel=1e-6)


def test_the_figures_are_those_of_the_pipelines_own_scores(hmdiff):
    truth, predicted, regressor = bodies()
    own = score(load_protocol("3dpw"), predicted, truth, regressor @ truth, regressor)
    for name, value in numbers(hmdiff, "3dpw").items():
        assert value == pytest.approx(own[name].mean(), rel=1e-9)


def test_people_read_a_line_a_metric_with_its_interval(hmdiff, files, tmp_path):
    code, out, error = hmdiff("3dpw", "gt.npz", "pred.npz", "--out", tmp_path / "out.json")
    assert (code, error) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("3dpw: 10 samples, follows METRO")
    for line, name in zip(lines[1:], ("MPVE", "MPJPE", "PA-MPJPE"), strict=True):
        assert line.startswith(name) and " mm  [" in line
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["ground_truth"] == "neutral" and record["matched_by"] == "order"
    for figure in record["means"].values():
        assert figure["low"] < figure["mean"] < figure["high"]


def test_samples_are_matched_by_their_ids(hmdiff, files):
    truth, predicted, _ = bodies()
    names = np.array([f"sequence/{row:05d}" for row in range(COUNT)])
    order = np.random.default_rng(0).permutation(COUNT)
    np.savez(files / "named.npz", vertices=truth, sample_id=names)
    for save in (np.savez, np.savez_compressed):
        save(files / "shuffled.npz", vertices=predicted[order], sample_id=names[order])
        found = numbers(hmdiff, "3dpw", "named.npz", "shuffled.npz")
        assert found == pytest.approx(numbers(hmdiff, "3dpw"), rel=1e-9)


def test_human36m_takes_joints_and_meshes_alike(hmdiff, files):
    truth, predicted, regressor = bodies()
    np.savez(files / "mocap.npz", joints=regressor @ truth)
    np.savez(files / "joints.npz", joints=regressor @ predicted)
    given, regressed = (
        numbers(hmdiff, "human36m", "mocap.npz", name) for name in ("joints.npz", "pred.npz")
    )
    assert set(given) == {"MPJPE", "PA-MPJPE"}  # no MPVE: the test images have no true mesh
    assert given == pytest.approx(regressed, rel=1e-6)
    wanted = by_hand(regressor, truth, predicted, [1, 4])["MPJPE"]
    assert given["MPJPE"] == pytest.approx(wanted, rel=1e-6)


def test_either_published_regressor_gives_the_same_figures(hmdiff, files):
    regressor = bodies()[2]
    found = []
    for name, order in (("metro.npy", range(17)), ("graphcmr.npy", GRAPHCMR)):
        np.save(files / name, regressor[list(order)])
        found.append(numbers(hmdiff, "3dpw", "gt.npz", "pred.npz", "--regressor", files / name))
    assert found[0] == found[1] == numbers(hmdiff, "3dpw")


def test_a_body_of_another_model_is_a_warning(hmdiff, files):
    """Its regressor acts on meshes that it was not made for."""
    regressor = bodies()[2]
    mixed = np.random.default_rng(0).permutation(BODY.vertices)
    (files / "other").mkdir()
    np.save(files / "other" / "regressor.npy", regressor[:, mixed])
    write_json(files / "other" / "model.json", {"model": "smpl", "source": "stand-in"})
    code, _, error = hmdiff("3dpw", "gt.npz", "pred.npz", "--body", files / "other")
    assert code == 0
    assert error.count("\n") == 1 and "hmdiff: warning" in error and "another model" in error


def test_memory_does_not_grow_with_the_number_of_samples(files, monkeypatch):
    """One chunk is held at a time, however many there are on disk."""
    monkeypatch.setattr(scoring, "CHUNK", 4)
    monkeypatch.setattr(scoring, "WORKERS", 1)
    regressor, protocol = bodies()[2], load_protocol("3dpw")
    peaks = []
    for count in (8, 80):
        truth, predicted, _ = bodies(count=count)
        np.savez(files / "a.npz", vertices=truth)
        np.savez_compressed(files / "b.npz", vertices=predicted)
        del truth, predicted
        with NpzRows(files / "a.npz") as first, NpzRows(files / "b.npz") as second:
            points = [
                scoring.Points("x", None, file.rows("vertices", (BODY.vertices, 3)))
                for file in (second, first)
            ]
            tracemalloc.start()
            scoring.score_points(protocol, protocol.metrics, *points, regressor)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


# Bad input


def _bad(folder: Path, how: str) -> Path:
    _, predicted, _ = bodies()
    names = np.array([f"s{row}" for row in range(COUNT)])
    content = {"vertices": predicted, "sample_id": names}
    if how == "not finite":
        predicted[6, 100, 2] = np.inf
    elif how == "millimetres":
        content["vertices"] = predicted * 1000
    elif how == "shape":
        content["vertices"] = predicted[:, :6000]
    elif how == "few":
        content = {"vertices": predicted[:-1], "sample_id": names[:-1]}
    elif how == "other ids":
        content["sample_id"] = np.array([*names[:-1], "s99"])
    elif how == "same ids":
        content["sample_id"] = np.array([*names[:-1], "s0"])
    elif how == "few ids":
        content["sample_id"] = names[:-1]
    elif how == "no vertices":
        content = {"verts": predicted}
    elif how == "objects":
        content["vertices"] = predicted.astype(object)
    elif how == "Fortran":
        content["vertices"] = np.asfortranarray(predicted)
    path = folder / "bad.npz"
    np.savez(path, **content)
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-3000])
    if how == "head":  # Python's own text, here without an end
        path.write_bytes(path.read_bytes().replace(b"}", b"\0"))
    if how == "text":
        path.write_text("vertices")
    if how == "missing":
        path.unlink()
    return path


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("not finite", "sample s6 has numbers that are not finite"),
        ("millimetres", "are these millimetres"),
        ("shape", r"not numbers of shape \(n, 6890, 3\)"),
        ("few", "9 samples, but"),
        ("other ids", "has no 's9'"),
        ("same ids", "sample_id: has names twice"),
        ("few ids", "sample_id: shape"),
        ("no vertices", "vertices: missing; the file holds verts"),
        ("objects", "object of shape"),
        ("Fortran", "Fortran order"),
        ("cut", "is cut or no .npz"),
        ("head", "write it again with np.savez"),
        ("text", "is cut or no .npz"),
        ("missing", "no such file"),
    ],
)
def test_bad_predictions_are_one_clear_line_and_exit_code_2(hmdiff, files, tmp_path, how, reason):
    truth = bodies()[0]
    np.savez(files / "ids.npz", vertices=truth, sample_id=[f"s{row}" for row in range(COUNT)])
    out = tmp_path / "out.json"
    code, printed, error = hmdiff("3dpw", "ids.npz", _bad(tmp_path, how), "--out", out)
    assert (code, printed, error.count("\n")) == (2, "", 1)
    assert str(tmp_path / "bad.npz") in error
    assert re.search(reason, error)
    assert not out.exists()


def test_joints_in_graphcmrs_order_are_one_clear_line(hmdiff, files):
    truth, predicted, regressor = bodies()
    np.savez(files / "m.npz", joints=regressor @ truth)
    np.savez(files / "swapped.npz", joints=(regressor @ predicted)[:, GRAPHCMR])
    code, _, error = hmdiff("human36m", "m.npz", "swapped.npz")
    assert code == 2 and "swapped.npz: joints: legs and arms are on different sides" in error


def test_a_regressor_in_no_known_order_is_one_clear_line(hmdiff, files):
    np.save(files / "wrong.npy", bodies()[2][::-1])
    code, _, error = hmdiff("3dpw", "gt.npz", "pred.npz", "--regressor", files / "wrong.npy")
    assert code == 2 and "wrong.npy: its rows are in neither METRO's nor GraphCMR's" in error


def test_without_any_regressor_the_line_says_where_to_get_one(hmdiff, files):
    code, _, error = hmdiff("3dpw", "gt.npz", "pred.npz", "--body", files / "nowhere")
    assert code == 2 and "dvc repro body_models@smpl" in error and "--regressor" in error


def test_an_unknown_protocol_is_one_clear_line(hmdiff):
    code, _, error = hmdiff("agora")
    assert code == 2 and error.count("\n") == 1 and "'agora': no such protocol" in error
