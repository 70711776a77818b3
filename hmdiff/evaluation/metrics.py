"""Errors of one mesh or pose, for many samples at once: numpy float64, metres in, mm out.

Nothing here averages over samples, so that no result depends on batches or ranks.
"""

from __future__ import annotations

import numpy as np

from hmdiff.jit import jit_when_called

MILLIMETRES = 1000.0
# The curve of FreiHAND's evaluator: the share of points that are right, by what counts as right.
PCK_THRESHOLDS = np.linspace(0.0, 0.05, 100)  # metres


def point_distances(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Euclidean distance of every point (n, P), in metres, of point sets (n, P, 3)."""
    difference = np.asarray(predicted, np.float64) - np.asarray(truth, np.float64)
    return np.linalg.norm(difference, axis=-1)


def mean_distance(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean Euclidean distance over the points of each sample: MPJPE of joints, MPVE of vertices.

    Args:
        predicted, truth: (n, P, 3) metres, in the same frame.

    Returns:
        (n,) millimetres.
    """
    return MILLIMETRES * point_distances(predicted, truth).mean(axis=-1)


def area_under_pck(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Area under the curve of correct points (PCK) over 0 to 5 cm, as in FreiHAND's evaluator.

    A point is correct at a threshold that its distance does not exceed; the area is the trapezoid
    rule's over 100 thresholds, as a share of the largest possible.

    Args:
        predicted, truth: (n, P, 3) metres.

    Returns:
        (n,) in 0..1. The area is linear in the curve, so its mean over samples is that of their
        mean curve.
    """
    weights = np.ones(len(PCK_THRESHOLDS))
    weights[[0, -1]] = 0.5
    # For each number of thresholds that a point fails: what is left of the area.
    left = np.append(weights[::-1].cumsum()[::-1], 0.0) / weights.sum()
    failed = np.searchsorted(PCK_THRESHOLDS, point_distances(predicted, truth), side="left")
    return left[failed].mean(axis=-1)


def procrustes(
    predicted: np.ndarray, truth: np.ndarray, reflections: bool = False, margin: float = 0.0
) -> np.ndarray:
    """Each predicted point set under the similarity that brings it nearest to the truth.

    Scale, rotation and translation by least squares (Umeyama, PAMI 1991), for each sample alone.

    Args:
        predicted, truth: (n, P, 3) metres.
        reflections: allow a mirrored solution, as FreiHAND's official evaluator does. The
            protocols of METRO and SPIN keep the determinant at +1.
        margin: metres that are added to the size of a prediction before its scale is taken.
            FreiHAND's evaluator adds 1e-8, so that no aligned point lies exactly on its truth.

    Returns:
        (n, P, 3) metres. A prediction whose points all coincide goes to the truth's mean.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    centre = truth.mean(axis=1, keepdims=True)
    source, target = predicted - predicted.mean(axis=1, keepdims=True), truth - centre
    # Rows are points: the rotation R minimises |scale source R - target|.
    left, singular, right = np.linalg.svd(source.transpose(0, 2, 1) @ target)
    signs = np.ones_like(singular)
    if not reflections:
        signs[:, -1] = np.where(np.linalg.det(left) * np.linalg.det(right) < 0, -1.0, 1.0)
    rotation = (left * signs[:, None, :]) @ right
    variance = (np.sqrt((source**2).sum(axis=(1, 2))) + margin) ** 2
    scale = (singular * signs).sum(axis=1) / np.where(variance > 0, variance, np.inf)
    return scale[:, None, None] * (source @ rotation) + centre


def f_scores(
    predicted: np.ndarray, truth: np.ndarray, thresholds: tuple[float, ...]
) -> list[np.ndarray]:
    """F-scores of two point clouds (Knapitsch et al. 2017, as in FreiHAND's evaluator).

    The harmonic mean of precision and recall: the shares of predicted and of true points whose
    nearest neighbour in the other cloud is strictly nearer than a threshold.

    Args:
        predicted: (n, P, 3) metres.
        truth: (n, Q, 3) metres.
        thresholds: millimetres.

    Returns:
        For each threshold (n,) in 0..1; 0 where no point of either cloud is near the other.
    """
    limits = [threshold / MILLIMETRES for threshold in thresholds]
    to_truth, to_predicted = _distances_at(limits, predicted, truth)
    scores = []
    for limit in limits:
        precision = (to_truth < limit).mean(axis=1)
        recall = (to_predicted < limit).mean(axis=1)
        both = precision + recall
        scores.append(2 * precision * recall / np.where(both > 0, both, 1.0))
    return scores


def f_score(predicted: np.ndarray, truth: np.ndarray, threshold: float) -> np.ndarray:
    """One of :func:`f_scores`, (n,), at ``threshold`` millimetres."""
    return f_scores(predicted, truth, (threshold,))[0]


def _distances_at(
    limits: list[float], clouds: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (n, P) of points of a cloud to the other cloud, and (n, Q) back.

    They are as good as those to the nearest point for a comparison with any of ``limits``: a point
    that is nearer than the least of them is not followed up, one beyond the largest is infinite.
    """
    clouds, others = (np.asarray(points, np.float64) for points in (clouds, others))
    there, back = (np.full(points.shape[:2], np.inf) for points in (clouds, others))
    if clouds.size and others.size:
        # Sorted along the axis on which they are widest, points need few comparisons.
        axes = np.ptp(others, axis=1).argsort(axis=1)[:, None, ::-1]
        clouds, others = (
            np.ascontiguousarray(np.take_along_axis(points, axes, 2)) for points in (clouds, others)
        )
        _sweep(clouds, others, _sorted(others), min(limits), max(limits), there)
        _sweep(others, clouds, _sorted(clouds), min(limits), max(limits), back)
    return there, back


def _sorted(points: np.ndarray) -> np.ndarray:
    """Points (n, P, 3), each set in the order of its first coordinate."""
    return np.take_along_axis(points, points[..., :1].argsort(axis=1), 1)


@jit_when_called
def _sweep(clouds, others, ordered, least, most, distances):
    """Fill ``distances``: outwards from a point's place along the first axis of ``ordered``.

    The point of the same number comes first: where both are vertices of one model it is near. A
    kd-tree takes three times as long here, since it would be built anew for every sample. The
    points come in ``ordered``, since numba takes 3 s longer where it compiles a sort.
    """
    # Squared; the margins cover rounding, so that the comparison of the roots alone decides.
    enough, limit = least * least * (1 - 1e-9), most * most * (1 + 1e-9)
    count = others.shape[1]
    for sample in range(clouds.shape[0]):
        for row in range(clouds.shape[1]):
            x, y, z = clouds[sample, row, 0], clouds[sample, row, 1], clouds[sample, row, 2]
            best = limit
            if row < count:
                dx, dy = others[sample, row, 0] - x, others[sample, row, 1] - y
                dz = others[sample, row, 2] - z
                best = min(best, dx * dx + dy * dy + dz * dz)
            if best >= enough:
                place, end = 0, count  # of x, by halving
                while place < end:
                    middle = (place + end) // 2
                    if ordered[sample, middle, 0] < x:
                        place = middle + 1
                    else:
                        end = middle
                for step in (1, -1):
                    other = place if step == 1 else place - 1
                    while 0 <= other < count and best >= enough:
                        dx = ordered[sample, other, 0] - x
                        if dx * dx >= best:
                            break
                        dy, dz = ordered[sample, other, 1] - y, ordered[sample, other, 2] - z
                        best = min(best, dx * dx + dy * dy + dz * dz)
                        other += step
            nearest = np.sqrt(best)
            if nearest < most:
                distances[sample, row] = nearest
