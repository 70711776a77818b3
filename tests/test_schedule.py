"""Noise schedule and parametrisations: Eq. 4, sigma_k of Eq. 6, and Eq. 7 for every kind."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import diffusion_params

from hmdiff.diffusion.parametrisation import Parametrisation
from hmdiff.diffusion.schedule import NoiseSchedule
from hmdiff.errors import UserError

KINDS = ("linear_alpha", "linear_beta", "cosine")
FORMS = ("edm", "noise", "h0", "v")


@pytest.mark.parametrize("kind", KINDS)
def test_alpha_starts_at_one_and_falls_strictly_to_alpha_last(kind):
    alphas = NoiseSchedule.from_params(diffusion_params(schedule=kind)).alphas
    assert alphas.shape == (201,)
    assert alphas[0] == 1
    assert (alphas.diff() < 0).all()
    assert float(alphas[1]) == pytest.approx(0.9999, abs=1e-12)
    assert float(alphas[-1]) == pytest.approx(1e-3, rel=1e-9)


def test_linear_alpha_is_linear_in_alpha_and_linear_beta_in_the_one_step_noise():
    alpha = NoiseSchedule.from_params(diffusion_params()).alphas[1:]
    assert torch.allclose(alpha.diff(), alpha.diff()[0].expand(199))
    alpha = NoiseSchedule.from_params(diffusion_params(schedule="linear_beta")).alphas
    betas = 1 - alpha[1:] / alpha[:-1]
    assert torch.allclose(betas.diff(), betas.diff()[0].expand(199), atol=1e-10)


def test_a_rising_alpha_is_one_clear_line():
    with pytest.raises(UserError, match=r"diffusion\.alpha_last.*decrease"):
        NoiseSchedule.from_params(diffusion_params(alpha_last=0.99995))


@pytest.mark.parametrize("k", [1, 60, 200])
def test_eq_4_has_the_mean_and_the_variance_of_eq_3(k):
    schedule = NoiseSchedule.from_params(diffusion_params())
    z = torch.randn(200_000, 1, 3, generator=torch.Generator().manual_seed(0))
    h_k = schedule.add_noise(torch.full_like(z, 0.7), torch.full((len(z),), k), z)
    alpha = float(schedule.alphas[k])
    assert float(h_k.mean()) == pytest.approx(math.sqrt(alpha) * 0.7, abs=5e-3)
    assert float(h_k.var()) == pytest.approx(1 - alpha, rel=1e-2)


def test_eq_4_composes_from_the_one_step_kernels_of_eq_2():
    """Variance after K one-step kernels, accumulated without the closed form."""
    schedule = NoiseSchedule.from_params(diffusion_params(steps=30))
    gain, variance = 1.0, 0.0
    for k in range(1, 31):
        ratio = schedule.alpha(k) / schedule.alpha(k - 1)
        gain, variance = gain * math.sqrt(ratio), ratio * variance + 1 - ratio  # Eq. 2
    one = torch.ones(1, 1, dtype=torch.float64)
    k = torch.tensor([30])
    assert float(schedule.add_noise(one, k, 0 * one)) == pytest.approx(gain)
    assert float(schedule.add_noise(0 * one, k, one)) == pytest.approx(math.sqrt(variance))


def test_eta_one_gives_the_posterior_deviation_of_ddpm():
    """Ho et al. 2020, Eq. 7: beta-tilde = (1 - abar_{k-1}) / (1 - abar_k) beta_k."""
    schedule = NoiseSchedule.from_params(diffusion_params())
    for k in (2, 17, 200):
        before, after = schedule.alpha(k - 1), schedule.alpha(k)
        posterior = (1 - before) / (1 - after) * (1 - after / before)
        assert schedule.sigma(k, k - 1, 1.0) == pytest.approx(math.sqrt(posterior))
    assert schedule.sigma(1, 0, 1.0) == 0
    assert schedule.sigma(9, 4, 0.0) == 0


@given(count=st.integers(1, 200))
def test_visited_steps_fall_from_k_to_zero(count):
    visited = NoiseSchedule.from_params(diffusion_params()).visited_steps(count)
    assert len(visited) == count + 1
    assert visited[0] == 200 and visited[-1] == 0
    gaps = [a - b for a, b in pairwise(visited)]
    assert min(gaps) >= 1 and max(gaps) - min(gaps) <= 1


def test_forty_of_two_hundred_steps_are_every_fifth():
    schedule = NoiseSchedule.from_params(diffusion_params())
    assert schedule.visited_steps(40) == list(range(200, -1, -5))


@pytest.mark.parametrize("count", [0, 201])
def test_an_impossible_number_of_steps_is_one_clear_line(count):
    schedule = NoiseSchedule.from_params(diffusion_params())
    with pytest.raises(UserError, match=r"candidates or speed\.steps: .*between 1 and .* 200"):
        schedule.visited_steps(count)


def make_form(kind: str, seed: int = 0) -> tuple[Parametrisation, NoiseSchedule, torch.Tensor]:
    schedule = NoiseSchedule.from_params(diffusion_params())
    mean = 0.3 * torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).double()
    return Parametrisation(kind, schedule, mean, 0.2).double(), schedule, mean


@pytest.mark.parametrize("kind", FORMS)
@given(k=st.integers(1, 200), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_any_output_decodes_to_a_pair_that_satisfies_eq_7(kind, k, seed):
    form, schedule, _ = make_form(kind)
    output, h_k = torch.randn(
        2, 3, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    h0_hat, s = form.decode(output, h_k, k)
    alpha = schedule.alpha(k)
    estimate = (h_k - math.sqrt(1 - alpha) * s) / math.sqrt(alpha)  # Eq. 7
    assert torch.allclose(estimate, h0_hat, atol=1e-9)


@pytest.mark.parametrize("kind", FORMS)
@given(k=st.integers(1, 200), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_target_decodes_to_the_true_mesh_and_the_true_noise(kind, k, seed):
    form, schedule, _ = make_form(kind)
    h_0, z = torch.randn(
        2, 3, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    steps = torch.full((3,), k)
    h_k = schedule.add_noise(h_0, steps, z)
    h0_hat, s = form.decode(form.target(h_0, h_k, steps), h_k, steps)
    assert torch.allclose(h0_hat, h_0, atol=1e-9)
    assert torch.allclose(s, z, atol=1e-6)


def test_the_noise_target_is_the_noise_and_the_v_target_is_v():
    generator = torch.Generator().manual_seed(1)
    h_0, z = torch.randn(2, 4, 5, 3, dtype=torch.float64, generator=generator)
    k = torch.tensor([1, 50, 120, 200])
    for kind in ("noise", "v"):
        form, schedule, mean = make_form(kind)
        h_k = schedule.add_noise(h_0, k, z)
        alpha = schedule.alphas[k].view(-1, 1, 1)
        wanted = z if kind == "noise" else alpha.sqrt() * z - (1 - alpha).sqrt() * (h_0 - mean)
        assert torch.allclose(form.target(h_0, h_k, k), wanted, atol=1e-7)


@pytest.mark.parametrize("k", [1, 100, 200])
def test_edm_keeps_input_and_target_at_unit_variance(k):
    """Karras et al. 2022, App. B.6, for meshes with deviation sigma_data about the mean."""
    form, schedule, mean = make_form("edm")
    generator = torch.Generator().manual_seed(0)
    offset, z = torch.randn(2, 20_000, 5, 3, generator=generator, dtype=torch.float64)
    h_0, steps = mean + 0.2 * offset, torch.full((20_000,), k)
    h_k = schedule.add_noise(h_0, steps, z)
    assert float(form.network_input(h_k, steps).std()) == pytest.approx(1, abs=0.01)
    assert float(form.target(h_0, h_k, steps).std()) == pytest.approx(1, abs=0.01)


def test_one_step_an_image_equals_one_step_for_all():
    form, _, _ = make_form("edm")
    generator = torch.Generator().manual_seed(0)
    output, h_k = torch.randn(2, 3, 2, 5, 3, dtype=torch.float64, generator=generator)
    many = form.decode(output, h_k, torch.full((3,), 70))
    one = form.decode(output, h_k, 70)
    assert all(torch.equal(a, b) for a, b in zip(many, one, strict=True))
