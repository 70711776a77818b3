"""A rehearsal of a preset: two steps of each of its trainings at full size, on rendered stand-ins.

What makes a preset long is left out: the number of images and of steps. What makes it large stays:
the networks, the image size, the batches, K, N and the number of reverse steps. The commands are
those of dvc.yaml, run one after the other in a folder of their own.
"""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import hmdiff
from hmdiff.errors import UserError
from hmdiff.files import read_json
from hmdiff.params import load_params
from hmdiff.presets import FOLDER, apply_preset

STEPS = 2  # of every training
REVERSE_STEPS = 40  # of the evaluation (paper, Sec. 4.3)
PERSONS = {"train": 12, "val": 4, "test": 4}  # of a stand-in
TRAINED = ("train", "finetune", "pretrain_extractor")
# Of presets/smoke.yaml: only time and accuracy depend on them.
QUICK = ("body_models", "mesh_sampling")


@dataclass(frozen=True)
class Passed:
    """A stage that ended well."""

    stage: str
    seconds: float
    peak: float  # GB of main memory; never less than what this process takes itself
    said: str  # the last line that it printed


def check_preset(
    name: str, project: Path, work: Path, precision: str, report: Callable[[Passed], None]
) -> None:
    """Rehearse the preset ``name`` of the folder ``project`` in the new folder ``work``.

    Args:
        precision: ``compute.precision``; a processor may have no fast bf16.
        report: called after each stage.

    Raises:
        UserError: there is no such preset, ``work`` is not empty, or a stage fails or did not
            train for two steps; the line names its log.
    """
    work.mkdir(parents=True, exist_ok=True)
    if any(work.iterdir()):
        raise UserError(f"{work}: is not empty; name another folder for the check")
    for part in ("params.yaml", "dvc.yaml"):
        shutil.copy(project / part, work / part)
    shutil.copytree(project / FOLDER, work / FOLDER)
    apply_preset(name, work / "params.yaml")
    shrink(work, precision)
    (work / "logs").mkdir()
    for stage, command in _commands(work):
        done = _run(stage, command, work)
        _verify(stage, work)
        report(done)


def shrink(work: Path, precision: str) -> None:
    """Cut ``work``/params.yaml down to few images and two steps."""
    yaml = YAML()
    yaml.width = 10_000
    path = work / "params.yaml"
    tree = yaml.load(path.read_text(encoding="utf-8"))
    smoke = yaml.load((work / FOLDER / "smoke.yaml").read_text(encoding="utf-8"))
    for section in QUICK:
        for name, values in smoke[section].items():
            tree[section][name].update(values)
    tree["acquire"]["source"] = "rendered"
    # Stages run one at a time, so each has the machine to itself.
    tree["compute"].update(precision=precision, threads=tree["compute"]["threads_alone"])
    for standin in tree["standins"].values():
        standin.update({key: count for key, count in PERSONS.items() if key in standin})
    for dataset in tree["datasets"].values():
        if "held_out" in dataset:
            dataset["held_out"] = PERSONS["val"]
    for settings in tree["extractor"].values():
        # With random weights a step takes the same time and memory.
        settings.update(samples=STEPS * settings["batch"], warmup=1, validations=1, pretrained=None)
    batch = tree["training"]["batch"]
    short = {"samples": STEPS * batch, "warmup": batch}
    tree["training"].update(short, upsampler_samples=STEPS * batch)
    for finetune in tree["finetunes"].values():
        finetune.update(short)
    tree["features"]["copies"] = min(2, tree["features"]["copies"])
    for method in tree["methods"].values():
        method["candidates"] = [REVERSE_STEPS]
    tree["evaluation"].update(samples=1, selection_samples=1)
    with open(path, "w", encoding="utf-8") as file:
        yaml.dump(tree, file)
    load_params(path)


def _commands(work: Path) -> Iterator[tuple[str, str]]:
    """Name and command of all trainings, one evaluation and what they need, in their order."""
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    import networkx as nx
    from dvc.repo import Repo

    (work / ".dvc").mkdir()
    (work / ".dvc/config").write_text("[core]\n    no_scm = True\n")
    repo = Repo(str(work))
    stages = {stage.name: stage for stage in repo.index.stages}
    needs = nx.relabel_nodes(repo.index.graph, lambda stage: stage.name)
    # An edge leads from a stage to what it needs.
    wanted = [name for name in stages if name.split("@")[0] in TRAINED]
    wanted.append(f"evaluate@{_evaluation(work)}")
    wanted += {other for name in wanted for other in nx.descendants(needs, name)}
    for name in reversed(list(nx.lexicographical_topological_sort(needs))):
        if name in wanted:
            yield name, stages[name].cmd


def _evaluation(work: Path) -> str:
    """The evaluation that is run: the first with the guidance of DAT."""
    evaluations = load_params(work / "params.yaml").evaluations
    return next(name for name, item in evaluations.items() if item.guidance == "dat")


def _run(stage: str, command: str, work: Path) -> Passed:
    """Run one stage and measure it."""
    program, *arguments = shlex.split(command)
    assert program == "hmdiff"
    packages = [str(Path(hmdiff.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, packages))}
    start, log = time.monotonic(), work / "logs" / f"{stage}.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", "from hmdiff.cli import main; main()", *arguments],
            cwd=work, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()  # else it would go on to write where its folder is deleted
            raise
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise UserError(f"{stage}: ended with {code} ({lines[-1][:300]}); see {log}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes in ru_maxrss
    return Passed(stage, time.monotonic() - start, usage.ru_maxrss * unit / 1e9, lines[-1])


def _verify(stage: str, work: Path) -> None:
    """Make sure that a stage did what the check is about."""
    params = load_params(work / "params.yaml")
    group, _, name = stage.partition("@")
    if group == "evaluate":
        summary = read_json(work / "runs/evaluate" / name / "summary.json")
        found: Any = (summary["n"], summary["steps"], summary["chains"])
        wanted: Any = (1, REVERSE_STEPS, params.reverse.chains)
    elif group in TRAINED:
        extractor = group == "pretrain_extractor"
        if not extractor and getattr(params.trained[name], "model", None) == "linear":
            return  # fitted in one go
        folder = work / "models" / ("extractor" if extractor else "train") / name
        with open(folder / "curve.csv", newline="", encoding="utf-8") as file:
            found = int(list(csv.DictReader(file))[-1]["samples"])
        wanted = STEPS * (params.extractor[name].batch if extractor else params.training.batch)
    else:
        return
    if found != wanted:
        raise UserError(f"{stage}: did {found}, not {wanted}; see {work / 'logs'}")
