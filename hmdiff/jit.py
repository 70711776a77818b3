"""Compiling loops over numbers with numba, where numpy would need far more time or memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with numba; cached on disk where any cache folder can be written, else in memory.

    Without fast-math, so that the result is bit-identical from run to run.
    """
    import numba  # here, because it takes half a second and many stages compile nothing

    options = {"fastmath": False, "nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found neither the package's nor the user's folder writable
        return numba.njit(cache=False, **options)(function)


def jit_when_called(function: Callable[..., Any]) -> Callable[..., Any]:
    """As :func:`jit`, but at the first call; not for what compiled code calls."""
    compiled = functools.cache(lambda: jit(function))

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return compiled()(*arguments)

    return call
