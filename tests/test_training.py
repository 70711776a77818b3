"""Losses, the training loop, the linear control, the upsampling layers and the model folder."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_trainings
from toy_trainings import EVEN, FakePrepared
from toys import (
    denoiser_params,
    diffusion_params,
    experiment_params,
    make_body,
    make_features,
    make_model,
    make_sampling,
    make_trained,
    rng,
    training_params,
)

from hmdiff.diffusion.upsample import Upsampler
from hmdiff.errors import UserError
from hmdiff.params.models import FinetuneParams
from hmdiff.training import data
from hmdiff.training.folder import load_model, repeat_folder, repeats, save_model
from hmdiff.training.linear import fit_ridge
from hmdiff.training.loop import learning_rate, train, update_average
from hmdiff.training.losses import SurfaceLosses, diffusion_loss, joint_loss, vertex_loss
from hmdiff.training.upsampling import downsample, train_upsampler

CPU = torch.device("cpu")


def run_training(features, model=None, **changes):
    sampling = make_sampling()
    return train(
        model or make_model(vertices=12),
        features,
        torch.as_tensor(sampling.coarse_regressor(make_body().regressor.numpy())),
        torch.as_tensor(sampling.coarse_faces),
        training_params(**changes),
        seed=3,
        device=CPU,
        precision="fp32",
        name="toy",
    )


# Losses


def test_a_right_triangle_by_hand():
    """Truth: legs 1 and 1 in the xy plane. Prediction: stretched to 2 along x, tilted 45 degrees
    about x, so that its edges meet the normal (0, 0, 1) at cosines 0, sqrt(1/2) and 1/sqrt(10)."""
    faces = torch.tensor([[0, 1, 2]])
    truth = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    predicted = torch.tensor([[[0.0, 0, 0], [2, 0, 0], [0, 0.5**0.5, 0.5**0.5]]])
    normal, edge = SurfaceLosses(faces)(predicted, truth)
    hypotenuse = math.sqrt(5)
    assert float(normal) == pytest.approx((0 + 0.5**0.5 + 0.5**0.5 / hypotenuse) / 3)
    assert float(edge) == pytest.approx((1 + (hypotenuse - math.sqrt(2)) + 0) / 3, abs=1e-6)
    assert float(vertex_loss(predicted, truth)) == pytest.approx((1 + 1 - 0.5**0.5 + 0.5**0.5) / 9)


def test_surface_losses_equal_a_loop_over_faces_and_edges():
    sampling = make_sampling()
    faces = sampling.coarse_faces
    truth, predicted = torch.randn(2, 3, 12, 3, generator=rng())
    normal, edge = SurfaceLosses(torch.as_tensor(faces))(predicted, truth)
    for sample in range(3):
        p, t = predicted[sample].double().numpy(), truth[sample].double().numpy()
        cosines, lengths = [], []
        for a, b, c in faces:
            n = np.cross(t[b] - t[a], t[c] - t[a])
            n /= np.linalg.norm(n)
            for i, j in ((a, b), (b, c), (c, a)):
                e = p[i] - p[j]
                cosines.append(abs(e @ n) / np.linalg.norm(e))
                lengths.append(abs(np.linalg.norm(e) - np.linalg.norm(t[i] - t[j])))
        assert float(normal[sample]) == pytest.approx(np.mean(cosines), rel=1e-4)
        assert float(edge[sample]) == pytest.approx(np.mean(lengths), rel=1e-4)


def test_a_perfect_mesh_costs_nothing_where_faces_are_flat():
    truth = make_features(4).coarse
    normal, edge = SurfaceLosses(torch.as_tensor(make_sampling().coarse_faces))(truth, truth)
    assert float(normal.max()) < 1e-5 and float(edge.max()) < 1e-6


def test_invalid_joints_weigh_nothing_even_if_they_are_nan():
    truth = torch.zeros(2, 3, 3)
    truth[0, 1] = torch.nan
    predicted = torch.full((2, 3, 3), 0.6).requires_grad_()
    valid = torch.tensor([[True, False, True], [False, False, False]])
    loss = joint_loss(predicted, truth, valid)
    assert loss.tolist() == pytest.approx([0.6, 0.0])
    loss.sum().backward()
    assert predicted.grad.isfinite().all() and (predicted.grad[0, 1] == 0).all()


def test_diffusion_loss_is_the_mean_square_of_each_sample():
    output = torch.tensor([[[1.0, 2.0, 3.0]], [[0.0, 0.0, 0.0]]])
    assert diffusion_loss(output, torch.zeros(2, 1, 3)).tolist() == [pytest.approx(14 / 3), 0]


# Loop


@pytest.mark.parametrize("model", ["diffusion", "direct"])
def test_thirty_steps_lower_the_loss(model):
    _, curve = run_training(make_features(), make_model(vertices=12, model=model))
    assert curve[-1]["samples"] == 240
    first, last = curve[0], np.mean([row["v"] for row in curve[-5:]])
    assert last < 0.7 * first["v"]


@pytest.mark.parametrize("form", ["edm", "noise", "h0", "v"])
def test_every_parametrisation_learns(form):
    _, curve = run_training(make_features(), make_model(vertices=12, form=form), samples=400)
    diff = [row["diff"] for row in curve]
    assert np.mean(diff[-5:]) < 0.9 * np.mean(diff[:3])


def test_the_same_seed_gives_the_same_weights():
    first, _ = run_training(make_features(), samples=40)
    second, _ = run_training(make_features(), samples=40)
    other = first.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in second.state_dict().items())


def test_a_sample_without_a_mesh_teaches_its_joints_and_not_its_coarse_values():
    features = make_features()
    valid = features.valid_mesh.clone()
    valid[::2] = False
    trained = []
    for filler in (torch.nan, 7.0):
        coarse = torch.where(valid[:, None, None], features.coarse, filler)
        part = dataclasses.replace(features, coarse=coarse, valid_mesh=valid)
        trained.append(run_training(part, samples=40)[0])
    unseen = dataclasses.replace(part, joints=features.joints + 1)
    trained.append(run_training(unseen, samples=40)[0])
    states = [dict(model.named_parameters()) for model in trained]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_a_loss_that_is_not_finite_stops_with_step_and_sample():
    features = make_features(8)
    draws = features.draws.clone()
    draws[5] = torch.inf
    with pytest.raises(UserError, match=r"toy: .* step 0 for 1 samples \(0/5\).*lower") as line:
        run_training(dataclasses.replace(features, draws=draws))
    assert "\n" not in str(line.value)


def test_the_learning_rate_warms_up_and_falls_to_nothing():
    rates = [learning_rate(step, 100, 10, 0.5) for step in range(101)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[9] == pytest.approx(0.5, rel=0.05)
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in pairwise(rates[9:]))


def test_the_average_follows_slowly_once_it_is_old():
    average, model = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    for module, value in ((average, 0.0), (model, 1.0)):
        torch.nn.init.constant_(module.weight, value)
    update_average(average, model, 0, 0.99)
    assert float(average.weight.detach()) == pytest.approx(0.9)
    update_average(average, model, 10**6, 0.99)
    assert float(average.weight.detach()) == pytest.approx(0.901)


# Linear control


def halves(pose, meshes, count):
    """Training and validation pairs, each of them in blocks of seven rows."""
    blocks = [list(zip(*(t.split(7) for t in pair), strict=True)) for pair in (
        (pose[:count], meshes[:count]), (pose[count:], meshes[count:])
    )]  # fmt: skip
    return blocks


def test_the_linear_control_recovers_a_planted_map():
    weight, bias = torch.randn(12, 36, generator=rng()), torch.randn(36, generator=rng(1))
    pose = torch.randn(200, 4, 3, generator=rng(2))
    meshes = (pose.flatten(1) @ weight + bias).view(200, 12, 3)
    found, records = fit_ridge(*halves(pose, meshes, 150), [1e-8, 1e-2])
    assert torch.allclose(found.weight, weight, atol=1e-4)
    assert torch.allclose(found.bias, bias, atol=1e-4)
    assert torch.allclose(found(pose), meshes, atol=1e-3)
    assert [record["penalty"] for record in records] == [1e-2, 1e-8]


def test_the_penalty_is_the_one_with_the_least_validation_error():
    pose = torch.randn(30, 4, 3, generator=rng(2))
    meshes = torch.randn(30, 12, 3, generator=rng(3))  # nothing to learn: heavier is better
    penalties = [1e-6, 1e-2, 1e2, 1e6]
    found, records = fit_ridge(*halves(pose, meshes, 15), penalties)
    errors = {record["penalty"]: record["val_mpve"] for record in records}
    best = min(errors, key=errors.get)
    alone, _ = fit_ridge(*halves(pose, meshes, 15), [best])
    assert best > 1
    assert torch.equal(found.weight, alone.weight)


# Upsampling


def test_untrained_upsampling_is_the_mesh_sampling():
    sampling, coarse = make_sampling(), make_features(3).coarse
    full = Upsampler.from_sampling(sampling.ups)(coarse)
    wanted = np.stack([sampling.up @ mesh for mesh in coarse.numpy()])
    assert np.allclose(full.detach(), wanted, atol=1e-6)
    assert torch.allclose(downsample(sampling.down, full.detach()), coarse, atol=1e-6)


def test_upsampling_learns_what_the_mesh_sampling_misses():
    sampling, coarse = make_sampling(), make_features(64).coarse
    hidden = torch.as_tensor(sampling.up.toarray()).float()
    hidden = hidden + 0.02 * torch.randn(hidden.shape, generator=rng())
    meshes = torch.einsum("vw,nwc->nvc", hidden, coarse)
    start = Upsampler.from_sampling(sampling.ups)
    before = vertex_loss(start(coarse), meshes).mean().item()
    params = training_params(upsampler_learning_rate=2e-3)
    trained = train_upsampler(start, meshes, coarse, params, seed=0, device=CPU)
    assert vertex_loss(trained(coarse), meshes).mean().item() < 0.9 * before


# Model folder and stage


@pytest.mark.parametrize("model", ["diffusion", "direct", "linear"])
def test_a_saved_model_is_rebuilt_from_its_folder_alone(tmp_path, model):
    features = make_features()
    trained = make_trained(features, model=model)
    save_model(trained, tmp_path)
    found = load_model(tmp_path)
    assert found.recipe.experiment == trained.recipe.experiment
    wanted = trained.state_dict()
    assert wanted.keys() == found.state_dict().keys()
    assert all(torch.equal(value, wanted[name]) for name, value in found.state_dict().items())
    if model != "linear":
        k, h = 20, torch.randn(2, 1, 12, 3, generator=rng())
        inputs = features.image_feature[:2], features.draws[:2]
        networks = trained.network, found.network
        assert torch.equal(*(net.output(h, k, net.context(*inputs)) for net in networks))


def test_a_truncated_model_is_one_clear_line(tmp_path):
    save_model(make_trained(make_features(), model="linear"), tmp_path)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"\.safetensors: .*run its train stage again") as line:
        load_model(tmp_path)
    assert "\n" not in str(line.value)


def test_a_foreign_record_is_one_clear_line(tmp_path):
    save_model(make_trained(make_features(), model="linear"), tmp_path)
    (tmp_path / "model.json").write_text('{"experiment": {"kind": "foot"}}')
    with pytest.raises(UserError, match=r"model\.json: not a model record") as line:
        load_model(tmp_path)
    assert "\n" not in str(line.value)


@pytest.mark.parametrize("model", ["diffusion", "linear"])
@pytest.mark.parametrize(
    "change", [{"joints": 0.5}, {"joints": -1}, {"joints": 10**40}, {"sizes": []}, {"sizes": "x"}]
)
def test_sizes_of_no_model_are_one_clear_line(tmp_path, model, change):
    save_model(make_trained(make_features(), model=model), tmp_path)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(
        UserError, match=r"model\.json: sizes or joints of no model .*; run"
    ) as line:
        load_model(tmp_path)
    assert "\n" not in str(line.value)


@pytest.mark.parametrize(
    ("count", "rows"),
    [(2, {"a": [0], "b": [0]}), (3, {"a": [0, 12], "b": [6]}), (99, {"a": EVEN, "b": EVEN})],
)
def test_full_meshes_are_evenly_spaced_and_taken_once(tmp_path, monkeypatch, count, rows):
    """Ten rows of each of two files; asking for more than there are gives every row once."""
    picked = {}

    class Recorded(FakePrepared):
        def __init__(self, path):
            super().__init__(path)
            self.name = path.stem

        def meshes(self, indices, body):
            picked[self.name] = list(indices)
            return super().meshes(indices, body)

    monkeypatch.setattr(data, "PreparedFile", Recorded)
    meshes = data.full_meshes([Path(f"{name}.h5") for name in rows], make_body(), count)
    assert picked == rows
    assert meshes.shape == (min(count, 20), 42, 3)


@pytest.fixture
def toy_stage(tmp_path, monkeypatch):
    """Runs the stage on toys: name, parameters' changes and base to the folder written."""
    for module, name, value in toy_trainings.FAKES:
        monkeypatch.setattr(module, name, value)

    def run(name: str, out: str, base: Path | None = None, **changes) -> Path:
        toy_trainings.train(tmp_path, name, tmp_path / out, base, **changes)
        return tmp_path / out

    return run


