"""DAT: Eq. 10, its gradient, Algorithm 1's activation, and the variants of Table 5."""

from __future__ import annotations

import pytest
import torch
from toys import gaussian_model, make_schedule, noise_model, rng

from hmdiff.diffusion.alignment import Alignment, distribution_gap, prior_spread
from hmdiff.diffusion.reverse import reverse_process

IMAGES, CHAINS, DRAWS, JOINTS, VERTICES = 2, 3, 7, 4, 9
SCHEDULE = make_schedule()


def make_regressor() -> torch.Tensor:
    weights = torch.rand(JOINTS, VERTICES, generator=rng(3), dtype=torch.float64)
    return weights / weights.sum(1, keepdim=True)


def make_draws(count: int = DRAWS) -> torch.Tensor:
    shape = (IMAGES, count, JOINTS, 3)
    return 0.3 * torch.randn(shape, generator=rng(4), dtype=torch.float64)


def make_start() -> torch.Tensor:
    shape = (IMAGES, CHAINS, VERTICES, 3)
    return torch.randn(shape, generator=rng(5), dtype=torch.float64)


def make_alignment(**changes) -> Alignment:
    values = {
        "draws": make_draws(),
        "regressor": make_regressor(),
        "schedule": SCHEDULE,
        "gamma": 0.05,
        "threshold": 0.0,
    }
    return Alignment(**(values | changes))


def toy_predict():
    mean = 0.3 * torch.randn(VERTICES, 3, generator=rng(6), dtype=torch.float64)
    return gaussian_model(SCHEDULE, mean, 0.2)


def pose_distance(h_0: torch.Tensor) -> float:
    pose = torch.einsum("jv,bnvc->bnjc", make_regressor(), h_0)
    return float((pose - make_draws().mean(1)[:, None]).norm(dim=-1).mean())


def test_eq_10_by_hand():
    draws = torch.tensor([[[[1.0, 0, 0]], [[0, 2.0, 0]]]])  # 1 image, 2 draws, 1 joint
    pose = torch.tensor([[[[0.0, 0, 0]], [[1.0, 0, 0]]]])  # 2 chains
    assert distribution_gap(draws, pose, "sum").tolist() == [[1 + 4, 0 + 1 + 4]]
    assert distribution_gap(draws, pose, "mean").tolist() == [[2.5, 2.5]]
    assert distribution_gap(draws, pose, "sum", weight=3).tolist() == [[15, 15]]


def test_the_spread_is_the_least_gap_any_pose_can_have():
    draws = make_draws()
    pose = draws.mean(1, keepdim=True)
    least = distribution_gap(draws, pose, "sum")
    assert torch.allclose(prior_spread(draws, "sum"), least)
    near = pose + 0.01 * torch.randn(pose.shape, generator=rng(), dtype=torch.float64)
    assert (distribution_gap(draws, near, "sum") > least).all()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_gradient_through_g_equals_finite_differences(reduction):
    """gamma times the gradient of D_k, through a nonlinear g, in float64."""
    _, predict = noise_model(SCHEDULE)
    h, k, step = 0.5 * make_start(), 25, 1e-6
    alignment = make_alignment(reduction=reduction, gamma=0.3)
    h0_hat, s, push = alignment(predict, h, k)
    assert torch.equal(h0_hat, predict(h, k)[0]) and torch.equal(s, predict(h, k)[1])

    def total_gap(h_k):
        pose = torch.einsum("jv,bnvc->bnjc", make_regressor(), predict(h_k, k)[0])
        squares = (make_draws()[:, :, None] - pose[:, None]).square()  # (B, n, N, J, 3)
        return squares.sum() if reduction == "sum" else squares.sum() / DRAWS

    random = rng(8)
    for _ in range(5):
        direction = torch.randn(h.shape, generator=random, dtype=torch.float64)
        slope = (total_gap(h + step * direction) - total_gap(h - step * direction)) / (2 * step)
        assert float((push * direction).sum()) == pytest.approx(0.3 * float(slope), rel=1e-6)


