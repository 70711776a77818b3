"""The predictor: noise per sample, every variant of Tables 3 to 5, and its failures."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from toys import make_body, make_features, make_sampling, make_trained, reverse_params, rng

from hmdiff.diffusion.noise import ChainNoise
from hmdiff.errors import UserError
from hmdiff.inference import Prediction, Predictor
from hmdiff.training.folder import save_model


@pytest.fixture(scope="module")
def features():
    return make_features(5)


def make_predictor(features, **what) -> Predictor:
    return Predictor(make_trained(features, **what), make_body(), make_sampling())


REVERSE = set(reverse_params().model_dump())


def predict(features, predictor=None, **how) -> Prediction:
    """Five steps, unless ``how`` (options of predict, fields of ReverseParams) says otherwise."""
    predictor = predictor or make_predictor(features)
    reverse = reverse_params(**{key: how.pop(key) for key in REVERSE & how.keys()})
    return predictor.predict(features, reverse=reverse, **({"steps": 5} | how))


def test_a_prediction_has_its_shapes_and_its_root_at_the_origin(features):
    found = predict(features, keep_chains=True, batch=2)
    assert found.coarse.shape == (5, 12, 3) and found.full.shape == (5, 42, 3)
    assert found.chains.shape == (5, 2, 12, 3)
    assert torch.allclose(found.chains.mean(1), found.coarse)
    root = torch.einsum("v,nvc->nc", make_body().regressor[0], found.full)
    assert torch.allclose(root, torch.zeros(1), atol=1e-5)
    assert (found.active_steps == 0).all() and found.ratio.isnan().all()


@pytest.mark.parametrize("guidance", ["none", "dat", "disrupted"])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_an_image_depends_neither_on_batch_size_nor_on_order(features, guidance, eta):
    one = predict(features, guidance=guidance, eta=eta, batch=5)
    order = torch.tensor([3, 0, 4, 1, 2])
    other = predict(features.select(order), guidance=guidance, eta=eta, batch=2)
    assert torch.allclose(other.coarse, one.coarse[order], atol=1e-4)
    assert torch.equal(other.active_steps, one.active_steps[order])


def test_more_chains_leave_the_first_ones_as_they_were(features):
    two = predict(features, chains=2, keep_chains=True).chains
    four = predict(features, chains=4, keep_chains=True).chains
    assert torch.allclose(four[:, :2], two, atol=1e-4)
    assert not torch.allclose(four[:, 2:], two, atol=1e-2)


def test_noise_is_standard_and_its_streams_are_apart():
    noise = ChainNoise(0, ["a", "b"], 2, (400, 3))
    first, second = noise(), noise()
    assert first.shape == (2, 2, 400, 3)
    assert float(first.std()) == pytest.approx(1, abs=0.05)
    rows = torch.cat([first.flatten(0, 1), second.flatten(0, 1)]).flatten(1)
    assert (torch.corrcoef(rows) - torch.eye(8)).abs().max() < 0.15
    assert not torch.equal(first, ChainNoise(1, ["a", "b"], 2, (400, 3))())
    assert torch.equal(first[1:], ChainNoise(0, ["b"], 2, (400, 3))())


def test_antithetic_chains_are_pairs_of_opposite_noise():
    plain, paired = (
        ChainNoise(0, ["a", "b"], 5, (30, 3)),
        ChainNoise(0, ["a", "b"], 5, (30, 3), True),
    )
    for _ in range(2):
        own, both = plain(), paired()
        assert both.shape == own.shape
        assert torch.equal(both[:, ::2], own[:, ::2])
        assert torch.equal(both[:, 1::2], -own[:, :4:2])


def test_antithetic_chains_have_a_centre_that_depends_less_on_the_noise(features):
    centres = {
        antithetic: torch.stack(
            [predict(features, antithetic=antithetic, chains=2, seed=s).coarse for s in range(8)]
        )
        for antithetic in (False, True)
    }
    assert centres[True].std(0).mean() < 0.5 * centres[False].std(0).mean()


def test_the_seed_changes_a_diffusion_and_only_a_diffusion(features):
    for model, same in (("diffusion", False), ("direct", True), ("linear", True)):
        predictor = make_predictor(features, model=model)
        first = predict(features, predictor, seed=0, steps=3)
        second = predict(features, predictor, seed=1, steps=7)
        assert torch.equal(first.coarse, second.coarse) == same


def test_dat_moves_the_joints_towards_the_prior(features):
    def distance(found):
        regressor = make_sampling().coarse_regressor(make_body().regressor.numpy())
        pose = torch.einsum("jv,nvc->njc", torch.as_tensor(regressor), found.coarse)
        return float((pose - features.draws.mean(1)).norm(dim=-1).mean())

    standard = predict(features, steps=20)
    aligned = predict(features, steps=20, guidance="dat")
    assert distance(aligned) < distance(standard)
    assert (aligned.active_steps > 0).all() and (aligned.ratio > 0).all()


def test_every_option_of_the_tables_changes_the_result(features):
    """Each row of Table 5 is another process, not an option that is read and forgotten."""
    settings = {
        "dat": {"guidance": "dat"},
        "standard": {"guidance": "none"},
        "disrupted": {"guidance": "disrupted"},
        "h_u": {"guidance": "dat", "start": "prior"},
        "u_c": {"guidance": "dat", "prior": "peak"},
        "u_c as printed": {"guidance": "dat", "prior": "peak", "peak_weight": "as_printed"},
        "mean": {"guidance": "dat", "reduction": "mean"},
        "frozen": {"guidance": "dat", "gradient": "frozen", "reduction": "mean"},
        "eta": {"guidance": "dat", "eta": 0.5},
    }
    found = {name: predict(features, **how).coarse for name, how in settings.items()}
    names = list(found)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not torch.allclose(found[a], found[b], atol=1e-5), (a, b)


def test_without_the_activation_strategy_all_steps_are_active(features):
    on = predict(features, guidance="dat", threshold=0.999)
    off = predict(features, guidance="dat", threshold=0.999, activation=False)
    assert (off.active_steps == 5).all()
    assert on.active_steps.sum() < off.active_steps.sum()


def test_u_c_with_equal_weight_pulls_as_hard_as_the_draws_it_replaces(features):
    """Where every draw is u_c, the prior and its peak are the same thing (A8)."""
    predictor = make_predictor(features, condition="image")
    same = features.select(range(5))
    same.draws[:] = same.peak[:, None]
    full = predict(same, predictor, guidance="dat")
    peak = predict(same, predictor, guidance="dat", prior="peak")
    assert torch.allclose(full.coarse, peak.coarse, atol=1e-5)


def test_dat_sees_the_first_draws_that_it_is_told_to(features):
    predictor = make_predictor(features, condition="image")
    few = predict(features, predictor, guidance="dat", draws=2)
    cut = dataclasses.replace(features, draws=features.draws[:, :2])
    assert torch.equal(few.coarse, predict(cut, predictor, guidance="dat").coarse)


def test_h_u_starts_from_one_lifted_draw_a_chain(features):
    """With more chains than draws the draws are taken in turn."""
    starts = []
    predict(
        features,
        start="prior",
        chains=8,
        callback=lambda first, k, h, h0_hat, alignment: starts.append((k, h)),
    )
    k, h = starts[0]
    predictor = make_predictor(features)
    wanted = predictor.model.pose_to_mesh(features.draws[:, [0, 1, 2, 3, 4, 5, 0, 1]])
    assert k == 50
    assert torch.allclose(h, wanted, atol=1e-5)


def test_the_callback_sees_every_step_with_its_ratio(features):
    seen = []
    predict(
        features,
        guidance="dat",
        batch=3,
        callback=lambda first, k, h, h0_hat, a: seen.append((first, k, h0_hat.shape, a.ratio)),
    )
    wanted = [(first, k) for first in (0, 3) for k in range(50, 0, -10)]
    assert [(first, k) for first, k, *_ in seen] == wanted
    assert seen[0][2] == (3, 2, 12, 3)
    assert torch.equal(seen[0][3], torch.ones(3, 2))


def test_units_do_not_leak_between_metres_and_model_units(features):
    """The linear map of a hand model (scale 5) still answers in metres."""
    predictor = make_predictor(features, kind="hand", condition="image")
    starts = []
    predict(features, predictor, start="prior", callback=lambda *step: starts.append(step[2]))
    wanted = predictor.model.pose_to_mesh(features.draws[:, :2])
    assert torch.allclose(starts[0], wanted, atol=1e-5)


@pytest.mark.parametrize("prior", ["draws", "peak"])
@pytest.mark.parametrize("guidance", ["dat", "disrupted"])
def test_guidance_is_in_model_units(features, guidance, prior):
    """A hand of a fifth of the size is the same problem in model units (scale 5)."""
    body = make_predictor(features, kind="body", condition="both")
    hand = make_predictor(features, kind="hand", condition="both")
    # With its buffers, so that the mean mesh too is the same in model units.
    hand.model.network.load_state_dict(body.model.network.state_dict())
    small = dataclasses.replace(features, draws=features.draws / 5, peak=features.peak / 5)
    how = {"guidance": guidance, "prior": prior}
    wanted, found = predict(features, body, **how), predict(small, hand, **how)
    assert torch.allclose(5 * found.coarse, wanted.coarse, atol=1e-4)
    assert torch.allclose(found.ratio, wanted.ratio, atol=1e-4)
    assert (found.active_steps > 0).all()
    assert not torch.allclose(wanted.coarse, predict(features, body).coarse, atol=1e-2)


def test_a_linear_model_is_its_map_of_the_centre_of_u(features):
    predictor = make_predictor(features, model="linear")
    found = predict(features, predictor)
    assert torch.allclose(found.coarse, predictor.model.pose_to_mesh(features.centre))


def test_a_diverging_guidance_is_one_clear_line(features):
    with pytest.raises(UserError, match=r"reverse\.gamma: .*sample 0/0.*lower gamma") as line:
        predict(features, guidance="disrupted", gamma=1e30, disrupted_reduction="sum")
    assert "\n" not in str(line.value)


def test_a_mesh_that_is_not_finite_without_guidance_is_laid_to_the_training(features):
    predictor = make_predictor(features)
    predictor.model.network.parametrisation.mean.fill_(torch.nan)
    message = r"training\.learning_rate: .*sample 0/0.*without guidance; train again"
    with pytest.raises(UserError, match=message) as line:
        predict(features, predictor)
    assert "gamma" not in str(line.value) and "\n" not in str(line.value)


def test_a_model_for_another_mesh_is_one_clear_line(tmp_path, features):
    trained = make_trained(features)
    save_model(trained, tmp_path)
    body = make_body()
    Predictor.load(tmp_path, body, make_sampling())
    body.regressor = torch.rand(7, 42, generator=rng())
    with pytest.raises(UserError, match=r"model\.json: .*\(4, 42, 12\).*\(7, 42, 12\)") as line:
        Predictor.load(tmp_path, body, make_sampling())
    assert "\n" not in str(line.value)
