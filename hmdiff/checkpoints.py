"""What an unfinished stage has done so far: killed at any moment, it goes on from there.

The result is that of a run that was never stopped, to the bit. The files lie outside a stage's
outputs, which both engines delete before they run it again, and go when the stage has ended well.
How often they are written changes no result, so that the parameter is no stage's.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hmdiff.compute import resolve_device, resolve_precision
from hmdiff.errors import UserError
from hmdiff.files import atomic_file, sha256
from hmdiff.params import Params

KEPT = 2  # the newest; the older one is for the case that the newer is damaged
GROUP_BYTES = 256 * 2**20  # of blocks that wait in memory
_DIGEST = 32  # bytes of SHA-256 behind a snapshot's own
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Item = TypeVar("Item")
Block = dict[str, Any]  # columns of as many rows each: arrays, and lists of words
Stateful = nn.Module | torch.optim.Optimizer | torch.Generator | list


def identity(settings: Mapping[str, Any], inputs: Sequence[Path], code: Sequence[Path]) -> str:
    """SHA-256 of all that decides what a training gives; torch's version is part of it.

    Args:
        settings: what JSON can hold.
        inputs: files and folders that are read; their content counts, not where they lie.
        code: modules; a training that went on with others would be of neither.
    """
    files = [
        path
        for given in inputs
        for path in (sorted(given.rglob("*")) if given.is_dir() else [given])
        if path.is_file()
    ]
    facts = {
        "settings": dict(settings),
        "torch": torch.__version__,
        "files": [[path.name, sha256(path)] for path in files],
        "code": [sha256(path) for path in code],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Checkpoints:
    """The snapshots of one stage in a folder of its own; see :func:`checkpoints`.

    Args:
        name: the stage, for messages.
        folder: None keeps nothing.
        key: gives :func:`identity`; called when a snapshot is read or written, which a short
            run never does.
        seconds: between two snapshots.
    """

    def __init__(
        self,
        name: str = "train",
        folder: Path | None = None,
        key: Callable[[], str] = str,
        seconds: float = math.inf,
    ) -> None:
        self.name = name
        self.folder = folder
        self.seconds = seconds
        self._make_key = key
        self._key: str | None = None
        self._signal: int | None = None
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
        caller's, ``kept`` may be saved; SIGTERM and SIGINT save it and end the process.

        Args:
            order: the items of all steps from a given one on.
            kept: everything that one step leaves for the next one. Lists are changed in place and
                hold numbers, tensors, lists and dicts of them.
        """
        self._running = self._steps(order, steps, kept, desc)
        return self._running

    def blocks(self, make: Callable[[int], Iterable[Block]]) -> Iterator[Block]:
        """All blocks of rows in their order: those that an earlier run has stored, then the rest.

        They are stored in groups, one file each, and none is written twice: blocks may be many.

        Args:
            make: the blocks from a given one on.
        """
        count, found = 0, self._found()
        for number, path in enumerate(found):
            state = self._taken(path)
            if state is None or state["step"] - len(state["kept"]) != count:
                for lost in found[number:]:
                    lost.unlink()
                break
            for block in state["kept"]:
                yield {name: _plain(values) for name, values in block.items()}
            count = state["step"]
        if count:
            _say(f"{self.name}: goes on after block {count}")
        group, size, written = [], 0, time.monotonic()
        storing = self.folder is not None
        for block in make(count):
            yield dict(block)
            count += 1
            if not storing:
                continue
            group.append({name: _tensor(values) for name, values in block.items()})
            size += sum(part.nbytes for part in group[-1].values() if isinstance(part, Tensor))
            if time.monotonic() - written >= self.seconds or size > GROUP_BYTES:
                storing = self._write(count, {"kept": group})  # a gap would be of no use
                group, size, written = [], 0, time.monotonic()

    def close(self) -> None:
        """End :meth:`steps` where an error left it, and with it the processes behind ``order``."""
        if self._running is not None:
            self._running.close()

    def _steps(
        self,
        order: Callable[[int], Iterable[Item]],
        steps: int,
        kept: Mapping[str, Stateful],
        desc: str,
    ) -> Generator[tuple[int, Item]]:
        first = self._restore(kept)
        written = time.monotonic()
        with self._listening() if self.folder else contextlib.nullcontext():
            bar = tqdm(order(first), desc, steps, initial=first, disable=None)
            for step, item in enumerate(bar, first):
                yield step, item
                if self._signal is not None:
                    break
                # Not after the last step: what follows is short.
                if time.monotonic() - written >= self.seconds and step + 1 < steps:
                    self._save(kept, step + 1)
                    written = time.monotonic()
        if self._signal is not None:
            self._stop(kept, step + 1, steps)

    @property
    def key(self) -> str:
        if self._key is None:
            self._key = self._make_key()
        return self._key

    def _restore(self, kept: Mapping[str, Stateful]) -> int:
        """Put ``kept`` into the newest sound snapshot's state; its number of steps, or 0."""
        for path in reversed(self._found()):
            state = self._taken(path)
            if state is not None:
                _set_state(kept, state)
                _say(f"{self.name}: goes on after step {state['step']}")
                return state["step"]
            path.unlink()
        return 0

    def _taken(self, path: Path) -> dict[str, Any] | None:
        """A file's state; None, and a line, where it is damaged or of something else."""
        state = _read(path)
        if state is None:
            _say(f"{path}: is damaged; {self.name} takes the one before, or starts anew")
        elif state["key"] != self.key:
            _say(
                f"{path}: of other settings, inputs or code than {self.name} has now; "
                "discarded, it starts anew"
            )
            state = None
        return state

    def _save(self, kept: Mapping[str, Stateful], step: int) -> bool:
        """Write one snapshot and drop old ones; whether that could be done."""
        written = self._write(step, _state(kept))
        for old in self._found()[:-KEPT]:
            old.unlink()
        return written

    def _write(self, step: int, state: Mapping[str, Any]) -> bool:
        """Write one file; False, and a line, where the disk does not let."""
        path = self.folder / f"{step:012d}.pt"
        try:
            with atomic_file(path) as temporary:
                with open(temporary, "wb") as file:
                    torch.save({"key": self.key, "step": step, **state}, file)
                with open(temporary, "rb+") as file:
                    file.write(hashlib.file_digest(file, "sha256").digest())
            _sync(self.folder)
        except (OSError, RuntimeError) as error:
            # torch makes a RuntimeError of what the disk has said.
            cause = error if isinstance(error, OSError) else error.__context__ or error
            reason = str(cause).strip().splitlines()[0]
            _say(f"warning: {path}: was not written ({reason}); {self.name} goes on without")
            return False
        return True

    def _stop(self, kept: Mapping[str, Stateful], step: int, steps: int) -> None:
        name = signal.Signals(self._signal).name
        saved = self._save(kept, step)
        rest = "run it again and it goes on from there" if saved else "which is not saved"
        _say(f"{self.name}: stopped by {name} after step {step} of {steps}; {rest}")
        raise SystemExit(128 + self._signal)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Inside, the first signal is only noted; a second one ends the process as ever."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        owner = os.getpid()

        def note(number: int, frame: object) -> None:
            if os.getpid() == owner:
                self._signal = number
                restore()
            elif os.getppid() != owner:
                os._exit(128 + number)
            # else: one that decodes images; it goes on until this one is done.

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        for number in _SIGNALS:
            signal.signal(number, note)
        try:
            yield
        finally:
            restore()

    def _found(self) -> list[Path]:
        """Snapshots, the oldest first by their steps: clocks may be wrong."""
        return sorted(self.folder.glob("*.pt")) if self.folder else []


