"""The reverse process against an independent DDIM and against closed forms."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import gaussian_model, make_schedule, noise_model, reverse_params, rng

from hmdiff.diffusion.reverse import reverse_process
from hmdiff.diffusion.schedule import NoiseSchedule
from hmdiff.errors import UserError


def of_diffusers(name: str, schedule: NoiseSchedule, steps: int, **options):
    """A scheduler of diffusers over ``schedule``, about to take ``steps`` steps.

    Their index t = 0..K-1 is our k = t + 1; their alphas are built from betas.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diffusers

        scheduler = getattr(diffusers, name)
    betas = 1 - schedule.alphas[1:] / schedule.alphas[:-1]
    theirs = scheduler(
        num_train_timesteps=schedule.steps,
        trained_betas=betas.numpy(),
        timestep_spacing="trailing",
        **options,
    )
    theirs.alphas_cumprod = schedule.alphas[1:]
    theirs.set_timesteps(steps)
    return theirs


@pytest.mark.parametrize(("steps", "eta"), [(40, 0.0), (10, 0.0), (40, 1.0), (10, 0.4)])
def test_it_equals_the_ddim_of_diffusers(steps, eta):
    schedule = make_schedule(40)
    theirs = of_diffusers(
        "DDIMScheduler", schedule, steps, clip_sample=False, set_alpha_to_one=True
    )
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


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 40])
def test_dpmpp_2m_equals_that_of_diffusers(steps):
    schedule = make_schedule(40)
    theirs = of_diffusers(
        "DPMSolverMultistepScheduler",
        schedule,
        steps,
        algorithm_type="dpmsolver++",
        solver_order=2,
        final_sigmas_type="zero",  # alpha_0 = 1
    )
    alphas = schedule.alphas[1:].numpy()
    visited = [t + 1 for t in theirs.timesteps.tolist()]
    assert visited == schedule.visited_steps(steps)[:-1]
    # set_timesteps rounds its noise levels to float32.
    levels = [*(((1 - alphas) / alphas) ** 0.5)[[k - 1 for k in visited]], 0.0]
    theirs.sigmas = torch.tensor(levels, dtype=torch.float64)
    epsilon, predict = noise_model(schedule)
    start = torch.randn(2, 3, 5, 3, dtype=torch.float64, generator=rng())
    wanted = start
    for t in theirs.timesteps:
        wanted = theirs.step(epsilon(wanted, int(t) + 1), t, wanted).prev_sample
    found = reverse_process(predict, start, schedule, steps, solver="dpmpp_2m")
    assert torch.allclose(found, wanted, atol=1e-5)
    if steps in (1, 2):  # its first step and its last are DDIM's
        assert torch.equal(found, reverse_process(predict, start, schedule, steps))


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
@given(deviation=st.floats(0.3, 0.8))  # near 0.2 the error changes its sign
@settings(max_examples=10, deadline=None)
def test_the_error_falls_with_the_solvers_order(solver, order, deviation):
    """On the ODE of h_0 ~ N(0, deviation^2), where h_k stays in proportion to its deviation.

    The steps are equal in lambda: those of ``linear_alpha`` are large at K, however many they are.
    """
    alphas = torch.sigmoid(2 * torch.linspace(3, -3, 6400, dtype=torch.float64))
    schedule = NoiseSchedule(torch.cat([torch.ones(1, dtype=torch.float64), alphas]))
    predict = gaussian_model(schedule, torch.zeros(1, 3, dtype=torch.float64), deviation)
    start = torch.ones(1, 1, 1, 3, dtype=torch.float64)

    def variance(k):
        return schedule.alpha(k) * deviation**2 + 1 - schedule.alpha(k)

    errors = []
    for steps in (100, 200):
        levels = {}
        reverse_process(
            predict, start, schedule, steps, solver=solver,
            callback=lambda k, h_k, _, levels=levels: levels.update({k: h_k}),
        )  # fmt: skip
        k = 640  # before the jump to 0, which is of first order by both
        exact = (variance(k) / variance(6400)) ** 0.5
        errors.append(abs(float(levels[k][0, 0, 0, 0]) - exact))
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.2)


def test_dpmpp_2m_refuses_noise():
    schedule = make_schedule()
    _, predict = noise_model(schedule)
    start = torch.zeros(1, 1, 4, 3, dtype=torch.float64)
    with pytest.raises(UserError, match=r"reverse\.eta") as line:
        reverse_process(predict, start, schedule, 4, eta=0.5, solver="dpmpp_2m")
    assert "\n" not in str(line.value)
    with pytest.raises(ValueError, match="needs eta 0"):
        reverse_params(solver="dpmpp_2m", eta=0.5)


def test_with_dpmpp_2m_a_push_is_subtracted_from_the_finished_step():
    """Algorithm 1, line 9; the estimate of the step before is kept as it was said."""
    schedule = make_schedule()
    _, predict = noise_model(schedule)
    start = torch.randn(1, 1, 4, 3, dtype=torch.float64, generator=rng())
    seen = {}

    def pushed(predict, h, k):
        seen[k] = h, predict(h, k)[0]
        return *predict(h, k), torch.full_like(h, 0.1)

    found = reverse_process(predict, start, schedule, 4, pushed, solver="dpmpp_2m")
    (k, (h, h0_hat)), (k_next, (h_next, h0_next)) = list(seen.items())[:2]
    alpha, alpha_next = schedule.alpha(k), schedule.alpha(k_next)
    noise = (h - alpha**0.5 * h0_hat) / (1 - alpha) ** 0.5
    step = alpha_next**0.5 * h0_hat + (1 - alpha_next) ** 0.5 * noise
    assert torch.allclose(h_next, step - 0.1)
    third = list(seen)[2]
    half_log = schedule.half_log_snr
    r = (half_log(k_next) - half_log(k)) / (half_log(third) - half_log(k_next))
    carried = (1 + 1 / (2 * r)) * h0_next - h0_hat / (2 * r)
    noise = (h_next - alpha_next**0.5 * carried) / (1 - alpha_next) ** 0.5
    alpha = schedule.alpha(third)
    step = alpha**0.5 * carried + (1 - alpha) ** 0.5 * noise
    assert torch.allclose(seen[third][0], step - 0.1)
    assert torch.allclose(found, list(seen.values())[3][1] - 0.1)
