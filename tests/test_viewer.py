"""The page of a prediction: everything in one file, and it draws in a browser."""

from __future__ import annotations

import base64
import html
import os
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from toy_project import make_picture, write_project

import hmdiff
from hmdiff.prediction.viewer import page_data, viewer_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="module")
def recovery(tmp_path_factory):
    project = write_project(tmp_path_factory.mktemp("project"))
    return hmdiff.load(project / "models/train/hand").predict(make_picture())


@pytest.fixture(scope="module")
def page(recovery) -> str:
    return viewer_page(recovery, make_picture(), "<b>photo & co</b>")


def unpack(packed: dict, vertices: int) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(packed["values"]), "<i2")
    return packed["scale"] * values.reshape(packed["count"], vertices, 3)


def test_the_page_holds_every_mesh_to_a_thirtieth_of_a_millimetre(recovery):
    data = page_data(recovery)
    found = {
        "mean": (recovery.vertices[None], 778),
        "samples": (recovery.samples, 778),
        "h0_hat": (recovery.trace.h0_hat, 195),
    }
    for name, (wanted, count) in found.items():
        assert np.abs(unpack(data[name], count) - wanted).max() < 3.3e-5, name
    faces = np.frombuffer(base64.b64decode(data["faces"]), "<u2").reshape(-1, 3)
    assert np.array_equal(faces, recovery.faces)
    assert data["k"] == recovery.trace.k.tolist() and data["ratio"][0] == pytest.approx(1)


def test_the_page_is_self_contained_and_escapes_names(page):
    assert "<b>photo" not in page and "&lt;b&gt;photo &amp; co" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page.split("<script>")[0])
    assert "default-src 'none'" in page
    assert "SPDX-License-Identifier: MIT" in page  # three.js keeps its notice
    assert len(page) < 3e6


def test_names_and_settings_are_no_markup(recovery):
    evil = "<img src=x onerror=alert(1)><script>alert(1)</script>"
    settings = {name: evil for name in recovery.settings}
    page = viewer_page(replace(recovery, settings=settings), make_picture(), evil)
    plain = viewer_page(recovery, make_picture(), "photo")
    assert evil not in page and html.escape(evil) in page
    assert page.count("<script") == plain.count("<script")
    assert page.count("<img") == plain.count("<img")


def browse(path, tmp_path, *arguments: str) -> subprocess.CompletedProcess:
    command = [
        CHROMIUM, "--headless", "--disable-gpu", "--enable-unsafe-swiftshader", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=900,600",
        "--virtual-time-budget=1000", *arguments, path,
    ]  # fmt: skip
    if os.geteuid() == 0:
        command.insert(1, "--no-sandbox")
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("#view=sample&sample=2", "sample"),
        ("#view=h_k&step=1", "h_k"),
    ],
)
def test_a_browser_draws_each_view(page, tmp_path, place, shown):
    path = tmp_path / "viewer.html"
    path.write_text(page, encoding="utf-8")
    picture = tmp_path / "shot.png"
    browse(f"file://{path}{place}", tmp_path, f"--screenshot={picture}")
    stage = np.asarray(Image.open(picture).convert("RGB"))[:, :500].astype(int)
    drawn = np.abs(stage - stage[2, 2]).sum(-1) > 30
    assert 0.005 < drawn.mean() < 0.95
    assert not drawn[4].any() and not drawn[-5].any() and not drawn[:, 4].any()  # all in the frame
    # Colours of the spread on full meshes; the coarse ones of the process are plain.
    saturation = (stage.max(-1) - stage.min(-1))[drawn]
    assert (np.percentile(saturation, 75) > 60) == (shown == "sample")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
def test_the_page_says_what_it_shows(page, tmp_path):
    path = tmp_path / "viewer.html"
    path.write_text(page, encoding="utf-8")
    found = browse(f"file://{path}#view=h_k&step=2", tmp_path, "--dump-dom").stdout
    assert 'data-shown="h_k"' in found and "data-failed" not in found
    assert re.search(r"step 2 of 3, k = \d+, R = ", found)


# Frames by the page's own clock, which --virtual-time-budget turns, however busy the machine is.
CLOCK = "<head><script>window.requestAnimationFrame = (draw) => setTimeout(draw, 16);</script>"
DRAG = """<script>
const canvas = document.querySelector("canvas"), before = canvas.toDataURL();
canvas.setPointerCapture = canvas.releasePointerCapture = () => {};  // there is no real pointer
function send(type, x) {
  canvas.dispatchEvent(new PointerEvent(type, { pointerId: 1, pointerType: "mouse", button: 0,
    clientX: x, clientY: 80, bubbles: true }));
}
setTimeout(() => { document.body.dataset.still = canvas.toDataURL() === before; }, 200);
setTimeout(() => { send("pointerdown", 200); send("pointermove", 400); }, 300);
setTimeout(() => { document.body.dataset.turned = canvas.toDataURL() !== before; }, 600);
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
def test_dragging_turns_the_mesh(page, tmp_path):
    path = tmp_path / "viewer.html"
    path.write_text(page.replace("<head>", CLOCK).replace("</body>", DRAG), encoding="utf-8")
    found = browse(f"file://{path}", tmp_path, "--dump-dom", "--window-size=720,160").stdout
    assert 'data-still="true"' in found and 'data-turned="true"' in found
