"""One stage as several processes (ranks) that share its batches and its blocks of images.

Each of them runs the whole stage: it draws every random number of the whole batch and computes its
own rows, what they add up is the same everywhere, and the main one alone writes. Without
:func:`joined` there is one process, and then every function here hands back what it is given.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from hmdiff.compute import resolve_device
from hmdiff.errors import Lost, UserError
from hmdiff.launch import STORE
from hmdiff.launch import world as launched

# The main process may work alone for hours. Who has lost another one learns it at once.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class _World:
    rank: int = 0
    size: int = 1


_world = _World()


def is_main() -> bool:
    """Whether this process writes, prints and logs."""
    return _world.rank == 0


def process_number() -> int:
    return _world.rank


def process_count() -> int:
    """How many processes there are."""
    return _world.size


@contextlib.contextmanager
def joined(device: str) -> Iterator[None]:
    """Inside, the processes that a launcher has started are one; without a launcher, nothing.

    Args:
        device: ``compute.device``: gloo for the CPU; nccl for CUDA, one GPU a process.

    Raises:
        UserError: the device cannot be shared out, or the processes do not find each other.
    """
    global _world
    world = _World(*launched())
    if world.size == 1:
        yield
        return
    import torch.distributed as dist  # a second, for those that need it

    backend = _backend(device)
    store = os.environ.get(STORE)
    try:
        dist.init_process_group(
            backend, f"file://{store}" if store else "env://", _PATIENCE, world.size, world.rank
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"process {world.rank} of {world.size} does not find the others ({reason}); look at "
            "MASTER_ADDR, MASTER_PORT and the network between the machines"
        ) from None
    _world = world
    try:
        yield
        _barrier()
        dist.destroy_process_group()
    finally:
        _world = _World()


def _backend(name: str) -> str:
    device = resolve_device(name)
    if device.type == "cpu":
        return "gloo"
    if device.type != "cuda" or device.index is not None:
        raise UserError(
            f"params.yaml: compute.device: {name!r} is not for several processes; write auto, cuda "
            "or cpu"
        )
    local, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if local >= there:
        raise UserError(
            f"params.yaml: compute.processes: a GPU for each is needed, and there are {there}; "
            "start as many processes, or let compute.device be cpu"
        )
    torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl"


@contextlib.contextmanager
def _talking() -> Iterator[None]:
    """Inside, the others are needed."""
    try:
        yield
    except RuntimeError as error:
        raise Lost("another process of this job has ended; its own line says why") from error


def _barrier() -> None:
    with _talking():
        torch.distributed.all_reduce(torch.zeros(1))


@dataclass(frozen=True)
class Share:
    """The ``rows`` (n,) that one process computes of a batch of ``count``."""

    count: int
    rows: Tensor

    def draw(self, sampler: Callable[..., Tensor], *shape: int, random: torch.Generator) -> Tensor:
        """Random numbers (n, *shape), drawn for the whole batch: the same whoever computes a row.

        Args:
            sampler: ``torch.randn`` or the like.
        """
        return sampler((self.count, *shape), generator=random)[self.rows]


def whole(count: int) -> Share:
    """All of a batch."""
    return Share(count, torch.arange(count))


def own_share(count: int, part: int | None = None) -> Share:
    """What is this process's of a batch of ``count`` rows, in their order.

    Args:
        part: rows that are computed at a time, each of which is shared; None: all at once.
    """
    if _world.size == 1:
        return whole(count)
    parts = torch.arange(count).split(part or count)
    return Share(count, torch.cat([one.tensor_split(_world.size)[_world.rank] for one in parts]))


def require_rows(count: int, name: str) -> None:
    """Refuse more processes than a batch has rows.

    Raises:
        UserError: parameter ``name`` is ``count``, and there are more processes.
    """
    if count < _world.size:
        raise UserError(
            f"params.yaml: {name}: {count} images are too few for {_world.size} processes; start "
            "fewer"
        )


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes; no gradient passes."""
    if _world.size == 1:
        return tensor
    total = tensor.detach().clone()
    with _talking():
        torch.distributed.all_reduce(total)
    return total


def greatest(number: int) -> int:
    """The greatest of what the processes give."""
    if _world.size == 1:
        return number
    found = torch.tensor(number)
    with _talking():
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return int(found)


def sum_gradients(model: nn.Module) -> None:
    """Let every parameter's gradient be the sum over all processes; one that no process has stays
    None, for the optimiser leaves such parameters alone."""
    if _world.size == 1:
        return
    wanted = [one for one in model.parameters() if one.requires_grad]
    known = torch.tensor([float(one.grad is not None) for one in wanted]).to(wanted[0])
    for one in wanted:
        if one.grad is None:
            one.grad = torch.zeros_like(one)
    total = summed(torch.cat([known, *(one.grad.flatten() for one in wanted)]))
    known, *parts = total.split([len(wanted), *(one.numel() for one in wanted)])
    for one, there, part in zip(wanted, known.tolist(), parts, strict=True):
        one.grad = one.grad.copy_(part.view(one.shape)) if there else None


def take_main_weights(model: nn.Module) -> None:
    """Let ``model`` be the main process's, to the bit: other machines may have rounded otherwise
    what it starts from."""
    if _world.size == 1:
        return
    with _talking(), torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            whole = value.detach().contiguous()
            torch.distributed.broadcast(whole, 0)
            value.copy_(whole)


def broadcast(value: Any, source: int = 0) -> Any:
    """What process ``source`` gives, for all."""
    if _world.size == 1:
        return value
    held = [value]
    with _talking():
        torch.distributed.broadcast_object_list(held, source)
    return held[0]


def gathered(value: Any) -> list[Any]:
    """What each process gives, the main one's first."""
    if _world.size == 1:
        return [value]
    held = [None] * _world.size
    with _talking():
        torch.distributed.all_gather_object(held, value)
    return held
