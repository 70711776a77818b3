"""The command line. What a user can mend is one line and exit code 2; a traceback is a bug.

What a command needs is imported when it is called, so that ``hmdiff --help`` needs neither torch
nor mlflow.
"""

from __future__ import annotations

import errno
import sys

from typer.exceptions import Abort, TyperException

# Imported for the commands that they add to the application.
from hmdiff.cli import (  # noqa: F401
    check,
    data,
    doctor,
    measure,
    predict,
    presets,
    runs,
    score,
    stages,
)
from hmdiff.cli.app import app
from hmdiff.errors import UserError

# A disk or a folder that a user can mend, as opposed to a bug.
MENDABLE = {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM}


def main() -> None:
    """Run the command line; what a user can mend is one line and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False))
    except TyperException as error:
        sys.exit(_fail(f"{error.format_message().rstrip('.')}; see `hmdiff --help`"))
    except Abort:
        sys.exit(130)
    except UserError as error:
        # torch raises a worker's error again with the worker's traceback before it.
        sys.exit(_fail(str(error).rsplit("UserError: ", 1)[-1]))
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        sys.exit(_fail(f"{error.filename or 'writing'}: {error.strerror}; free or open it"))


def _fail(message: str) -> int:
    print(f"hmdiff: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
