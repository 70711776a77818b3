"""FreiHAND's files: every metric of the official evaluator, from submissions good and bad."""

from __future__ import annotations

import gc
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from hmdiff.errors import UserError
from hmdiff.evaluation.freihand_files import read_submission, write_submission
from hmdiff.evaluation.protocols import load_protocol
from hmdiff.evaluation.score_files import score_files

COUNT = 12


def hands(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """True joints and meshes, predicted joints and meshes: noisy, mirrored, exact, far, in a point,
    and tiny ones, in metres."""
    rng = np.random.default_rng(seed)
    shape = rng.normal(0, [0.04, 0.06, 0.02], (778, 3))
    turns = Rotation.random(COUNT, rng=rng).as_matrix()
    meshes = (shape + rng.normal(0, 0.003, (COUNT, 778, 3))) @ turns
    meshes += rng.normal([0, 0, 0.7], 0.05, (COUNT, 1, 3))
    joints = meshes[:, rng.choice(778, 21, replace=False)]
    size = rng.gamma(2, 0.003, (COUNT, 1, 1))
    moved = rng.normal(0, 0.01, (COUNT, 1, 3))
    predicted = [x + size * rng.normal(size=x.shape) + moved for x in (joints, meshes)]
    for own, true in zip(predicted, (joints, meshes), strict=True):
        own[0] = true[0] * [-1, 1, 1]
        own[1] = true[1]
        own[2] = own[2] - 5.0
        own[3] = 0.02
        own[4] = own[4] * 1e-4
    return joints, meshes, *predicted


def by_definition(joints, meshes, predicted_joints, predicted_meshes) -> dict[str, float]:
    """What scores.txt says, one sample at a time with other tools."""

    def align(true, own):
        true_size, own_size = (np.linalg.norm(x - x.mean(0)) + 1e-8 for x in (true, own))
        target, source = (true - true.mean(0)) / true_size, (own - own.mean(0)) / own_size
        rotation, scale = orthogonal_procrustes(source, target)
        return scale * source @ rotation * true_size + true.mean(0)

    def area(distances):
        grid = np.linspace(0, 0.05, 100)
        curve = [(distances <= threshold).mean() for threshold in grid]
        return np.trapezoid(curve, grid) / 0.05

    def f_score(true, own, limit):
        near = cdist(own, true) < limit
        precision, recall = near.any(1).mean(), near.any(0).mean()
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    scores = {}
    for name, true, own in (("xyz", joints, predicted_joints), ("mesh", meshes, predicted_meshes)):
        aligned = np.stack([align(*pair) for pair in zip(true, own, strict=True)])
        for key, points in ((name, own), (f"{name}_al", aligned)):
            distances = np.sqrt(((points - true) ** 2).sum(-1))
            scores |= {f"{key}_mean3d": 100 * distances.mean(), f"{key}_auc3d": area(distances)}
    for key, points in (("f", predicted_meshes), ("f_al", aligned)):
        for limit in (5, 15):
            each = [f_score(*pair, limit / 1000) for pair in zip(meshes, points, strict=True)]
            scores[f"{key}_score_{limit}"] = np.mean(each)
    return scores


def write_truth(folder: Path, joints: np.ndarray, meshes: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for name, values in (("xyz", joints), ("verts", meshes)):
        (folder / f"evaluation_{name}.json").write_text(json.dumps(values.tolist()))
    return folder


def write_prediction(path: Path, *lists) -> Path:
    path.write_text(json.dumps([np.asarray(values).tolist() for values in lists]))
    return path


def score(gt: Path, pred: Path) -> dict:
    return score_files("freihand", gt, pred, Path("unused"), None, 100, 0)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("freihand")
    joints, meshes, *predicted = hands()
    write_truth(folder / "gt", joints, meshes)
    write_prediction(folder / "pred.json", *predicted)
    with zipfile.ZipFile(folder / "pred.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "pred.json", "pred.json")
    return folder


@pytest.mark.parametrize("name", ["pred.json", "pred.zip"])
def test_every_metric_of_the_official_evaluator(files, name):
    """Among them a mirrored hand, which is right once aligned, and one that is right throughout."""
    found = score(files / "gt", files / name)
    wanted = by_definition(*hands())
    assert set(found["official"]) == set(wanted)
    for key, value in wanted.items():
        assert found["official"][key] == pytest.approx(value, abs=1e-9), key
    assert all(0 < value < 1 for key, value in wanted.items() if "auc" in key or key[0] == "f")
    assert found["n"] == COUNT
    for name, figure in found["means"].items():
        assert figure["low"] <= figure["mean"] <= figure["high"]
        assert figure["unit"] == ("mm" if name.endswith("E") else "1")
    assert found["means"]["PA-MPJPE"]["mean"] == pytest.approx(10 * wanted["xyz_al_mean3d"])


def test_the_aligned_area_of_a_perfect_prediction_is_the_evaluators(files):
    """It never counts an aligned point as exact: its curve starts at 0 where the other's is 1."""
    joints, meshes, *_ = hands()
    perfect = write_prediction(files / "perfect.json", joints, meshes)
    official = score(files / "gt", perfect)["official"]
    assert official["mesh_auc3d"] == 1
    assert official["mesh_al_auc3d"] == pytest.approx(1 - 0.5 / 99, abs=1e-9)
    assert official["mesh_al_mean3d"] < 1e-5


def test_another_number_of_samples_than_the_official_is_a_warning(files, capsys, monkeypatch):
    score(files / "gt", files / "pred.json")
    warning = capsys.readouterr().err
    assert "12 samples, but the official evaluation has 3960" in warning
    assert warning.count("hmdiff: warning") == 1
    protocol = load_protocol("freihand")
    official = protocol.official.model_copy(update={"samples": COUNT})
    monkeypatch.setattr(
        "hmdiff.evaluation.score_files.load_protocol",
        lambda name: protocol.model_copy(update={"official": official}),
    )
    score(files / "gt", files / "pred.json")
    assert "warning" not in capsys.readouterr().err


def _spoilt(files: Path, folder: Path, how: str) -> Path:
    """A bad submission, or one that does not fit the truth, in ``folder``."""
    _, _, joints, meshes = hands()
    path = folder / "pred.json"
    if how == "not finite":
        meshes[7, 300, 1] = np.nan
    if how == "few":
        joints, meshes = joints[:-1], meshes[:-1]
    if how == "unequal":
        joints = joints[:-1]
    if how == "millimetres":
        joints, meshes = joints * 1000, meshes * 1000
    write_prediction(path, joints, meshes)
    text = path.read_text()
    if how == "cut":
        path.write_text(text[:-1000])
    if how == "web page":
        path.write_text("<!DOCTYPE html><html><body>Please log in</body></html>")
    if how == "three lists":
        write_prediction(path, joints, meshes, [])
    if how == "one list":
        write_prediction(path, joints)
    if how in ("ragged", "text", "null"):
        content = json.loads(text)
        if how == "ragged":
            content[1][4].pop()
        else:
            content[1][4][5][0] = "wide" if how == "text" else None
        path.write_text(json.dumps(content))
    if how == "missing":
        path.unlink()
    if how == "folder":
        return folder
    if how.startswith("zip"):
        names = {"zip of another": "result.json", "zip of a folder": "run/pred.json"}
        path = folder / "pred.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(folder / "pred.json", names.get(how, "pred.json"))
            if how == "zip slip":
                archive.writestr("../pred.json", "[]")
        if how == "zip cut":
            path.write_bytes(path.read_bytes()[:-200])
        if how == "zip damaged":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(data)
        if how == "zip missing":
            path.unlink()
    return path


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("not finite", "sample 7 has numbers that are not finite"),
        ("null", "sample 4 has numbers that are not finite"),
        ("few", "11 samples, but .*gt has 12"),
        ("unequal", "11 samples in xyz, but 12 in verts"),
        ("millimetres", "are these millimetres"),
        ("cut", "cut or not JSON"),
        ("web page", "cut or not JSON"),
        ("three lists", "not a list of two lists"),
        ("one list", "not a list of two lists"),
        ("ragged", r"verts: sample 4 has shape \(777, 3\) instead of \(778, 3\)"),
        ("text", r"verts: sample 4 has shape none"),
        ("missing", "no such file"),
        ("folder", "is a folder"),
        ("zip of another", "has no pred.json at its top"),
        ("zip of a folder", "has no pred.json at its top"),
        ("zip slip", "leads elsewhere"),
        ("zip cut", "not a readable zip"),
        ("zip damaged", "not a readable zip"),
        ("zip missing", "no such file"),
    ],
)
def test_a_bad_submission_is_one_clear_line(files, tmp_path, how, reason):
    folder = tmp_path / "a folder"
    folder.mkdir()
    path = _spoilt(files, folder, how)
    with pytest.raises(UserError, match=reason) as line:
        score(files / "gt", path)
    assert "\n" not in str(line.value) and str(line.value).startswith(str(path))
    assert gc.isenabled()


def test_a_zip_that_would_swell_is_not_unpacked(files, monkeypatch):
    monkeypatch.setattr("hmdiff.evaluation.freihand_files.LARGEST", 10_000)
    with pytest.raises(UserError, match=r"pred\.json: more than 10000 bytes"):
        score(files / "gt", files / "pred.zip")


def test_a_damaged_truth_is_one_clear_line(files, tmp_path):
    joints, meshes, *_ = hands()
    gt = write_truth(tmp_path / "gt", joints, meshes)
    (gt / "evaluation_verts.json").write_text("[[1, 2], 3]")
    with pytest.raises(UserError, match=r"verts\.json: verts: sample 0 has shape \(2,\)"):
        score(gt, files / "pred.json")
    write_truth(gt, joints, meshes[:-2])
    with pytest.raises(UserError, match="12 samples in xyz, but 10 in verts"):
        score(gt, files / "pred.json")
    (gt / "evaluation_xyz.json").unlink()
    with pytest.raises(UserError, match=r"evaluation_xyz\.json: no such file"):
        score(gt, files / "pred.json")


def test_a_written_submission_reads_back_and_is_always_the_same_bytes(tmp_path, monkeypatch):
    _, _, joints, meshes = hands()
    write_submission(tmp_path / "a.zip", joints, meshes)
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_submission(tmp_path / "b.zip", joints, meshes)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["pred.json"]
    found = read_submission(tmp_path / "a.zip")
    assert np.abs(found.joints - joints).max() < 1e-7
    assert np.abs(found.vertices - meshes).max() < 1e-7


def test_a_submission_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    _, _, joints, meshes = hands()

    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError):
        write_submission(tmp_path / "a.zip", joints, meshes)
    assert list(tmp_path.iterdir()) == []
