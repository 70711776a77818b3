"""Regressions from features to coarse meshes; held-out training rows choose their penalties.

Linear probes of frozen features are Alain and Bengio's (2016); the kernel is a Gaussian one, for
what is not linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Predict = Callable[[Tensor], Tensor]
"""Inputs (n, D) to flat meshes (n, 3 V)."""


@dataclass(frozen=True)
class Fitted:
    """A regression and what was chosen for it on the held-out rows."""

    predict: Predict
    chosen: dict[str, float]


def vertex_errors(found: Tensor, true: Tensor) -> Tensor:
    """Mean distance over the vertices of flat meshes (n, 3 V), in their unit; (n,)."""
    return (found - true).unflatten(-1, (-1, 3)).norm(dim=-1).mean(-1)


def fit_linear(x: Tensor, y: Tensor, held: Tensor, penalties: Sequence[float]) -> Fitted:
    """Ridge regression of ``y`` (n, 3 V) on ``x`` (n, D), standardised; see :func:`_best`.

    A penalty is a share of the variance of an input; the intercept is not penalised.
    """
    scaled, mean = _standardised(x[~held]), y[~held].mean(0)
    z = scaled(x[~held])
    gram = (z.T @ z).double() / len(z)
    cross = (z.T @ (y[~held] - mean)).double() / len(z)
    eye = torch.eye(len(gram), dtype=gram.dtype)

    def candidates() -> Iterator[Fitted]:
        for penalty in penalties:
            factor = torch.linalg.cholesky(gram + penalty * eye)
            weight = torch.cholesky_solve(cross, factor).float()
            yield Fitted(
                lambda new, weight=weight: scaled(new) @ weight + mean, {"penalty": penalty}
            )

    return _best(candidates(), x[held], y[held])


def fit_kernel(
    x: Tensor,
    y: Tensor,
    held: Tensor,
    penalties: Sequence[float],
    widths: Sequence[float],
    landmarks: int,
) -> Fitted:
    """Kernel ridge regression on at most ``landmarks`` evenly spaced rows; see :func:`_best`.

    Two rows are exp(-|a - b|^2 / (2 D w^2)) alike, with D standardised inputs and w of ``widths``:
    about 1 is the distance of two rows that have nothing to do with each other.
    """
    scaled, mean = _standardised(x[~held]), y[~held].mean(0)
    rows = (~held).nonzero()[:, 0]
    count = min(landmarks, len(rows))
    rows = rows[torch.arange(count) * len(rows) // count]
    centres = scaled(x[rows])

    def alike(new: Tensor, width: float) -> Tensor:
        distance = torch.cdist(scaled(new), centres).square()
        return torch.exp(-distance / (2 * centres.shape[1] * width**2))

    def candidates() -> Iterator[Fitted]:
        for width in widths:
            gram = alike(x[rows], width).double()
            for penalty in penalties:
                eye = penalty * torch.eye(len(gram), dtype=gram.dtype)
                factor = torch.linalg.cholesky(gram + eye)
                weight = torch.cholesky_solve((y[rows] - mean).double(), factor).float()
                yield Fitted(
                    lambda new, weight=weight, width=width: alike(new, width) @ weight + mean,
                    {"penalty": penalty, "width": width},
                )

    return _best(candidates(), x[held], y[held])


def _standardised(x: Tensor) -> Predict:
    """To mean 0 and deviation 1 over the rows of ``x``; an input that is constant stays so."""
    mean, deviation = x.mean(0), x.std(0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    return lambda new: (new - mean) / deviation


def _best(candidates: Iterator[Fitted], x: Tensor, y: Tensor) -> Fitted:
    """The candidate with the least mean vertex error on the held-out rows, the first of equals."""
    scored = [(vertex_errors(one.predict(x), y).double().mean().item(), one) for one in candidates]
    return min(scored, key=lambda pair: pair[0])[1]
