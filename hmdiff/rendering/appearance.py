"""Skin, hair and clothes for a template, painted on its front (body) or top (hand) view.

Regions are found from the template's coordinates alone, so any model with the pose and axes of
SMPL's or MANO's template can be dressed. One appearance is kept for all frames of a subject.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hmdiff.rendering.scene import Appearance
from hmdiff.rendering.textures import fractal_noise, sample_colour, sample_pattern

ATLAS = 320  # texels along each side of the painted view: 5 mm on a body, 0.7 mm on a hand
MARGIN = 0.02  # of the atlas left round the template, so that nothing wraps
SKIN = np.array(  # from light to dark
    [
        [0.95, 0.78, 0.68],
        [0.87, 0.67, 0.54],
        [0.76, 0.55, 0.42],
        [0.62, 0.42, 0.30],
        [0.47, 0.31, 0.22],
        [0.33, 0.22, 0.16],
    ]
)
HAIR = np.array(
    [
        [0.08, 0.06, 0.05],
        [0.24, 0.15, 0.09],
        [0.42, 0.27, 0.14],
        [0.70, 0.55, 0.32],
        [0.60, 0.60, 0.60],
    ]
)


def sample_clothing(rng: np.random.Generator, template: NDArray, kind: str) -> Appearance:
    """Dress a subject.

    template (n, 3), metres: SMPL's T-pose (y up, facing +z) for kind "body"; MANO's flat right
    hand (fingers towards -x, palm towards -y) for kind "hand".
    """
    template = np.asarray(template, np.float64)
    if kind == "body":
        return _dress_body(rng, template)
    if kind == "hand":
        return _dress_hand(rng, template)
    raise ValueError(f"kind must be body or hand, not {kind!r}")


def _sample_skin(rng: np.random.Generator) -> NDArray:
    place = (len(SKIN) - 1) * rng.uniform() ** 1.3  # somewhat more of the lighter ones
    low = int(place)
    colour = SKIN[low] + (place - low) * (SKIN[low + 1] - SKIN[low])
    return colour * rng.uniform(0.96, 1.04, 3)


def _flatten(plane: NDArray) -> NDArray:
    """(n, 2) coordinates, right and up -> uv (n, 2) within the atlas, v downwards."""
    low, high = plane.min(axis=0), plane.max(axis=0)
    uv = MARGIN + (1 - 2 * MARGIN) * (plane - low) / (high - low)
    uv[:, 1] = 1 - uv[:, 1]
    return uv


def _atlas_axes() -> tuple[NDArray, NDArray]:
    """Relative coordinates of the texels' centres: right (1, a) and up (a, 1), 0 to 1 over the
    template."""
    line = ((np.arange(ATLAS) + 0.5) / ATLAS - MARGIN) / (1 - 2 * MARGIN)
    return line[None, :], 1 - line[:, None]


def _mottle(rng: np.random.Generator, colour: NDArray, depth: float) -> NDArray:
    """A colour with smooth variation of relative ``depth``: (a, a, 3)."""
    noise = fractal_noise(rng, (ATLAS, ATLAS), (6, 20, 60))
    return colour * (1 - depth + 2 * depth * noise[..., None])


def _paint(atlas: NDArray, where: NDArray, paint: NDArray) -> None:
    """Put ``paint`` (a, a, 3) or (3,) where the mask (a, a) holds, in place."""
    atlas[where] = np.broadcast_to(paint, atlas.shape)[where]


def _dress_body(rng: np.random.Generator, template: NDArray) -> Appearance:
    skin, hair = _sample_skin(rng), HAIR[rng.integers(len(HAIR))] * rng.uniform(0.7, 1.3)
    right, up = _atlas_axes()
    side = np.abs(right - 0.5) * 2  # 0 in the middle, 1 at the finger tips
    atlas = _mottle(rng, skin, 0.06)

    long_trousers, long_sleeves = rng.random() < 0.65, rng.random() < 0.4
    trousers_end = rng.uniform(0.05, 0.08) if long_trousers else rng.uniform(0.15, 0.35)
    waist = rng.uniform(0.55, 0.62)
    sleeve = rng.uniform(0.65, 0.78) if long_sleeves else rng.uniform(0.24, 0.48)
    neckline = ((side / 0.10) ** 2 + ((up - 0.86) / rng.uniform(0.035, 0.09)) ** 2) > 1
    legs = (up < waist + 0.02) & (up > trousers_end) & (side < 0.4)
    trunk = (up > waist - rng.uniform(0.0, 0.08)) & (up < 0.862) & (side < sleeve) & neckline
    folds = (0.86 + 0.2 * fractal_noise(rng, (ATLAS, ATLAS), (10, 24)))[..., None]
    trousers = np.broadcast_to(sample_colour(rng, 0.05, 0.8), atlas.shape)
    if rng.random() < 0.25:
        trousers = sample_pattern(rng, (ATLAS, ATLAS))
    shirt = sample_pattern(rng, (ATLAS, ATLAS))
    _paint(atlas, legs, trousers * folds)
    _paint(atlas, trunk, shirt * folds)
    if rng.random() < 0.3:  # a print on the chest
        width, low, high = rng.uniform(0.06, 0.12), rng.uniform(0.68, 0.72), rng.uniform(0.75, 0.79)
        _paint(atlas, (side < width) & (up > low) & (up < high), sample_colour(rng))
    if rng.random() < 0.3:  # a belt
        _paint(atlas, (np.abs(up - waist) < 0.008) & (side < 0.4), sample_colour(rng, 0.0, 0.4))
    if rng.random() < 0.85:
        _paint(atlas, (up < rng.uniform(0.045, 0.07)) & (side < 0.4), sample_colour(rng, 0.0, 0.9))
    _paint_face(atlas, right, up, skin, hair)

    # The back and the top of the head carry hair; the rest of the body shows the atlas.
    height = (template[:, 1] - template[:, 1].min()) / np.ptp(template[:, 1])
    head = height > 0.875
    depth = (template[:, 2] - template[head, 2].min()) / np.ptp(template[head, 2])
    length = rng.uniform(0.87, 0.93)  # relative height down to which hair falls at the back
    crown = rng.uniform(0.95, 0.975)
    haired = head & ((height > crown) | ((depth < 0.55) & (height > length)))
    bald = rng.random() < 0.08
    return Appearance(
        colours=np.broadcast_to(skin if bald else hair, template.shape),
        uv=_flatten(template[:, :2]),
        texture=np.clip(atlas, 0, 1),
        texture_mix=1.0 - haired,
        specular=float(rng.uniform(0.0, 0.12)),
    )


def _paint_face(atlas: NDArray, right: NDArray, up: NDArray, skin: NDArray, hair: NDArray) -> None:
    """Eyes, brows and mouth, where MakeHuman's neutral face has them."""
    side = np.abs(right - 0.5)
    eyes = ((side - 0.018) / 0.008) ** 2 + ((up - 0.932) / 0.0035) ** 2 < 1
    brows = (np.abs(side - 0.018) < 0.011) & (np.abs(up - 0.943) < 0.002)
    mouth = (side / 0.014) ** 2 + ((up - 0.891) / 0.004) ** 2 < 1
    _paint(atlas, eyes, np.array([0.15, 0.12, 0.1]))
    _paint(atlas, brows, 0.5 * (skin + hair))
    _paint(atlas, mouth, skin * [0.85, 0.6, 0.6])