UNSAVED = Checkpoints()


@contextlib.contextmanager
def checkpoints(
    name: str, params: Params, settings: Mapping[str, Any], inputs: Sequence[Path]
) -> Iterator[Checkpoints]:
    """The snapshots of stage ``name``, which go when the block has ended well.

    Args:
        settings, inputs: see :func:`identity`; seed and compute of ``params`` come with them.

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
    with _alone(folder, name):
        for path in folder.glob(".*.partial"):  # of a process that was killed while it wrote
            path.unlink()
        kept = Checkpoints(
            name, folder, lambda: identity(settings, inputs, code), params.checkpoint.seconds
        )
        try:
            yield kept
        finally:
            kept.close()
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


def _state(kept: Mapping[str, Stateful]) -> dict[str, Any]:
    state = {}
    for name, part in kept.items():
        if isinstance(part, list):
            state[name] = part
        else:
            state[name] = (
                part.get_state() if isinstance(part, torch.Generator) else part.state_dict()
            )
    streams = [torch.get_rng_state()]
    if torch.cuda.is_available():
        streams += torch.cuda.get_rng_state_all()
    return {"kept": state, "streams": streams}


def _set_state(kept: Mapping[str, Stateful], state: Mapping[str, Any]) -> None:
    for name, part in kept.items():
        value = state["kept"][name]
        if isinstance(part, list):
            part[:] = value
        elif isinstance(part, torch.Generator):
            part.set_state(value)
        else:
            part.load_state_dict(value)
    first, *others = state["streams"]
    torch.set_rng_state(first)
    if others:
        torch.cuda.set_rng_state_all(others)


def _tensor(values: Any) -> Any:
    return torch.from_numpy(values) if isinstance(values, np.ndarray) else values


def _plain(values: Any) -> Any:
    return values.numpy() if isinstance(values, Tensor) else values


def _read(path: Path) -> dict[str, Any] | None:
    """A snapshot on the CPU, or None where its bytes are not those that were written."""
    content = path.read_bytes()
    body, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        return None
    return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)


def _sync(folder: Path) -> None:
    """Let the folder's entries reach the disk, a rename among them."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _say(line: str) -> None:
    print(f"hmdiff: {line}", file=sys.stderr)
