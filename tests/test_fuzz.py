"""Damaged and hostile files are read, or refused in one line; nothing else happens.

Some 40 cases a reader run with all tests. HMDIFF_FUZZ sets another number; `make fuzz` takes 6000,
more than 100,000 in all.
"""

from __future__ import annotations

import os
import resource
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import pytest
from fuzz_targets import ROOT, TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hmdiff.params
import hmdiff.presets
from hmdiff.errors import UserError
from hmdiff.files import read_json

CASES = int(os.environ.get("HMDIFF_FUZZ", "40"))
SECONDS = 20  # for one case
ROOM = 3 << 30  # bytes of address space for all cases of a reader
GROWTH = 1 << 20  # KiB of memory that they may come to use

# What no reader has a reason to do, by the names of Python's audit events.
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile",
    "subprocess.Popen", "socket.", "ctypes.", "os.symlink", "os.link", "os.chmod", "os.putenv",
    "webbrowser.", "pty.", "code.__new__",
)  # fmt: skip
TOUCHED = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "shutil.")


class Escaped(BaseException):
    """No Exception, so that no reader takes it for damage."""


class Guard:
    """Python's audit hook, which can never be taken off; idle where ``inside`` is None."""

    def __init__(self) -> None:
        self.inside: Path | None = None
        self.allowed = [Path(place).resolve() for place in (sys.prefix, sys.base_prefix, ROOT)]
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.inside is None:
            return
        if event.startswith(FORBIDDEN):
            raise Escaped(f"{event} {arguments}")
        if event.startswith(TOUCHED):
            self.check(event, arguments)

    def check(self, event: str, arguments: tuple) -> None:
        place = arguments[0]
        if not isinstance(place, str | bytes | os.PathLike):
            return  # a descriptor
        inside, self.inside = self.inside, None
        try:
            path = Path(os.path.realpath(os.fsdecode(place)))
        except ValueError:  # a null byte: the call itself will fail
            return
        finally:
            self.inside = inside
        read = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        places = [inside, *self.allowed] if read else [inside]
        if path != Path("/dev/null") and not any(path.is_relative_to(p) for p in places):
            raise Escaped(f"{event} {path}")


GUARD = Guard()


@pytest.fixture
def bounded():
    """Little room for memory; what is refused is a MemoryError instead of a machine that halts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_read_or_refused_and_does_nothing_else(
    name, tmp_path, monkeypatch, bounded
):
    if name == "presets":
        monkeypatch.setattr(hmdiff.presets, "load_params", lambda path: _Applied)
    damaged, read = TARGETS[name](tmp_path)
    if name == "params":
        monkeypatch.setattr(hmdiff.params, "read_yaml", read_json)
    whole = {path: path.read_bytes() for path in damaged if path.exists()}
    outcomes: Counter[str] = Counter()
    monkeypatch.chdir(tmp_path)

    @settings(
        max_examples=CASES, deadline=None, database=None, derandomize=CASES < 1000,
        suppress_health_check=list(HealthCheck), print_blob=True,
    )  # fmt: skip
    @given(st.data())
    def run(data) -> None:
        path = data.draw(st.sampled_from(sorted(damaged)))
        path.write_bytes(data.draw(damaged[path]))
        start = time.monotonic()
        GUARD.inside = tmp_path.resolve()
        try:
            read()
            outcomes["read"] += 1
        except UserError as error:
            outcomes["refused"] += 1
            assert "\n" not in str(error) and len(str(error)) < 20_000
        finally:
            GUARD.inside = None
            for place, content in whole.items():
                place.write_bytes(content)
        assert time.monotonic() - start < SECONDS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run()
    assert outcomes.total() >= CASES / 2 and outcomes["refused"]
    assert not list(tmp_path.rglob("ran")) and not Path("/tmp/hmdiff-fuzz-ran").exists()
    print(f"{name}: {dict(outcomes)}")


class _Applied:
    preset = "default"
