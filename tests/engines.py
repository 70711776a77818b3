"""Helpers that run the two engines in a copy of this project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent

# What is timed differs from run to run, and so do the table and the page that show it.
TIMED = {
    "runs/speed.json", "results/table6.csv", "results/table6.tex", "results/table6.json",
    "results/report.html",
}  # fmt: skip


def environment() -> dict[str, str]:
    """The caller's environment with this interpreter's scripts first and everything quiet."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    quiet = {"PATH": path, "DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    outer = ("PYTEST_", "MLFLOW_", "SNAKEMAKE_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(outer)}
    return {**kept, **quiet, "NO_COLOR": "1"}


def run(
    folder: Path,
    *command: str,
    check: bool = True,
    timeout: float = 1200,
    env: dict[str, str] | None = None,
) -> str:
    """Run a command in ``folder``; its output, or an assertion that shows it."""
    done = subprocess.run(
        command, cwd=folder, env=env or environment(), text=True, timeout=timeout,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-6000:]}"
    return done.stdout


def copy_engine(folder: Path) -> None:
    """Copy what makes a project run under both engines: the workflow and DVC's settings."""
    for name in ("Snakefile", ".dvcignore", "workflow", "profiles", ".dvc/config"):
        source = ROOT / name
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)


def copy_project(folder: Path) -> None:
    """Copy every file of this checkout that git would track, into a repository of its own."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    run(folder, "git", "init", "-q")


def commit(folder: Path) -> None:
    """Everything in ``folder`` that git tracks or does not ignore, committed."""
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    run(folder, "git", "add", ".")
    run(folder, "git", *identity, "commit", "-qm", "all")


def smoke_project(folder: Path) -> Path:
    """A copy of this checkout at the smoke preset, without what a run has recorded."""
    folder.mkdir()
    copy_project(folder)
    for stale in ("dvc.lock", "results"):
        path = folder / stale
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    run(folder, "hmdiff", "preset", "smoke")
    return folder


def snakemake(folder: Path, *arguments: str, **options) -> str:
    return run(folder, "snakemake", "--cores", "2", "--nocolor", *arguments, **options)


def dvc(folder: Path, *arguments: str, **options) -> str:
    return run(folder, "dvc", *arguments, **options)


# Before each stage's entry DVC parses all of dvc.lock in a way that keeps comments, of which there
# are none: more than a second of processor time a stage. Its plain parser gives the same bytes.
_REPRO = """\
import sys
from dvc.cli import main
from dvc.utils.serialize import _yaml
keeping = _yaml.parse_yaml_for_update
_yaml.parse_yaml_for_update = lambda text, path: (
    _yaml.parse_yaml if str(path).endswith("dvc.lock") else keeping)(text, path)
sys.exit(main(["repro"]))
"""


def dvc_repro(folder: Path) -> str:
    """``dvc repro`` with a quick parser of dvc.lock, for pipelines of many stages."""
    return run(folder, "python", "-c", _REPRO)


def ran_by_dvc(output: str) -> set[str]:
    """Stages that `dvc repro` ran."""
    return set(re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE))


def ran_by_snakemake(output: str) -> set[str]:
    """Stages that Snakemake ran or, with -n, would run; groups and `all` are no stages."""
    jobs = set(re.findall(r"^\s+rule ([^\s:]+)|^(?:local)?rule ([^\s:]+):", output, re.MULTILINE))
    named = {name for pair in jobs for name in pair if name}
    table = re.search(r"^job +count\n[- ]+\n(.*?)^total", output, re.MULTILINE | re.DOTALL)
    counted = {line.split()[0] for line in table[1].splitlines() if line} if table else set()
    return {name for name in named | counted if name != "all"}


def outputs(folder: Path) -> dict[str, str]:
    """Path and content hash of every output that dvc.lock records."""
    lock = YAML(typ="safe").load((folder / "dvc.lock").read_text())
    outs = [out for stage in lock["stages"].values() for out in stage["outs"]]
    return {out["path"]: out["md5"] for out in outs}


def assert_settled(folder: Path) -> None:
    """Nothing is left to do for either engine, and DVC says so."""
    assert "up to date" in dvc(folder, "status")
    assert "Nothing to be done" in snakemake(folder, "-n", "all")
    assert ran_by_dvc(dvc(folder, "repro")) == set()
