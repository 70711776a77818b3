"""Real disks that are full, and real folders that are read-only: one line, and nothing half-done.

Each command runs with a tmpfs of its own in a mount namespace, which goes away with it. Where the
system lets nobody mount, these tests are skipped.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from archives import serve, tarred, zipped
from toy_bodies import write_toy_model
from toy_layouts import WRITERS

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.kinds import HAND

ROOT = Path(__file__).parents[1]
HMDIFF = [sys.executable, "-c", "from hmdiff.cli import main; main()"]
# With one data set in the catalogue, the server's.
FETCH = [sys.executable, "-c", """
import json, os
from hmdiff.acquisition import catalogue
entry = catalogue.Entry.model_validate(json.loads(os.environ["ENTRY"]))
catalogue.catalogue = lambda: {"toy": entry}
from hmdiff.cli import main
main()
"""]  # fmt: skip


@dataclass(frozen=True)
class Ended:
    code: int
    error: str  # what it wrote to stderr
    left: list[str]  # the files on the small disk afterwards


@cache
def _namespace() -> tuple[str, ...]:
    """The command that gives a command mounts of its own, or nothing."""
    for way in (("unshare", "--mount"), ("unshare", "--map-root-user", "--mount")):
        check = [*way, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        if shutil.which("unshare") and not subprocess.run(check, capture_output=True).returncode:
            return way
    return ()


@pytest.fixture
def on_disk(tmp_path):
    """Run a command in tmp_path, where the folder "small disk" is one of so many kilobytes."""
    if not _namespace():
        pytest.skip("needs `unshare --mount` and the right to mount a tmpfs")
    (tmp_path / "small disk").mkdir()

    def run(
        command: Sequence[str | Path], size: int, read_only: bool = False, **environment: str
    ) -> Ended:
        disk = "mount -t tmpfs -o size=$SIZE tmpfs 'small disk'"
        if read_only:
            disk += " && mount -o remount,ro 'small disk'"
        listed = "find 'small disk' -type f -printf '%P\\n' >left"
        script = (
            f"{disk} || exit 99; {shlex.join(map(str, command))}; code=$?; {listed}; exit $code"
        )
        done = subprocess.run(
            [*_namespace(), "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"SIZE": f"{size}k", "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip
        assert done.returncode != 99, done.stderr
        return Ended(done.returncode, done.stderr, (tmp_path / "left").read_text().splitlines())

    return run


def is_one_line(ended: Ended, words: str) -> None:
    """The last line is the error, and no traceback comes before it (a progress bar may)."""
    lines = [line for line in ended.error.splitlines() if line.strip()]
    assert ended.code == 2, ended.error
    assert lines[-1].startswith("hmdiff: error: ") and words in lines[-1]
    assert "Traceback" not in ended.error
    assert [line for line in lines if "error" in line] == lines[-1:]


# Preparation


@pytest.fixture
def prepare(tmp_path) -> list[str | Path]:
    """The command that prepares a toy of FreiHAND to the small disk; its paths have spaces."""
    folder = write_toy_model(tmp_path / "a hand", HAND)
    WRITERS["freihand"](tmp_path / "the raw data", "freihand", BodyModel.load(folder))
    (tmp_path / "the raw data/manifest.json").write_text('{"source": "rendered"}')
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert "held_out: 100 " in text
    (tmp_path / "the params.yaml").write_text(text.replace("held_out: 100 ", "held_out: 2 "))
    return [
        *(*HMDIFF, "prepare", "freihand", "--raw", "the raw data", "--body", "a hand"),
        *("--out", "small disk/prepared/hand/freihand.h5", "--params", "the params.yaml"),
    ]


@pytest.mark.parametrize("size", [60, 1200])
def test_preparing_on_a_full_disk_leaves_nothing(on_disk, prepare, size):
    """Too small from the start, and for the first rows; HDF5 itself would end in a crash."""
    ended = on_disk(prepare, size)
    is_one_line(ended, "No space left on device")
    assert ended.left == []


def test_preparing_into_a_read_only_folder_is_one_line(on_disk, prepare):
    ended = on_disk(prepare, 10_000, read_only=True)
    is_one_line(ended, "small disk/prepared: Read-only file system")
    assert ended.left == []


def test_paths_with_spaces_are_prepared(on_disk, prepare, tmp_path):
    keep = ["sh", "-c", '"$@" && cp "small disk/prepared/hand/freihand.h5" kept.h5', "sh"]
    ended = on_disk([*keep, *prepare], 10_000)
    assert ended.code == 0 and ended.left == ["prepared/hand/freihand.h5"]
    with PreparedFile(tmp_path / "kept.h5") as file:
        assert len(file) and np.isfinite(file.array("bbox")).all()


# Fetching

FILES = {"a/x.json": b"[1]", "images/1.jpg": os.urandom(1000)}
LARGE = FILES | {f"images/{number}.jpg": bytes(100_000) for number in range(2, 12)}


def fetch(on_disk, host, name: str, room: int, read_only: bool = False, **facts) -> Ended:
    archive = host.archive(name, provides=["a/*.json", "images/*.jpg"], **facts)
    entry = {
        "title": "Toy", "kind": "dataset", "page": "http://page", "licence": "http://licence",
        "terms": "ours", "access": "direct", "archives": [archive.model_dump()], "by_hand": [],
        "citation": "nobody",
    }  # fmt: skip
    inside = ["sh", "-c", 'cd "small disk" && "$@"', "sh", *FETCH, "data", "fetch", "toy"]
    return on_disk(inside, room, read_only, ENTRY=json.dumps(entry))


def test_a_disk_that_fills_while_an_archive_comes_is_one_line(on_disk):
    """Nobody told how large it is; the part that came waits for the next try."""
    with serve(zipped({"images/1.jpg": os.urandom(400_000)})) as host:
        host.length = False
        ended = fetch(on_disk, host, "toy.zip", 200, size=None)
    is_one_line(ended, "No space left on device")
    assert "data/downloads/toy/toy.zip" not in ended.left
    assert not [name for name in ended.left if name.startswith("data/licensed")]


def test_a_disk_that_fills_while_an_archive_is_unpacked_is_one_line(on_disk):
    """A .tar.gz does not tell what it will take; it stays, what came out of it does not."""
    with serve(tarred(LARGE)) as host:
        ended = fetch(on_disk, host, "toy.tar.gz", 500)
    is_one_line(ended, "No space left on device")
    assert "data/downloads/toy/toy.tar.gz" in ended.left
    assert not [name for name in ended.left if name.startswith("data/licensed")]


def test_fetching_into_a_read_only_folder_is_one_line(on_disk):
    with serve(zipped(FILES)) as host:
        ended = fetch(on_disk, host, "toy.zip", 500, read_only=True)
        assert host.asked == []
    is_one_line(ended, "Read-only file system")
    assert ended.left == []


def test_a_disk_that_is_large_enough_takes_it(on_disk):
    with serve(tarred(FILES)) as host:
        ended = fetch(on_disk, host, "toy.tar.gz", 500)
    assert ended.code == 0, ended.error
    assert {"data/licensed/toy/a/x.json", "data/licensed/toy/images/1.jpg"} <= set(ended.left)


# Scores


def test_a_score_that_cannot_be_kept_is_one_line(on_disk, tmp_path):
    meshes = np.random.default_rng(0).normal(0, 0.1, (1, 778, 3))
    joints = meshes[:, :21]
    (tmp_path / "the truth").mkdir()
    for name, values in (("xyz", joints), ("verts", meshes)):
        path = tmp_path / "the truth" / f"evaluation_{name}.json"
        path.write_text(json.dumps(values.tolist()))
    (tmp_path / "my pred.json").write_text(json.dumps([joints.tolist(), meshes.tolist()]))
    command = [
        *(*HMDIFF, "score", "--protocol", "freihand", "--gt", "the truth", "--pred"),
        *("my pred.json", "--out", "small disk/score.json"),
    ]
    for read_only, words in ((True, "Read-only file system"), (False, "")):
        ended = on_disk(command, 100, read_only)
        if read_only:
            is_one_line(Ended(ended.code, ended.error.split("\n", 1)[-1], []), words)
            assert ended.left == []
        else:
            assert ended.code == 0 and ended.left == ["score.json"]
