"""The reverse process against an independent DDIM and against closed forms."""

from __future__ import annotations

import warnings

import pytest
import torch
from toys import gaussian_model, make_schedule, noise_model, rng

from hmdiff.diffusion.reverse import reverse_process


@pytest.mark.parametrize(("steps", "eta"), [(40, 0.0), (10, 0.0), (40, 1.0), (10, 0.4)])
def test_it_equals_the_ddim_of_diffusers(steps, eta):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import DDIMScheduler
    schedule = make_schedule(40)
    # Their index t = 0..K-1 is our k = t + 1; their alphas are built from betas.
    betas = 1 - schedule.alphas[1:] / schedule.alphas[:-1]
    theirs = DDIMScheduler(
        num_train_timesteps=40,
        trained_betas=betas.numpy(),
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    theirs.alphas_cumprod = schedule.alphas[1:]
    theirs.set_timesteps(steps)
    epsilon, predict = noise_model(schedule)
    start = torch.randn(2, 3, 5, 3, dtype=torch.float64, generator=rng())
    wanted, random = start, rng(1)
    for t in theirs.timesteps.tolist():
        z = torch.zeros_like(start)
        if eta > 0 and t >= 40 // steps:
            z = torch.randn(start.shape, dtype=torch.float64, generator=random)
        wanted = theirs.step(epsilon(wanted, t + 1), t, wanted, eta=eta, variance_noise=z)
        wanted = wanted.prev_sample
    random = rng(1)
    found = reverse_process(
        predict,
        start,
        schedule,
        steps,
        eta=eta,
        noise=lambda: torch.randn(start.shape, dtype=torch.float64, generator=random),
    )
    assert torch.allclose(found, wanted, atol=1e-5)


def test_alpha_0_is_one_so_the_last_step_returns_h0_hat():
    schedule = make_schedule()
    _, predict = noise_model(schedule)
    seen = []
    start = torch.randn(1, 1, 4, 3, dtype=torch.float64, generator=rng())
    h_0 = reverse_process(predict, start, schedule, 8, callback=lambda *step: seen.append(step))
    k, h_k, h0_hat = seen[-1]
    assert k == 5
    assert torch.equal(h_0, h0_hat)
    assert torch.equal(h0_hat, predict(h_k, k)[0])


def test_one_step_is_h0_hat_at_k():
    schedule = make_schedule()
    _, predict = noise_model(schedule)
    start = torch.randn(1, 1, 4, 3, dtype=torch.float64, generator=rng())
    assert torch.equal(reverse_process(predict, start, schedule, 1), predict(start, 40)[0])


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_with_the_exact_denoiser_the_samples_have_the_data_distribution(eta):
    schedule = make_schedule(400)
    mean = torch.tensor([0.4, -0.2, 0.1], dtype=torch.float64).expand(20_000, 3)
    start = torch.randn(mean.shape, dtype=torch.float64, generator=rng())
    random = rng(1)
    h_0 = reverse_process(
        gaussian_model(schedule, mean, 0.2),
        start,
        schedule,
        400,
        eta=eta,
        noise=lambda: torch.randn(start.shape, dtype=torch.float64, generator=random),
    )
    assert torch.allclose(h_0.mean(0), mean[0], atol=0.01)
    assert torch.allclose(h_0.std(0), torch.full((3,), 0.2).double(), rtol=0.08)


def test_eta_zero_asks_for_no_noise_and_is_deterministic():
    schedule = make_schedule()
    _, predict = noise_model(schedule)
    start = torch.randn(2, 2, 4, 3, dtype=torch.float64, generator=rng())

    def forbidden():
        raise AssertionError("noise was drawn")

    first = reverse_process(predict, start, schedule, 10, noise=forbidden)
    assert torch.equal(first, reverse_process(predict, start, schedule, 10))


def test_the_standard_process_builds_no_graph():
    schedule = make_schedule()
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    _, predict = noise_model(schedule)
    start = torch.randn(1, 1, 4, 3, dtype=torch.float64, generator=rng())
    h_0 = reverse_process(lambda h, k: predict(weight * h, k), start, schedule, 4)
    assert not h_0.requires_grad
