"""The stage probe: plain regressions find in the features what is in them, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from toy_hand import PARAMS

from hmdiff.errors import UserError
from hmdiff.extractor.features import features_writer
from hmdiff.params.probes import ProbeParams, check_probes
from hmdiff.probes.maps import fit_kernel, fit_linear, vertex_errors
from hmdiff.stages import probe as stage

TRAIN, VAL, TEST = 0, 1, 2
JOINTS, VERTICES = 2, 4
WHAT = ProbeParams(
    kind="body", datasets=("3dpw", "human36m"), rows=300, landmarks=150,
    penalties=(1e-3, 1e-1, 10.0, 1e3), widths=(1.0,),
)  # fmt: skip


def regression(count: int = 40, inputs: int = 3, seed: int = 0):
    """Inputs of unlike scales, flat meshes, and which rows are held out."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(count, inputs, generator=random) * torch.tensor([1.0, 10.0, 0.1]) + 2
    y = x @ torch.randn(inputs, 6, generator=random) + torch.randn(count, 6, generator=random)
    return x, y, torch.arange(count) % 5 == 0


def standardised(x, held):
    fitted = x[~held].numpy()
    return (x.numpy() - fitted.mean(0)) / fitted.std(0, ddof=1)


@pytest.mark.parametrize("penalty", [1e-2, 1.0])
def test_the_linear_regression_is_that_of_scikit_learn(penalty):
    x, y, held = regression()
    z, own = standardised(x, held), (~held).numpy()
    other = Ridge(alpha=penalty * own.sum()).fit(z[own], y[~held].numpy())
    found = fit_linear(x, y, held, [penalty]).predict(x)
    np.testing.assert_allclose(found.numpy(), other.predict(z), atol=1e-4)


def test_the_kernel_regression_is_that_of_scikit_learn():
    x, y, held = regression()
    z, own, width = standardised(x, held), (~held).numpy(), 0.7
    mean = y[~held].numpy().mean(0)
    other = KernelRidge(alpha=0.3, kernel="rbf", gamma=1 / (2 * 3 * width**2))
    other.fit(z[own], y[~held].numpy() - mean)
    found = fit_kernel(x, y, held, [0.3], [width], landmarks=10**6).predict(x)
    np.testing.assert_allclose(found.numpy(), other.predict(z) + mean, atol=1e-4)


def test_a_kernel_regression_on_fewer_rows_goes_through_those_alone():
    x, y, held = regression()
    rows = (~held).nonzero()[:, 0]  # 32 of 40
    predict = fit_kernel(x, y, held, [1e-6], [0.3], landmarks=16).predict
    for part, through in ((rows[::2], True), (rows[1::2], False)):
        left = (predict(x[part]) - y[part]).norm() / (y[part] - y[rows].mean(0)).norm()
        assert (left < 0.01) == through


def test_the_penalty_is_the_best_on_rows_that_are_not_fitted():
    random = torch.Generator().manual_seed(1)
    x = torch.randn(60, 50, generator=random)  # as many inputs as rows: small penalties overfit
    y = 0.3 * x[:, :1] + torch.randn(60, 3, generator=random)
    held = torch.arange(60) % 3 == 0
    penalties = [1e-4, 1e-2, 1.0, 1e2]
    alone = [fit_linear(x, y, held, [penalty]).predict for penalty in penalties]
    errors = [vertex_errors(one(x[held]), y[held]).mean().item() for one in alone]
    best = penalties[int(np.argmin(errors))]
    assert best > penalties[0]
    assert fit_linear(x, y, held, penalties).chosen == {"penalty": best}


