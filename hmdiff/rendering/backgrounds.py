"""What stands behind the subjects: photographs that come inside installed wheels, and drawings.

No photograph shows a person, and no two splits share one. ``CREDITS`` must go where the pictures
go. Drawn studios have other colours in each split, so that a test background is never one seen in
training.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hmdiff.errors import UserError
from hmdiff.rendering.textures import fractal_noise, ramp, resize, sample_colour, sample_pattern

POOLS = {
    "train": ("china", "coffee", "grass"),
    "val": ("chelsea", "gravel"),
    "test": ("flower", "rocket", "brick"),
}
FILES = {  # name: package, path within it
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "brick": ("skimage", "data/brick.png"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
}
CREDITS = {
    "china": "china.jpg by danielbuechele, CC BY 2.0, in scikit-learn; cropped and recoloured",
    "flower": "flower.jpg by vultilion, CC BY 2.0, in scikit-learn; cropped and recoloured",
    "coffee": "coffee.png by Rachel Michetti, CC0, in scikit-image",
    "chelsea": "chelsea.png by Stefan van der Walt, CC0, in scikit-image",
    "rocket": "rocket.jpg by SpaceX, public domain, in scikit-image",
    "brick": "brick.png (Bricks25) by CC0Textures, CC0, in scikit-image",
    "grass": "grass.png (Grass 01) by linolafett, CC0, in scikit-image",
    "gravel": "gravel.png (Gravel04) by CC0Textures, CC0, in scikit-image",
}
DRAWN = 256  # pixels, the longer side of a drawing at most
PHOTOGRAPH_SHARE = 0.5  # of "varied" backgrounds; the rest is drawn
# Range of hue offsets of the studios, in turns of the colour circle.
STUDIO_HUES = {"train": (0.0, 0.45), "val": (0.5, 0.65), "test": (0.7, 0.95)}


@cache
def photograph(name: str) -> NDArray:
    """A photograph of ``FILES`` as (h, w, 3) uint8, read only.

    Raises UserError if the installed package does not hold it.
    """
    package, inside = FILES[name]
    spec = importlib.util.find_spec(package)  # the file is read without importing the package
    if spec is None or spec.origin is None:
        raise UserError(f"{package}: not installed, but background {name} is in it; install it")
    path = Path(spec.origin).parent / inside
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except OSError as error:
        raise UserError(f"{path}: background not readable ({error}); reinstall {package}") from None
    pixels.flags.writeable = False
    return pixels


def sample_background(
    rng: np.random.Generator, pool: str, size: tuple[int, int], style: str
) -> NDArray:
    """A background of ``size`` (width, height), pixels -> (height, width, 3) uint8.

    pool is "train", "val" or "test"; style is "studio" (walls, a floor, boxes) or "varied"
    (photographs of the pool, landscapes, rooms and patterns).
    """
    if pool not in POOLS:
        raise ValueError(f"pool must be one of {', '.join(POOLS)}, not {pool!r}")
    if style not in ("studio", "varied"):
        raise ValueError(f"style must be studio or varied, not {style!r}")
    if style == "varied" and rng.random() < PHOTOGRAPH_SHARE:
        return _crop(rng, photograph(POOLS[pool][rng.integers(len(POOLS[pool]))]), size)
    # A large one is drawn smaller: less work, and slightly out of focus.
    shrink = -(-max(size) // DRAWN)
    canvas = (-(-size[0] // shrink), -(-size[1] // shrink))
    if style == "studio":
        drawing = _studio(rng, pool, canvas)
    else:
        drawing = (_landscape, _room, _polygons, _pattern)[rng.integers(4)](rng, canvas)
    return resize(drawing, size)


def _quantise(image: NDArray) -> NDArray:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _crop(rng: np.random.Generator, image: NDArray, size: tuple[int, int]) -> NDArray:
    """A random part with the aspect of ``size``, perhaps mirrored, with other brightness and tint;
    a grey photograph is coloured."""
    height, width = image.shape[:2]
    largest = min(width / size[0], height / size[1])
    scale = largest * rng.uniform(0.45, 1.0)
    across, down = int(size[0] * scale), int(size[1] * scale)
    x, y = rng.integers(width - across + 1), rng.integers(height - down + 1)
    part = np.ascontiguousarray(image[y : y + down, x : x + across])
    if rng.random() < 0.5:
        part = np.ascontiguousarray(part[:, ::-1])
    part = resize(part, size)
    grey = (image[::16, ::16, 0] == image[::16, ::16, 1]).all()
    if grey:
        dark, bright = sample_colour(rng, 0.0, 0.4), sample_colour(rng, 0.5, 1.0)
    else:
        dark, bright = np.zeros(3), rng.uniform(0.6, 1.1) * rng.uniform(0.92, 1.08, 3)
    levels = np.arange(256)[:, None] / 255
    table = _quantise(dark + levels * (bright - dark))  # (256, 3): much faster than in floats
    return np.stack([table[:, k][part[..., k]] for k in range(3)], axis=-1)


def _draw(image: NDArray) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.fromarray(image)
    return picture, ImageDraw.Draw(picture)


def _rgb(colour: NDArray) -> tuple[int, int, int]:
    return tuple(int(value) for value in _quantise(np.asarray(colour)))


def _landscape(rng: np.random.Generator, size: tuple[int, int]) -> NDArray:
    """Sky, ground, and blocks with windows or bushes on the horizon."""
    width, height = size
    horizon = int(height * rng.uniform(0.35, 0.65))
    fade = np.linspace(0, 1, horizon, dtype=np.float32)[:, None].repeat(width, 1)
    sky = rng.uniform(0.4, 0.9) * np.array([0.65, 0.8, 1.0])
    clouds = fractal_noise(rng, (width, horizon), (3, 7, 15))
    ground = sample_colour(rng, 0.15, 0.7)
    noise = fractal_noise(rng, (width, height - horizon), (8, 30, 90), 0.8)
    image = np.concatenate(
        [
            ramp(np.clip(0.6 * fade + 0.6 * clouds, 0, 1), sky, [0.95, 0.95, 0.95]),
            ramp(noise, 0.6 * ground, 1.1 * ground),
        ]
    )
    picture, draw = _draw(_quantise(image))
    for _ in range(rng.integers(2, 9)):
        x, broad = rng.uniform(-0.1, 1.0) * width, rng.uniform(0.06, 0.3) * width
        top = horizon - rng.uniform(0.03, 0.4) * height
        base = horizon + rng.uniform(0, 0.03) * height
        colour = sample_colour(rng, 0.1, 0.8)
        if rng.random() < 0.4:
            draw.ellipse([x, top, x + broad, base], fill=_rgb(colour * [0.5, 0.9, 0.4]))
            continue
        draw.rectangle([x, top, x + broad, base], fill=_rgb(colour))
        step = rng.uniform(0.03, 0.07) * height
        for row in np.arange(top + 0.4 * step, base - step, step):
            for column in np.arange(x + 0.4 * step, x + broad - step, step):
                window = [column, row, column + 0.5 * step, row + 0.5 * step]
                draw.rectangle(window, fill=_rgb(0.6 * colour))
    return np.asarray(picture)


def _room(rng: np.random.Generator, size: tuple[int, int]) -> NDArray:
    """A wall and a floor with patterns, and furniture-like boxes."""
    width, height = size
    edge = int(height * rng.uniform(0.5, 0.85))
    wall = np.tile(sample_colour(rng, 0.3, 0.95), (height, width, 1))
    if rng.random() < 0.4:
        wall = sample_pattern(rng, size)
    wall = wall * (0.8 + 0.3 * fractal_noise(rng, size, (2, 3)))[..., None]
    wall[edge:] = sample_pattern(rng, size)[edge:] * 0.8
    picture, draw = _draw(_quantise(wall))
    for _ in range(rng.integers(1, 7)):
        x, y = rng.uniform(-0.1, 1) * width, rng.uniform(0.1, 0.9) * height
        corner = [x, y, x + rng.uniform(0.05, 0.4) * width, y + rng.uniform(0.05, 0.5) * height]
        draw.rectangle(corner, fill=_rgb(sample_colour(rng)), outline=_rgb(sample_colour(rng)))
    return np.asarray(picture)


def _polygons(rng: np.random.Generator, size: tuple[int, int]) -> NDArray:
    width, height = size
    picture, draw = _draw(_pattern(rng, size))
    for _ in range(rng.integers(5, 25)):
        centre = rng.uniform(0, 1, 2) * size
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
        radius = rng.uniform(0.05, 0.3) * max(width, height)
        points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        draw.polygon([tuple(point) for point in points], fill=_rgb(sample_colour(rng)))
    return np.asarray(picture)


def _pattern(rng: np.random.Generator, size: tuple[int, int]) -> NDArray:
    return _quantise(sample_pattern(rng, size) * rng.uniform(0.6, 1.1))


def _tint(hue: float, strength: float, value: float) -> NDArray:
    """(3,) colour of a hue in turns of the colour circle."""
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue - np.array([0, 1 / 3, 2 / 3])))
    return value * (1 - strength * (1 - wheel))


def _studio(rng: np.random.Generator, pool: str, size: tuple[int, int]) -> NDArray:
    """A plain room as in a motion laboratory: walls, carpet, a few boxes and lamps."""
    width, height = size
    low, high = STUDIO_HUES[pool]
    edge = int(height * rng.uniform(0.5, 0.75))
    wall = _tint(rng.uniform(low, high), rng.uniform(0.1, 0.4), rng.uniform(0.5, 0.85))
    floor = _tint(rng.uniform(low, high), rng.uniform(0.2, 0.7), rng.uniform(0.3, 0.7))
    shade = fractal_noise(rng, size, (2, 4, 40), 0.4)
    image = ramp(shade, 0.85 * wall, wall)
    image[edge:] = ramp(shade[edge:], 0.8 * floor, floor)
    picture, draw = _draw(_quantise(image))
    corner = rng.uniform(0.1, 0.9) * width  # of two walls
    draw.line([corner, 0, corner, edge], fill=_rgb(0.7 * wall))
    draw.line([0, edge, width, edge], fill=_rgb(0.5 * floor), width=2)
    for _ in range(rng.integers(1, 5)):
        x, base = rng.uniform(-0.05, 0.95) * width, edge + rng.uniform(-0.02, 0.15) * height
        broad, tall = rng.uniform(0.03, 0.2) * width, rng.uniform(0.05, 0.35) * height
        colour = _tint(rng.uniform(low, high), rng.uniform(0, 0.5), rng.uniform(0.1, 0.8))
        draw.rectangle([x, base - tall, x + broad, base], fill=_rgb(colour))
        draw.rectangle([x, base - tall, x + 0.3 * broad, base], fill=_rgb(0.8 * colour))
    return np.asarray(picture)
