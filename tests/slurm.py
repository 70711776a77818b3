"""The smoke pipeline as jobs of a real Slurm, disturbed and not: `make slurm`.

A Slurm of one node is started on this machine (slurm_cluster.py), and the profile `profiles/slurm`
is used as a reader of docs/clusters.md would use it: two of its lines are edited. Every job finds
another search path than its sender's. The pipeline is run from nothing to the report

- by Snakemake on this machine, without Slurm;
- by Slurm, left alone: every stage is a job with the processors, memory and GPUs of its entry in
  dvc.yaml, and no two jobs have the one GPU at a time;
- by Slurm, disturbed: a job is cancelled, the process of another is killed with SIGKILL, the
  controller is killed with SIGKILL while jobs run and end and is started again, and Snakemake
  itself is killed while its jobs run. The same command again completes.

In the end both projects have, byte for byte, what the first one has, but for what times, and
neither engine has anything left to do.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import psutil
from engines import TIMED, assert_settled, environment, outputs, run, smoke_project
from slurm_cluster import PARTITION, Cluster, cluster, lacking

from hmdiff.machine import describe, record

COMMAND = ["snakemake", "--workflow-profile", "profiles/slurm", "--nocolor", "all"]
# Two lines of the profile, as they are and as this cluster wants them.
EDITED = {
    "#  slurm_partition: gpu\n": f"  slurm_partition: {PARTITION}\n",
    "max-threads: 8 ": "max-threads: {cpus} ",
}
# A cluster's jobs last for hours, and Snakemake asks for them every 40 seconds at first.
ASKED = ["--slurm-init-seconds-before-status-checks", "2"]
PLANNED = (
    "from hmdiff.workflow.plan import steps; import json;"
    "print(json.dumps({s.name: s.meta for s in steps().values()}))"
)
PATIENCE = 3600  # seconds for one run
POLL = 0.1


class Run:
    """One smoke project, and Snakemake in it with its jobs on ``slurm``."""

    def __init__(self, folder: Path, slurm: Cluster) -> None:
        self.folder, self.slurm = smoke_project(folder), slurm
        self.log = folder.with_suffix(".log")
        profile = self.folder / "profiles/slurm/config.yaml"
        text = profile.read_text()
        for old, new in EDITED.items():
            assert text.count(old) == 1, f"the profile has no line {old!r}"
            text = text.replace(old, new.format(cpus=slurm.cpus))
        profile.write_text(text)

    def start(self) -> subprocess.Popen:
        """With the code of the project, not of who runs this."""
        variables = environment() | self.slurm.environment | {"PYTHONPATH": str(self.folder)}
        with open(self.log, "a") as log:
            return subprocess.Popen(
                [*COMMAND, *ASKED], cwd=self.folder, env=variables, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def finish(self, engine: subprocess.Popen) -> None:
        code = engine.wait(PATIENCE)
        assert code == 0, f"{code}:\n{self.said()}"

    def said(self) -> str:
        return "".join(self.log.read_text().splitlines(keepends=True)[-60:])

    def jobs(self) -> list[dict[str, str]]:
        """Of this project, in order."""
        return [job for job in self.slurm.jobs() if job.get("WorkDir") == str(self.folder)]

    def recorded(self) -> set[str]:
        """The stages that dvc.lock has."""
        lock = self.folder / "dvc.lock"
        text = lock.read_text() if lock.exists() else ""
        return set(re.findall(r"^  ([^ ].*):$", text, re.MULTILINE))


def stage_of(job: dict[str, str]) -> str:
    return job["Comment"].strip().removeprefix("rule_")


def processes(job: dict[str, str]) -> list[psutil.Process]:
    """Those of a stage itself that run in ``job``: `hmdiff ...`."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [Path(word).name for word in process.cmdline()[:2]]
            if "hmdiff" in words and process.environ().get("SLURM_JOB_ID") == job["JobId"]:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return found


def check_requests(jobs: list[dict[str, str]], metas: dict[str, dict], cpus: int) -> None:
    """Every stage was one completed job with its processors, memory and GPUs."""
    assert sorted(map(stage_of, jobs)) == sorted(metas)
    held = []
    for job in jobs:
        meta = metas[stage_of(job)]
        assert job["JobState"] == "COMPLETED", job
        asked = {
            "cpus": int(job["CPUs/Task"]),
            "mem_mb": megabytes(job["MinMemoryNode"]),
            "gpu": int(job.get("TresPerJob", "gres:gpu:0").rpartition(":")[2]),
        }
        threads = min(meta["threads"], cpus)
        assert asked == {"cpus": threads, "mem_mb": meta["mem_mb"], "gpu": meta["gpu"]}, job
        if meta["gpu"]:
            held.append((job["StartTime"], job["EndTime"], stage_of(job)))
    held.sort()
    for (_, end, first), (begin, _, second) in pairwise(held):
        assert end <= begin, f"{first} and {second} had the one GPU at a time"


