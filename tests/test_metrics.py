"""Metrics against independent computations, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.transform import Rotation

from hmdiff.evaluation.bootstrap import mean_interval
from hmdiff.evaluation.metrics import (
    area_under_pck,
    f_score,
    f_scores,
    mean_distance,
    procrustes,
)

SEEDS = st.integers(0, 2**32 - 1)


def clouds(seed: int, count: int = 4, points: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and truths of about 0.3 m, 5 cm apart, each pair in frames of its own."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 0.3, (count, points, 3))
    turns = Rotation.random(count, rng=rng).as_matrix()
    noisy = truth + rng.normal(0, 0.05, truth.shape)
    return 1.3 * noisy @ turns + rng.normal(size=(count, 1, 3)), truth


def test_mean_distance_by_hand():
    predicted = np.array([[[0.003, 0.004, 0], [0, 0, 0]], [[0, 0, 0.001], [0, 0, 0.002]]])
    assert mean_distance(predicted, np.zeros((2, 2, 3))) == pytest.approx([2.5, 1.5])


def test_one_sample_is_one_number_whatever_its_size():
    predicted = np.full((3, 6890, 3), 0.001, np.float32)
    found = mean_distance(predicted, np.zeros_like(predicted))
    assert found.dtype == np.float64
    assert found == pytest.approx([3**0.5] * 3, rel=1e-6)


def test_a_turned_scaled_and_moved_copy_has_no_error():
    _, truth = clouds(0)
    turned = 0.2 * truth @ Rotation.random(4, rng=0).as_matrix() - [3, 0, 7]
    assert mean_distance(procrustes(turned, truth), truth).max() < 1e-9


@pytest.mark.parametrize("mirrored", [False, True])
def test_alignment_with_reflections_agrees_with_scipy(mirrored):
    """scipy brings both to unit size and allows mirroring; its disparity is a squared residual."""
    predicted, truth = clouds(1)
    if mirrored:
        predicted = predicted * [-1, 1, 1]
    aligned = procrustes(predicted, truth, reflections=True)
    for sample in range(len(truth)):
        standard, moved, _ = scipy_procrustes(truth[sample], predicted[sample])
        size = np.linalg.norm(truth[sample] - truth[sample].mean(0))
        wanted = np.linalg.norm(standard - moved, axis=1).mean() * size * 1000
        found = mean_distance(aligned[sample : sample + 1], truth[sample : sample + 1])
        assert found == pytest.approx([wanted], abs=1e-9)


@pytest.mark.parametrize("mirrored", [False, True])
def test_alignment_without_reflections_agrees_with_a_search_over_rotations(mirrored):
    """Optimisation over (rotation vector, log scale, translation) from many starts."""
    predicted, truth = clouds(2, count=2, points=7)
    if mirrored:
        predicted = predicted * [1, 1, -1]
    aligned = procrustes(predicted, truth)
    for sample in range(len(truth)):
        source, target = predicted[sample] - predicted[sample].mean(0), truth[sample]

        def residual(x, source=source, target=target):
            moved = np.exp(x[3]) * Rotation.from_rotvec(x[:3]).apply(source) + x[4:]
            return (moved - target).ravel()

        starts = Rotation.random(12, rng=0).as_rotvec()
        fits = [least_squares(residual, [*start, 0, 0, 0, 0], xtol=1e-14) for start in starts]
        best = min(fits, key=lambda fit: fit.cost)
        assert ((aligned[sample] - target) ** 2).sum() / 2 == pytest.approx(best.cost, rel=1e-6)


def test_a_mirrored_hand_is_right_only_where_reflections_are_allowed():
    """FreiHAND's official evaluator gives it 0 mm, the protocols of METRO and SPIN do not."""
    _, truth = clouds(3)
    mirrored = truth * [-1, 1, 1]
    assert mean_distance(procrustes(mirrored, truth, reflections=True), truth).max() < 1e-9
    assert mean_distance(procrustes(mirrored, truth), truth).min() > 50


def test_a_prediction_in_one_point_goes_to_the_mean_and_stays_finite():
    _, truth = clouds(4)
    aligned = procrustes(np.ones_like(truth), truth)
    assert np.allclose(aligned, truth.mean(axis=1, keepdims=True), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, scale=st.floats(0.01, 100), move=st.floats(-10, 10), mirror=st.booleans())
def test_the_aligned_error_ignores_the_predictions_own_frame(seed, scale, move, mirror):
    predicted, truth = clouds(seed)
    turn = Rotation.random(rng=seed).as_matrix()
    moved = scale * predicted @ turn + move
    error, moved_error = (
        mean_distance(procrustes(one, truth, mirror), truth) for one in (predicted, moved)
    )
    assert moved_error == pytest.approx(error, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, size=st.integers(1, 6), order=st.permutations(range(6)))
def test_no_metric_depends_on_the_batch_or_the_order(seed, size, order):
    predicted, truth = clouds(seed, count=6)
    functions = (
        mean_distance,
        lambda a, b: mean_distance(procrustes(a, b), b),
        lambda a, b: f_score(procrustes(a, b), b, 50),
    )
    for metric in functions:
        whole = metric(predicted, truth)
        parts = [slice(first, first + size) for first in range(0, 6, size)]
        assert np.concatenate([metric(predicted[p], truth[p]) for p in parts]) == pytest.approx(
            whole, rel=1e-12
        )
        assert metric(predicted[order], truth[order]) == pytest.approx(whole[order], rel=1e-12)