def _dress_hand(rng: np.random.Generator, template: NDArray) -> Appearance:
    skin = _sample_skin(rng)
    right = _atlas_axes()[0]
    atlas = _mottle(rng, skin, rng.uniform(0.05, 0.12))
    # Knuckle folds: faint lines across the fingers.
    folds = 1 - 0.12 * np.maximum(np.sin(2 * np.pi * right * rng.uniform(9, 13)), 0) ** 8
    atlas *= np.where(right < 0.6, folds, 1.0)[..., None]
    style = rng.random()
    if style < 0.45:  # a sleeve up to the wrist
        covered = right > rng.uniform(0.88, 0.97)
        _paint(atlas, covered.repeat(ATLAS, axis=0), sample_pattern(rng, (ATLAS, ATLAS)))
    elif style < 0.55:  # a strap
        start = rng.uniform(0.86, 0.93)
        covered = (right > start) & (right < start + rng.uniform(0.02, 0.06))
        _paint(atlas, covered.repeat(ATLAS, axis=0), sample_colour(rng, 0.0, 0.8))

    # The palm is paler than the back, most of all on dark skin.
    extent = np.ptp(template, axis=0)
    across = (template[:, 1] - np.median(template[:, 1])) / extent[1]
    pale = np.clip(skin * 0.55 + np.array([0.92, 0.70, 0.62]) * 0.45, 0, 1)
    along = (template[:, 0] - template[:, 0].min()) / extent[0]
    inside = (across < 0) & (along < 0.85)
    return Appearance(
        colours=np.broadcast_to(pale, template.shape),
        uv=_flatten(np.stack([template[:, 0], -template[:, 2]], axis=1)),
        texture=np.clip(atlas, 0, 1),
        texture_mix=np.where(inside, 0.45, 1.0),
        specular=float(rng.uniform(0.02, 0.15)),
    )
