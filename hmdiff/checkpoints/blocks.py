"""Rows that come block by block: stored in groups, one file each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hmdiff.checkpoints.files import Files, say

GROUP_BYTES = 256 * 2**20  # of blocks that wait in memory

Block = dict[str, Any]  # columns of as many rows each: arrays, and lists of words


def stored_blocks(
    files: Files, seconds: float, make: Callable[[int], Iterable[Block]]
) -> Iterator[Block]:
    """See :meth:`hmdiff.checkpoints.stage.Checkpoints.blocks`; ``seconds`` lie between two files.

    None is written twice: blocks may be many.
    """
    count, found = 0, files.found()
    for number, path in enumerate(found):
        state = files.taken(path)
        if state is None or state["step"] - len(state["kept"]) != count:
            for lost in found[number:]:
                lost.unlink()
            break
        for block in state["kept"]:
            yield {name: _plain(values) for name, values in block.items()}
        count = state["step"]
    if count:
        say(f"{files.name}: goes on after block {count}")
    group, size, written = [], 0, time.monotonic()
    storing = files.folder is not None
    for block in make(count):
        yield dict(block)
        count += 1
        if not storing:
            continue
        group.append({name: _tensor(values) for name, values in block.items()})
        size += sum(part.nbytes for part in group[-1].values() if isinstance(part, Tensor))
        if time.monotonic() - written >= seconds or size > GROUP_BYTES:
            storing = files.write(count, {"kept": group})  # a gap would be of no use
            group, size, written = [], 0, time.monotonic()


def _tensor(values: Any) -> Any:
    return torch.from_numpy(values) if isinstance(values, np.ndarray) else values


def _plain(values: Any) -> Any:
    return values.numpy() if isinstance(values, Tensor) else values
