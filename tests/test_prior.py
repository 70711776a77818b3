"""Heatmaps and the prior U, against a plain three-dimensional table of probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from hmdiff.compute import generator
from hmdiff.extractor.heatmaps import (
    BINS,
    Grid,
    distributions,
    heatmap_loss,
    marginals,
    soft_argmax,
)
from hmdiff.extractor.prior import Prior

GRID = Grid(1.15)
CENTRES = (np.arange(BINS) + 0.5) / BINS * 2 * 1.15 - 1.15


def _bumps(places: np.ndarray, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of E_xy and E_z, Gaussian about ``places`` (B, J, 3) with ``sigma`` metres."""
    x, y, z = (-0.5 * ((CENTRES - places[..., i, None]) / sigma) ** 2 for i in range(3))
    plane = y[..., :, None] + x[..., None, :]
    depth = z[..., :, None] + x[..., None, :]
    return torch.tensor(plane).float(), torch.tensor(depth).float()


def _rough(seed: int, batch: int = 1, joints: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits with several modes; z goes with x."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 2, (2, batch, joints, 7, 7))
    fine = coarse.repeat(8, axis=-1).repeat(8, axis=-2)
    ridge = -0.5 * ((CENTRES[:, None] - 0.8 * CENTRES) / 0.3) ** 2
    return torch.tensor(fine[0]).float(), torch.tensor(fine[1] + ridge).float()


def _table(xy: torch.Tensor, z: torch.Tensor) -> np.ndarray:
    """U_j as probabilities [x, y, z] of one joint's logits (56, 56), by its definition."""
    plane = softmax(xy.double().numpy())  # [y, x]
    joint = softmax(z.double().numpy())  # [z, x]
    conditional = joint / joint.sum(0, keepdims=True)
    return np.einsum("yx,zx->xyz", plane, conditional)


def _moments(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of positions uniform inside the bins of ``table``."""
    points = np.stack(np.meshgrid(CENTRES, CENTRES, CENTRES, indexing="ij"), -1).reshape(-1, 3)
    mass = table.reshape(-1)
    mean = mass @ points
    covariance = np.einsum("n,ni,nj->ij", mass, points - mean, points - mean)
    return mean, covariance + np.eye(3) * (2 * 1.15 / BINS) ** 2 / 12


def test_probabilities_are_normalised():
    xy, z = _rough(0, batch=3)
    plane, depth = distributions(xy * 30, z * 30)
    assert torch.allclose(plane.sum((-1, -2)), torch.ones(3, 2), atol=1e-5)
    assert torch.allclose(depth.sum(-2), torch.ones(3, 2, BINS), atol=1e-5)
    for mass in vars(marginals(xy, z)).values():
        assert mass.shape == (3, 2, BINS)
        assert torch.allclose(mass.sum(-1), torch.ones(3, 2), atol=1e-5)


def test_soft_argmax_finds_a_planted_gaussian_within_a_bin():
    places = np.random.default_rng(1).uniform(-0.7, 0.7, (4, 17, 3))
    found = soft_argmax(*_bumps(places, 0.05), GRID).numpy()
    assert found.shape == (4, 17, 3)
    assert np.abs(found - places).max() < 0.1 * GRID.width


def test_mean_and_spread_are_those_of_the_three_dimensional_distribution():
    xy, z = _rough(2)
    mean, spread = marginals(xy, z).moments(GRID)
    for joint in range(2):
        expected, covariance = _moments(_table(xy[0, joint], z[0, joint]))
        assert np.allclose(mean[0, joint], expected, atol=1e-5)
        assert np.allclose(spread[0, joint], np.sqrt(np.diag(covariance)), atol=1e-5)


def test_draws_have_the_mean_and_the_covariance_of_the_heatmaps():
    count = 20_000
    xy, z = _rough(3)
    prior = Prior(xy, z, GRID, root=0)
    draws = prior.draws(count, [generator(0, "draws")])[0].numpy()
    assert draws.shape == (count, 2, 3)
    origin = _moments(_table(xy[0, 0], z[0, 0]))[0]
    for joint in range(2):
        mean, covariance = _moments(_table(xy[0, joint], z[0, joint]))
        error = np.sqrt(np.diag(covariance) / count)
        assert (np.abs(draws[:, joint].mean(0) - (mean - origin)) < 5 * error).all()
        assert np.allclose(np.cov(draws[:, joint].T), covariance, atol=0.03 * covariance.max())
        # Drawing z from its marginal instead would miss this.
        assert covariance[0, 2] > 0.2 * covariance.max()


def test_draws_fill_their_bins_evenly():
    # All mass in one bin: what is left is the place inside it.
    xy = torch.full((1, 1, BINS, BINS), -1e4)
    z = xy.clone()
    xy[0, 0, 20, 30], z[0, 0, 40, 30] = 0, 0
    prior = Prior(xy, z, GRID, root=0)
    corner = torch.tensor([30.0, 20.0, 40.0]) * GRID.width - 1.15
    mean = marginals(xy, z).moments(GRID)[0][0]
    inside = (prior.draws(4000, [generator(1)])[0, :, 0] + mean - corner) / GRID.width
    assert inside.min() > -1e-4 and inside.max() < 1 + 1e-4
    assert torch.allclose(inside.mean(0), torch.full((3,), 0.5), atol=5 * 0.29 / 4000**0.5)
    assert torch.allclose(prior.spread[0, 0], torch.full((3,), GRID.width / 12**0.5), atol=1e-4)


def test_draws_of_an_image_do_not_depend_on_its_batch():
    xy, z = _rough(4, batch=5)
    names = ["a", "b", "c", "d", "e"]

    def draws(rows: list[int]) -> torch.Tensor:
        streams = [generator(7, "prior", names[row]) for row in rows]
        return Prior(xy[rows], z[rows], GRID, 0).draws(25, streams)

    together = draws([0, 1, 2, 3, 4])
    assert torch.equal(draws([4, 2]), together[[4, 2]])
    assert torch.equal(draws([1]), together[[1]])
    assert not torch.equal(together[0], together[1])


def test_as_many_generators_as_images_are_asked_for():
    with pytest.raises(ValueError, match="2 images need as many generators, got 1"):
        Prior(*_rough(5, batch=2), GRID, 0).draws(3, [generator(0)])


def test_the_peak_is_the_mode_of_the_three_dimensional_distribution():
    rng = np.random.default_rng(6)
    xy, z = (torch.tensor(rng.normal(0, 2, (1, 2, BINS, BINS))).float() for _ in range(2))
    peak = Prior(xy, z, GRID, root=0).peak()[0].numpy()
    origin = _moments(_table(xy[0, 0], z[0, 0]))[0]
    for joint in range(2):
        table = _table(xy[0, joint], z[0, joint])
        best = CENTRES[list(np.unravel_index(table.argmax(), table.shape))]
        assert np.allclose(peak[joint], best - origin, atol=1e-5)


def test_the_root_is_the_origin_on_average():
    places = np.random.default_rng(8).uniform(-0.5, 0.5, (2, 3, 3))
    prior = Prior(*_bumps(places, 0.06), GRID, root=1)
    assert torch.equal(prior.centre[:, 1], torch.zeros(2, 3))
    relative = places - places[:, 1:2]
    assert np.abs(prior.centre.numpy() - relative).max() < 0.1 * GRID.width
    draws = prior.draws(2000, [generator(0), generator(1)])
    assert np.abs(draws.mean(1).numpy() - relative).max() < 5 * 0.07 / 2000**0.5


def test_the_loss_is_the_cross_entropy_to_the_target_map_and_the_l1_of_the_mean():
    xy, z = _rough(9, joints=1)
    joint = np.array([0.31, -0.22, 0.4])
    target = [np.exp(-0.5 * ((CENTRES - c) / (1.5 * GRID.width)) ** 2) for c in joint]
    x, y, depth = (values / values.sum() for values in target)
    plane = np.log(softmax(xy[0, 0].double().numpy()))
    side = np.log(softmax(z[0, 0].double().numpy()))
    entropy = -(np.outer(y, x) * plane).sum() - (np.outer(depth, x) * side).sum()
    distance = np.abs(_moments(_table(xy[0, 0], z[0, 0]))[0] - joint).mean() / 1.15
    valid = torch.ones(1, 1, dtype=torch.bool)
    loss = heatmap_loss(xy, z, torch.tensor(joint).float()[None, None], valid, GRID, 1.5, 7.0)
    assert loss.item() == pytest.approx(entropy + 7.0 * distance, rel=1e-5)


def test_an_unknown_joint_takes_no_part_in_the_loss():
    xy, z = (maps.requires_grad_() for maps in _rough(10, batch=2, joints=3))
    joints = torch.zeros(2, 3, 3)
    joints[0, 1] = torch.nan
    valid = torch.ones(2, 3, dtype=torch.bool)
    valid[0, 1] = False
    loss = heatmap_loss(xy, z, joints, valid, GRID, 1.0, 10.0)
    loss.backward()
    assert loss.isfinite()
    for maps in (xy, z):
        assert maps.grad.isfinite().all() and (maps.grad[0, 1] == 0).all()
        assert (maps.grad[1, 1] != 0).any()
    known = valid.clone()
    known[:] = False
    assert heatmap_loss(xy, z, joints, known, GRID, 1.0, 10.0).item() == 0
