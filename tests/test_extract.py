"""Unpacking: regular files inside one folder, and one line for whatever else an archive holds."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from archives import tarred, zipped

from hmdiff.acquisition import extract as module
from hmdiff.acquisition.extract import FLOOR, unpack
from hmdiff.errors import UserError

FILES = {"a/x.json": b"[1]", "a/b c/y.jpg": b"\xff\xd8", "z.txt": b""}


def unpacked(tmp_path: Path, name: str, content: bytes) -> dict[str, bytes]:
    archive, folder = tmp_path / "with spaces" / name, tmp_path / "out" / "folder"
    archive.parent.mkdir()
    folder.mkdir(parents=True)
    archive.write_bytes(content)
    unpack(archive, folder)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refuse(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    """Unpacking fails in one line and has written nothing outside its folder."""
    with pytest.raises(UserError, match=reason) as caught:
        unpacked(tmp_path, name, content)
    assert "\n" not in str(caught.value) and name in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["out", "with spaces"]
    assert os.listdir(tmp_path / "out") == ["folder"]
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(("name", "make"), [("set.zip", zipped), ("set.tar.gz", tarred)])
def test_files_come_back_and_the_junk_of_macos_does_not(tmp_path, name, make):
    assert unpacked(tmp_path, name, make(FILES | {"__MACOSX/a/x.json": b"junk"})) == FILES


@pytest.mark.parametrize(("name", "make"), [("set.zip", zipped), ("set.tar.gz", tarred)])
@pytest.mark.parametrize("path", ["../evil", "/tmp/evil", "a/../../evil", "a\\..\\evil"])
def test_a_member_that_leads_out_of_the_folder_is_refused(tmp_path, name, make, path):
    refuse(tmp_path, name, make({"fine": b"x", path: b"evil"}), "leads out of the folder")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    member = tarfile.TarInfo("a/link")
    member.type, member.linkname = kind, "/etc/passwd"
    refuse(tmp_path, "set.tar.gz", tarred(FILES, member), "'a/link' is a link or a device")


def test_a_tar_that_claims_an_endless_file_with_holes_is_refused_at_once(tmp_path):
    member = tarfile.TarInfo("a/holes")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 8**11 - 1  # in the archive; 0 unpacked
    refuse(tmp_path, "set.tar.gz", tarred(FILES, member), "'a/holes' has holes")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, mode):
    stream = io.BytesIO(zipped(FILES))
    with zipfile.ZipFile(stream, "a") as file:
        member = zipfile.ZipInfo("a/link")
        member.create_system, member.external_attr = 3, (mode | 0o777) << 16
        file.writestr(member, "/etc/passwd")
    refuse(tmp_path, "set.zip", stream.getvalue(), "'a/link' is a link or a device")


@pytest.mark.parametrize(("name", "make"), [("set.zip", zipped), ("set.tar.gz", tarred)])
def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path, name, make):
    bomb = make({"zeros": bytes(FLOOR + 1)})
    assert len(bomb) < FLOOR / 100
    refuse(tmp_path, name, bomb, "no honest archive of its size")
    assert not (tmp_path / "out/folder/zeros").exists()


@pytest.mark.parametrize(("name", "make"), [("set.zip", zipped), ("set.tar.gz", tarred)])
def test_too_many_members_are_refused(tmp_path, name, make, monkeypatch):
    monkeypatch.setattr(module, "MEMBERS", 2)
    refuse(tmp_path, name, make(FILES), "no honest archive")


@pytest.mark.parametrize(("name", "make"), [("set.zip", zipped), ("set.tar.gz", tarred)])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_truncated_archive_is_one_line(tmp_path, name, make, kept):
    content = make({"noise": os.urandom(100_000)})
    refuse(tmp_path, name, content[: int(kept * len(content))], "cut or damaged .*fetch it again")


@pytest.mark.parametrize(("name", "make"), [("set.zip", zipped), ("set.tar.gz", tarred)])
def test_a_damaged_archive_is_one_line(tmp_path, name, make):
    content = bytearray(make({"noise": os.urandom(100_000)}))
    content[50_000] ^= 0x10
    refuse(tmp_path, name, bytes(content), "cut or damaged")


def test_a_damaged_checksum_at_the_very_end_of_a_tar_is_noticed(tmp_path):
    content = bytearray(tarred(FILES))
    content[-8] ^= 1
    refuse(tmp_path, "set.tar.gz", bytes(content), "cut or damaged")


def test_an_encrypted_zip_is_one_line(tmp_path):
    content = bytearray(zipped({"x": b"secret"}))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    refuse(tmp_path, "set.zip", bytes(content), "'x' is encrypted")


def test_a_zip_that_names_a_place_before_its_start_is_one_line(tmp_path):
    refuse(tmp_path, "set.zip", zipped(FILES)[20:], "cut or damaged")


@pytest.mark.parametrize(("name", "make"), [("set.zip", zipped), ("set.tar.gz", tarred)])
def test_a_name_that_no_disk_takes_is_one_line(tmp_path, name, make):
    refuse(tmp_path, name, make({"n" * 300: b"x"}), "cut or damaged .*name too long")


@pytest.mark.parametrize(
    "told", [{"GNU.sparse.map": "0,x"}, {"GNU.sparse.major": "1"}, {"size": "nan"}]
)
def test_a_tar_that_tells_nonsense_of_a_member_is_one_line(tmp_path, told):
    member = tarfile.TarInfo("a")
    member.pax_headers = told
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", format=tarfile.PAX_FORMAT) as file:
        file.addfile(member)
    archive = tmp_path / "set.tar.gz"
    archive.write_bytes(stream.getvalue())
    (tmp_path / "out").mkdir()
    try:  # what Python's own reader makes of it, or one line
        unpack(archive, tmp_path / "out")
    except UserError as error:
        assert "cut or damaged" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(("name", "make"), [("set.zip", zipped), ("set.tar.gz", tarred)])
def test_a_file_that_is_also_a_folder_is_one_line(tmp_path, name, make):
    refuse(tmp_path, name, make({"a": b"file", "a/b": b"below it"}), "cut or damaged")


def test_a_disk_that_is_too_small_is_said_first(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 9, 0))
    with pytest.raises(UserError, match=r"GB unpacked and 0\.0 GB free; make room"):
        unpacked(tmp_path, "set.zip", zipped(FILES))
    assert list((tmp_path / "out/folder").iterdir()) == []
