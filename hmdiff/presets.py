"""Presets: small overlays on params.yaml."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hmdiff.errors import UserError
from hmdiff.files import write_text
from hmdiff.params import Params, load_params, read_yaml

FOLDER = "presets"
# Sections of named entries, which a preset may add to.
ADDABLE = (
    "datasets", "standins", "experiments", "finetunes", "methods", "evaluations", "sweeps",
    "probes",
)  # fmt: skip
MISSING = object()


def available(folder: Path) -> list[str]:
    """Names of the presets in ``folder``, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def apply_preset(name: str, params: str | Path = "params.yaml") -> int:
    """Overlay ``presets/default.yaml`` and then ``presets/NAME.yaml`` on ``params``.

    default.yaml holds the committed value of every key that some preset changes, so that each
    preset starts from the same ground. What stands under ``add`` in a preset are new entries of
    the sections ``ADDABLE``; they go again with the preset. Comments and order of the file are
    kept.

    Returns:
        How many values changed.

    Raises:
        UserError: no such preset, an overlay names a key that params.yaml lacks or gives it a
            value out of range, or it adds an entry that is there already. ``params`` is then left
            as it was.
    """
    params = Path(params)
    folder = params.parent / FOLDER
    if name not in available(folder):
        raise UserError(f"preset {name!r}: unknown; one of {', '.join(available(folder))}")
    applied = load_params(params).preset
    yaml = _round_trip()
    before = params.read_text(encoding="utf-8")
    tree = yaml.load(before)
    if applied in available(folder):
        for section, entry, _ in _additions(yaml, folder / f"{applied}.yaml"):
            tree.get(section, {}).pop(entry, None)
    for overlay in dict.fromkeys(("default", name)):
        path = folder / f"{overlay}.yaml"
        values = _read(yaml, path)
        values.pop("add", None)
        _overlay(tree, values, path, ())
    path = folder / f"{name}.yaml"
    for section, entry, value in reversed(list(_additions(yaml, path))):
        if entry in tree[section]:
            raise UserError(
                f"{path}: add.{section}.{entry}: params.yaml has an entry of this name; "
                "rename one of them"
            )
        # In front: what follows the last entry, such as a comment, belongs to the next section.
        tree[section].insert(0, entry, value)
    stream = io.StringIO()
    try:
        yaml.dump(tree, stream)
        text = stream.getvalue()
        text.encode()
    except (YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be written to {params} ({error}); mend it") from None
    changed = _count(yaml.load(before), tree)
    write_text(params, text)
    try:
        load_params(params)
    except BaseException:
        write_text(params, before)
        raise
    return changed


def preset_params(name: str, project: Path = Path()) -> Params:
    """The parameters that the folder ``project`` has with the preset ``name``; nothing is changed.

    Raises:
        UserError: as :func:`apply_preset`.
    """
    load_params(project / "params.yaml")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "params.yaml")
        copy.write_bytes((project / copy.name).read_bytes())
        shutil.copytree(project / FOLDER, Path(folder, FOLDER))
        apply_preset(name, copy)
        return load_params(copy)


def _round_trip() -> YAML:
    """YAML that writes what it read: comments, quotes, long lines, and null for nothing."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.representer.add_representer(
        type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml


def _read(yaml: YAML, path: Path) -> Any:
    """The mapping in ``path`` as ``yaml`` reads it, once it is known to be one."""
    _mapping(read_yaml(path), path, "the file")
    return read_yaml(path, yaml)  # which refuses some of what the safe reader takes


def _mapping(value: Any, path: Path, where: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{path}: {where}: no keys and values; mend it")
    return value


def _additions(yaml: YAML, path: Path) -> Iterator[tuple[str, str, Any]]:
    """(section, name, value) of each entry that a preset adds, in its order."""
    for section, entries in _mapping(_read(yaml, path).get("add", {}), path, "add").items():
        if section not in ADDABLE:
            raise UserError(f"{path}: add.{section}: not one of {', '.join(ADDABLE)}; mend it")
        _mapping(entries, path, f"add.{section}")
        for entry, value in entries.items():
            yield section, entry, value


def _overlay(tree: Any, values: Any, path: Path, keys: tuple[str, ...]) -> None:
    for key, value in values.items():
        if key not in tree:
            where = ".".join((*keys, str(key)))
            raise UserError(f"{path}: {where}: not a key of params.yaml; correct its name")
        if isinstance(value, dict):
            inside = (*keys, str(key))
            _overlay(_mapping(tree[key], path, ".".join(inside)), value, path, inside)
        else:
            tree[key] = value


def _count(old: Any, new: Any) -> int:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys((*old, *new))
        return sum(_count(old.get(key, MISSING), new.get(key, MISSING)) for key in keys)
    return int(old != new)
