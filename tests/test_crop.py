"""Crops of images, and images that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hmdiff.datasets.camera import intrinsics, project
from hmdiff.datasets.crop import Square, crop_camera, crop_image, square_about
from hmdiff.errors import UserError
from hmdiff.params import load_params

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
PIXEL = 0.5


def _centre_of_light(image: Image.Image) -> np.ndarray:
    """Continuous pixel position of the brightness' centre."""
    light = np.asarray(image.convert("L"), float)
    y, x = np.indices(light.shape) + 0.5
    return np.array([(x * light).sum(), (y * light).sum()]) / light.sum()


@settings(max_examples=25, deadline=None)
@given(
    point=st.tuples(st.floats(200, 430), st.floats(200, 430)),
    offset=st.tuples(st.floats(-0.25, 0.25), st.floats(-0.25, 0.25)),
    side=st.floats(150, 1400),
    size=st.sampled_from([56, 112, 224]),
)
def test_a_crop_shows_a_point_where_its_camera_projects_it(
    tmp_path_factory, point, offset, side, size
):
    # A soft blob in a frame of odd size, so that a reduced decoding has a rest.
    y, x = np.indices((641, 643)) + 0.5
    blob = 255 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * (side / 30) ** 2))
    path = tmp_path_factory.mktemp("blob") / "image.jpg"
    Image.fromarray(blob.astype(np.uint8)).convert("RGB").save(path, quality=98)
    left, top = (p - side * (0.5 + o) for p, o in zip(point, offset, strict=True))
    square = Square(left, top, side)
    camera = crop_camera(intrinsics(500.0, (321.5, 320.5)), square, size)
    ray = np.array([[(point[0] - 321.5) / 500, (point[1] - 320.5) / 500, 1.0]])
    seen = _centre_of_light(crop_image(path, square, size))
    assert np.abs(seen - project(ray * 3, camera)[0]).max() < PIXEL


def test_beyond_the_border_a_crop_is_black(tmp_path):
    path = tmp_path / "white.png"
    Image.new("RGB", (100, 80), "white").save(path)
    crop = np.asarray(crop_image(path, Square(-50, 0, 100), 100))
    assert crop[10:70, 55:95].min() == 255
    assert crop[:, :49].max() == 0 and crop[82:].max() == 0


def test_the_3dpw_crop_is_the_published_one():
    square = square_about(np.array([100.0, 50, 40, 100]), PARAMS.datasets["3dpw"].crop)
    assert (square.left + square.side / 2, square.top + square.side / 2) == (120, 100)
    assert square.side == pytest.approx(1.2 * 1.2 * 100)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xd8\xff\xe0 no image"])
def test_an_image_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "lost.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"lost\.jpg"):
        crop_image(path, Square(0, 0, 10), 10)


@pytest.mark.parametrize(
    "square",
    [Square(0, 0, 0), Square(0, 0, -5), Square(np.nan, 0, 9), Square(0, 0, np.inf),
     Square(0, 0, 1e9)],
)  # fmt: skip
def test_a_square_that_cannot_be_cut_is_one_line_that_names_the_image(tmp_path, square):
    path = tmp_path / "frame.jpg"
    Image.new("RGB", (40, 30)).save(path)
    with pytest.raises(UserError, match=r"frame\.jpg: its box .*put back the annotations"):
        crop_image(path, square, 8)


def test_a_thin_image_in_a_large_square_is_cut(tmp_path):
    path = tmp_path / "thin.jpg"
    Image.new("RGB", (100, 1), "white").save(path)
    assert crop_image(path, Square(0, -450, 900), 56).size == (56, 56)


def test_a_cut_image_is_named_and_not_padded(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.effect_noise((200, 200), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"cut\.jpg"):
        crop_image(path, Square(0, 0, 200), 56)
