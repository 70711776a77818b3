"""From a full image and a square to the network's input, and the intrinsics that go with it."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hmdiff.errors import UserError

# A JPEG is decoded at least this many times larger than the crop, so that the filter below, not
# the decoder's blocks, decides what the crop looks like (Pillow's advice for its `reducing_gap`).
GAP = 2.0
LARGEST = 10.0  # times the longer side of the image: a square beyond it is a damaged annotation
# What Pillow raises of a damaged image.
_UNDECODABLE = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, OverflowError, MemoryError,
    Image.DecompressionBombError,
)  # fmt: skip


class UnreadableImage(UserError):
    """An image that is missing or does not decode; a few of them may be left out."""


@dataclass(frozen=True)
class Square:
    """An axis-aligned square in an image; continuous pixels."""

    left: float
    top: float
    side: float


def square_about(box: np.ndarray, scale: float) -> Square:
    """The square about the centre of ``box`` (x, y, w, h), ``scale`` times its longer side."""
    x, y, width, height = (float(value) for value in box)
    side = scale * max(width, height)
    return Square(x + width / 2 - side / 2, y + height / 2 - side / 2, side)


def central_square(frame: float, side: float) -> Square:
    """The square of ``side`` pixels in the middle of a square image of ``frame`` pixels."""
    return Square((frame - side) / 2, (frame - side) / 2, side)


def crop_camera(camera: np.ndarray, square: Square, size: int) -> np.ndarray:
    """Intrinsics (3, 3) of the crop of ``square`` resized to ``size`` x ``size`` pixels.

    With continuous pixels, whose first centre is at 0.5, the crop is u' = (u - left) size / side,
    without the half pixels that integer centres would need.
    """
    scale = size / square.side
    change = np.array(
        [[scale, 0, -square.left * scale], [0, scale, -square.top * scale], [0, 0, 1.0]]
    )
    return change @ camera


def crop_image(path: Path, square: Square, size: int) -> Image.Image:
    """Cut ``square`` out of the image at ``path`` and resize it; black beyond the border.

    The filter is a triangle as wide as the reduction, so that nothing aliases. A JPEG that is
    much reduced is decoded at a half, a quarter or an eighth in the first place.

    Raises:
        UnreadableImage: the image is missing or cannot be decoded.
        UserError: the square is empty, not finite or far larger than the image.
    """
    if not (math.isfinite(square.left + square.top + square.side) and square.side > 0):
        raise UserError(f"{path}: its box is empty or not finite; put back the annotations")
    try:
        with Image.open(path) as image:
            width = image.width
            if max(square.side, abs(square.left), abs(square.top)) > LARGEST * max(image.size):
                raise UserError(
                    f"{path}: its box is far too large or far away; put back the annotations"
                )
            reduction = max(1, min(math.floor(square.side / size / GAP), *image.size))
            image.draft("RGB", (image.width // reduction, image.height // reduction))
            # JPEG decodes at 1/2, 1/4 or 1/8 exactly; only the last block is rounded up.
            factor = round(width / image.width)
            return cut(image.convert("RGB"), square, factor, size)
    except FileNotFoundError:
        raise UnreadableImage(f"{path}: no such image; put it back or run acquire again") from None
    except _UNDECODABLE as error:
        raise UnreadableImage(f"{path}: not a readable image ({error}); put it back") from None


def cut(image: Image.Image, square: Square, factor: int, size: int) -> Image.Image:
    """The crop of ``image``; ``square`` is in pixels of one ``factor`` times larger."""
    left, top, side = square.left / factor, square.top / factor, square.side / factor
    # Whole pixels about the square first: crop() fills what lies outside with black.
    x, y = math.floor(left), math.floor(top)
    around = image.crop((x, y, math.ceil(left + side), math.ceil(top + side)))
    box = (left - x, top - y, left - x + side, top - y + side)
    return around.resize((size, size), Image.Resampling.BILINEAR, box=box)


def encode_jpeg(image: Image.Image, quality: int, chroma: str) -> bytes:
    """JPEG bytes; ``chroma`` is the subsampling, such as ``4:4:4``."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=chroma)
    return buffer.getvalue()