def test_the_frozen_gradient_takes_s_as_a_constant():
    _, predict = noise_model(SCHEDULE)
    h, k = make_start(), 25
    h0_hat, _, push = make_alignment(gradient="frozen", gamma=1.0)(predict, h, k)
    regressor, draws = make_regressor(), make_draws()
    residual = torch.einsum("jv,bnvc->bnjc", regressor, h0_hat) - draws.mean(1)[:, None]
    wanted = 2 * DRAWS * torch.einsum("jv,bnjc->bnvc", regressor, residual)
    assert torch.allclose(push, wanted / SCHEDULE.alpha(k) ** 0.5)


def test_disrupted_pulls_h_k_itself_and_does_not_differentiate_g():
    h, regressor, draws = make_start(), make_regressor(), make_draws()
    grad_modes = []

    def predict(h_k, k):
        grad_modes.append(torch.is_grad_enabled())
        return toy_predict()(h_k, k)

    alignment = make_alignment(measured_on="h", reduction="mean", gamma=0.2)
    _, _, push = alignment(predict, h, 25)
    residual = torch.einsum("jv,bnvc->bnjc", regressor, h) - draws.mean(1)[:, None]
    assert torch.allclose(push, 0.4 * torch.einsum("jv,bnjc->bnvc", regressor, residual))
    assert grad_modes == [False]


def test_algorithm_1_ends_nearer_to_the_prior_than_the_standard_process():
    start, predict = make_start(), toy_predict()
    standard = reverse_process(predict, start, SCHEDULE, 20)
    aligned = reverse_process(predict, start, SCHEDULE, 20, guidance=make_alignment(gamma=0.2))
    assert pose_distance(aligned) < 0.7 * pose_distance(standard)


def test_a_threshold_above_one_is_the_standard_process_bit_for_bit():
    start, predict = make_start(), toy_predict()
    alignment = make_alignment(threshold=2.0)
    aligned = reverse_process(predict, start, SCHEDULE, 10, guidance=alignment)
    assert torch.equal(aligned, reverse_process(predict, start, SCHEDULE, 10))
    assert alignment.active_steps.sum() == 0


def test_gamma_zero_is_the_standard_process_bit_for_bit():
    start, predict = make_start(), toy_predict()
    alignment = make_alignment(gamma=0.0)
    aligned = reverse_process(predict, start, SCHEDULE, 10, guidance=alignment)
    assert torch.equal(aligned, reverse_process(predict, start, SCHEDULE, 10))
    assert (alignment.active_steps == 10).all()


def scripted_run(gaps: list[list[float]], **changes) -> tuple[Alignment, list[bool]]:
    """Feed an Alignment one step per row of ``gaps`` (one gap a chain); were gradients wanted?"""
    draws = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    regressor = torch.ones(1, 1, dtype=torch.float64)
    alignment = make_alignment(draws=draws, regressor=regressor, **changes)
    pushed = []
    for gap in gaps:
        offset = torch.tensor(gap, dtype=torch.float64).sqrt()[None, :, None, None]
        mesh = torch.cat([offset, 0 * offset, 0 * offset], -1)
        _, _, push = alignment(lambda h, k, mesh=mesh: (mesh + 0 * h, h), torch.zeros_like(mesh), 9)
        pushed.append(push is not None)
    return alignment, pushed


def test_act_is_never_raised_again():
    """R = 1, 0.04, then back to 1: Alg. 1 line 11 keeps DAT off."""
    alignment, pushed = scripted_run([[1.0], [0.04], [1.0]], threshold=0.05)
    assert pushed == [True, False, False]
    assert alignment.active_steps.tolist() == [[1]]


def test_the_threshold_itself_is_still_active():
    _, pushed = scripted_run([[1.0], [0.25]], threshold=0.25)
    assert pushed == [True, True]


def test_every_chain_has_its_own_flag():
    alignment, pushed = scripted_run([[1.0, 1.0], [0.01, 0.5], [1.0, 0.3]], threshold=0.05)
    assert pushed == [True, True, True]
    assert alignment.active_steps.tolist() == [[1, 3]]
    assert alignment.ratio.tolist() == [[pytest.approx(1.0), pytest.approx(0.3)]]


