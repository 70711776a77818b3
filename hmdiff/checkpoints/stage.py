"""The unfinished work of one stage, and that only one process is at it."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hmdiff.checkpoints.blocks import Block, stored_blocks
from hmdiff.checkpoints.files import Files
from hmdiff.checkpoints.identity import identity
from hmdiff.checkpoints.parts import Parts
from hmdiff.checkpoints.steps import Item, Stateful, saved_steps
from hmdiff.compute import resolve_device, resolve_precision
from hmdiff.distributed import is_main
from hmdiff.errors import UserError
from hmdiff.params import Params
from hmdiff.tracking import StoppedTraining


class Checkpoints:
    """The unfinished work of one stage in a folder of its own; see :func:`checkpoints`.

    Args:
        name: the stage, for messages.
        folder: None keeps nothing.
        key: gives :func:`identity`; called when a file is read or written.
        seconds: between two files.
        training: what is told when :meth:`steps` is stopped.
    """

    def __init__(
        self,
        name: str = "train",
        folder: Path | None = None,
        key: Callable[[], str] = str,
        seconds: float = math.inf,
        training: StoppedTraining | None = None,
    ) -> None:
        self.files = Files(name, folder, key)
        self.seconds = seconds
        self.training = training
        self._running: Generator | None = None

    def steps(
        self,
        order: Callable[[int], Iterable[Item]],
        steps: int,
        kept: Mapping[str, Stateful],
        desc: str,
    ) -> Iterator[tuple[int, Item]]:
        """Number and item of every step that is left to do, with a progress bar.

        Where a snapshot is found, ``kept`` is put into its state first. After a step of the
        caller's, ``kept`` may be saved; SIGTERM and SIGINT save it and end the process. Several
        processes (hmdiff/distributed.py) have to come by the same steps with the same ``kept``; how
        many they are may differ from one run to the next.

        Args:
            order: the items of all steps from a given one on.
            kept: everything that one step leaves for the next one. Lists are changed in place and
                hold numbers, tensors, lists and dicts of them.
        """
        self._running = saved_steps(
            self.files, self.seconds, order, steps, kept, desc, self._stopped
        )
        return self._running

    def blocks(self, make: Callable[[int], Iterable[Block]]) -> Iterator[Block]:
        """All blocks of rows in their order: those that an earlier run has stored, then the rest.

        Args:
            make: the blocks from a given one on.
        """
        return stored_blocks(self.files, self.seconds, make)

    def parts(self, types: tuple[type, ...] = ()) -> Parts | None:
        """Where jobs that write files go, results of ``types`` among them; None: nothing is kept.

        Each job is kept at once, for its files lie on the disk already.
        """
        if self.files.folder is None:
            return None
        return Parts(self.files.name, self.files.folder, self.files.key, types)

    def _stopped(self, reason: str) -> None:
        if self.training is not None:
            self.training.stopped(self.files.folder, lambda: self.files.key, reason)

    def ended(self) -> None:
        """The stage has written its outputs; what it has kept may go."""
        if self.training is not None:
            self.training.ended(self.files.folder, lambda: self.files.key)

    def close(self) -> None:
        """End :meth:`steps` where an error left it, and with it the processes behind ``order``."""
        if self._running is not None:
            self._running.close()


UNSAVED = Checkpoints()


@contextlib.contextmanager
def checkpoints(
    name: str,
    params: Params,
    settings: Mapping[str, Any],
    inputs: Sequence[Path],
    facts: Callable[[], Mapping[str, Any]] = dict,
    training: StoppedTraining | None = None,
) -> Iterator[Checkpoints]:
    """The unfinished work of stage ``name``, which goes when the block has ended well.

    Args:
        settings, inputs: see :func:`identity`; seed and compute of ``params`` come with them.
        facts: further settings, which take long to find and are asked for where they are needed.
        training: whose MLflow run is KILLED where a signal stops it, and FINISHED in the end.

    Raises:
        UserError: another process is at the same stage, or the folder cannot be written.
    """
    folder = params.checkpoint.folder / name
    settings = {
        **settings,
        "seed": params.seed,
        "device": str(resolve_device(params.compute.device)),
        "precision": resolve_precision(params.compute),
        "threads": [params.compute.threads, params.compute.threads_alone],
    }
    # The modules by now, for others may follow after a snapshot was looked for.
    loaded = [module for key, module in sorted(sys.modules.items()) if key.startswith("hmdiff.")]
    code = [Path(module.__file__) for module in loaded if module.__file__]
    main = is_main()
    with _alone(folder, name) if main else contextlib.nullcontext():
        for path in folder.glob(".*.partial") if main else ():  # of one that was killed writing it
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        kept = Checkpoints(
            name,
            folder,
            lambda: identity({**settings, **facts()}, inputs, code),
            params.checkpoint.seconds,
            training,
        )
        try:
            yield kept
        finally:
            kept.close()
        if not main:
            return
        kept.ended()
        shutil.rmtree(folder)


@contextlib.contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """The only process at ``folder``, which is made. A lock that goes with the process, and which
    processes that it has forked do not inherit: they outlive it by seconds."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror}; free or open it, or let checkpoint.folder in params.yaml "
            "be another folder"
        ) from None
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"{folder}: {name} is running already; wait for it") from None
    finally:
        os.close(handle)
