"""Running the checks one by one: whatever happens in one of them is a line, not the end."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hmdiff.errors import UserError

State = Literal["ok", "warning", "problem"]

# Label and function, in the order of the report. Modules are imported one at a time, by the check
# that needs them: a package that is missing or broken costs its own lines only.
CHECKS = (
    ("python", "installation:python"),
    ("packages", "installation:packages"),
    ("project", "installation:project"),
    ("processor", "machine:processor"),
    ("memory", "machine:memory"),
    ("disk", "machine:disk"),
    ("device", "device:device"),
    ("parameters", "settings:parameters"),
    ("preset", "settings:preset"),
    ("models", "material:models"),
    ("data", "material:data"),
    ("weights", "material:weights"),
    ("git", "engines:git"),
    ("dvc", "engines:dvc"),
    ("snakemake", "engines:snakemake"),
    ("tracking", "tracking:store"),
)


@dataclass(frozen=True)
class Context:
    """What the checks are told.

    Attributes:
        params: the parameter file; the project is the folder of it.
        full: also what takes more than a second or two.
    """

    params: Path
    full: bool = False

    @property
    def root(self) -> Path:
        return self.params.parent


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        state: ``problem`` means that something the pipeline needs is broken; ``warning`` that
            something does less than it could, or will fail later.
        found: what is there, in words.
        remedy: what to do; empty when nothing is to be done.
    """

    state: State
    found: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.state != "ok" and not self.remedy:
            raise ValueError(f"{self.found}: a {self.state} needs a remedy")


def examine(
    context: Context, checks: Iterable[tuple[str, str]] = CHECKS
) -> Iterator[tuple[str, Finding]]:
    """Label and finding of every check, in order, as they become known.

    A problem that several checks meet, say a broken params.yaml, is told once.
    """
    told = set()
    for label, function in checks:
        for finding in _run(function, context):
            if finding.state == "ok" or finding not in told:
                yield label, finding
            told.add(finding)


def _run(function: str, context: Context) -> list[Finding]:
    """The findings of one check; an exception in it is one too."""
    module, _, name = function.partition(":")
    try:
        found = getattr(importlib.import_module(f"hmdiff.doctor.{module}"), name)(context)
        return list(found)
    except UserError as error:
        what, _, remedy = " ".join(str(error).split()).rpartition("; ")
        return [Finding("problem", what or remedy, remedy)]
    except ImportError as error:
        return [Finding("problem", f"cannot import {_line(error)}", "`make setup`")]
    except Exception as error:
        found = f"the check itself failed ({type(error).__name__}: {_line(error)})"
        return [Finding("problem", found, "run the command in question and read its own error")]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
