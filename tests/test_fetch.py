"""`hmdiff data fetch`: from an empty folder to a data set that the acquire stage takes."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from pathlib import Path

import pytest
from archives import Host, serve, zipped
from filelock import FileLock

from hmdiff import cli
from hmdiff.acquisition import catalogue, extract
from hmdiff.acquisition import download as download_module
from hmdiff.acquisition import fetch as module
from hmdiff.acquisition.catalogue import CUT, ByHand, Entry
from hmdiff.acquisition.fetch import fetch
from hmdiff.acquisition.status import status
from hmdiff.datasets.placed import is_placed
from hmdiff.errors import UserError

FILES = {"a/x.json": b"[1]", "images/1.jpg": b"\xff\xd8", "README.md": b"theirs"}
HOME, STORE = Path("data/licensed/toy"), Path("data/downloads/toy")


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A server of toy.zip, which the catalogue lists as data set "toy", and an empty project."""
    project = tmp_path / "my project"
    (project / HOME).mkdir(parents=True)
    (project / HOME / "README.md").write_text("ours")
    monkeypatch.chdir(project)
    monkeypatch.setattr(download_module, "PAUSE", 0)
    with serve(zipped(FILES)) as host:
        publish(monkeypatch, host)
        yield host


def publish(monkeypatch, host: Host, access: str = "direct", by_hand: tuple = (), **changes):
    """List toy.zip as it is now in the catalogue."""
    provides = {"provides": ["a/*.json", "images/*.jpg"]}
    archives = () if access == "account" else (host.archive("toy.zip", **(provides | changes)),)
    entry = Entry(
        title="Toy", kind="dataset", page="http://page", licence="http://licence", terms="ours",
        access=access, archives=archives, by_hand=by_hand, citation="nobody",
    )  # fmt: skip
    monkeypatch.setattr(catalogue, "catalogue", lambda: {"toy": entry})


def placed() -> dict[str, bytes]:
    return {p.relative_to(HOME).as_posix(): p.read_bytes() for p in HOME.rglob("*") if p.is_file()}


def refuse(reason: str, **options) -> None:
    """Fetching fails in one line; what is placed is neither complete nor taken for a copy."""
    with pytest.raises(UserError, match=reason) as caught:
        fetch("toy", **options)
    assert "\n" not in str(caught.value)
    assert status("toy").state != "present"
    assert list(HOME.parent.iterdir()) == [HOME]


def test_an_empty_folder_becomes_a_complete_copy(host):
    fetch("toy")
    assert placed() == FILES | {"README.md": b"ours"}
    assert status("toy").state == "present" and is_placed(HOME)
    assert sorted(os.listdir(STORE)) == [".lock", "toy.zip", "toy.zip.json"]
    fetch("toy")
    assert len(host.asked) == 1
    (STORE / "toy.zip").unlink()
    fetch("toy")
    assert len(host.asked) == 1


def test_a_folder_around_everything_in_the_archive_is_left_out(host, monkeypatch):
    host.content = zipped({f"toy_v2/{name}": content for name, content in FILES.items()})
    publish(monkeypatch, host)
    fetch("toy")
    assert placed() == FILES | {"README.md": b"ours"}


def test_what_is_there_already_stays(host):
    for name in ("a/mine.json", "images/2.jpg"):
        (HOME / name).parent.mkdir(exist_ok=True)
        (HOME / name).write_bytes(b"[2]")
    (HOME / "images/2.jpg").unlink()
    fetch("toy")
    assert placed() == FILES | {"README.md": b"ours", "a/mine.json": b"[2]"}


def test_an_archive_that_a_user_placed_is_taken_without_a_download(host):
    STORE.mkdir(parents=True)
    (STORE / "toy.zip").write_bytes(host.content)
    fetch("toy")
    assert host.asked == [] and status("toy").state == "present"


def test_a_licence_must_be_accepted_before_anything_is_loaded(host, monkeypatch):
    publish(monkeypatch, host, access="licence")
    refuse("read its licence, http://licence .*hmdiff data fetch toy --accept-licence")
    assert host.asked == []
    fetch("toy", accept_licence=True)
    assert status("toy").state == "present"


def test_a_placed_archive_with_a_wrong_checksum_is_refused_and_kept(host, monkeypatch):
    publish(monkeypatch, host, sha256="0" * 64)
    STORE.mkdir(parents=True)
    (STORE / "toy.zip").write_bytes(host.content)
    refuse("wrong checksum")
    assert status("toy").state == "wrong checksum"
    assert (STORE / "toy.zip").read_bytes() == host.content
    assert not is_placed(HOME)
    publish(monkeypatch, host, sha256=hashlib.sha256(host.content).hexdigest())
    (STORE / "toy.zip").unlink()
    fetch("toy")
    assert status("toy").state == "present"


def test_a_truncated_archive_leaves_nothing(host, monkeypatch):
    host.content = host.content[:-40]
    publish(monkeypatch, host)
    refuse("cut or damaged")
    assert not is_placed(HOME)