def megabytes(text: str) -> int:
    number, unit = float(text[:-1]), text[-1]
    return round(number * {"M": 1, "G": 1024}[unit])


def until(holds: Callable[[], object], engine: subprocess.Popen, what: str):
    """The first true value of ``holds``, while ``engine`` runs."""
    deadline = time.monotonic() + PATIENCE
    while not (value := holds()):
        assert engine.poll() is None, f"the run ended before {what}"
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(POLL)
    return value


def disturb(project: Run) -> list[str]:
    """Run ``project`` to its end through four disturbances; the jobs that were hit."""
    slurm, hit = project.slurm, []

    def working(*families: str) -> dict[str, str] | None:
        """A job, not hit yet, whose stage is of one of ``families`` and at work."""
        for job in project.jobs():
            stage = stage_of(job)
            new = job["JobState"] == "RUNNING" and job["JobId"] not in hit
            if new and stage.partition("@")[0] in families and processes(job):
                return job
        return None

    def tell(what: str, job: dict[str, str]) -> None:
        hit.append(job["JobId"])
        print(f"{what}: job {job['JobId']}, {stage_of(job)}", flush=True)

    engine = project.start()
    job = until(lambda: working("acquire", "prepare"), engine, "a job to cancel")
    slurm.ask("scancel", job["JobId"])
    tell("cancelled", job)

    job = until(lambda: working("pretrain_extractor"), engine, "a job to kill")
    for process in processes(job):
        process.kill()
    tell("killed", job)

    job = until(lambda: working("train"), engine, "a job to lose its controller")
    slurm.kill_controller()
    tell("controller killed", job)
    before = project.recorded()
    until(lambda: project.recorded() - before, engine, "the end of a job without a controller")
    slurm.start_controller()
    print("controller started again", flush=True)

    job = until(lambda: working("train", "evaluate"), engine, "a job to lose Snakemake")
    engine.kill()
    engine.wait()
    tell("Snakemake killed", job)
    engine = project.start()
    project.finish(engine)
    return hit


def compare(wanted: Path, found: Path) -> int:
    """How many outputs are equal; an assertion names what else differs than what times."""
    first, second = outputs(wanted), outputs(found)
    assert first.keys() == second.keys()
    assert {path for path in first if first[path] != second[path]} <= TIMED
    assert_settled(found)
    return sum(first[path] == second[path] for path in first)


def missing() -> str | None:
    """What is not installed, in a line with the remedy."""
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "snakemake-executor-plugin-slurm is not here: make cluster"
    return lacking()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="new; gets the projects, and keeps them")
    parser.add_argument("--clean", type=Path, help="project that an earlier call ran locally")
    parser.add_argument("--only", choices=("alone", "disturbed"), help="one of the two runs")
    parser.add_argument("--out", type=Path, help="JSON file of the figures; a CSV beside it")
    chosen = parser.parse_args()
    if absent := missing():
        print(f"make slurm: {absent}", file=sys.stderr)
        return 2
    folder = (chosen.folder or Path(tempfile.mkdtemp(prefix="slurm-"))).resolve()
    folder.mkdir(exist_ok=True)
    print(f"projects in {folder}", flush=True)
    figures = []

    def timed(name: str, began: float) -> None:
        figures.append(record(name, (time.monotonic() - began) / 60, "min"))
        print(f"{name}: {figures[-1]['value']:.1f} min", flush=True)

    clean = chosen.clean
    if clean is None:
        clean = smoke_project(folder / "local")
        began = time.monotonic()
        run(clean, "snakemake", "--cores", str(os.cpu_count()), "--nocolor", timeout=PATIENCE)
        timed("local Snakemake", began)
    metas = json.loads(run(clean, "python", "-c", PLANNED).splitlines()[-1])
    with cluster(folder / "cluster") as slurm:
        for name in ("alone", "disturbed"):
            if chosen.only in (None, name):
                project = Run(folder / name, slurm)
                began = time.monotonic()
                if name == "alone":
                    project.finish(project.start())
                    check_requests(project.jobs(), metas, slurm.cpus)
                else:
                    hit = disturb(project)
                    figures.append(record("jobs that were hit", len(hit), "jobs"))
                timed(f"Slurm, {name}", began)
                figures.append(record(f"jobs, {name}", len(project.jobs()), "jobs"))
                equal = compare(clean, project.folder)
                figures.append(record(f"equal outputs, {name}", equal, "outputs"))
        version = slurm.ask("sinfo", "--version").strip()
    if chosen.out:
        describe(chosen.out, figures, command="make slurm", slurm=version, timed=sorted(TIMED))
    print(f"{version}: {len(metas)} stages; nothing is lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
