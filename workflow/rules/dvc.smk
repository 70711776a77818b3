"""One rule per resolved DVC stage, and one rule per group of stages.

DVC says by content which stages are stale; Snakemake orders them, runs them in parallel and hands
out cores, memory and GPUs. Each job ends with DVC's commit of its own stage, so that dvc.lock is
the one record of what is up to date, whichever engine ran.
"""

import os
import re
import sys
import time
from collections import defaultdict
from pathlib import Path

from snakemake.exceptions import WorkflowError

from hmdiff.acquisition.status import missing
from hmdiff.workflow.lock import admit_jobs, free_dead_locks, hold_as_job
from hmdiff.workflow.plan import TMP, send, sent, steps

os.environ.setdefault("DVC_NO_ANALYTICS", "1")
# What stages call stands beside this interpreter, whatever path the node of a cluster has.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
# A job on a cluster reads this file again.
is_job = not workflow.is_main_process
if is_job:
    hold_as_job()
    stages = sent()
else:
    free_dead_locks()
    stages = steps()
produced = [path for stage in stages.values() for path in stage.outs]

lacking = [] if is_job else missing("params.yaml")
print(*lacking, sep="\n", end="\n" * bool(lacking), file=sys.stderr)


onstart:
    if lacking:
        raise WorkflowError("acquire.source is real: complete the data named above first")
    if not is_job:
        send(stages)
        admit_jobs()


def outputs_of(*names):
    return [path for name in names for path in stages[name].outs]


def inputs_of(name):
    """A stage's dependencies; one that is a folder of other stages' outputs stands for them."""
    paths = []
    for dep in stages[name].deps:
        inside = [path for path in produced if path.startswith(f"{dep}/")]
        paths += inside or [dep]
    return paths


def mark(name):
    """A fresh file that makes a stale stage's inputs newer than its outputs."""
    path = TMP / "stale" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(time.time_ns()))
    return str(path)


def not_of_the_future(paths):
    """Date back what a clock that was set back has left; Snakemake would refuse or overlook it."""
    now = time.time()
    for path in map(Path, paths):
        for dated in (path, path / ".snakemake_timestamp"):
            if dated.exists() and dated.stat().st_mtime >= now:
                os.utime(dated, (now - 1, now - 1))


rerun = [name for name in stages if stages[name].rerun]
for name in rerun:
    not_of_the_future(inputs_of(name) + outputs_of(name))

made_again = set(outputs_of(*rerun))


def triggers(name):
    """Inputs in which Snakemake's clock says exactly what DVC's hashes say."""
    paths = [path if path in made_again else ancient(path) for path in inputs_of(name)]
    return paths + ([mark(name)] if stages[name].stale else [])


for name, stage in stages.items():

    rule:
        name:
            name
        input:
            triggers(name),
        output:
            [path if Path(path).suffix else directory(path) for path in outputs_of(name)],
        log:
            f"logs/{name}.log",
        threads: stage.meta["threads"]
        # What most stages wait for goes first, so that no core idles behind the longest chain.
        priority: stage.dependents
        resources:
            mem_mb=stage.meta["mem_mb"],
            gpu=stage.meta["gpu"],
        params:
            stage=name,
            cmd=stage.cmd,
        message:
            stage.desc
        shell:
            "({params.cmd}) 2>&1 | tee {log}"
            " && python -m hmdiff.workflow.commit '{params.stage}'"


groups = defaultdict(list)
for name in stages:
    groups[re.sub(r"@.*|\d+$", "", name)].append(name)

for group, names in groups.items():
    if group not in stages:

        rule:
            name:
                group
            input:
                outputs_of(*names),
