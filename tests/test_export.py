"""An exported submission scores as the evaluation that it was made from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from toy_hand import COUNT, PARAMS, run_evaluate, write_toy_hand

from hmdiff.errors import UserError
from hmdiff.evaluation.export import export
from hmdiff.evaluation.freihand_files import read_submission
from hmdiff.evaluation.score_files import score_files

PARAMS_FILE = Path(__file__).parents[1] / "params.yaml"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Folders as the pipeline leaves them, with an evaluation of every test image."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "toy").mkdir()
    toy = write_toy_hand(folder / "toy")
    # Every test image has its mesh, so that all of them are evaluated.
    with h5py.File(toy / "features.h5", "r+") as file:
        file["valid_mesh"][...] = True
    for source, target in (
        ("body", "models/hand"),
        ("sampling.npz", "models/sampling/hand.npz"),
        ("hand_linear", "models/train/hand_linear"),
        ("prepared.h5", "prepared/hand/freihand.h5"),
    ):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).symlink_to(toy / source)
    every = PARAMS.evaluation.model_copy(update={"samples": None})
    params = PARAMS.model_copy(update={"evaluation": every})
    run_evaluate(toy, folder / "all", params=params)
    run_evaluate(toy, folder / "some")
    return folder


def run(project: Path, evaluation: Path, out: Path, partial: bool = False) -> str:
    return export(
        "freihand", evaluation, out, project / "models", project / "prepared", partial, PARAMS_FILE
    )


def write_truth(project: Path, folder: Path) -> Path:
    """The evaluation's list of true hands, in the order of the prepared file."""
    with h5py.File(project / "prepared/hand/freihand.h5") as file:
        test = file["split"][:] == 2
        lists = {"xyz": file["joints"][:][test], "verts": file["vertices"][:][test]}
    folder.mkdir()
    for name, values in lists.items():
        path = folder / f"evaluation_{name}.json"
        path.write_text(json.dumps(values.astype(float).tolist()))
    return folder


def test_the_exported_file_scores_as_the_evaluation(project, tmp_path):
    """To the rounding of the file (1e-7 m) and of samples.csv (1e-6)."""
    line = run(project, project / "all", tmp_path / "pred.zip")
    assert line.endswith(f"{COUNT} of {COUNT} rendered images of freihand")
    found = score_files(
        "freihand", write_truth(project, tmp_path / "gt"), tmp_path / "pred.zip", Path("x"), None,
        200, 0,
    )  # fmt: skip
    summary = json.loads((project / "all" / "summary.json").read_text())
    assert found["n"] == summary["n"] == COUNT
    for name, figure in summary["means"].items():
        assert found["means"][name]["mean"] == pytest.approx(figure["mean"], abs=2e-3), name


def test_the_order_is_that_of_the_benchmarks_list(project, tmp_path):
    """Whatever the order of the evaluation's rows."""
    shuffled = shutil.copytree(project / "all", tmp_path / "all")
    with np.load(shuffled / "predictions.npz") as content:
        names, coarse = content["sample_id"], content["coarse"]
    order = np.random.default_rng(0).permutation(COUNT)
    # Different meshes, or else no order could be told from another.
    coarse = coarse + np.arange(COUNT)[:, None, None] * coarse * 0.1
    for path, rows in (("plain", slice(None)), ("shuffled", order)):
        folder = shutil.copytree(shuffled, tmp_path / path)
        np.savez(folder / "predictions.npz", sample_id=names[rows], coarse=coarse[rows])
        run(project, folder, tmp_path / f"{path}.zip")
    files = [(tmp_path / f"{name}.zip").read_bytes() for name in ("plain", "shuffled")]
    assert files[0] == files[1]
    assert len(read_submission(tmp_path / "plain.zip")) == COUNT


def test_an_evaluation_of_some_images_is_refused_unless_it_is_asked_for(project, tmp_path):
    with pytest.raises(UserError, match=rf"has 4 of {COUNT} images; .*--allow-partial") as line:
        run(project, project / "some", tmp_path / "pred.zip")
    assert "\n" not in str(line.value) and list(tmp_path.iterdir()) == []
    said = run(project, project / "some", tmp_path / "pred.zip", partial=True)
    assert f"4 of {COUNT}" in said and "not a submission" in said
    assert len(read_submission(tmp_path / "pred.zip")) == 4


def test_what_cannot_be_exported_is_one_clear_line(project, tmp_path):
    body = shutil.copytree(project / "all", tmp_path / "body")
    summary = json.loads((body / "summary.json").read_text())
    summary["protocol"]["kind"] = "body"
    (body / "summary.json").write_text(json.dumps(summary))
    strange = shutil.copytree(project / "all", tmp_path / "strange")
    with np.load(strange / "predictions.npz") as content:
        names, coarse = content["sample_id"].copy(), content["coarse"]
    names[0] = "foot/0"
    np.savez(strange / "predictions.npz", sample_id=names, coarse=coarse)
    damaged = shutil.copytree(project / "all", tmp_path / "damaged")
    (damaged / "predictions.npz").write_bytes(b"PK")
    for folder, reason in (
        (body, "evaluates a body"),
        (strange, "'foot/0' is no test image"),
        (damaged, r"predictions\.npz: missing or damaged"),
        (tmp_path / "none", r"summary\.json: no such file"),
    ):
        with pytest.raises(UserError, match=reason) as line:
            run(project, folder, tmp_path / "pred.zip")
        assert "\n" not in str(line.value) and not (tmp_path / "pred.zip").exists()
    with pytest.raises(UserError, match="takes no submissions here; one of freihand"):
        export("3dpw", body, tmp_path / "x.zip", tmp_path, tmp_path, False, PARAMS_FILE)
