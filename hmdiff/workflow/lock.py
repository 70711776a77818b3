"""Snakemake's lock of the folder, which outlives a run that was killed: the next run frees it.

Snakemake writes files into ``.snakemake/locks`` and deletes them when it ends; killed with SIGKILL
it leaves them, and refuses every later run until ``snakemake --unlock``. Here every run holds a
lock of the system's too, which goes with the process whatever ends it. Who finds that nobody
holds one knows that the files are of the dead. The jobs that a run has sent to a cluster hold
another one, for they live on when it is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from pathlib import Path

LOCKS = Path(".snakemake/locks")
HELD = Path(".dvc/tmp/snakemake.lock")
RUNS, JOBS = 0, 1  # bytes of it
_handles: dict[Path, int] = {}  # open for as long as the process lives


def free_dead_locks(root: Path = Path()) -> None:
    """Delete what killed runs in ``root`` have left, and hold ``root`` until this process ends.

    Called while the Snakefile is read, before Snakemake looks for locks. Any number of processes
    may hold ``root`` (``snakemake -n`` beside a run); which of them may run is still
    Snakemake's to say. Jobs that a killed run has left on a cluster are waited for, and those that
    begin from here on wait for :func:`admit_jobs`. Where the file system has no locks, nothing is
    freed.
    """
    try:
        handle = _opened(root)
        if handle is None:
            return
        if _is_free(handle, RUNS):
            if not _is_free(handle, JOBS):
                print("hmdiff: waiting for the jobs of a killed run", file=sys.stderr, flush=True)
                fcntl.lockf(handle, fcntl.LOCK_EX, 1, JOBS)
            _delete(root / LOCKS)
        # Alone until here; from here on together with others.
        fcntl.lockf(handle, fcntl.LOCK_SH, 1, RUNS)
    except OSError:
        return


def admit_jobs(root: Path = Path()) -> None:
    """Let jobs begin, now that they find the stages of this run and not those of a killed one."""
    with contextlib.suppress(OSError, KeyError):
        fcntl.lockf(_handles[(root / HELD).resolve()], fcntl.LOCK_UN, 1, JOBS)


def hold_as_job(root: Path = Path()) -> None:
    """Hold ``root`` until this process ends, as one that a run has sent to another machine."""
    try:
        handle = _opened(root)
        if handle is not None:
            fcntl.lockf(handle, fcntl.LOCK_SH, 1, JOBS)
    except OSError:
        return


def _opened(root: Path) -> int | None:
    """The file with the locks; None where this process has it open."""
    path = (root / HELD).resolve()
    if path in _handles:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    _handles[path] = handle = os.open(path, os.O_RDWR | os.O_CREAT)
    return handle


def _is_free(handle: int, byte: int) -> bool:
    """Whether no other process held the lock; this one holds it alone then.

    Not flock, which processes that this one forks would hold on for it.
    """
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except BlockingIOError:
        return False
    return True


def _delete(locks: Path) -> None:
    found = sorted(locks.glob("*.lock"))
    for path in found:
        path.unlink(missing_ok=True)
    if found:
        print("hmdiff: freed the folder, which a killed run had left locked", file=sys.stderr)