def test_without_the_activation_strategy_every_step_is_aligned():
    gaps = [[1.0], [0.001], [0.001]]
    alignment, pushed = scripted_run(gaps, threshold=0.05, activation=False)
    assert pushed == [True] * 3
    assert alignment.active_steps.tolist() == [[3]]


def test_once_all_chains_are_off_nothing_is_differentiated():
    grad_modes = []

    def predict(h, k):
        grad_modes.append(torch.is_grad_enabled())
        return toy_predict()(h, k)

    alignment = make_alignment(threshold=2.0)
    reverse_process(predict, make_start(), SCHEDULE, 5, guidance=alignment)
    assert grad_modes == [True, False, False, False, False]


def test_a_chain_that_is_off_ignores_a_gradient_that_overflows():
    draws = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    regressor = torch.ones(1, 1, dtype=torch.float64)
    alignment = make_alignment(draws=draws, regressor=regressor, threshold=0.5)
    h = torch.ones(1, 2, 1, 3, dtype=torch.float64)
    alignment(lambda h, k: (h, h), h, 9)
    offset = torch.tensor([0.1, 1.0], dtype=torch.float64)[None, :, None, None]
    # The square root of 0 has an infinite slope: chain 0 is off and has a gradient of NaN.
    _, _, push = alignment(lambda h, k: (offset + (h * (offset - 0.1)).sqrt(), h), 0 * h + 1, 9)
    assert torch.equal(push[0, 0], torch.zeros(1, 3, dtype=torch.float64))
    assert push.isfinite().all() and (push[0, 1] != 0).all()


def test_raw_measures_the_first_gap_on_the_noise_and_excess_leaves_the_spread_out():
    h, predict = make_start(), toy_predict()
    raw, literal = make_alignment(first_gap="raw"), make_alignment()
    excess = make_alignment(first_gap="excess")
    for alignment in (raw, literal, excess):
        alignment(predict, h, 40)
    assert torch.equal(literal.ratio, torch.ones(IMAGES, CHAINS, dtype=torch.float64))
    assert torch.equal(excess.ratio, literal.ratio)
    pose = torch.einsum("jv,bnvc->bnjc", make_regressor(), predict(h, 40)[0])
    noise = torch.einsum("jv,bnvc->bnjc", make_regressor(), h)
    gaps = [distribution_gap(make_draws(), f_h, "sum") for f_h in (pose, noise)]
    assert torch.allclose(raw.ratio, gaps[0] / gaps[1])
    excess(predict, h, 20)
    centre = make_draws().mean(1)[:, None]
    later = torch.einsum("jv,bnvc->bnjc", make_regressor(), predict(h, 20)[0])
    gaps = [(centre - f_h).square().sum((-1, -2)) for f_h in (later, pose)]
    assert torch.allclose(excess.ratio, gaps[0] / gaps[1])


def test_excess_has_the_same_gradient_as_eq_10():
    h, predict = make_start(), toy_predict()
    _, _, literal = make_alignment()(predict, h, 30)
    _, _, excess = make_alignment(first_gap="excess")(predict, h, 30)
    assert torch.allclose(literal, excess)


def test_one_pose_of_equal_weight_pulls_as_hard_as_all_draws_of_it():
    h, predict = make_start(), toy_predict()
    pose = make_draws(1)
    _, _, many = make_alignment(draws=pose.expand(-1, DRAWS, -1, -1))(predict, h, 30)
    _, _, one = make_alignment(draws=pose, weight=float(DRAWS))(predict, h, 30)
    _, _, printed = make_alignment(draws=pose)(predict, h, 30)
    assert torch.allclose(one, many)
    assert torch.allclose(DRAWS * printed, many)


def test_chains_of_an_image_do_not_depend_on_batch_mates():
    start, predict = make_start(), toy_predict()
    alignment = make_alignment(threshold=0.3)
    both = reverse_process(predict, start, SCHEDULE, 10, guidance=alignment)
    alignment = make_alignment(draws=make_draws()[1:], threshold=0.3)
    alone = reverse_process(predict, start[1:], SCHEDULE, 10, guidance=alignment)
    assert torch.allclose(both[1:], alone, atol=1e-12)
