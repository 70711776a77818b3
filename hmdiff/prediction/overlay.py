"""The mesh drawn over the full picture, coloured by how much the samples disagree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from hmdiff.figures.drawing import draw_mesh
from hmdiff.prediction.recovery import Recovery

COLOURS = "viridis"
LEAST_RANGE = 1.0  # millimetres; less is one colour, not a rainbow of rounding errors
OPACITY = 0.85
CELL = 256  # pixels, of a contact sheet
COLUMNS, ROWS = 6, 8


def colour_range(spread: NDArray) -> float:
    """The spread, mm, that gets the last colour: the 99th percentile, so that no tip sets it."""
    return max(float(np.percentile(spread, 99)), LEAST_RANGE)


def spread_colours(spread: NDArray) -> NDArray:
    """(V,) millimetres -> (V, 3) uint8 RGB; 0 is the first colour of viridis."""
    return (255 * colormaps[COLOURS](spread / colour_range(spread))[:, :3]).round().astype(np.uint8)


def draw_overlay(recovery: Recovery, picture: Image.Image) -> Image.Image:
    """The picture at its own size with the mesh over it, and a colour bar in a corner."""
    background = np.asarray(picture)
    drawn = draw_mesh(
        recovery.vertices + recovery.translation,
        recovery.faces,
        spread_colours(recovery.spread) / 255,
        recovery.camera,
        background,
    )
    seen = (drawn != background).any(-1)  # the smooth edges too
    drawn[seen] = (OPACITY * drawn[seen] + (1 - OPACITY) * background[seen]).round()
    image = Image.fromarray(drawn)
    _colour_bar(image, colour_range(recovery.spread), len(recovery.samples))
    return image


def _colour_bar(image: Image.Image, top: float, samples: int) -> None:
    """Draw the scale into the lower right corner, in proportion to the picture."""
    size = max(9, min(image.size) // 36)
    font = ImageFont.load_default(size)
    lines = [f"{top:.1f} mm", "0", f"spread of {samples}"]
    draw = ImageDraw.Draw(image, "RGBA")
    height, gap = 6 * size, size // 2
    indents = (size + gap, size + gap, 0)  # the first two stand beside the bar
    widths = [draw.textlength(line, font) for line in lines]
    text = max(a + b for a, b in zip(widths, indents, strict=True))
    width = math.ceil(text) + 2 * gap
    left, upper = image.width - width - gap, image.height - height - 2 * size - 3 * gap
    draw.rectangle((left, upper, image.width - gap, image.height - gap), fill=(0, 0, 0, 150))
    ramp = (255 * colormaps[COLOURS](np.linspace(1, 0, height))[:, None, :3]).astype(np.uint8)
    image.paste(Image.fromarray(np.repeat(ramp, size, axis=1)), (left + gap, upper + gap))
    beside = left + 2 * gap + size
    draw.text((beside, upper + gap), lines[0], "white", font)
    draw.text((beside, upper + gap + height), lines[1], "white", font, anchor="ls")
    draw.text((left + gap, image.height - 2 * gap), lines[2], "white", font, anchor="ls")


def contact_sheets(pictures: Sequence[tuple[str, Image.Image]]) -> list[Image.Image]:
    """Sheets of at most 6 x 8 small pictures with their names below them."""
    font = ImageFont.load_default(13)
    sheets = []
    for first in range(0, len(pictures), COLUMNS * ROWS):
        part = pictures[first : first + COLUMNS * ROWS]
        columns = min(COLUMNS, len(part))
        rows = math.ceil(len(part) / columns)
        sheet = Image.new("RGB", (columns * CELL, rows * (CELL + 20)), "white")
        draw = ImageDraw.Draw(sheet)
        for cell, (name, picture) in enumerate(part):
            x, y = cell % columns * CELL, cell // columns * (CELL + 20)
            sheet.paste(
                picture, (x + (CELL - picture.width) // 2, y + (CELL - picture.height) // 2)
            )
            label = name if len(name) <= 36 else f"…{name[-35:]}"
            draw.text((x + CELL / 2, y + CELL + 15), label, "black", font, anchor="ms")
        sheets.append(sheet)
    return sheets


def thumbnail(overlay: Image.Image, crop: NDArray) -> Image.Image:
    """What the network saw of an overlay, (left, top, side), as large as a contact sheet's cell."""
    left, top, side = crop
    right, bottom = min(left + side, overlay.width), min(top + side, overlay.height)
    small = overlay.crop((max(0, int(left)), max(0, int(top)), math.ceil(right), math.ceil(bottom)))
    return ImageOps.contain(small, (CELL - 4, CELL - 4))
