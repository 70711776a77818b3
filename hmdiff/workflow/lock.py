"""Snakemake's lock of the folder, which outlives a run that was killed: the next run frees it.

Snakemake writes files into ``.snakemake/locks`` and deletes them when it ends; killed with SIGKILL
it leaves them, and refuses every later run until ``snakemake --unlock``. Here every run holds a
lock of the system's too, which goes with the process whatever ends it. Who finds that nobody
holds one knows that the files are of the dead.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

LOCKS = Path(".snakemake/locks")
HELD = Path(".dvc/tmp/snakemake.lock")
_handles: dict[Path, int] = {}  # open for as long as the process lives


def free_dead_locks(is_job: bool = False, root: Path = Path()) -> None:
    """Delete what killed runs in ``root`` have left, and hold ``root`` until this process ends.

    Called while the Snakefile is read, before Snakemake looks for locks. Any number of processes
    may hold ``root`` (``snakemake -n`` beside a run); which of them may run is still
    Snakemake's to say. Where the file system has no locks, nothing is freed. A job that a run has
    sent to another machine (``is_job``) holds ``root`` as well and deletes nothing: should the run
    be killed, the next one waits for its jobs.
    """
    path = (root / HELD).resolve()
    if path in _handles:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _handles[path] = handle = os.open(path, os.O_RDWR | os.O_CREAT)
        if not is_job and _is_free(handle):
            _delete(root / LOCKS)
        # Alone until here; from here on together with others.
        fcntl.lockf(handle, fcntl.LOCK_SH)
    except OSError:
        return


def _is_free(handle: int) -> bool:
    """Whether no other process held the lock; this one holds it alone then.

    Not flock, which processes that this one forks would hold on for it.
    """
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _delete(locks: Path) -> None:
    found = sorted(locks.glob("*.lock"))
    for path in found:
        path.unlink(missing_ok=True)
    if found:
        print("hmdiff: freed the folder, which a killed run had left locked", file=sys.stderr)
