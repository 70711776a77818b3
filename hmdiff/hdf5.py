"""What is asked of an HDF5 file before it is believed."""

from __future__ import annotations

import os

import h5py

# What h5py raises of a file that was cut, altered or written by something else.
DAMAGE = (
    OSError, KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError,
    OverflowError, MemoryError,
)  # fmt: skip


def own_array(file: h5py.File, name: str, kinds: str) -> h5py.Dataset:
    """The data set ``name``, which lies in ``file`` itself, is of rows, and claims no more bytes
    than the file has (so nothing here is compressed).

    Args:
        kinds: of its numpy dtype; "O" stands for texts and for rows of any length.

    Raises:
        KeyError: there is none.
        ValueError: it is something else, or is read from another file.
    """
    link = file.get(name, getlink=True)
    if link is None:
        raise KeyError(name)
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{name}: a link to elsewhere")
    found = file[name]
    if not isinstance(found, h5py.Dataset) or not found.shape or found.dtype.kind not in kinds:
        raise ValueError(f"{name}: no rows of the expected type")
    if found.external or found.is_virtual:
        raise ValueError(f"{name}: lies in another file")
    if found.nbytes > os.path.getsize(file.filename):
        raise ValueError(f"{name}: claims more than the file holds")
    return found
