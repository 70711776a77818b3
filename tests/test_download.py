"""Downloads: resumed after a cut, bounded, checked; nothing half-loaded has the file's name."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest
from archives import Host, serve

from hmdiff.acquisition import download as module
from hmdiff.acquisition.checksums import known_wrong, verify
from hmdiff.acquisition.download import CHUNK, TRIES, download
from hmdiff.errors import UserError

CONTENT = b"PK\x03\x04" + np.random.default_rng(0).bytes(3_200_000)
SOME = 15 * CHUNK  # bytes before a cut


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0)
    with serve(CONTENT) as host:
        yield host


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "a path with spaces"
    folder.mkdir()
    return folder / "set.zip"


def take(host: Host, target, **changes) -> bytes:
    """Download and see that nothing but the file is left."""
    download(host.archive(**changes), target, "http://page")
    assert os.listdir(target.parent) == ["set.zip"]
    return target.read_bytes()


def refuse(host: Host, target, reason: str, **changes) -> None:
    """The download fails in one line and nothing has the file's name."""
    with pytest.raises(UserError, match=reason) as caught:
        download(host.archive(**changes), target, "http://page")
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_a_file_is_downloaded_in_one_request(host, target):
    assert take(host, target) == CONTENT
    assert host.asked == [None]


def test_a_cut_is_resumed_where_it_happened(host, target):
    host.cuts = [20 * CHUNK + 1, 9 * CHUNK]
    assert take(host, target) == CONTENT
    assert host.asked == [None, f"bytes={20 * CHUNK}-", f"bytes={29 * CHUNK}-"]


def test_the_next_call_goes_on_where_the_last_one_gave_up(host, target):
    host.cuts = [SOME] + [0] * (TRIES - 1)
    refuse(host, target, "it goes on where it stopped")
    assert take(host, target) == CONTENT
    assert host.asked[-1] == f"bytes={SOME}-"


def test_a_date_is_enough_to_resume_and_a_weak_etag_is_not(host, target):
    host.validators = {"ETag": 'W/"one"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    host.cuts = [SOME]
    assert take(host, target) == CONTENT
    assert host.asked == [None, f"bytes={SOME}-"]
    target.unlink()
    host.validators, host.cuts = {"ETag": 'W/"one"'}, [SOME]
    assert take(host, target) == CONTENT
    assert host.asked[2:] == [None, None]


def test_a_file_that_changed_in_between_is_begun_anew(host, target):
    host.cuts = [SOME] + [0] * (TRIES - 1)
    refuse(host, target, "cut or busy")
    host.content = b"PK\x05\x06" + CONTENT[4:]
    host.validators = {"ETag": '"two"'}
    assert take(host, target) == host.content


def test_a_server_without_ranges_is_begun_anew(host, target):
    host.ranges = False
    host.cuts = [SOME]
    assert take(host, target) == CONTENT
    assert host.asked == [None, f"bytes={SOME}-"]


def test_a_range_that_cannot_be_satisfied_is_begun_anew(host, target):
    partial = target.with_name("set.zip.partial")
    download_once(host, target)
    host.statuses = [416]
    assert partial.exists()
    assert take(host, target) == CONTENT
    assert host.asked[-1] is None


def test_another_part_than_the_one_asked_for_is_not_appended(host, target):
    host.cuts, host.shifts = [SOME], [5]
    assert take(host, target) == CONTENT
    assert host.asked == [None, f"bytes={SOME}-", None]


def download_once(host: Host, target) -> None:
    """Leave a partial file behind: one cut, then nothing but cuts."""
    host.cuts = [SOME] + [0] * (TRIES - 1)
    refuse(host, target, "cut or busy")


def test_a_busy_server_is_asked_again_a_bounded_number_of_times(host, target):
    host.statuses = [503, 429]
    assert take(host, target) == CONTENT
    target.unlink()
    host.asked.clear()
    host.statuses = [503] * (TRIES + 5)
    refuse(host, target, "cut or busy .*503")
    assert len(host.asked) == TRIES


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_names_where_else_to_look(host, target, status):
    host.statuses = [status]
    refuse(host, target, f"HTTP {status}.*set.zip from http://page and put it into")
    assert len(host.asked) == 1


def test_nobody_listening_is_one_line(host, target):
    archive = host.archive().model_copy(update={"url": "http://127.0.0.1:9/set.zip"})
    with pytest.raises(UserError, match="cut or busy") as caught:
        download(archive, target, "http://page")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("declared", ["text/html; charset=utf-8", "application/zip"])
def test_a_web_page_with_status_200_is_not_the_file(host, target, declared):
    host.type = declared
    host.content = b"\n<!DOCTYPE html><title>Log in</title>" + bytes(len(CONTENT))
    refuse(host, target, "probably a web page.*http://page", exact=False)


def test_something_else_than_an_archive_is_refused(host, target):
    host.content = b"%PDF-1.4" + CONTENT
    refuse(host, target, "something else than set.zip")


def test_another_size_than_the_catalogues_is_refused(host, target):
    refuse(host, target, "3200004 bytes where 3200003 were expected", size=len(CONTENT) - 1)
    refuse(host, target, "3200004 bytes where 3300000 were expected", size=3_300_000)
    refuse(host, target, "were expected", size=2_000_000, exact=False)
    assert take(host, target, size=2_500_000, exact=False) == CONTENT


def test_a_body_without_length_is_bounded_while_it_comes(host, target):
    host.length = False
    refuse(host, target, "bytes where 1000000 were expected", size=1_000_000)
    assert target.with_name("set.zip.partial").stat().st_size < 3_000_000
    assert take(host, target) == CONTENT


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(host, target, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1e7, 1e7, 1_000_000))
    refuse(host, target, r"0\.0 GB are needed and 0\.0 GB are free; make room")
    assert os.listdir(target.parent) == []


def test_a_wrong_checksum_is_remembered_until_the_file_is_another_one(host, target):
    archive = host.archive(sha256=hashlib.sha256(CONTENT).hexdigest())
    download(archive, target, "http://page")
    verify(archive, target)
    assert not known_wrong(target)
    damaged = bytearray(CONTENT)
    damaged[2_000_000] ^= 1
    target.write_bytes(damaged)
    with pytest.raises(UserError, match=r"wrong checksum .*of the catalogue\); delete it"):
        verify(archive, target)
    assert known_wrong(target)
    target.write_bytes(CONTENT)
    assert not known_wrong(target)
    verify(archive, target)


def test_a_damaged_note_of_a_checksum_is_as_good_as_none(target):
    target.write_bytes(CONTENT)
    for note in (b"\xff", b"{", b"[]", b"[" * 100_000):
        target.with_name(f"{target.name}.json").write_bytes(note)
        assert not known_wrong(target)


def test_without_a_published_checksum_the_first_one_is_kept(host, target):
    archive = host.archive()
    download(archive, target, "http://page")
    verify(archive, target)
    times = target.stat()
    target.write_bytes(CONTENT[:-1] + b"x")
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
    verify(archive, target)  # same size and time: not read again
    with pytest.raises(UserError, match="of the first fetch"):
        verify(archive, target, again=True)
