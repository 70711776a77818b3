"""Errors of one mesh or pose, for many samples at once: numpy float64, metres in, mm out.

Nothing here averages over samples, so that no result depends on batches or ranks.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

MILLIMETRES = 1000.0


def mean_distance(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean Euclidean distance over the points of each sample: MPJPE of joints, MPVE of vertices.

    Args:
        predicted, truth: (n, P, 3) metres, in the same frame.

    Returns:
        (n,) millimetres.
    """
    difference = np.asarray(predicted, np.float64) - np.asarray(truth, np.float64)
    return MILLIMETRES * np.linalg.norm(difference, axis=-1).mean(axis=-1)


def procrustes(predicted: np.ndarray, truth: np.ndarray, reflections: bool = False) -> np.ndarray:
    """Each predicted point set under the similarity that brings it nearest to the truth.

    Scale, rotation and translation by least squares (Umeyama, PAMI 1991), for each sample alone.

    Args:
        predicted, truth: (n, P, 3) metres.
        reflections: allow a mirrored solution, as FreiHAND's official evaluator does. The
            protocols of METRO and SPIN keep the determinant at +1.

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
    variance = (source**2).sum(axis=(1, 2))
    scale = (singular * signs).sum(axis=1) / np.where(variance > 0, variance, np.inf)
    return scale[:, None, None] * (source @ rotation) + centre


def f_score(predicted: np.ndarray, truth: np.ndarray, threshold: float) -> np.ndarray:
    """F-score of two point clouds (Knapitsch et al. 2017, as in FreiHAND's evaluator).

    The harmonic mean of precision and recall: the shares of predicted and of true points whose
    nearest neighbour in the other cloud is strictly nearer than ``threshold`` millimetres.

    Args:
        predicted, truth: (n, P, 3) metres.

    Returns:
        (n,) in 0..1; 0 where no point of either cloud is near the other.
    """
    limit = threshold / MILLIMETRES
    scores = np.zeros(len(predicted))
    for sample, (points, true_points) in enumerate(zip(predicted, truth, strict=True)):
        precision = (cKDTree(true_points).query(points)[0] < limit).mean()
        recall = (cKDTree(points).query(true_points)[0] < limit).mean()
        if precision + recall > 0:
            scores[sample] = 2 * precision * recall / (precision + recall)
    return scores
