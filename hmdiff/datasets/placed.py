"""Taking a real copy that the user placed by hand."""

from __future__ import annotations

import os
from pathlib import Path

from hmdiff.errors import UserError
from hmdiff.files import link_or_copy

OURS = "README.md"  # the tracked note on what to place there


def is_placed(folder: Path) -> bool:
    """Whether ``folder`` holds more than the project's own README.md (hidden files aside)."""
    return folder.is_dir() and any(
        entry.name != OURS and not entry.name.startswith(".") for entry in folder.iterdir()
    )


def take(source: Path, target: Path) -> None:
    """Bring the tree ``source`` to the existing folder ``target``.

    Files are hard-linked where both lie on one file system and copied otherwise. Links to files
    are followed, so that large parts may lie on another disk.

    Raises:
        UserError: a folder inside is a link, and DVC would not see a change behind it, or a link
            leads nowhere.
    """
    for folder, folders, names in os.walk(source):
        for inside in (Path(folder, name) for name in folders):
            if inside.is_symlink():
                raise UserError(
                    f"{inside}: a linked folder, behind which DVC does not look; link its files "
                    "instead (cp -rs)"
                )
        below = target / Path(folder).relative_to(source)
        below.mkdir(exist_ok=True)
        for name in names:
            if name == OURS or name.startswith("."):
                continue
            file = (Path(folder) / name).resolve()
            if not file.exists():
                raise UserError(f"{Path(folder) / name}: a link to nowhere; mend or remove it")
            link_or_copy(file, below / name)
