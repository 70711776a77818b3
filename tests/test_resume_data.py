"""A rendering or a preparation that was killed goes on, and ends with the bytes of one that was
not."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_bodies import write_toy_model
from toy_layouts import WILD

from hmdiff.checkpoints import files, parts
from hmdiff.datasets import preparation
from hmdiff.datasets.registry import LAYOUTS
from hmdiff.kinds import KINDS
from hmdiff.params import Params, load_params
from hmdiff.params.data import WildStandIn
from hmdiff.params.runs import CheckpointParams
from hmdiff.stages import acquire, prepare

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
KILLED = -9


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in KINDS.values():
        write_toy_model(folder / kind.name, kind)
    return folder


def small(folder: Path, **changes) -> Params:
    """Twelve small images of each layout, and what is kept of an unfinished stage in ``folder``."""
    sizes = {"train": 8, "val": 2, "test": 2, "frame": 64, "frames": 2, "workers": 1} | changes
    made = {
        name: item.model_copy(update={k: v for k, v in sizes.items() if hasattr(item, k)})
        for name, item in PARAMS.standins.items()
    }
    made |= {
        name: WildStandIn(layout=name, train=5, frame=64, yaw=60, pairs=0.5, workers=1)
        for name in WILD
    }
    hands = PARAMS.datasets["freihand"].model_copy(update={"held_out": 2})
    return PARAMS.model_copy(
        update={
            "standins": made,
            "datasets": {**PARAMS.datasets, **WILD, "freihand": hands},
            "checkpoint": CheckpointParams(seconds=0, folder=folder / "checkpoints"),
        }
    )


def in_a_process(log: Path, work: Callable[[], None]) -> int:
    """The exit code of ``work`` in a process that may be killed; what it says goes to ``log``."""

    def run() -> None:
        with open(log, "w", buffering=1) as file, contextlib.redirect_stderr(file):
            work()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    return process.exitcode


def dying(function: Callable, after: int) -> Callable:
    """``function``, which kills its process when it is called for the ``after``-th time."""
    left = after

    def call(*args, **options):
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def render(layout: str, models: Path, folder: Path, fault: str = "", **changes) -> int:
    """Exit code of acquire. It is killed at the N-th occasion of ``fault`` (``WHAT:N``): before an
    image is written, a finished job is written down or renamed, or a file is brought to its place.
    """
    params = small(folder, **changes)
    what, _, number = fault.partition(":")
    module = sys.modules[LAYOUTS[layout].render.__module__]
    owner, name = {
        "": (os, "replace"),
        "image": (module, "save_frame"),
        "record": (parts, "write_state"),
        "rename": (os, "replace"),
        "gather": (parts, "link_or_copy"),
    }[what]

    def work() -> None:
        setattr(owner, name, dying(getattr(owner, name), int(number or 0)))
        body = models / params.datasets[layout].kind
        acquire.run(layout, body, folder / "none", folder / "raw", params)

    return in_a_process(folder / "log", work)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_rendering_that_was_killed_goes_on_to_the_same_bytes(tmp_path, models, layout):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    assert render(layout, models, whole) == 0
    # The rest is the same for all layouts. Of the hands, the first part has eight images.
    more = ["image:9", "record:1", "rename:2"] if layout == "freihand" else []
    faults = ["image:2", *more, "gather:2"]
    for fault in faults:
        assert render(layout, models, killed, fault) == KILLED, (killed / "log").read_text()
        assert not (killed / "raw").exists()
    assert render(layout, models, killed) == 0, (killed / "log").read_text()
    assert "goes on; " in (killed / "log").read_text()
    assert contents(killed / "raw") == contents(whole / "raw")
    assert sorted(path.name for path in killed.iterdir()) == ["checkpoints", "log", "raw"]
    assert list((killed / "checkpoints").iterdir()) == []


def test_parts_of_other_settings_are_discarded(tmp_path, models):
    assert render("freihand", models, tmp_path, "gather:1", yaw=30) == KILLED
    assert render("freihand", models, tmp_path) == 0
    said = (tmp_path / "log").read_text()
    assert "parts are damaged, or of other settings" in said and "goes on" not in said
    (tmp_path / "fresh").mkdir()
    assert render("freihand", models, tmp_path / "fresh") == 0
    assert contents(tmp_path / "raw") == contents(tmp_path / "fresh/raw")


def test_the_number_of_workers_is_no_other_setting(tmp_path, models):
    assert render("freihand", models, tmp_path, "gather:1") == KILLED
    assert render("freihand", models, tmp_path, workers=2) == 0
    assert "goes on; 3 of 3 parts are there" in (tmp_path / "log").read_text()


def test_a_part_that_the_disk_has_lost_is_made_anew(tmp_path, models):
    (tmp_path / "whole").mkdir()
    assert render("freihand", models, tmp_path / "whole") == 0
    assert render("freihand", models, tmp_path, "gather:1") == KILLED
    images = sorted((tmp_path / "checkpoints").rglob("*.jpg"))
    os.truncate(images[0], 100)
    images[-1].unlink()
    record = next((tmp_path / "checkpoints/acquire@freihand/000001").glob("record.pt"))
    os.truncate(record, record.stat().st_size - 1)
    assert render("freihand", models, tmp_path) == 0
    assert "goes on; 2 of 3 parts are there" in (tmp_path / "log").read_text()
    assert contents(tmp_path / "raw") == contents(tmp_path / "whole/raw")


# Preparation -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw(models, tmp_path_factory) -> Path:
    """Twelve hands, one of which does not decode."""
    folder = tmp_path_factory.mktemp("raw")
    assert render("freihand", models, folder) == 0
    lost = sorted((folder / "raw").rglob("*.jpg"))[5]
    lost.write_bytes(lost.read_bytes()[:200])
    return folder / "raw"


def prepared(models: Path, raw: Path, folder: Path, fault: str = "", **changes) -> int:
    """Exit code of prepare; see :func:`render`. Batches of two, each of which is stored."""
    what, _, number = fault.partition(":")
    owner, name = {
        "": (os, "replace"),
        "crop": (preparation, "crop_image"),
        "store": (files, "write_state"),
        "rename": (os, "replace"),
    }[what]
    lenient = PARAMS.prepare.model_copy(update={"skip_limit": 0.5, "size": 32} | changes)
    params = small(folder).model_copy(update={"prepare": lenient})

    def work() -> None:
        preparation.BATCH = 2
        setattr(owner, name, dying(getattr(owner, name), int(number or 0)))
        prepare.run("freihand", raw, models / "hand", folder / "out/hands.h5", params)

    return in_a_process(folder / "log", work)


@pytest.fixture(scope="module")
def whole(models, raw, tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    assert prepared(models, raw, folder) == 0, (folder / "log").read_text()
    return (folder / "out/hands.h5").read_bytes()


def test_a_preparation_that_was_killed_goes_on_to_the_same_bytes(tmp_path, models, raw, whole):
    for fault in ("crop:3", "crop:5", "store:2", "rename:1", "crop:1"):
        assert prepared(models, raw, tmp_path, fault, workers=1) == KILLED
        assert not (tmp_path / "out/hands.h5").exists()
    assert prepared(models, raw, tmp_path) == 0
    assert "prepare@freihand: goes on after block " in (tmp_path / "log").read_text()
    assert (tmp_path / "out/hands.h5").read_bytes() == whole
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["hands.h5"]
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_crops_of_other_settings_are_discarded(tmp_path, models, raw, whole):
    assert prepared(models, raw, tmp_path, "crop:9", quality=50) == KILLED
    assert prepared(models, raw, tmp_path) == 0
    assert "of other settings, inputs or code" in (tmp_path / "log").read_text()
    assert (tmp_path / "out/hands.h5").read_bytes() == whole


def test_crops_of_other_images_are_discarded(tmp_path, models, raw):
    copy = shutil.copytree(raw, tmp_path / "raw")
    assert prepared(models, copy, tmp_path, "crop:9") == KILLED
    first, second, *_ = sorted(copy.rglob("*.jpg"))
    shutil.copy(second, first)
    assert prepared(models, copy, tmp_path) == 0
    assert "of other settings, inputs or code" in (tmp_path / "log").read_text()
