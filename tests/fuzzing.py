"""How readers are fuzzed: what is damaged and read, and what no reader has a reason to do
meanwhile: reach outside its folder, start something, take much memory or time."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 20  # of a processor, for one file; the machine may have much else to do
HANG = 60  # of a processor, after which a reader that does not even return to Python is ended
ROOM = 2 << 30  # bytes of address space for all files of a reader
GROWTH = 1 << 20  # KiB of memory that they may come to use

# By the names of Python's audit events.
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile",
    "subprocess.Popen", "socket.", "ctypes.dlopen", "os.symlink", "os.link",
    "os.putenv", "webbrowser.", "pty.", "code.__new__", "pickle.find_class",
)  # fmt: skip
TOUCHED = (
    "open",
    "os.chmod",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.truncate",
    "shutil.",
)


@dataclass(frozen=True)
class Target:
    """Valid files, how each is damaged, and what reads them: it succeeds or raises a UserError."""

    damaged: Mapping[Path, st.SearchStrategy[bytes | bytearray]]
    read: Callable[[], Any]


class Escaped(BaseException):
    """No Exception, so that no reader takes it for damage."""


class _Guard:
    """Python's audit hook, which can never be taken off; idle where ``inside`` is None."""

    def __init__(self) -> None:
        self.inside: Path | None = None
        self.found: list[str] = []
        places = (sys.prefix, sys.base_prefix, ROOT, "/sys", "/proc")
        self.readable = [Path(place).resolve() for place in places]
        sys.addaudithook(self)
        # Where it hangs is told, and then the process ends.
        faulthandler.register(signal.SIGVTALRM, sys.__stderr__, all_threads=False, chain=True)

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.inside is None:
            return
        if event.startswith(FORBIDDEN):
            self.escaped(f"{event} {arguments}")
        elif event.startswith(TOUCHED):
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
        places = [inside, *self.readable] if read else [inside]
        if path != Path(os.devnull) and not any(path.is_relative_to(p) for p in places):
            self.escaped(f"{event} {path}")

    def escaped(self, what: str) -> None:
        self.found.append(what)
        raise Escaped(what)


@cache
def _guard() -> _Guard:
    return _Guard()


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Raise :class:`Escaped` where the block touches anything outside ``folder`` or takes too long.

    Python's own files and the project's may be read.
    """

    def late(number: int, frame: FrameType | None) -> None:
        raise Escaped(f"more than {SECONDS} s of a processor")

    guard = _guard()
    guard.found.clear()
    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG)
    guard.inside = folder
    try:
        yield
    finally:
        guard.inside = None
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if guard.found:  # and whoever called has caught it
        raise Escaped(guard.found[0])


@contextmanager
def bounded() -> Iterator[None]:
    """Little room for memory: what is refused is a MemoryError instead of a machine that halts.

    Raises:
        AssertionError: the block has come to use more than ``GROWTH``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH
