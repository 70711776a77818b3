"""A command as several processes on this machine: ``compute.processes``.

They get what torchrun would tell them, so that a stage does not know who started it. torchrun
itself is for several machines: it ends with exit code 1 and a traceback of its own whatever a
process has said, and its processes are out of reach of who kills this one's group.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType

from hmdiff.errors import UserError

# Stages that share their work; the others run as one process whatever is asked for.
SHARING = {"pretrain_extractor", "train", "evaluate"}
STORE = "HMDIFF_STORE"  # names a file by which the processes find each other
LOST = 75  # exit code of a process that ends because another one has
_STOPPED = {128 + signal.SIGTERM, 128 + signal.SIGINT}
_GRACE = 10.0  # seconds that the others have to say for themselves what one has said
_POLL = 0.05


def world() -> tuple[int, int]:
    """Number of this process, and of all, as torchrun and its kind tell; (0, 1) without them."""
    try:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return 0, 1


def wanted(stage: str, processes: int) -> int:
    """How many processes this one has to start for ``stage``; 0: it is to do the work itself.

    Raises:
        UserError: a launcher has started several, and ``stage`` runs as one.
    """
    _, size = world()
    if size > 1 and stage not in SHARING:
        raise UserError(f"{stage} runs as one process; start it without torchrun or accelerate")
    return processes if processes > 1 and size == 1 and stage in SHARING else 0


def records() -> bool:
    """Whether this process writes down what the command has cost: who started the others, or the
    first of those that a foreign launcher has started."""
    rank, _ = world()
    return rank == 0 and STORE not in os.environ


def launch(count: int) -> None:
    """Run this very command as ``count`` processes; returns when all have ended well.

    The first one's output is this one's; what another one has said is shown where it was the first
    to fail. Signals reach all of them, a second one ends them at once.

    Raises:
        SystemExit: with the exit code of the first that failed.
    """
    with tempfile.TemporaryDirectory(prefix="hmdiff-") as folder:
        job = _Job(count, Path(folder))
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            signal.signal(number, job.asked)
        try:
            code = job.wait()
        finally:
            job.kill()
            for number, handler in before.items():
                signal.signal(number, handler)
    if code:
        raise SystemExit(code)


class _Job:
    """The processes of one command, and how they end."""

    def __init__(self, count: int, folder: Path) -> None:
        self.signals = 0
        self.folder = folder
        self.ended: list[int] = []  # the order in which they did
        self.processes = [self._started(rank, count) for rank in range(count)]

    def _started(self, rank: int, count: int) -> subprocess.Popen:
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        told[STORE] = self.folder / "store"
        environment = os.environ | {name: str(value) for name, value in told.items()}
        if sys.platform == "linux":
            environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
        command = [sys.executable, *sys.orig_argv[1:]]
        if rank == 0:
            return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
        with open(self._said(rank), "wb") as said:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=said,
            )  # fmt: skip

    def _said(self, rank: int) -> Path:
        return self.folder / str(rank)

    def _told(self, rank: int) -> str:
        """What a process has said that nobody has seen yet."""
        return self._said(rank).read_text(errors="replace") if rank else ""

    def asked(self, number: int, frame: FrameType | None) -> None:
        """A handler: hand the first signal on, and end all at the second."""
        self.signals += 1
        if self.signals > 1:
            self.kill()
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()

    def wait(self) -> int:
        """The exit code of all; one that fails ends the others."""
        deadline = None
        while len(self.ended) < len(self.processes):
            for rank, process in enumerate(self.processes):
                if rank not in self.ended and process.poll() is not None:
                    self.ended.append(rank)
                    stopped = process.returncode in _STOPPED or self.signals
                    # Those that were asked to stop write what they have first.
                    if process.returncode and not stopped and deadline is None:
                        deadline = time.monotonic() + _GRACE
            if deadline is not None and time.monotonic() > deadline:
                self.kill()
            time.sleep(_POLL)
        return self._code()

    def _code(self) -> int:
        codes = {rank: self.processes[rank].returncode for rank in self.ended}
        failed = [rank for rank, code in codes.items() if code not in (0, LOST)]
        if not failed and any(codes.values()):
            # None has ended before the others lost it: what a process says of the connection.
            sys.stderr.write("".join(self._told(rank) for rank in codes if rank)[:2000])
            return 2
        if not failed:
            return 0
        # Of what all of them fail by, the first process has told.
        rank = 0 if codes[0] > 0 and codes[0] != LOST else failed[0]
        if codes[rank] > 0:
            sys.stderr.write(self._told(rank))
            return codes[rank]
        name = signal.Signals(-codes[rank]).name
        if self.signals or name in ("SIGTERM", "SIGINT"):
            return 128 - codes[rank]
        print(
            f"hmdiff: error: process {rank} of {len(codes)} was ended by {name}, probably for lack "
            "of memory; free some, or lower compute.processes in params.yaml"
            if name == "SIGKILL"
            else f"hmdiff: error: process {rank} of {len(codes)} was ended by {name}; run it again",
            file=sys.stderr,
        )
        return 2


def end_with_parent() -> None:
    """Let this process end when the one that :func:`launch` ran in does, however that ends."""
    if STORE not in os.environ:
        return

    def watch() -> None:
        while os.read(0, 1):  # until the parent's side is closed
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