def test_the_f_score_by_hand():
    """Two of three predicted points lie near a true one, one of two true points near a predicted:
    precision 2/3, recall 1/2, F = 4/7."""
    predicted = np.array([[[0, 0, 0.001], [0.002, 0, 0], [0.5, 0, 0]]])
    truth = np.array([[[0, 0, 0], [0, 0.3, 0]]])
    assert f_score(predicted, truth, 5) == pytest.approx([4 / 7])


def test_a_point_at_the_threshold_is_outside():
    """Strictly nearer; 2**-6 m is exact in binary, so there is no rounding to hide behind."""
    predicted, truth = np.array([[[2.0**-6, 0, 0]]]), np.zeros((1, 1, 3))
    at_threshold = 1000 * 2.0**-6
    assert f_score(predicted, truth, at_threshold) == 0
    assert f_score(predicted, truth, np.nextafter(at_threshold, 100)) == 1


def test_the_f_score_is_that_of_all_pairwise_distances():
    rng = np.random.default_rng(0)
    predicted, truth = rng.normal(0, 0.02, (3, 40, 3)), rng.normal(0, 0.02, (3, 50, 3))
    distances = np.linalg.norm(predicted[:, :, None] - truth[:, None], axis=-1)
    precision = (distances.min(2) < 0.010).mean(1)
    recall = (distances.min(1) < 0.010).mean(1)
    assert precision.min() > 0.1 and recall.max() < 0.9  # neither is trivial
    wanted = 2 * precision * recall / (precision + recall)
    assert f_score(predicted, truth, 10) == pytest.approx(wanted)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = rng.exponential(80, (200, 60))
    ends = [mean_interval(values, 400, seed) for seed, values in enumerate(draws)]
    covered = np.mean([low <= 80 <= high for low, high in ends])
    assert 0.88 <= covered <= 0.98


def test_the_interval_has_the_width_that_theory_gives():
    values = np.random.default_rng(1).normal(80, 12, 400)
    low, high = mean_interval(values, 4000, 0)
    wanted = 1.96 * values.std() / 20
    assert (high - values.mean(), values.mean() - low) == pytest.approx((wanted, wanted), rel=0.06)


def test_the_interval_is_a_function_of_its_seed():
    values = np.random.default_rng(2).normal(size=50)
    assert mean_interval(values, 300, 7) == mean_interval(values, 300, 7)
    assert mean_interval(values, 300, 7) != mean_interval(values, 300, 8)


def test_many_samples_are_resampled_in_blocks_without_harm(monkeypatch):
    values = np.random.default_rng(3).normal(size=100)
    whole = mean_interval(values, 500, 0)
    monkeypatch.setattr("hmdiff.evaluation.bootstrap._BLOCK", 1000)
    assert mean_interval(values, 500, 0) == whole


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, points=st.integers(1, 40), others=st.integers(1, 40))
def test_f_scores_of_clouds_of_any_size_are_those_of_all_pairs(seed, points, others):
    """Both thresholds from one search, and clouds that lie apart as well as upon one another."""
    rng = np.random.default_rng(seed)
    size, apart = rng.choice([0.002, 0.01, 0.05]), rng.choice([0.0, 0.01, 1.0])
    predicted = rng.normal(0, size, (3, points, 3)) + apart
    truth = rng.normal(0, size, (3, others, 3))
    distances = np.linalg.norm(predicted[:, :, None] - truth[:, None], axis=-1)
    for threshold, found in zip((5, 15), f_scores(predicted, truth, (5, 15)), strict=True):
        near = distances < threshold / 1000
        precision, recall = near.any(2).mean(1), near.any(1).mean(1)
        both = precision + recall
        wanted = np.divide(2 * precision * recall, both, out=np.zeros(3), where=both > 0)
        assert found == pytest.approx(wanted, abs=1e-12)


def test_the_area_under_the_curve_by_hand():
    """A point that is right costs nothing, one beyond 5 cm everything; one that is off by a third
    of the range, where a threshold lies, fails the first 33 of 99 intervals but half of one."""
    offsets = np.array([0.0, 0.06, 0.05 * 33 / 99])
    predicted = np.zeros((3, 1, 3))
    predicted[:, 0, 1] = offsets
    wanted = [1, 0, 1 - 32.5 / 99]
    assert area_under_pck(predicted, np.zeros_like(predicted)) == pytest.approx(wanted)


def test_the_margin_is_that_of_a_size():
    """The scale shrinks by (size / (size + margin))^2, and by nothing else."""
    predicted, truth = clouds(5)
    plain, shy = (procrustes(predicted, truth, True, margin) for margin in (0.0, 0.5))
    centre = truth.mean(1, keepdims=True)
    size = np.linalg.norm(predicted - predicted.mean(1, keepdims=True), axis=(1, 2))
    shrunk = ((size / (size + 0.5)) ** 2)[:, None, None] * (plain - centre) + centre
    assert np.allclose(shy, shrunk, atol=1e-12)
