"""Python, the packages against requirements.lock, and whose copy of hmdiff this is."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import hmdiff
from hmdiff.doctor.findings import Context, Finding

LOWEST = (3, 11)  # pyproject.toml's requires-python
AGAIN = "`rm -f .venv/.ready && make setup`"
SHOWN = 3  # names in one line


def python(context: Context) -> Iterator[Finding]:
    """Its version and its environment."""
    found = f"{platform.python_version()} at {sys.prefix}"
    if sys.version_info < LOWEST:
        wanted = ".".join(map(str, LOWEST))
        yield Finding("problem", found, f"install Python {wanted} or later, then {AGAIN}")
    else:
        yield Finding("ok", found)


def packages(context: Context) -> Iterator[Finding]:
    """Every package of the lock that this platform wants, by its version."""
    lock = context.root / "requirements.lock"
    if not lock.is_file():
        yield Finding("warning", f"{lock}: no such file", "`git checkout requirements.lock`")
        return
    wanted = pinned(lock.read_text(encoding="utf-8"))
    lost, other = [], []
    for name, version in wanted.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            lost.append(name)
            continue
        # A wheel for one platform may add a local part: 2.6.0+cpu.
        if found.partition("+")[0] != version.partition("+")[0]:
            other.append(f"{name} {found} for {version}")
    if lost:
        yield Finding("problem", f"not installed: {_some(lost)}", AGAIN)
    if other:
        yield Finding("warning", f"not the locked version: {_some(other)}", AGAIN)
    if not lost and not other:
        yield Finding("ok", f"{len(wanted)}, as requirements.lock pins them")


def pinned(lock: str) -> dict[str, str]:
    """Name -> version of the lines ``name==version ; marker`` whose marker holds here."""
    from packaging.requirements import Requirement

    wanted = {}
    for line in lock.splitlines():
        if "==" not in line or line.startswith(("#", " ")):
            continue
        requirement = Requirement(line.removesuffix("\\"))
        if requirement.marker is None or requirement.marker.evaluate():
            (pin,) = requirement.specifier
            wanted[requirement.name] = pin.version
    return wanted


def project(context: Context) -> Iterator[Finding]:
    """Whether the stages would run the code of this folder."""
    here = (context.root / "hmdiff").resolve()
    used = Path(hmdiff.__file__).resolve().parent
    if not here.is_dir():
        yield Finding(
            "problem", f"{context.root.resolve()} holds no hmdiff/", "cd into the project's folder"
        )
    elif here != used:
        yield Finding("problem", f"`hmdiff` runs {used}, not {here}", f"here: {AGAIN}")
    else:
        yield Finding("ok", f"hmdiff {metadata.version('hmdiff')} of {here.parent}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
