"""Pictures to predict on: files, folders and videos, with the boxes of the persons in them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from hmdiff.errors import UserError
from hmdiff.files import sha256
from hmdiff.prediction.output import RECORD, SHEET

IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"}

Box = Sequence[float]
"""x, y, width, height in pixels, tight about the person."""


@dataclass(frozen=True)
class Source:
    """A file on the command line, or one found in a folder there.

    ``name`` is its path below that folder without the suffix; outputs are named by it.
    """

    path: Path
    name: str

    @property
    def video(self) -> bool:
        return self.path.suffix.lower() in VIDEOS


@dataclass(frozen=True)
class Picture:
    """An image, or a frame of a video; decoded when ``read`` is called."""

    name: str
    digest: str  # of the file, and the number of the frame
    read: Callable[[], Image.Image]


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """Files as they are given; of a folder, all images and videos below it, by name.

    What is hidden, or what an earlier run wrote there, is left out.

    Raises:
        UserError: a path does not exist, a folder holds none, or two outputs would share a folder.
    """
    sources: list[Source] = []
    for path in paths:
        if path.is_dir():
            files = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in IMAGES | VIDEOS
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
                and not _is_output(file)
            )
            if not files:
                raise UserError(f"{path}: no image or video in it; name a folder that has some")
            sources += [
                Source(file, file.relative_to(path).with_suffix("").as_posix()) for file in files
            ]
        elif path.exists():
            sources.append(Source(path, path.stem))
        else:
            raise UserError(f"{path}: no such file or folder; name an existing one")
    seen: dict[str, Path] = {}
    for source in sorted(sources, key=lambda source: len(Path(source.name).parts)):
        # An output is one folder: neither twice, nor inside that of another picture.
        for name in (source.name, *map(str, Path(source.name).parents)):
            if name in seen:
                raise UserError(
                    f"{source.path}: its outputs would overwrite those of {seen[name]}; rename "
                    "one, or run them apart with another --out"
                )
        seen[source.name] = source.path
    return sources


def _is_output(file: Path) -> bool:
    """Whether it lies in a person's folder of some run, or is the contact sheet beside those."""
    sheet = re.fullmatch(SHEET.format(r"(_\d+)?"), file.name)
    return (file.parent / RECORD).exists() or bool(sheet and any(file.parent.rglob(RECORD)))


def count_pictures(source: Source, every: int) -> int:
    """Pictures that :func:`pictures` will yield; for a video as its header has it."""
    if not source.video:
        return 1
    library, capture = _open_video(source.path)
    return max(1, math.ceil(capture.get(library.CAP_PROP_FRAME_COUNT) / every))


def pictures(source: Source, every: int) -> Iterator[Picture]:
    """The image, or every ``every``-th frame of the video, ``NAME/000000`` and so on."""
    digest = sha256(source.path)
    if not source.video:
        yield Picture(source.name, digest, lambda: as_picture(source.path))
        return
    _, capture = _open_video(source.path)
    number = 0
    while capture.grab():
        if number % every == 0:
            done, frame = capture.retrieve()
            if not done:
                break
            image = Image.fromarray(np.ascontiguousarray(frame[..., ::-1]))  # it gives BGR
            name = f"{source.name}/{number:06d}"
            yield Picture(name, f"{digest}#{number}", lambda image=image: image)
        number += 1
    if number == 0:
        raise UserError(f"{source.path}: no frame can be decoded; extract its frames as images")


def _open_video(path: Path) -> tuple[Any, Any]:
    try:
        import cv2
    except ImportError:
        raise UserError(
            f"{path}: videos need another package; run `pip install opencv-python-headless`, or "
            "extract its frames as images"
        ) from None
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise UserError(f"{path}: not a readable video; extract its frames as images")
    return cv2, capture


def as_picture(image: str | Path | Image.Image | NDArray) -> Image.Image:
    """An upright RGB image of a file, a PIL image or an (h, w, 3) uint8 RGB array.

    Raises:
        UserError: the file is missing or no image, or the array has another shape or type.
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise UserError(
                f"image: an array of shape {image.shape} and type {image.dtype}; give (h, w, 3) "
                "uint8 RGB"
            )
        return Image.fromarray(image)
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    try:
        with Image.open(image) as opened:
            # A phone stores the sensor's picture, and beside it how it was held.
            return ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{image}: no such image; name an existing one") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{image}: not a readable image ({reason}); replace it") from None
    except Image.DecompressionBombError:
        raise UserError(f"{image}: has too many pixels to be a photograph; reduce it") from None


def check_box(box: Box, size: tuple[int, int]) -> None:
    """Refuse a box that no person can be in.

    Raises:
        UserError: it is empty, not finite, outside the picture or far larger than it.
    """
    x, y, width, height = box
    text = ",".join(f"{value:g}" for value in box)
    if not (all(map(math.isfinite, box)) and width >= 2 and height >= 2):
        raise UserError(f"box {text}: not x,y,width,height of at least 2 pixels; mend it")
    if x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
        raise UserError(f"box {text}: outside the picture of {size[0]} x {size[1]}; mend it")
    if max(width, height) > 4 * max(size):
        raise UserError(f"box {text}: far larger than the picture; mend it")


def parse_box(text: str) -> Box:
    """``x,y,w,h`` of the command line."""
    try:
        box = [float(value) for value in text.split(",")]
    except ValueError:
        box = []
    if len(box) != 4:
        raise UserError(f"--bbox {text}: not four numbers x,y,width,height; mend it")
    return box


def read_detections(path: Path) -> Mapping[str, list[Box]]:
    """Boxes by picture: ``{"NAME": [[x, y, w, h], ...]}`` or a COCO-like list of detections.

    In the list every entry has ``file_name`` and ``bbox``. A picture's name is its path below the
    folder that was given, or its file name; of a video's frame ``NAME/000012``. A suffix may be
    left out. An empty list says that nobody is in the picture.

    Raises:
        UserError: the file is missing or is neither.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; name the detections") from None
    except (ValueError, RecursionError) as error:  # of no JSON, no text, or thousands of brackets
        raise UserError(f"{path}: not valid JSON ({error}); mend it") from None
    boxes: dict[str, list[Box]] = {}
    try:
        if isinstance(found, list):
            pairs = [(entry["file_name"], [entry["bbox"]]) for entry in found]
        else:
            pairs = list(found.items())
        for name, several in pairs:
            boxes_here = boxes.setdefault(_key(str(name)), [])
            for box in several:
                x, y, width, height = (float(value) for value in box)
                boxes_here.append((x, y, width, height))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise UserError(
            f'{path}: neither {{"a.jpg": [[x, y, width, height], ...]}} nor a list of '
            '{"file_name": ..., "bbox": [x, y, width, height]}; mend it'
        ) from None
    return boxes


def boxes_of(picture: Picture, detections: Mapping[str, list[Box]]) -> list[Box] | None:
    """The boxes of one picture; None if the detections do not name it."""
    return detections.get(picture.name, detections.get(Path(picture.name).name))


def _key(name: str) -> str:
    path = Path(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in IMAGES else path.as_posix()
