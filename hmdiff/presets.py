"""Presets: small overlays on params.yaml."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from hmdiff.errors import UserError
from hmdiff.files import write_text
from hmdiff.params import load_params

FOLDER = "presets"


def available(folder: Path) -> list[str]:
    """Names of the presets in ``folder``, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def apply_preset(name: str, params: str | Path = "params.yaml") -> int:
    """Overlay ``presets/default.yaml`` and then ``presets/NAME.yaml`` on ``params``.

    default.yaml holds the committed value of every key that some preset changes, so that each
    preset starts from the same ground. Comments and order of the file are kept.

    Returns:
        How many values changed.

    Raises:
        UserError: no such preset, or an overlay names a key that params.yaml lacks or gives it
            a value out of range. ``params`` is then left as it was.
    """
    params = Path(params)
    folder = params.parent / FOLDER
    if name not in available(folder):
        raise UserError(f"preset {name!r}: unknown; one of {', '.join(available(folder))}")
    load_params(params)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 200
    before = params.read_text(encoding="utf-8")
    tree = yaml.load(before)
    for overlay in dict.fromkeys(("default", name)):
        path = folder / f"{overlay}.yaml"
        _overlay(tree, yaml.load(path.read_text(encoding="utf-8")), path, ())
    stream = io.StringIO()
    yaml.dump(tree, stream)
    changed = _count(yaml.load(before), tree)
    write_text(params, stream.getvalue())
    try:
        load_params(params)
    except UserError:
        write_text(params, before)
        raise
    return changed


def _overlay(tree: Any, values: Any, path: Path, keys: tuple[str, ...]) -> None:
    for key, value in values.items():
        if key not in tree:
            where = ".".join((*keys, key))
            raise UserError(f"{path}: {where}: not a key of params.yaml; correct its name")
        if isinstance(value, dict):
            _overlay(tree[key], value, path, (*keys, key))
        else:
            tree[key] = value


def _count(old: Any, new: Any) -> int:
    if isinstance(old, dict):
        return sum(_count(old[key], new[key]) for key in old)
    return int(old != new)
