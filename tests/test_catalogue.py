"""The catalogue, and that what the project says elsewhere about real data agrees with it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from hmdiff.acquisition.catalogue import CUT, Archive, Entry, catalogue, expand, find, found
from hmdiff.acquisition.status import status, statuses
from hmdiff.bodies.licensed import find_licensed
from hmdiff.datasets.registry import LAYOUTS
from hmdiff.errors import UserError
from hmdiff.kinds import MODELS

ROOT = Path(__file__).resolve().parent.parent
NAMES = list(catalogue())
DATASETS, BODIES = (
    [name for name in NAMES if find(name).kind == kind] for kind in ("dataset", "model")
)


def place(folder: Path, globs: list[str]) -> None:
    """Make an empty file for each glob, the first of alternatives."""
    for glob in globs:
        path = folder / glob.split(" or ")[0].replace("*", "some")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """An empty project folder as working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_braces_are_spelled_out_and_alternatives_go_in_step():
    assert expand("a{1,2}/{x,y}.json") == ["a1/x.json", "a1/y.json", "a2/x.json", "a2/y.json"]
    assert expand("a{1,2} or b{1,2}") == ["a1 or b1", "a2 or b2"]
    assert expand("a*") == ["a*"]


def test_either_of_two_alternatives_will_do(tmp_path):
    assert not found(tmp_path, "a.json or b*.json")
    (tmp_path / "b1.json").touch()
    assert found(tmp_path, "a.json or b*.json")


def test_every_layout_and_every_model_is_in_the_catalogue():
    assert set(LAYOUTS) <= set(DATASETS)
    assert set(MODELS) == set(BODIES)


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_of_each_folder_says_what_the_catalogue_says(name):
    entry = find(name)
    text = (ROOT / "data/licensed" / name / "README.md").read_text(encoding="utf-8")
    for address in filter(None, (entry.page, entry.licence)):
        assert address in text
    assert f"hmdiff data fetch {name}" in text
    assert ("--accept-licence" in text) == (entry.access == "licence")
    for archive in entry.archives:
        assert archive.name in text
        if archive.size and archive.size > 1e8:
            assert f"about {archive.size / 1e9:.1f} GB" in text
        for glob in archive.provides:
            assert str(Path(archive.into, glob)) in text
    for part in entry.by_hand:
        for address in re.findall(r"https://\S+[^\s,)]", part.source):
            assert address in text
        for glob in (glob for file in part.files for glob in file.split(" or ")):
            assert glob in text


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_catalogue_names_a_model_file_as_its_reader_does(tmp_path, name):
    for file in find(name).required[0].split(" or "):
        (tmp_path / file).touch()
        assert find_licensed(tmp_path, MODELS[name]) == {"neutral": tmp_path / file}
        (tmp_path / file).unlink()


@pytest.mark.parametrize("name", NAMES)
def test_status_goes_from_missing_over_partial_to_present(project, name):
    home = project / "data/licensed" / name
    assert status(name).state == "missing" and status(name).todo
    required = find(name).required
    if len(required) > 1:
        place(home, required[:1])
        now = status(name)
        assert now.state == "partial" and required[1] in now.line
    place(home, required)
    assert status(name).state == "present" and not status(name).line


def test_an_unpacking_that_was_cut_is_not_present(project):
    home = project / "data/licensed/freihand"
    place(home, find("freihand").required)
    (home / CUT).write_text("FreiHAND_pub_v2.zip")
    now = status("freihand")
    assert now.state == "partial"
    assert "all of FreiHAND_pub_v2.zip (unpacking it was interrupted)" in now.line


def test_a_wrong_checksum_is_shown_once_it_was_looked_for(project):
    store = project / "data/downloads/coco"
    store.mkdir(parents=True)
    (store / "train2017.zip").write_bytes(b"PK")

    def state(verify: bool) -> str:
        return {item.name: item.state for item in statuses(verify)}["coco"]

    assert state(False) == "missing"
    assert state(True) == state(False) == "wrong checksum"
    assert "delete data/downloads/coco/train2017.zip" in status("coco").line
    assert json.dumps([dataclasses.asdict(item) for item in statuses()])


def test_what_is_partial_says_only_what_is_left_to_do(project):
    home = project / "data/licensed/coco"
    place(home, find("coco").from_archives)
    assert "fetch" not in status("coco").line and "README" in status("coco").line
    place(home, find("coco").required)
    (home / "annotations/person_keypoints_train2017.json").unlink()
    assert "fetch" in status("coco").line and "README" not in status("coco").line


def test_a_name_that_is_not_in_the_catalogue_is_one_line():
    with pytest.raises(UserError, match="agora: not in the catalogue; one of human36m, 3dpw"):
        find("agora")


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "abc"},
        {"url": "ftp://host/x.zip"},
        {"name": "../x.zip"},
        {"name": "x.rar"},
        {"size": 0},
        {"provides": []},
        {"md5": "d41d"},
    ],
)
def test_a_malformed_archive_is_refused(change):
    good = {"name": "x.zip", "url": "http://h/x.zip", "size": 1, "exact": True, "sha256": None}
    good |= {"provides": ["*"]}
    Archive(**good)
    with pytest.raises(ValidationError):
        Archive(**(good | change))


def test_an_account_and_direct_archives_exclude_each_other():
    record = find("freihand").model_dump()
    with pytest.raises(ValidationError, match="without an account"):
        Entry.model_validate(record | {"access": "account"})
