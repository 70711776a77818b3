"""The command line. What a user can mend is one line and exit code 2; a traceback is a bug.

What a command needs is imported when it is called, so that ``hmdiff --help`` needs neither torch
nor mlflow.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from traceback import walk_tb

from typer.exceptions import Abort, TyperException

from hmdiff import launch

# Imported for the commands that they add to the application.
from hmdiff.cli import (  # noqa: F401
    check,
    data,
    doctor,
    measure,
    predict,
    presets,
    runs,
    scale,
    score,
    stages,
    verify,
)
from hmdiff.cli.app import app
from hmdiff.errors import Lost, UserError

# A disk or a folder that a user can mend, as opposed to a bug.
MENDABLE = {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM}

# As safetensors, which is written in Rust, ends what it says of a disk.
OS_ERROR = re.compile(r"\(os error (\d+)\)")
# What torch's loader and a pool of processes say of one that something else has killed.
LOST = re.compile(r"DataLoader worker .*(exited unexpectedly|killed by signal)|process pool was")

CONNECTIONS = {"multiprocessing.connection", "multiprocessing.reduction"}


def main() -> None:
    """Run the command line; what a user can mend is one line and exit code 2."""
    try:
        code = _status()
    except Exception as error:
        # torch tells of a lost process in a signal's handler: also while the line of the broken
        # connection to it is being made.
        code = _explain(error)
    sys.exit(code)


def _status() -> int | None:
    try:
        return app(standalone_mode=False)
    except TyperException as error:
        return _fail(f"{error.format_message().rstrip('.')}; see `hmdiff --help`")
    except Abort:
        return 130
    except Lost as error:
        if launch.STORE not in os.environ:
            return _fail(str(error))
        if launch.world()[0]:
            # Shown where none of the others has told why.
            _fail(f"{error}: {error.__cause__}")
        return launch.LOST
    except UserError as error:
        # torch raises a worker's error again with the worker's traceback before it.
        return _fail(str(error).rsplit("UserError: ", 1)[-1])
    except Exception as error:
        return _explain(error)


def _explain(error: Exception) -> int:
    line = _mendable(error)
    if line is None:
        raise error
    return _fail(line)


def _mendable(error: Exception) -> str | None:
    """A line about what is no bug though it is no UserError; None for all else."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in MENDABLE:
        return f"{error.filename or 'writing'}: {error.strerror}; free or open it"
    number = OS_ERROR.search(text)
    if number and int(number[1]) in MENDABLE:
        return f"writing: {os.strerror(int(number[1]))}; free or open it"
    if LOST.search(text) or _from_connection(error):
        # torch would tell of it once more, while the loader is taken down.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        return (
            "a process that decodes or renders images was killed, probably for lack of memory; "
            "free some, or lower compute.workers (of a stand-in: standins.*.workers) in params.yaml"
        )
    return None


def _from_connection(error: Exception) -> bool:
    """Whether it arose between two processes: one was killed while it handed a batch over.

    By where it arose, for it is an EOFError, a reset connection or a socket that is not there.
    """
    names = {frame.f_globals.get("__name__") for frame, _ in walk_tb(error.__traceback__)}
    return isinstance(error, EOFError | OSError) and not names.isdisjoint(CONNECTIONS)


def _fail(message: str) -> int:
    print(f"hmdiff: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
