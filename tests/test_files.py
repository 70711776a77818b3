"""Atomic writes: an output is whole or not there."""

from __future__ import annotations

import stat

import pytest

from hmdiff.errors import UserError
from hmdiff.files import atomic_directory, atomic_file, read_json, sha256, write_json


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"value": 1})
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"value": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_directory_leaves_the_old_one_and_no_rubbish(tmp_path):
    path = tmp_path / "model"
    with atomic_directory(path) as temporary:
        (temporary / "weights").write_text("old")
    with pytest.raises(RuntimeError), atomic_directory(path) as temporary:
        (temporary / "weights").write_text("new")
        raise RuntimeError
    assert (path / "weights").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_write_leaves_is_not_taken_for_an_output(tmp_path):
    with atomic_file(tmp_path / "set.h5") as file, atomic_directory(tmp_path / "model") as folder:
        assert list(tmp_path.glob("*.h5")) == []
        assert {file.suffix, folder.suffix} == {".partial"}
        file.write_text("whole")
    assert (tmp_path / "set.h5").read_text() == "whole"


def test_a_directory_is_replaced_whole(tmp_path):
    path = tmp_path / "model"
    for name in ("first", "second"):
        with atomic_directory(path) as temporary:
            (temporary / name).write_text(name)
    assert [entry.name for entry in path.iterdir()] == ["second"]


def test_outputs_are_readable_as_the_umask_says(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, 1)
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_json_that_is_missing_or_broken_is_one_line(tmp_path):
    path = tmp_path / "value.json"
    for text in (None, "{", "\udcff"):
        if text is not None:
            path.write_text(text, errors="surrogateescape")
        with pytest.raises(UserError, match=r"value\.json") as caught:
            read_json(path)
        assert "\n" not in str(caught.value)


def test_nan_is_refused_in_json(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "value.json", float("nan"))
    assert not (tmp_path / "value.json").exists()


def test_sha256_of_a_known_text(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
