"""dvc.yaml lists all the code that a stage runs, so that no change of it leaves old results."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
# Reading, writing and checking: a change here changes no number.
PLUMBING = {
    "acquisition", "dvclock", "errors", "files", "hdf5", "launch", "machine", "params", "tracking",
}  # fmt: skip
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]


def modules(name: str) -> set[Path]:
    """The file of a dotted name inside the package: a module, or its package's __init__."""
    path = ROOT.joinpath(*name.split("."))
    return {found for found in (path.with_suffix(".py"), path / "__init__.py") if found.is_file()}


@cache
def imported(file: Path) -> frozenset[Path]:
    found: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hmdiff"):
            found |= modules(node.module)
            for alias in node.names:
                found |= modules(f"{node.module}.{alias.name}")
    return frozenset(found)


def closure(file: Path) -> set[Path]:
    seen, todo = set(), [file]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo += imported(current)
    return {path for path in seen if path.stem != "__init__" and top(path) not in PLUMBING}


def top(path: Path) -> str:
    """The module or package right below hmdiff/ that ``path`` belongs to."""
    return path.relative_to(ROOT / "hmdiff").parts[0].removesuffix(".py")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_the_code_that_it_imports(stage):
    entry = STAGES[stage].get("do", STAGES[stage])
    module = entry["cmd"].split()[1].replace("-", "_")
    deps = [ROOT / dep for dep in entry["deps"] if dep.startswith("hmdiff")]
    needed = closure(ROOT / "hmdiff/stages" / f"{module}.py")
    missing = {path for path in needed if not any(path.is_relative_to(dep) for dep in deps)}
    assert missing == set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_files_that_exist(stage):
    entry = STAGES[stage].get("do", STAGES[stage])
    for dep in entry["deps"]:
        assert not dep.startswith("hmdiff") or (ROOT / dep).exists(), dep