@pytest.mark.parametrize("model", ["diffusion", "direct", "linear"])
def test_the_stage_writes_the_same_bytes_twice(toy_stage, model):
    contents = []
    for name in ("first", "second"):
        folder = toy_stage("toy", name, experiments={"toy": experiment_params(model=model)})
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"weights.safetensors", "model.json", "curve.csv"}
    assert load_model(folder).recipe.joints == 4


def test_a_repeat_is_the_training_of_the_next_seed(toy_stage):
    """The other seeds lie in the folder of the first, which is as it would be alone."""
    several = toy_stage("toy", "several", training=training_params(samples=40, repeats=3))
    assert repeats(several) == [several, several / "repeats/1", several / "repeats/2"]
    for number in range(3):
        alone = toy_stage("toy", f"alone{number}", seed=number)
        folder = repeat_folder(several, number)
        weights, curve = (
            (folder / name).read_bytes() for name in ("weights.safetensors", "curve.csv")
        )
        assert weights == (alone / "weights.safetensors").read_bytes()
        assert curve == (alone / "curve.csv").read_bytes()
        assert json.loads((folder / "model.json").read_text())["seed"] == number
    weights = [(path / "weights.safetensors").read_bytes() for path in repeats(several)]
    assert len(set(weights)) == 3


def test_the_linear_control_has_no_chance_in_it_and_one_training(toy_stage):
    linear = {"toy": experiment_params(model="linear")}
    folder = toy_stage(
        "toy", "linear", experiments=linear, training=training_params(samples=40, repeats=3)
    )
    assert repeats(folder) == [folder]


