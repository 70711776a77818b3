"""Steps of a training: its state is saved between two of them, and when it is asked to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from tqdm import tqdm

from hmdiff.checkpoints.files import Files, read_state, say
from hmdiff.distributed import broadcast, greatest, is_main, process_count
from hmdiff.errors import UserError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Item = TypeVar("Item")
Stateful = nn.Module | torch.optim.Optimizer | torch.Generator | list


def saved_steps(
    files: Files,
    seconds: float,
    order: Callable[[int], Iterable[Item]],
    steps: int,
    kept: Mapping[str, Stateful],
    desc: str,
    stopped: Callable[[str], None],
) -> Generator[tuple[int, Item]]:
    """See :meth:`hmdiff.checkpoints.stage.Checkpoints.steps`; ``seconds`` lie between two files.

    ``stopped`` is told why the process ends, once all is saved. Of several processes, which have
    the same state, the main one writes; all stop after the same step, whichever was asked to.
    """
    first = _restore(files, kept)
    written = time.monotonic()
    stop = _Stop()
    with stop.listening() if files.folder else contextlib.nullcontext():
        quiet = None if is_main() else True
        bar = tqdm(order(first), desc, steps, initial=first, disable=quiet)
        for step, item in enumerate(bar, first):
            yield step, item
            if stop.agreed() is not None:
                break
            # Not after the last step: what follows is short.
            due = is_main() and time.monotonic() - written >= seconds
            if due and step + 1 < steps:
                _save(files, kept, step + 1)
                written = time.monotonic()
    asked = stop.agreed()
    if asked is not None and not is_main():
        raise SystemExit(128 + asked)
    if asked is not None:
        name = signal.Signals(asked).name
        saved = _save(files, kept, step + 1)
        rest = "run it again and it goes on from there" if saved else "which is not saved"
        say(f"{files.name}: stopped by {name} after step {step + 1} of {steps}; {rest}")
        stopped(f"{name} after step {step + 1} of {steps}")
        raise SystemExit(128 + asked)


class _Stop:
    """The signal that asked this process to stop."""

    signal: int | None = None

    def agreed(self) -> int | None:
        """The signal that asked any of the processes."""
        asked = greatest(self.signal or 0) or None
        if asked is not None:
            self.signal = asked
        return asked

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, the first signal is only noted; a second one ends the process as ever.

        Of several processes each may be sent it by their launcher and by who stops all of them, and
        none is heeded once they have agreed to stop.
        """
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        owner = os.getpid()

        def note(number: int, frame: object) -> None:
            if os.getpid() == owner:
                self.signal = number
                if process_count() == 1:
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
            if process_count() == 1 or self.signal is None:
                restore()


def _restore(files: Files, kept: Mapping[str, Stateful]) -> int:
    """Put ``kept`` into the newest sound file's state; its number of steps, or 0.

    The main process chooses the file, which the others then read.
    """
    path, state = _newest(files) if is_main() else (None, None)
    path = broadcast(path)
    if path is None:
        return 0
    if not is_main():
        state = read_state(path, {"kept", "step"}) if path.is_file() else None
    if state is None:
        raise UserError(
            f"{path}: is not there on every machine; let checkpoint.folder in params.yaml be a "
            "folder that all of them share"
        )
    _set_state(kept, state)
    if is_main():
        say(f"{files.name}: goes on after step {state['step']}")
    return state["step"]


def _newest(files: Files) -> tuple[Path | None, dict[str, Any] | None]:
    """The newest sound file and its state; newer ones are deleted."""
    for path in reversed(files.found()):
        state = files.taken(path)
        if state is not None:
            return path.absolute(), state
        path.unlink()
    return None, None


def _save(files: Files, kept: Mapping[str, Stateful], step: int) -> bool:
    """Write one file and drop old ones; whether that could be done."""
    written = files.write(step, _state(kept))
    files.rotate()
    return written


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
    for device, stream in zip(range(torch.cuda.device_count()), others, strict=False):
        torch.cuda.set_rng_state(stream, device)
