"""Killed with SIGKILL at any moment, the same command again is all it takes: `make kills`.

The pipeline at the smoke preset is run twice from nothing to the report. One run is left alone.
The other is killed again and again at moments drawn from a seed: the engine with everything below
it, one stage's process alone, or the engine alone, whose stage then goes on as an orphan. Every
family of stages is hit at least once. After each kill the same command is given again and nothing
else is done. In the end

- every output, the tables among them, has the bytes of the run that was left alone; where frames a
  second are shown, all but those are equal;
- neither engine has anything left to do;
- no unfinished work and no process is left behind, and every run that the other project has in
  MLflow is there and finished.

A moment is a delay after the start of a stage's process, or of the engine: the choices repeat with
the seed, what a machine does until then does not to the millisecond. Work in progress is saved all
the time (``checkpoint.seconds: 0``), so that most of what is killed goes on in the middle.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from engines import TIMED, assert_settled, outputs, run, smoke_project
from killer import ENGINES, PATIENCE, POLL, Killer, Project, family, processes

STAGES = "from hmdiff.workflow.plan import steps; import json;" + (
    "print(json.dumps({' '.join(s.cmd.split()): s.name for s in steps().values()}))"
)
RUNS = """\
import json, mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
runs = [(e.name, r.info.run_name, r.info.status) for e in mlflow.search_experiments()
    for r in mlflow.search_runs([e.experiment_id], output_format="list")]
print(json.dumps(runs))
"""


def lasting(folder: Path) -> dict[str, float]:
    """Family -> seconds that its longest stage took in the project that was left alone."""
    found: dict[str, float] = {}
    for path in (folder / "logs/cost").glob("*.json"):
        name = family(path.stem)
        found[name] = max(found.get(name, 0), json.loads(path.read_text())["seconds"])
    return found


def compare(clean: Path, killed: Path) -> None:
    """See the module; an assertion names what differs."""
    wanted, found = outputs(clean), outputs(killed)
    assert wanted.keys() == found.keys()
    assert {path for path in wanted if wanted[path] != found[path]} <= TIMED
    for number in range(1, 8):
        tables = [_untimed(folder / f"results/table{number}.json") for folder in (clean, killed)]
        assert tables[0] == tables[1], f"table {number}"
    print(f"{len(wanted)} outputs are equal, but for what times: {', '.join(sorted(TIMED))}")
    assert_settled(killed)
    assert sorted(path.name for path in (killed / "runs/checkpoints").iterdir()) == []
    runs = [
        Counter(map(tuple, json.loads(run(folder, "python", "-c", RUNS).splitlines()[-1])))
        for folder in (clean, killed)
    ]
    lost = [entry for entry in runs[0] if entry not in runs[1]]
    assert not lost, f"not in MLflow: {lost}"
    more = {entry: count for entry, count in (runs[1] - runs[0]).items()}
    print(f"MLflow has all {runs[0].total()} runs, and of killed stages {len(more)}: {more}")
    halves = [str(path.relative_to(killed)) for path in killed.rglob("*.partial")]
    print(f"half-written, and ignored by both engines: {', '.join(halves) or 'nothing'}")


def _untimed(path: Path) -> list[dict]:
    return [record for record in json.loads(path.read_text()) if record["metric"] != "FPS"]


def smoke(folder: Path, seconds: int) -> Path:
    """A smoke project that saves what is unfinished every so many ``seconds``."""
    params = smoke_project(folder) / "params.yaml"
    text, count = re.subn(
        r"(?m)^(checkpoint:\n  seconds:) \d+", rf"\g<1> {seconds}", params.read_text()
    )
    assert count == 1, "params.yaml has no checkpoint.seconds"
    params.write_text(text)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", choices=ENGINES, default="snakemake")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--folder", type=Path, help="new; gets the projects, and keeps them")
    parser.add_argument("--clean", type=Path, help="project that an earlier call has left alone")
    chosen = parser.parse_args()
    began = time.monotonic()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    folder.mkdir(exist_ok=True)
    print(f"seed {chosen.seed}, {chosen.engine}, projects in {folder}", flush=True)
    clean = chosen.clean
    if clean is None:
        clean = smoke(folder / "clean", 60)
        run(clean, *ENGINES[chosen.engine], timeout=PATIENCE)
    print(f"left alone: {(time.monotonic() - began) / 60:.1f} min", flush=True)
    stages = json.loads(run(clean, "python", "-c", STAGES).splitlines()[-1])
    killed = Project(smoke(folder / "killed", 0), chosen.engine, stages)
    killer = Killer(killed, chosen.kills, random.Random(chosen.seed), lasting(clean))
    killer.to_the_end()
    for (name, way), count in sorted(killer.hits.items()):
        print(f"{count:4} {name} ({way})")
    assert killer.done >= chosen.kills and not killer.missed, (killer.done, killer.missed)
    deadline = time.monotonic() + 30
    while left := processes(killed.sessions):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(POLL)
    assert killer.once() == 0, "an orphan has left what cannot be mended"
    compare(clean, killed.folder)
    minutes = (time.monotonic() - began) / 60
    print(f"{killer.done} kills, {killer.starts} runs, {minutes:.0f} min: nothing is lost")


if __name__ == "__main__":
    sys.exit(main())
