"""Running the commands of the documentation, as they are written, in a finished project."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from doc_commands import added, blocks
from engines import commit, environment
from ruamel.yaml import YAML

_GPU = "needs a GPU; test_docs.py makes sure that the profile is there"
_FETCH = "downloads; test_fetch.py does it from a server on this machine"
_UNITS = "a quarter of an hour, or a GPU; test_scale.py does it with toys"
_CLUSTER = "needs a cluster; test_profiles.py holds the profile against Snakemake"
_STORE = "a folder of the user's; test_remote.py pushes to one, and to an S3 server, and pulls"
_VERIFY = "runs the whole pipeline again; test_verify.py holds the comparison"
_TORCHRUN = (
    "torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint first:29500  "
    "--no-python hmdiff train image --features data/features/body --sampling "
    "models/sampling/body.npz  --body models/body --prepared data/prepared/body --out "
    "models/train/image"
)
_SCORE = "hmdiff score --protocol freihand --gt data/licensed/freihand --pred pred.zip"

# Commands that no finished smoke project can run, and why, or what does.
ELSEWHERE = {
    "make test": "has a time limit of its own; .ci/run runs both",
    "make test-docs": "it is what runs this",
    "make test-distributed": "minutes, and no command of a pipeline",
    _TORCHRUN: "needs two machines; test_distributed.py runs torchrun on this one",
    _SCORE: "needs FreiHAND's own truth; test_freihand_files.py scores such files",
    "make ui": "serves until it is stopped; test_tracking_server.py starts such a server",
    "make bench": "minutes; test_benchmarks.py runs its parts",
    "make fuzz": "is for the night; test_fuzz.py does a part of it",
    "make sbom": "asks a package index; test_sbom.py holds what it wrote against the lock",
    "make audit": "asks PyPI; test_audit.py holds what it wrote against the lock",
    "make verify": _VERIFY,
    "make kills": "runs the whole pipeline twice and starts it fifty times: a nightly",
    "hmdiff verify --exact": _VERIFY,
    "dvc exp run -S training.samples=10000": "trains for long; its sister with gamma runs here",
    "snakemake --cores 2": "is the study, which takes hours",
    "snakemake --cores 16": "is the preset large, which needs a GPU",
    "snakemake --cores 2 table1 table2 table4 table5": "is the preset lifted, which takes hours",
    "hmdiff data fetch freihand": _FETCH,
    "hmdiff data fetch 3dpw --accept-licence": _FETCH,
    "hmdiff data fetch human36m": _FETCH,
    "hmdiff data fetch smpl": _FETCH,
    "hmdiff data fetch backbone": _FETCH,
    "cp -rs /disk/human36m/images data/licensed/human36m/": "a folder of the user's",
    "snakemake --workflow-profile profiles/gpu --cores 16 all": _GPU,
    "snakemake --workflow-profile profiles/slurm all": _CLUSTER,
    "snakemake --workflow-profile profiles/kubernetes all": _CLUSTER,
    "make cluster": "adds a package to the environment; make slurm runs what it adds",
    "hmdiff scale --work /tmp/scale": "an hour; test_scale.py does it with a few records",
    "hmdiff units --out results/units_cpu.json --device cpu": _UNITS,
    "python -m hmdiff.benchmarks.units --out results/units_gpu.json": _UNITS,
    "hmdiff budget --units hmdiff/budget/h200.json": "would overlay the preset paper on the "
    "examples' own entries; test_scale.py works such a table out",
    "make slurm": "starts a Slurm and runs the whole pipeline three times: a nightly",
    "hmdiff predict clip.mp4 --every 5 --device cuda --batch 16": "needs a GPU",
    "dvc remote add --default store /mnt/share/hmdiff": _STORE,
    "dvc push": _STORE,
    "dvc pull": _STORE,
}
NEW_DATA = "mkdir -p data/licensed/mine"
# These make stages stale, or replace the parameters: the last ones.
PRESET = "hmdiff preset"
LATE = ("dvc exp run", "licensed/mine", "@mine", PRESET)


def commands() -> list[str]:
    """All that are shown, in order, but for those that need another place."""
    shown = dict.fromkeys(command for block in blocks("sh") for command in block.commands)
    # The recorded run's own pictures, in the documentation.
    here = [c for c in shown if c not in ELSEWHERE and "predictions/standins" not in c]
    return sorted(here, key=lambda command: [late in command for late in reversed(LATE)])


def prepare(folder: Path) -> None:
    """What the commands name: pictures, boxes, predictions, an environment, a commit, and the
    rows and sweeps of the examples."""
    frames = sorted((folder / "data/raw/3dpw/imageFiles").rglob("*.jpg"))[:2]
    (folder / "holiday").mkdir()
    for name, frame in zip(("a.jpg", "b.jpg"), frames, strict=True):
        shutil.copy(frame, folder / "holiday" / name)
    shutil.copy(frames[0], folder / "photo.jpg")
    shutil.copy(next((folder / "data/raw/freihand").rglob("*.jpg")), folder / "hand.jpg")
    boxes = {"a.jpg": [[100, 60, 200, 300]], "b.jpg": []}
    (folder / "boxes.json").write_text(json.dumps(boxes))
    vertices = np.random.default_rng(0).normal(size=(2, 6890, 3)).astype(np.float32)
    for name in ("gt.npz", "pred.npz"):
        np.savez(folder / name, vertices=vertices)
    # The environment of this run, as set-up leaves it.
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(Path(sys.prefix) / "bin")
    (folder / ".venv/.ready").touch()
    add(folder, "evaluations", "sweeps", "probes")
    commit(folder)


def add(folder: Path, *sections: str) -> None:
    """The entries that examples add to these sections of params.yaml."""
    params, yaml = folder / "params.yaml", YAML()
    tree = yaml.load(params.read_text(encoding="utf-8"))
    for section in sections:
        tree[section].update(added()[section])
    with open(params, "w") as file:
        yaml.dump(tree, file)


def failures(folder: Path) -> list[str]:
    """What did not end well in a finished project."""
    params = folder / "params.yaml"
    smoke = params.read_text(encoding="utf-8")
    prepare(folder)
    found = []
    for command in commands():
        if command.startswith(PRESET):  # not with the entries of the examples
            params.write_text(smoke, encoding="utf-8")
        found.append(failed(folder, command))
        if command == NEW_DATA:  # its folder is there now
            add(folder, "datasets", "standins")
    return [text for text in found if text]


def failed(folder: Path, command: str) -> str | None:
    """The end of what ``command`` printed if it failed."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, text=True, check=False, timeout=600,
        env=environment() | {"PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return f"{command}\n{done.stdout[-2000:]}" if done.returncode else None
