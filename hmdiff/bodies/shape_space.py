"""Random adults from MakeHuman's sliders, and their principal components as ``shapedirs``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmdiff.bodies.assets import MakeHuman
from hmdiff.bodies.tpose import to_tpose

# Adult stature, metres: mean of women, what men have more, and the deviation within a sex
# (about the world averages of NCD-RisC, eLife 2016).
_STATURE, _MALE_EXCESS, _STATURE_DEVIATION = 1.63, 0.13, 0.065
_DETAIL_DEVIATION = 0.35  # of the sliders of local targets, such as the length of the fingers


def random_adults(
    count: int, rng: np.random.Generator
) -> tuple[list[dict[str, float]], np.ndarray]:
    """Sliders of ``count`` persons, and their statures (count,) in metres."""
    people = []
    statures = np.empty(count)
    for i in range(count):
        binary = rng.random() < 0.7
        gender = float(rng.random() < 0.5) if binary else rng.random()  # 0 male, 1 female
        age = rng.uniform(2 / 3, 1) if rng.random() < 0.6 else 2 / 3
        person = {"gender": gender, "age": age}
        person |= {
            name: rng.beta(2, 2)
            for name in ("muscle", "weight", "proportions", "cupsize", "firmness")
        }
        person["height"] = float(np.clip(rng.normal(0.47, 0.06), 0, 1))
        shares = rng.dirichlet([1, 1, 1])
        person |= dict(zip(("african", "asian", "caucasian"), shares, strict=True))
        people.append(person)
        mean = _STATURE + _MALE_EXCESS * (1 - gender)
        statures[i] = mean + _STATURE_DEVIATION * rng.normal()
    return people, statures


def sample_shapes(
    human: MakeHuman,
    kept: np.ndarray,
    count: int,
    rng: np.random.Generator,
    details: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    straight_fingers: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random adults in T-pose.

    Args:
        kept: (k,) vertices of the base mesh that are wanted.
        details: local blend shapes, each as displacements (n, 3) of its two directions.

    Returns:
        Vertices (count, k, 3) and heads of all bones (count, bones, 3), metres, and the slider
        of gender (count,), from 0, male, to 1, female.
    """
    skin = np.unique(human.quads)
    height = human.base[skin, 1]
    ends = skin[[height.argmax(), height.argmin()]]
    part, ids, where = human.restricted(np.concatenate([kept, ends]))
    people, statures = random_adults(count, rng)
    vertices = part.shapes(people)
    for decrease, increase in details:
        slider = _DETAIL_DEVIATION * rng.normal(size=(count, 1, 1))
        vertices += np.maximum(slider, 0) * increase[ids] + np.maximum(-slider, 0) * decrease[ids]
    vertices, heads = to_tpose(part, vertices, straight_fingers)
    crown, sole = where[-2:]
    scale = statures / (vertices[:, crown, 1] - vertices[:, sole, 1])
    genders = np.array([person["gender"] for person in people])
    return vertices[:, where[:-2]] * scale[:, None, None], heads * scale[:, None, None], genders


def principal_components(
    samples: np.ndarray, components: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (V, 3), directions (V, 3, components) and coordinates (n, components) of ``samples``.

    A direction is scaled to one standard deviation and signed so that it makes the mean bigger.
    """
    count = len(samples)
    mean = samples.mean(0)
    centred = (samples - mean).reshape(count, -1)
    _, vectors = np.linalg.eigh(centred @ centred.T)  # n is far below 3 V
    coordinates = vectors[:, ::-1][:, :components] * np.sqrt(count - 1)
    directions = (centred.T @ coordinates) / (count - 1)
    growth = (mean - mean.mean(0)).ravel() @ directions
    signs = np.where(growth < 0, -1.0, 1.0)
    return mean, (directions * signs).reshape(*mean.shape, components), coordinates * signs
