"""The stages of dvc.yaml as the Snakefile needs them, and which of them are stale.

DVC says so, and takes seconds for it. While nothing is stale its answer is kept together with a
fingerprint of all that it rests on; as long as that stays the same DVC is not even imported. What
DVC itself goes by to know a file again, its inode, size and time, is what the fingerprint is of.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hmdiff.errors import UserError
from hmdiff.files import write_json

TMP = Path(".dvc/tmp")
KEPT = TMP / "plan.json"
SENT = TMP / "sent.json"  # the stages of the run that is going on, for its jobs on a cluster
# dvc.yaml, what it reads, what says how to read it, and the code that read it.
_SOURCES = ("dvc.yaml", "params.yaml", "dvc.lock", ".dvcignore", ".dvc/config", ".dvc/config.local")
_RUN = "HMDIFF_RUN"
_IGNORED = {"__pycache__", ".snakemake_timestamp"}  # as in .dvcignore


@dataclass(frozen=True)
class Step:
    """A resolved stage.

    Attributes:
        deps: files and folders that it reads, parameters left out.
        stale: DVC would run it: something of it has changed, or is not there.
        rerun: it is stale, or what it depends on is.
        dependents: stages that wait for it, directly or not.
    """

    name: str
    cmd: str
    desc: str | None
    meta: dict[str, Any]
    deps: list[str]
    outs: list[str]
    stale: bool
    rerun: bool
    dependents: int


def steps() -> dict[str, Step]:
    """All stages with a command, by name."""
    kept = _kept()
    if kept is not None and kept["fingerprint"] == fingerprint(kept["paths"]):
        return {step["name"]: Step(**step) for step in kept["steps"]}
    found, paths, before = _ask_dvc()
    if not any(step.stale for step in found):
        kept = {"paths": paths, "fingerprint": before, "steps": [asdict(step) for step in found]}
        write_json(KEPT, kept)
    return {step.name: step for step in found}


def send(found: dict[str, Step]) -> None:
    """Leave the stages of a run that begins where its jobs on a cluster find them."""
    run = os.environ[_RUN] = uuid.uuid4().hex  # goes with the environment to the jobs
    settled = [asdict(replace(step, stale=False, rerun=False)) for step in found.values()]
    write_json(SENT, {"run": run, "steps": settled})


def sent() -> dict[str, Step]:
    """The stages as the run that sent this job knows them, none of them stale.

    A job on a cluster reads the Snakefile again, while others record their stages: DVC would take
    seconds, find its lock taken, and say nothing that the job needs, which runs its one stage
    in any case.

    Raises:
        UserError: The run was killed, and another one has begun since.
    """
    kept = json.loads(SENT.read_text(encoding="utf-8"))
    if os.environ.get(_RUN, kept["run"]) != kept["run"]:
        raise UserError("the run that sent this job has ended; another one is going on")
    return {step["name"]: Step(**step) for step in kept["steps"]}


def fingerprint(paths: Iterable[str]) -> str:
    """A hash that changes with any file at or below ``paths``, or what DVC is told."""
    texts = [_content(Path(path)) for path in (*_SOURCES, __file__)]
    parts = [sys.version, str(Path.cwd()), *texts]
    digest = hashlib.sha256(json.dumps(parts).encode())
    for path in paths:
        for line in _marks(path):
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _kept() -> dict[str, Any] | None:
    try:
        kept = json.loads(KEPT.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the last of thousands of brackets
        return None
    return (
        kept if isinstance(kept, dict) and {"paths", "fingerprint", "steps"} <= set(kept) else None
    )


def _content(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _marks(path: str) -> Iterator[str]:
    """A line for the file ``path``, or for all that is below it, in a fixed order."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        yield f"{path}\0missing\n"
        return
    if not os.path.isdir(path):
        yield f"{path}\0{status.st_ino}\0{status.st_size}\0{status.st_mtime_ns}\n"
        return
    yield f"{path}\0folder\n"
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        if name not in _IGNORED:
            yield from _marks(os.path.join(path, name))


def _ask_dvc() -> tuple[list[Step], list[str], str]:
    """The steps, the paths that they read and write, and the fingerprint before DVC looked."""
    import networkx as nx
    from dvc.repo import Repo, lock_repo

    repo = Repo()
    with lock_repo(repo):
        stages = {stage.addressing: stage for stage in repo.index.stages if stage.cmd}
        inputs = {
            name: [dep.def_path for dep in stage.deps if dep not in stage.params]
            for name, stage in stages.items()
        }
        outputs = {name: [out.def_path for out in stage.outs] for name, stage in stages.items()}
        paths = sorted({path for part in (*inputs.values(), *outputs.values()) for path in part})
        before = fingerprint(paths)
        stale = {name for name, stage in stages.items() if stage.status()}
        needs = nx.relabel_nodes(repo.index.graph, lambda stage: stage.addressing)
    rerun = stale.union(*(nx.ancestors(needs, name) for name in stale))
    found = [
        Step(
            name, stage.cmd, stage.desc, stage.meta, inputs[name], outputs[name],
            name in stale, name in rerun, len(nx.ancestors(needs, name)),
        )
        for name, stage in stages.items()
    ]  # fmt: skip
    return found, paths, before
