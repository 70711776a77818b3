"""Where and how torch computes: device, precision, threads, and random numbers from a seed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch

from hmdiff.errors import UserError
from hmdiff.params.runs import Compute


def resolve_device(name: str, where: str = "params.yaml: compute.device") -> torch.device:
    """The device that ``compute.device`` of params.yaml names; ``auto``: CUDA if there, else CPU.

    Args:
        where: the name was written, for the error.

    Raises:
        UserError: torch does not know the name, or this machine lacks the device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{where}: cannot use {name!r} here ({reason}); write auto or cpu"
        ) from None
    return device


def resolve_precision(settings: Compute) -> str:
    """``bf16`` or ``fp32``, as ``compute.precision`` of params.yaml says.

    ``auto`` is bf16 on CUDA and on processors that multiply it natively (AMX or AVX512-BF16);
    others emulate it, about four times slower than fp32.
    """
    if settings.precision != "auto":
        return settings.precision
    if resolve_device(settings.device).type != "cpu":
        return "bf16"
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16" if native else "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Context for forward passes: ``bf16`` autocasts, ``fp32`` leaves torch as it is."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def use_threads(count: int) -> None:
    """Let torch use ``count`` CPU threads.

    The count is a parameter because floating-point sums depend on it: with the machine's own
    number of cores the same seed would give other bytes elsewhere.
    """
    torch.set_num_threads(count)


def generator(seed: int, *tokens: object) -> torch.Generator:
    """A CPU generator seeded by SHA-256 of ``seed`` and ``tokens`` (their ``str``).

    The same arguments give the same stream on every machine and in every process; streams of
    different arguments are independent.
    """
    text = "\x1f".join(str(part) for part in (seed, *tokens))
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    # torch takes 64 bits; the top one is dropped so that the value is a plain positive int64.
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextlib.contextmanager
def seeded_init(seed: int, *tokens: object) -> Iterator[None]:
    """Inside, modules are initialised from ``seed`` and ``tokens``.

    torch's layers draw their first weights from the global stream only; it is put back afterwards.
    """
    state = torch.get_rng_state()
    torch.set_rng_state(generator(seed, *tokens).get_state())
    try:
        yield
    finally:
        torch.set_rng_state(state)
