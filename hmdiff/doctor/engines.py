"""git, DVC and Snakemake: versions, what a run would find, and what a killed one left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from importlib import metadata

from hmdiff.doctor.findings import Context, Finding
from hmdiff.params import read_yaml


def git(context: Context) -> Iterator[Finding]:
    """DVC wants a repository; results carry its commit."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=context.root, capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except OSError:
        yield Finding("problem", "git is not installed", "`apt-get install git`")
        return
    if done.returncode == 0:
        yield Finding("ok", f"commit {done.stdout.strip()}")
        return
    reason = (done.stderr.strip().splitlines() or ["no answer"])[0]
    if "not a git repository" in reason:
        yield Finding("problem", f"{context.root.resolve()}: {reason}", "`git init`, or clone it")
    elif "dubious ownership" in reason:
        remedy = f"`git config --global --add safe.directory {context.root.resolve()}`"
        yield Finding("problem", reason, remedy)
    else:
        yield Finding("warning", f"{reason}; results name no commit", "`git commit` the project")


def dvc(context: Context) -> Iterator[Finding]:
    """The record of what has been run; with ``full``, what of it is stale."""
    version = metadata.version("dvc")
    lock, folder = context.root / "dvc.lock", context.root / ".dvc"
    if not (folder / "config").is_file():
        yield Finding("problem", f"{version}; {folder} is missing", "`git checkout .dvc`")
        return
    if not os.access(folder, os.W_OK):
        yield Finding("problem", f"{version}; {folder} is not writable", "open it")
        return
    if not lock.is_file():
        yield Finding("warning", f"{version}; nothing has been run (no dvc.lock)", "`make tables`")
        return
    if context.full:
        yield _stale(version, context)
        return
    stages = (read_yaml(lock) or {}).get("stages", {})
    here = [
        name
        for name, stage in stages.items()
        if all((context.root / out["path"]).exists() for out in stage.get("outs", []))
    ]
    found = f"{version}; dvc.lock records {len(stages)} stages"
    if len(here) < len(stages):
        away = f"{found}, the outputs of {len(stages) - len(here)} are not here"
        yield Finding("warning", away, "`make tables`; or `dvc pull` from a remote with them")
    else:
        yield Finding("ok", f"{found}, all outputs are here (`--full` tells what is stale)")


def _stale(version: str, context: Context) -> Finding:
    from dvc.repo import Repo

    with Repo(str(context.root)) as repo:
        stale = list(repo.status())
        count = sum(1 for stage in repo.index.stages if stage.cmd)
    if not stale:
        return Finding("ok", f"{version}; all {count} stages are up to date")
    found = f"{version}; {len(stale)} of {count} stages have changed, the first is {stale[0]}"
    return Finding("warning", found, "`make tables` or `dvc repro`; before, `dvc status` says why")


def snakemake(context: Context) -> Iterator[Finding]:
    """Its version, and a lock that a killed run left."""
    version = metadata.version("snakemake")
    if not (context.root / "Snakefile").is_file():
        yield Finding("problem", f"{version}; no Snakefile", "`git checkout Snakefile`")
    elif any((context.root / ".snakemake/locks").glob("*")):
        remedy = "wait for the run that holds it; if none does, the next run frees the folder"
        yield Finding("warning", f"{version}; the folder is locked", remedy)
    else:
        yield Finding("ok", version)
