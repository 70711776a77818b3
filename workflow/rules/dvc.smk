"""One rule per resolved DVC stage, and one rule per group of stages.

DVC says by content which stages are stale; Snakemake orders them, runs them in parallel and hands
out cores, memory and GPUs. Each job ends with `dvc commit` of its own stage, so that dvc.lock is
the one record of what is up to date, whichever engine ran.
"""

import os
import re
import sys
import time
from collections import defaultdict
from pathlib import Path

import networkx as nx
from dvc.repo import Repo
from snakemake.exceptions import WorkflowError

from hmdiff.acquisition.status import missing

os.environ.setdefault("DVC_NO_ANALYTICS", "1")
repo = Repo(".")
status = repo.status()  # first, since it forgets the index
index = repo.index
stages = {stage.addressing: stage for stage in index.stages if stage.cmd}
stale = status.keys() & stages.keys()
needs = nx.relabel_nodes(index.graph, lambda stage: stage.addressing)
rerun = stale.union(*(nx.ancestors(needs, name) for name in stale))
produced = [out.def_path for stage in stages.values() for out in stage.outs]

lacking = missing("params.yaml")
print(*lacking, sep="\n", end="\n" * bool(lacking), file=sys.stderr)


onstart:
    if lacking:
        raise WorkflowError("acquire.source is real: complete the data named above first")


def outputs_of(*names):
    return [out.def_path for name in names for out in stages[name].outs]


def inputs_of(name):
    """A stage's dependencies; one that is a folder of other stages' outputs stands for them."""
    paths = []
    for dep in stages[name].deps:
        if dep not in stages[name].params:
            inside = [path for path in produced if path.startswith(f"{dep.def_path}/")]
            paths += inside or [dep.def_path]
    return paths


def mark(name):
    """A fresh file that makes a stale stage's inputs newer than its outputs."""
    path = Path(repo.tmp_dir, "stale", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(time.time_ns()))
    return os.path.relpath(path)


def not_of_the_future(paths):
    """Date back what a clock that was set back has left; Snakemake would refuse or overlook it."""
    now = time.time()
    for path in map(Path, paths):
        for dated in (path, path / ".snakemake_timestamp"):
            if dated.exists() and dated.stat().st_mtime >= now:
                os.utime(dated, (now - 1, now - 1))


for name in rerun & stages.keys():
    not_of_the_future(inputs_of(name) + outputs_of(name))

made_again = set(outputs_of(*rerun))


def triggers(name):
    """Inputs in which Snakemake's clock says exactly what DVC's hashes say."""
    paths = [path if path in made_again else ancient(path) for path in inputs_of(name)]
    return paths + ([mark(name)] if name in stale else [])


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
            " && dvc --wait-for-lock commit --quiet --force '{params.stage}'"


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
