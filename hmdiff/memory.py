"""Bounded memory where batches of meshes alternate with small things that stay."""

from __future__ import annotations

import contextlib
import ctypes

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h
_LARGE = 2**20  # bytes


def return_large_blocks() -> None:
    """Let glibc give every large block back to the system as soon as it is freed.

    By itself it keeps blocks of up to 32 MB. Small ones that stay, such as the names of images,
    then come to lie in the gaps between the meshes of one batch and the next, and a process grows
    with everything that it goes through: preparing 25,000 images took 1.9 GB. Systems without
    glibc's ``mallopt`` are left alone.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)
