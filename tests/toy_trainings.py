"""The stages train and pretrain_extractor on toys, and a process that runs and kills them.

Run as a script it reads one JSON request a line, carries it out in a fork of its own, which may
kill itself, and answers with the exit code; or in several forks, which share the training. Forks
start at once: torch is imported already.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_post_hook
from toys import (
    checkpoint_params,
    denoiser_params,
    diffusion_params,
    experiment_params,
    make_body,
    make_features,
    make_sampling,
    training_params,
)

from hmdiff import cli
from hmdiff.datasets.crop import encode_jpeg
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.writer import Record, write_prepared
from hmdiff.diffusion.upsample import Upsampler
from hmdiff.distributed import joined
from hmdiff.extractor.timm_import import import_timm
from hmdiff.kinds import HAND
from hmdiff.launch import STORE
from hmdiff.params import load_params
from hmdiff.params.runs import CheckpointParams
from hmdiff.stages import pretrain_extractor
from hmdiff.stages import train as stage
from hmdiff.tracking import StoppedTraining
from hmdiff.training import data

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")


EVEN = list(range(0, 20, 2))


class FakePrepared:
    """A prepared file of 20 full meshes, half of them for training."""

    def __init__(self, path):
        self.up = Upsampler.from_sampling(make_sampling().ups)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def indices(self, split):
        return np.array(EVEN)

    def array(self, name):
        return np.ones(20, bool)

    def meshes(self, indices, body):
        with torch.no_grad():
            return self.up(make_features(20).coarse[torch.as_tensor(indices)]).numpy()


class ToyFiles:
    """Features files of the toy data set, in memory."""

    def __init__(self, paths, split):
        self.rows = make_features(seed=["train", "val"].index(split))
        self.counts, self.bytes = [len(self.rows)], 0
        self.select, self.sample_id = self.rows.select, self.rows.sample_id

    def __len__(self):
        return len(self.rows)

    def read(self, name, rows=slice(None)):
        return getattr(self.rows, name)[rows]


FAKES = [
    (stage, "BodyModel", SimpleNamespace(load=lambda path: make_body())),
    (stage, "MeshSampling", SimpleNamespace(load=lambda path: make_sampling())),
    (data, "PreparedFile", FakePrepared),
    (stage, "FeatureFiles", ToyFiles),
]


def train(folder: Path, name: str, out: Path, base: Path | None = None, **changes) -> None:
    """The stage ``train`` with :data:`FAKES` in it; ``changes`` are sections of the parameters."""
    params = PARAMS.model_copy(
        update={
            "checkpoint": checkpoint_params(),
            "experiments": {"toy": experiment_params()},
            "diffusion": diffusion_params(steps=50),
            "denoiser": denoiser_params(),
            "training": training_params(samples=40),
            **changes,
        }
    )
    stage.run(name, folder, folder / "sampling", folder / "body", folder, out, params, base)


def write_images(folder: Path, count: int = 12) -> None:
    """``folder``/toy.h5 with hands of noise, half of them for training."""
    rng = np.random.default_rng(0)
    records = []
    for row in range(count):
        pixels = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
        joints = rng.normal(0, 0.05, (21, 3))
        split = ("train", "train", "val", "test")[row % 4]
        sample = Sample(f"s{row}", Path("x"), split, np.zeros(4), np.eye(3), joints=joints)
        records.append(Record(sample, encode_jpeg(pixels, 90, "4:4:4"), np.eye(3), joints))
    attrs = {"dataset": "toy", "source": "rendered"}
    write_prepared(folder / "toy.h5", records, HAND, attrs)


def write_inputs(folder: Path, count: int = 12) -> None:
    """What both stages read: :func:`write_images`, and files in the place of body and sampling."""
    write_images(folder, count)
    for name in ("body", "sampling"):
        (folder / name).write_text(name)


def train_extractor(
    folder: Path, out: Path, kept: CheckpointParams, workers: int, precision: str, changes: dict
) -> None:
    """The stage ``pretrain_extractor`` on what :func:`write_images` wrote: six steps."""
    small = {"image_size": 56, "channels": (16, 16, 16), "datasets": {"toy": 1.0}, "warmup": 2}
    small |= {"samples": 24, "batch": 4, "validations": 3} | changes
    params = PARAMS.model_copy(
        update={
            "checkpoint": kept,
            "compute": PARAMS.compute.model_copy(
                update={
                    "threads_alone": 1,
                    "workers": workers,
                    "device": "cpu",
                    "precision": precision,
                }
            ),
            "extractor": {"hand": PARAMS.extractor["hand"].model_copy(update=small)},
        }
    )
    pretrain_extractor.run("hand", folder, out, params)


def evaluate(folder: Path, out: Path, kept: CheckpointParams) -> None:
    """The stage ``evaluate`` with DAT on what :func:`toy_hand.write_toy_hand` wrote, beside the
    number of steps in hand.json: eight images, two at a time."""
    import toy_hand

    from hmdiff.evaluation import recovery

    recovery.CHUNK = 2
    every = toy_hand.PARAMS.evaluation.model_copy(update={"samples": None})
    params = toy_hand.PARAMS.model_copy(update={"evaluation": every, "checkpoint": kept})
    files = toy_hand.stage_inputs(folder, "hand", steps=folder / "hand.json")
    toy_hand.evaluate.run("freihand_dat", out=out, params=params, **files)


# Faults ------------------------------------------------------------------------------------------


def plant(fault: str) -> None:
    """Let this process die: ``WHAT:N`` at the N-th occasion of what it does.

    step: killed when the optimiser has moved the weights; term: asked to stop then.
    write: killed when half of a snapshot is written; rename: before it has its name;
    rotate: when it has it.
    """
    what, _, number = fault.partition(":")
    left = int(number or 0)

    def due() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def stepped(*_) -> None:
        if due():
            os.kill(os.getpid(), signal.SIGKILL if what == "step" else signal.SIGTERM)

    def save(value, file, save=torch.save) -> None:
        save(value, file)
        if due():
            file.truncate(file.tell() // 2)
            die()

    def replace(source, target, replace=os.replace) -> None:
        last = str(target).endswith(".pt") and due()
        if last and what == "rename":
            die()
        replace(source, target)
        if last:
            die()

    if what in ("step", "term"):
        register_optimizer_step_post_hook(stepped)
    elif what == "write":
        torch.save = save
    elif what in ("rename", "rotate"):
        os.replace = replace


def carry_out(request: dict, number: int) -> None:
    folder, precision = Path(request["folder"]), request["precision"]
    if number == request["struck"]:
        plant(request["fault"])
    if not request.get("tracked"):  # MLflow takes seconds; test_stopped.py looks at it
        StoppedTraining.stopped = lambda *_: None
    out = folder / request["out"]
    kept = CheckpointParams(
        seconds=request["seconds"], folder=folder / request.get("checkpoints", "checkpoints")
    )
    if request["stage"] == "evaluate":
        evaluate(folder, out, kept)
    elif request["stage"] == "train":
        for module, name, value in FAKES:
            setattr(module, name, value)
        training = training_params(**{"samples": 48} | request["changes"])
        compute = PARAMS.compute.model_copy(update={"precision": precision})
        train(folder, "toy", out, checkpoint=kept, training=training, compute=compute)
    else:
        train_extractor(folder, out, kept, request["workers"], precision, request["changes"])


def fork(request: dict, number: int) -> int:
    """Process ``number`` of those that carry ``request`` out; its identifier."""
    child = os.fork()
    if child:
        return child
    folder = Path(request["folder"])
    if request["processes"] > 1:
        told = {"RANK": number, "WORLD_SIZE": request["processes"], STORE: folder / "store"}
        os.environ.update({name: str(value) for name, value in told.items()})
    log = os.open(
        folder / ("log" if number == 0 else f"log{number}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    )
    os.dup2(log, 1)
    os.dup2(log, 2)

    def app(standalone_mode: bool) -> None:
        with joined("cpu"):
            carry_out(request, number)

    cli.app = app
    cli.main()
    raise AssertionError("main always exits")


USUAL = {
    "fault": "", "seconds": 0, "out": "out", "workers": 0, "changes": {}, "precision": "auto",
    "processes": 1, "struck": 0,
}  # fmt: skip


def serve() -> None:
    import_timm()  # here, so that no fork spends a second on it
    assert "torch._dynamo" not in sys.modules, "timm has loaded torch's compiler"

    for line in sys.stdin:
        request = USUAL | json.loads(line)
        Path(request["folder"], "store").unlink(missing_ok=True)
        children = [fork(request, number) for number in range(request["processes"])]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(codes[0] if len(codes) == 1 else codes, flush=True)


@contextlib.contextmanager
def server(**more: object) -> Iterator[Callable[..., int | list[int]]]:
    """Carries requests out: exit codes of processes that may be killed. ``more`` is for Popen."""
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more
    ) as process:

        def run(folder: Path, stage: str, fault: str = "", seconds: float = 0, **more):
            request = {"folder": str(folder), "stage": stage, "fault": fault, "seconds": seconds}
            process.stdin.write(json.dumps(request | more) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


if __name__ == "__main__":
    serve()
