"""A checkpoint that is not what was written is none, whoever wrote it, and runs nothing."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest
import torch

from hmdiff.checkpoints.files import read_state, write_state

NAMES = {"key", "step"}


class Call:
    """Pickles as a call that leaves a folder."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("ran",)


def saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def write_signed(path: Path, content: bytes) -> None:
    path.write_bytes(content + hashlib.sha256(content).digest())


def test_what_was_written_is_read(tmp_path):
    write_state(tmp_path / "1.pt", {"key": "a", "step": 1, "x": torch.ones(2)})
    assert read_state(tmp_path / "1.pt", NAMES)["x"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"noise", saved({"key": "a", "step": 1})[:100], saved([1]), saved({"key": "a"}),
        saved({"key": "a", "step": 1, "x": Call()}),
    ],
)  # fmt: skip
def test_what_is_no_state_is_none_even_with_its_digest(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    write_signed(tmp_path / "1.pt", content)
    assert read_state(tmp_path / "1.pt", NAMES) is None
    assert not (tmp_path / "ran").exists()