def test_an_experiment_may_have_a_learning_rate_of_its_own(toy_stage):
    own = toy_stage("toy", "own", experiments={"toy": experiment_params(learning_rate=3e-5)})
    record = json.loads((own / "model.json").read_text())
    assert record["training"]["learning_rate"] == 3e-5
    shared = toy_stage("toy", "shared", training=training_params(samples=40, learning_rate=3e-5))
    assert (own / "weights.safetensors").read_bytes() == (
        shared / "weights.safetensors"
    ).read_bytes()


def fine(**changes) -> dict:
    values = {"kind": "body", "base": "toy", "datasets": ["toy"], "samples": 8}
    values |= {"learning_rate": 1e-9, "warmup": 0}
    return {"finetunes": {"fine": FinetuneParams(**(values | changes))}}


def test_fine_tuning_starts_from_the_base_and_keeps_its_architecture(toy_stage):
    base = toy_stage("toy", "base")
    # Another architecture stands in params.yaml by now; a rate of nothing shows the start.
    other = {"denoiser": denoiser_params(feedforward=1), "diffusion": diffusion_params(steps=7)}
    started, wanted = (
        load_model(toy_stage("fine", "fine", base, **fine(), **other)),
        load_model(base),
    )
    for name, value in wanted.network.state_dict().items():
        assert torch.allclose(started.network.state_dict()[name], value, atol=1e-6), name
    assert started.recipe.denoiser == wanted.recipe.denoiser
    assert started.recipe.diffusion == wanted.recipe.diffusion
    record = json.loads((base.parent / "fine" / "model.json").read_text())
    assert record["name"] == "fine" and record["base"] == "toy"
    assert record["training"]["samples"] == 8 and record["training"]["learning_rate"] == 1e-9
    moved = load_model(toy_stage("fine", "moved", base, **fine(learning_rate=1e-2, samples=80)))
    distance = [
        float((value - moved.network.state_dict()[name]).abs().max())
        for name, value in wanted.network.named_parameters()
    ]
    assert max(distance) > 1e-3


def test_fine_tuning_of_something_else_is_one_clear_line(toy_stage):
    base = toy_stage("toy", "base", experiments={"toy": experiment_params(model="linear")})
    with pytest.raises(UserError, match=r"base: is a linear model .*cannot start from") as line:
        toy_stage("fine", "fine", base, **fine())
    assert "\n" not in str(line.value)
    with pytest.raises(UserError, match="finetunes: has no 'toy'; take one of none"):
        toy_stage("toy", "fine", base)
    assert not (base.parent / "fine").exists()