def write_features(folder: Path, visible: float) -> None:
    """Two data sets: meshes that U's noisy mean gives but for one number a row, which f_I holds
    with the weight ``visible``; test rows are not finite, so that reading one would show."""
    mix = np.random.default_rng(7).normal(size=(JOINTS * 3, VERTICES * 3))
    hidden_way = np.random.default_rng(8).normal(size=VERTICES * 3)
    for seed, dataset in enumerate(("3dpw", "human36m")):
        random = np.random.default_rng(seed)
        count = 260
        split = np.array([TRAIN] * 200 + [VAL] * 50 + [TEST] * 10, np.uint8)
        joints = 0.2 * random.normal(size=(count, JOINTS, 3))
        hidden = random.normal(size=count)
        coarse = joints.reshape(count, -1) @ mix + 0.02 * hidden[:, None] * hidden_way
        feature = random.normal(size=(count, 1, 5))
        feature[:, 0, 0] += visible * hidden
        block = {
            "image_feature": feature, "joints": joints,
            "coarse": coarse.reshape(count, VERTICES, 3),
            "centre": joints + 0.002 * random.normal(size=joints.shape),
            "peak": joints + 0.01 * random.normal(size=joints.shape),
            "spread": np.full(joints.shape, 0.01),
            "draws": np.repeat(joints[:, None], 2, 1),
        }  # fmt: skip
        for values in block.values():
            values[split == TEST] = np.nan
        block = {name: values.astype(np.float32) for name, values in block.items()}
        block |= {
            "valid_mesh": np.ones(count, bool), "valid_joints": np.ones((count, JOINTS), bool),
            "split": split, "copy": np.zeros(count, np.uint16),
            "sample_id": [f"{dataset}/{row}" for row in range(count)],
        }  # fmt: skip
        attrs = {"dataset": dataset, "source": "rendered", "kind": "body"}
        with features_writer(folder / f"{dataset}.h5", count, attrs) as writer:
            writer.append(block)


def run(folder: Path, out: Path, monkeypatch, what: ProbeParams = WHAT) -> tuple[list, list]:
    logged: list = []
    monkeypatch.setattr(stage, "log_run", lambda experiment, run, about: logged.append(run))
    params = PARAMS.model_copy(update={"probes": {"toy": what}})
    stage.run("toy", folder, out, params)
    return json.loads((out / "toy.json").read_text()), logged


def of(found: list, inputs: str, form: str = "linear", dataset: str = "3dpw") -> dict:
    (record,) = [
        r for r in found
        if (r["inputs"], r["form"], r["dataset"]) == (inputs, form, dataset)
    ]  # fmt: skip
    return record


@pytest.mark.parametrize("visible", [0.0, 20.0])
def test_a_probe_finds_in_f_i_what_is_there_and_nothing_where_nothing_is(
    tmp_path, monkeypatch, visible
):
    write_features(tmp_path, visible)
    found, (logged,) = run(tmp_path, tmp_path / "out", monkeypatch)
    for dataset in WHAT.datasets:
        control = of(found, "U's mean", dataset=dataset)
        added = of(found, "f_I, added to the control", dataset=dataset)
        assert control["control"] and control["difference"] is None
        assert added["n"] == 50
        if visible:
            assert added["difference_high"] < 0
            assert added["measured"] < 0.5 * control["measured"]
        else:
            assert added["difference"] > -0.02 * control["measured"]
            assert added["measured"] < 1.1 * control["measured"]
    # f_I alone is not enough for either: it knows nothing of the joints.
    assert of(found, "f_I")["measured"] > 3 * of(found, "U's mean")["measured"]
    assert len(logged.children) == len({(r["inputs"], r["form"]) for r in found})
    head = (tmp_path / "out/toy.csv").read_text().splitlines()[0].split(",")
    assert head[:4] == ["inputs", "regression", "training", "3dpw"]


def test_a_probe_gives_the_same_bytes_again_and_asks_for_no_test_row(tmp_path, monkeypatch):
    write_features(tmp_path, 1.0)
    run(tmp_path, tmp_path / "a", monkeypatch)
    with h5py.File(tmp_path / "3dpw.h5", "r+") as file:
        coarse = file["coarse"][:]
        coarse[file["split"][:] == TEST] = 0.0
        file["coarse"][:] = coarse
    run(tmp_path, tmp_path / "b", monkeypatch)
    for name in ("toy.csv", "toy.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_probe_without_features_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"3dpw\.h5: no such file; run extract_features@3dpw"):
        run(tmp_path, tmp_path, monkeypatch)


def test_a_probe_that_there_is_not_or_cannot_be_is_refused():
    with pytest.raises(UserError, match="probes: has no 'body'; take one of none"):
        stage.find_probe("body", PARAMS.model_copy(update={"probes": {}}))
    wrong = WHAT.model_copy(update={"datasets": ("freihand",)})
    params = PARAMS.model_copy(update={"probes": {"x": wrong}})
    with pytest.raises(UserError, match=r"probes\.x\.datasets: 'freihand'.*kind body; take of"):
        check_probes(params, "params.yaml")
