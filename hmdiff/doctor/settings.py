"""params.yaml, and how far it is from the preset that it names."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hmdiff.doctor.findings import Context, Finding
from hmdiff.errors import UserError
from hmdiff.params import load_params
from hmdiff.presets import FOLDER, apply_preset, available


def parameters(context: Context) -> Iterator[Finding]:
    """Whether the file is valid: an unknown key or a value out of range is an error."""
    params = load_params(context.params)
    found = f"{context.params}: valid; {len(params.datasets)} data sets, "
    yield Finding("ok", found + f"{len(params.evaluations)} evaluations")


def preset(context: Context) -> Iterator[Finding]:
    """The preset in use, and how many of its values were changed by hand."""
    name = load_params(context.params).preset
    names = available(context.root / FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(context.params, folder))
        shutil.copytree(context.root / FOLDER, copy.parent / FOLDER)
        try:
            changed = apply_preset(name, copy)
        except UserError as error:
            # Named by its path in the project, not in the copy.
            raise UserError(str(error).replace(f"{folder}/", "")) from None
    by_hand = f", {changed} values of it changed by hand" if changed else ""
    yield Finding("ok", f"{name}{by_hand}; there are {', '.join(names)}")
