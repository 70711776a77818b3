"""Meshes diffused about U's mean, lifted, in place of the mean mesh (diffusion.centre: prior)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from toys import (
    denoiser_params,
    diffusion_params,
    experiment_params,
    make_body,
    make_features,
    make_sampling,
    make_trained,
    reverse_params,
    rng,
    training_params,
)

from hmdiff.benchmarks.training import make_batch
from hmdiff.diffusion.model import MeshDiffusion, build_model
from hmdiff.errors import UserError
from hmdiff.inference import Predictor
from hmdiff.prediction.onnx_export import export_onnx
from hmdiff.training.folder import TrainedModel, load_model, save_model
from hmdiff.training.linear import fit_ridge
from hmdiff.training.objective import Objective


@pytest.fixture
def features():
    return make_features(6)


def make_centred(features, sees: bool = False, **what) -> MeshDiffusion:
    """An untrained g about a lift that was fitted to ``features``."""
    diffusion = diffusion_params(steps=50, centre="prior")
    model = build_model(
        rng(), experiment_params(**what), diffusion, denoiser_params(sees_centre=sees),
        features.coarse.mean(0), 4,
    )  # fmt: skip
    pairs = [(features.centre, features.coarse)]
    if model.lift is not None:
        model.lift, _ = fit_ridge(pairs, pairs, [1e-4])
    return model


def make_model(features, sees: bool = False) -> TrainedModel:
    """The toy model with a centred g."""
    trained = make_trained(features, condition="image")
    diffusion = diffusion_params(steps=50, centre="prior")
    recipe = dataclasses.replace(
        trained.recipe, diffusion=diffusion, denoiser=denoiser_params(sees_centre=sees)
    )
    network = make_centred(features, sees, condition="image")
    return TrainedModel(recipe, network, trained.pose_to_mesh, trained.upsampler)


def test_a_shift_moves_what_g_sees_and_says_and_leaves_the_noise(features):
    model = make_centred(features)
    inputs = features.image_feature.float(), features.draws
    h, shift = torch.randn(6, 2, 12, 3, generator=rng(1)), model.shift(features.centre)
    plain = model.predictor(model.context(*inputs), "fp32")
    moved = model.predictor(model.context(*inputs), "fp32", shift)
    for k in (1, 20, 50):
        h0_hat, s = plain(h, k)
        moved_h0, moved_s = moved(h + model.schedule.alpha(k) ** 0.5 * shift, k)
        assert torch.allclose(moved_h0, h0_hat + shift, atol=1e-5)
        assert torch.allclose(moved_s, s, atol=1e-3)


def test_a_g_that_adds_nothing_gives_the_lift_of_u(features):
    """The control's mesh: whatever g learns is on top of it."""
    model = make_model(features)
    torch.nn.init.zeros_(model.network.denoiser.out.weight)
    torch.nn.init.zeros_(model.network.denoiser.out.bias)
    predictor = Predictor(model, make_body(), make_sampling())
    found = predictor.predict(features, steps=1, reverse=reverse_params(chains=1))
    lifted = model.network.lift(features.centre)
    assert (found.coarse - lifted).norm(dim=-1).mean() < 0.01
    assert (features.coarse.mean(0) - lifted).norm(dim=-1).mean() > 0.1


def test_the_loss_of_a_shifted_mesh_is_that_of_the_mesh(features):
    """As far as it depends on differences alone."""
    body, faces = make_body(), torch.as_tensor(make_sampling().coarse_faces).long()
    regressor = torch.as_tensor(make_sampling().coarse_regressor(body.regressor.numpy()))
    model = make_centred(features)
    batch = make_batch(features, model)
    _, means = Objective(model, regressor, faces, training_params(), "fp32")(batch)
    shift = model.shift(batch.centre)[:, 0]
    moved = dataclasses.replace(
        batch, coarse=batch.coarse - shift, joints=batch.joints - regressor @ shift
    )
    model.lift = None
    _, plain = Objective(model, regressor, faces, training_params(), "fp32")(moved)
    for name in ("diff", "v", "j"):
        assert float(means[name]) == pytest.approx(float(plain[name]), rel=1e-4), name


@pytest.mark.parametrize("sees", [False, True])
def test_the_lift_is_kept_with_the_model(features, tmp_path: Path, sees):
    model = make_model(features, sees)
    save_model(model, tmp_path)
    again = load_model(tmp_path).network
    assert torch.equal(again.lift.weight, model.network.lift.weight)
    assert torch.equal(again.shift(features.centre), model.network.shift(features.centre))
    assert (again.place is not None) == sees
    if sees:
        assert torch.equal(again.place.weight, model.network.place.weight)


@pytest.mark.parametrize("sees", [False, True])
def test_g_knows_where_its_centre_is_where_it_sees_it_and_nowhere_else(features, sees):
    model = make_centred(features, sees)
    context = model.context(features.image_feature.float(), features.draws)
    h, shift = torch.randn(6, 2, 12, 3, generator=rng(1)), model.shift(features.centre)
    here, there = (
        model.output(h, 20, context, model.seen(place)) for place in (shift, shift.flip(0))
    )
    assert torch.equal(here, there) != sees
    moved = (here - there).flatten(1).norm(dim=1) > 0
    assert bool(moved.all()) == sees


def test_a_training_learns_how_g_sees_its_centre(features):
    body, faces = make_body(), torch.as_tensor(make_sampling().coarse_faces).long()
    regressor = torch.as_tensor(make_sampling().coarse_regressor(body.regressor.numpy()))
    model = make_centred(features, sees=True)
    losses, _ = Objective(model, regressor, faces, training_params(), "fp32")(
        make_batch(features, model)
    )
    losses.sum().backward()
    assert float(model.place.weight.grad.norm()) > 0


def test_models_of_one_pass_stay_about_the_mean_mesh(features):
    direct = make_centred(features, sees=True, model="direct")
    assert direct.shift(features.centre) is None
    assert direct.place is None


def test_a_centred_model_is_not_exported_without_its_centre(features, tmp_path: Path):
    with pytest.raises(UserError, match=r"diffusion\.centre: mean"):
        export_onnx(make_model(features), tmp_path / "g.onnx")
