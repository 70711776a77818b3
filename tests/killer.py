"""Runs an engine in a smoke project and kills it, or a part of it, at moments that are drawn."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engines import environment
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

ENGINES = {"snakemake": ["snakemake", "--cores", "1", "--nocolor"], "dvc": ["dvc", "repro"]}
POLL = 0.05  # seconds
PATIENCE = 1800  # seconds for one run of an engine
# The engine and all below it, one stage's process alone, or the engine alone.
WAYS = ("all", "all", "all", "stage", "stage", "engine")


def processes(sessions: set[int]) -> dict[int, list[str]]:
    """Process -> its command line, of those of these sessions that are not dead."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                words = Path(entry, "stat").read_text().rpartition(")")[2].split()
                command = Path(entry, "cmdline").read_bytes().decode().split("\0")[:-1]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(words[3]) in sessions and words[0] != "Z":
                found[int(entry.name)] = command
    return found


def family(stage: str) -> str:
    return re.sub(r"@.*|\d+$", "", stage)


@dataclass
class Project:
    """One smoke project and its engine's runs.

    Attributes:
        stages: the command of every stage -> its name.
        sessions: of all runs so far; a process group each.
    """

    folder: Path
    engine: str
    stages: dict[str, str] = field(default_factory=dict)
    sessions: set[int] = field(default_factory=set)

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def environment(self) -> dict[str, str]:
        """With the code of the project, not of who runs this."""
        return environment() | {"PYTHONPATH": str(self.folder)}

    def started(self) -> subprocess.Popen:
        """The engine, in a session of its own."""
        with open(self.log, "a") as log:
            engine = subprocess.Popen(
                ENGINES[self.engine], cwd=self.folder, env=self.environment(),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.sessions.add(engine.pid)
        return engine

    def running(self, session: int) -> Iterator[tuple[int, str]]:
        """Processes of stages and their names; those that a stage has forked are left out."""
        known = set()
        for pid, command in sorted(processes({session}).items()):
            stage = self.stages.get(" ".join(["hmdiff", *command[2:]]))
            if stage is not None and stage not in known:
                known.add(stage)
                yield pid, stage

    def left(self) -> int:
        """How many stages dvc.lock does not have yet."""
        lock = self.folder / "dvc.lock"
        text = lock.read_text() if lock.exists() else ""
        return len(self.stages) - len(re.findall(r"^  [^ ].*:$", text, re.MULTILINE))

    def said(self) -> str:
        return "".join(self.log.read_text().splitlines(keepends=True)[-30:])


@dataclass
class Killer:
    """Chooses moments and kills; ``hits`` counts what was struck by family and way."""

    project: Project
    wanted: int
    random: random.Random
    lasted: dict[str, float]
    hits: Counter = field(default_factory=Counter)
    starts: int = 0

    @property
    def done(self) -> int:
        return sum(self.hits.values())

    @property
    def missed(self) -> set[str]:
        """Families that were never hit."""
        return {family(name) for name in self.project.stages.values()} - {f for f, _ in self.hits}

    def delay(self, stage: str) -> float | None:
        """Seconds after the start of ``stage`` at which to kill; None: it is spared."""
        need, left = max(0, self.wanted - self.done), max(1, self.project.left())
        share = 1 if left == 1 and need else need / (need + left)
        if family(stage) in self.missed:
            return self.random.uniform(0, 0.9) * self.lasted[family(stage)]
        if self.random.random() < share:
            # A little longer than it takes: what follows a stage is hit as well.
            return self.random.uniform(0, 1.2) * self.lasted[family(stage)]
        return None

    def once(self) -> int | None:
        """Give the command once; its exit code, or None where it was killed."""
        self.starts += 1
        engine, seen = self.project.started(), set()
        began, due, victim = time.monotonic(), None, None
        if self.done < self.wanted and self.random.random() < 0.15:
            due = began + self.random.uniform(0, 15)  # whatever is going on then
        while engine.poll() is None:
            now = time.monotonic()
            assert now - began < PATIENCE, f"hangs: {processes({engine.pid})}"
            for pid, stage in self.project.running(engine.pid):
                if pid not in seen:
                    seen.add(pid)
                    delay = self.delay(stage) if due is None else None
                    if delay is not None:
                        due, victim = now + delay, pid
            if due is not None and now >= due:
                return self.kill(engine, victim)
            time.sleep(POLL)
        return engine.returncode

    def kill(self, engine: subprocess.Popen, victim: int | None) -> int | None:
        """Kill, and count what was running. Exit code of an engine that has lost only a stage."""
        way = self.random.choice(WAYS)
        running = dict(self.project.running(engine.pid))
        victim = victim if victim in running else next(iter(running), None)
        way = "all" if way == "stage" and victim is None else way
        commands = processes({engine.pid}).values()
        committing = any("hmdiff.workflow.commit" in command for command in commands)
        name = running.get(victim, "commit" if committing else "engine")
        with contextlib.suppress(ProcessLookupError):
            if way == "all":
                os.killpg(engine.pid, signal.SIGKILL)
            else:
                os.kill(victim if way == "stage" else engine.pid, signal.SIGKILL)
        self.hits[family(name), way] += 1
        print(f"kill {self.done}: {name}, {way}; {self.project.left()} stages left", flush=True)
        code = engine.wait(PATIENCE)
        return code if way == "stage" else None

    def to_the_end(self) -> None:
        """Give the command until it ends well."""
        code = None
        while code != 0:
            before = self.done
            # What an orphan of the run before is at, this one may find taken.
            excused = bool(processes(self.project.sessions))
            if self.project.engine == "dvc":
                self.mend()
            code = self.once()
            excused = excused or self.done > before
            assert code == 0 or excused, f"the same command again fails:\n{self.project.said()}"
            assert self.starts < 4 * self.wanted + 40, "no end in sight"

    def mend(self) -> None:
        """Delete a dvc.lock that DVC was killed while it wrote, as docs/troubleshooting.md says."""
        lock = self.project.folder / "dvc.lock"
        try:
            whole = not lock.exists() or "schema" in YAML(typ="safe").load(lock.read_text())
        except (TypeError, YAMLError):
            whole = False
        if not whole:
            print("dvc.lock is cut: deleted", flush=True)
            lock.unlink()
