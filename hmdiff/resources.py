"""What a command costs: seconds, memory of all its processes, disk."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERVAL = 0.5  # seconds between two looks at the memory
GIGABYTE = 1e9


@dataclass(frozen=True)
class Cost:
    """Of one command and all the processes that it started.

    Attributes:
        code: exit status.
        seconds: wall time.
        cpu_seconds: user and system time of all its processes that have ended.
        peak_bytes: largest sum of the processes' memory, pages that they share counted once
            (PSS); peaks shorter than INTERVAL may be missed.
    """

    code: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def run_measured(command: Sequence[str]) -> Cost:
    """Run ``command`` in the foreground and look at its process tree while it runs."""
    start, before = time.perf_counter(), os.times()
    process = subprocess.Popen(command)
    watch = _Watch(process.pid)
    watch.start()
    try:
        code = process.wait()
    finally:
        watch.stop()
    after = os.times()
    return Cost(
        code=code,
        seconds=time.perf_counter() - start,
        cpu_seconds=after.children_user
        + after.children_system
        - before.children_user
        - before.children_system,
        peak_bytes=watch.peak,
    )


class _Watch(threading.Thread):
    """Keeps the largest memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._root = psutil.Process(pid)
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.is_set():
            self.peak = max(self.peak, self._memory())
            self._done.wait(INTERVAL)

    def stop(self) -> None:
        self._done.set()
        self.join()

    def _memory(self) -> int:
        total = 0
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return 0
        for process in processes:
            try:
                info = process.memory_full_info()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it has just ended
            total += getattr(info, "pss", info.uss)  # other systems than Linux have no PSS
        return total


def disk_bytes(folders: Iterable[Path]) -> int:
    """Bytes that the files below ``folders`` take on the disk; a file of two names counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total