def test_an_archive_of_another_layout_is_refused(host, monkeypatch):
    host.content = zipped({"a/x.json": b"[1]"})
    publish(monkeypatch, host)
    refuse(r"holds no a/\*\.json or no images/\*\.jpg")
    assert not is_placed(HOME)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
def test_an_interrupted_unpacking_leaves_nothing_and_is_done_anew(host, monkeypatch, error):
    copy = extract._copy

    def interrupted(source, place):
        copy(source, place)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(extract, "_copy", interrupted)
        with pytest.raises((KeyboardInterrupt, OSError)):
            fetch("toy")
    assert status("toy").state == "missing" and not is_placed(HOME)
    assert list(HOME.parent.iterdir()) == [HOME]
    fetch("toy")
    assert placed() == FILES | {"README.md": b"ours"}
    assert len(host.asked) == 1


def test_a_move_into_place_that_was_killed_is_seen_and_done_anew(host, monkeypatch):
    replace, moved = os.replace, []

    def killed(source, target):
        if Path(target).is_relative_to(HOME) and Path(target).name in ("a", "images"):
            if moved:
                raise KeyboardInterrupt
            moved.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch("toy")
    assert moved and (HOME / CUT).exists()
    assert status("toy").state == "partial"
    fetch("toy")
    assert placed() == FILES | {"README.md": b"ours"}


def test_what_a_killed_fetch_left_beside_the_folder_is_removed(host):
    leftover = HOME.parent / ".toy-abc.partial"
    leftover.mkdir()
    (leftover / "half.jpg").touch()
    fetch("toy")
    assert not leftover.exists()


def test_two_fetches_at_once_are_one_line(host):
    STORE.mkdir(parents=True)
    with FileLock(STORE / ".lock"):
        refuse("another fetch of it is running")


def test_a_file_in_the_way_is_one_line(host):
    STORE.parent.mkdir(parents=True)
    STORE.write_text("")
    refuse("data/downloads/toy: a file is in the way")
    STORE.unlink()
    (HOME / "a").write_text("")
    refuse("data/licensed/toy/a: in the way of the archive's own")
    (HOME / "a").unlink()
    fetch("toy")
    assert placed() == FILES | {"README.md": b"ours"}


def test_what_needs_an_account_is_named_and_then_looked_at(host, monkeypatch, capsys):
    by_hand = (
        ByHand(files=["a/{x,y}.json", "images/*"], source="their page"),
        ByHand(files=["fits.pkl or fits.npy"], source="another page"),
    )
    publish(monkeypatch, host, access="account", by_hand=by_hand)
    refuse(r"lacks a/x\.json and 3 more")
    shown = capsys.readouterr().out
    for line in ("a/y.json", "images/*", "from their page", "fits.pkl or fits.npy", str(HOME)):
        assert line in shown
    for name, content in (("a/x.json", b"[]"), ("a/y.json", b" <html>sign in</html>")):
        (HOME / name).parent.mkdir(exist_ok=True)
        (HOME / name).write_bytes(content)
    (HOME / "images").mkdir()
    (HOME / "images/s").touch()
    refuse(r"lacks fits\.pkl or fits\.npy;")
    assert "a/x.json" not in capsys.readouterr().out
    (HOME / "fits.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"a/y\.json: a web page, not the file itself"):
        fetch("toy")
    (HOME / "a/y.json").write_bytes(b"{}")
    fetch("toy")
    assert "complete" in capsys.readouterr().out
    assert host.asked == []


def test_a_model_that_was_placed_is_read_as_a_whole(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "data/licensed/mano"
    home.mkdir(parents=True)
    (home / "MANO_RIGHT.pkl").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(UserError, match=r"MANO_RIGHT\.pkl"):
        fetch("mano")
    assert not (tmp_path / "hacked").exists()


def command(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["hmdiff", "data", *arguments])
    cli.main()


@pytest.mark.parametrize(
    ("prepare", "line"),
    [
        (lambda host: host.statuses.append(404), "HTTP 404"),
        (lambda host: setattr(host, "type", "text/html"), "probably a web page"),
        (lambda host: setattr(host, "content", host.content[:-1]), "bytes where"),
    ],
)
def test_on_the_command_line_a_failure_is_one_line_and_exit_code_2(
    host, monkeypatch, capsys, prepare, line
):
    prepare(host)
    with pytest.raises(SystemExit, match="2"):
        command(monkeypatch, "fetch", "toy")
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1


def test_a_full_disk_is_one_line_and_the_download_goes_on_later(host, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "data/downloads/toy/toy.zip")

    with monkeypatch.context() as patch:
        patch.setattr(download_module.os, "fsync", full)
        with pytest.raises(SystemExit, match="2"):
            command(patch, "fetch", "toy")
    assert capsys.readouterr().err.count("\n") == 1
    assert not (STORE / "toy.zip").exists()
    with pytest.raises(SystemExit) as done:
        command(monkeypatch, "fetch", "toy")
    assert not done.value.code
    assert status("toy").state == "present"
