"""``hmdiff bench``: all subjects in one run, on what a finished pipeline has made."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from hmdiff.benchmarks import commands, data, growth, loop, readers, training
from hmdiff.benchmarks.picture import draw
from hmdiff.benchmarks.random_models import make_extractor
from hmdiff.benchmarks.timing import rates, speed_up
from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.compute import resolve_device, resolve_precision, use_threads
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.evaluation.selection import read_selected
from hmdiff.extractor.features import FeatureFiles, Features
from hmdiff.extractor.model import Architecture, Extractor, load_extractor
from hmdiff.inference import Predictor
from hmdiff.machine import keep, show
from hmdiff.params import Params
from hmdiff.stages.speed import METHOD, contestants, interleaved

FASTMETRO, PAPER = "fastmetro_l", "hmdiff_paper"
LARGE = "hrnet_w64"  # the paper's backbone
# What the reference loop does, Algorithm 1 as printed.
PLAIN = {"solver": "ddim", "eta": 0.0, "guided_steps": None}


@dataclass(frozen=True)
class Sizes:
    """How much is measured; the defaults take minutes on two cores."""

    repeats: int = 3
    batch: int = 8  # images at once, where there are several
    samples: int = 30  # of the data sets whose reading is timed; and ten times as many
    loop_images: int = 1  # of the loop alone, whose reference takes most of the time


class Project:
    """What the stages have made for the method ``dat`` of params.yaml."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.what = params.methods[METHOD]
        self.device = resolve_device(params.compute.device)
        self.precision = resolve_precision(params.compute)
        self.steps = Path("runs/steps")

    @cached_property
    def body(self) -> BodyModel:
        return BodyModel.load(Path("models", self.what.kind))

    @cached_property
    def sampling(self) -> MeshSampling:
        return MeshSampling.load(Path("models/sampling", f"{self.what.kind}.npz"))

    @cached_property
    def predictor(self) -> Predictor:
        folder = Path("models/train", self.what.experiment)
        return Predictor.load(folder, self.body, self.sampling, self.device, self.precision)

    @cached_property
    def extractor(self) -> Extractor:
        return load_extractor(Path("models/extractor", self.what.kind), self.device)

    @cached_property
    def large_extractor(self) -> Extractor:
        """The paper's backbone and image size, with random weights: speed does not depend on
        them."""
        settings = self.params.extractor[self.what.kind]
        architecture = Architecture(
            self.what.kind, LARGE, 224, (256, 256, 256), settings.half_extent
        )
        extractor = make_extractor(architecture, self.params.seed, self.device)
        return extractor.requires_grad_(False)

    def prepared(self) -> PreparedFile:
        return PreparedFile(Path("data/prepared", self.what.kind, f"{self.what.dataset}.h5"))

    def features(self, count: int) -> Features:
        """``count`` training rows, the same ones again where there are fewer."""
        path = Path("data/features", self.what.kind, f"{self.what.dataset}.h5")
        files = FeatureFiles([path], "train")
        return files.select(torch.arange(count) % len(files))


def run(out: Path, params: Params, subjects: Collection[str], sizes: Sizes) -> None:
    """Measure ``subjects``, keys of SUBJECTS; write ``out`` (JSON), a CSV and an SVG beside it.

    Raises:
        UserError: the pipeline has not made what is needed yet.
    """
    project = Project(params)
    facts = {
        "preset": params.preset,
        "device": str(project.device),
        "threads": params.compute.threads_alone,
        "precision": project.precision,
    }
    found: list[dict[str, Any]] = []
    for subject in subjects:
        use_threads(params.compute.threads_alone)  # the stages that a subject runs take fewer
        new = SUBJECTS[subject](project, sizes)
        show(new)
        found += new
        # A later subject that breaks off takes nothing with it.
        keep(out, found, **facts)
        draw(found, out.with_suffix(".svg"))


def _frames(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    return _frames_of(project, sizes, project.extractor)


def _large_frames(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    return _frames_of(project, sizes, project.large_extractor)


def _frames_of(project: Project, sizes: Sizes, extractor: Extractor) -> list[dict[str, Any]]:
    """Image to full mesh, at batch 1 and batched, by the stage ``speed``'s own code.

    At the paper's N and steps one image takes seconds, and several at once no less each: batch 1.
    """
    _, methods = contestants(
        project.predictor, extractor, project.sampling, project.steps, project.params
    )
    speed = project.params.speed.model_copy(update={"repeats": sizes.repeats})
    params = project.params.model_copy(update={"speed": speed})
    found = []
    with project.prepared() as file:
        for batch in dict.fromkeys((1, sizes.batch)):
            size = extractor.architecture.image_size
            if batch > 1:
                methods.pop(PAPER, None)
            times = interleaved(methods, file, size, params, batch)
            backbone = extractor.architecture.backbone
            names = {name: f"frames {name} {backbone} B={batch}" for name in methods}
            found += [rates(names[name], batch, times[name], "images/s") for name in methods]
            found += [
                speed_up(f"{names[name]} speed", times[name], names[FASTMETRO], times[FASTMETRO])
                for name in methods
                if name != FASTMETRO
            ]
    return found


def _loop(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    rows, speed = project.features(sizes.loop_images), project.params.speed
    paper = project.params.reverse.changed(PLAIN | {"chains": speed.chains})
    return loop.records(project.predictor, rows, paper, speed.steps, sizes.repeats)


def _configured_loop(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    rows = project.features(sizes.batch)
    selected = read_selected(project.steps / f"{METHOD}.json", METHOD)
    reverse = project.params.reverse.changed({**selected.reverse, **PLAIN})
    return loop.records(project.predictor, rows, reverse, selected.steps, sizes.repeats)


def _training(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    settings = project.params.training
    return training.records(
        project.predictor.model.network, project.features(settings.batch),
        project.predictor.regressor_f, torch.as_tensor(project.sampling.coarse_faces).long(),
        settings, project.precision, sizes.repeats,
    )  # fmt: skip


def _extractor(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    with project.prepared() as file:
        return data.extractor_records(
            project.extractor, file, project.params, sizes.batch, sizes.repeats
        )


def _growth(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    # The mean over the draws is the same work, and pulls too little for any model to diverge.
    reverse = project.params.reverse.changed(PLAIN | {"reduction": "mean"})
    rows = project.features(sizes.batch)
    return growth.records(project.predictor, rows, reverse, sizes.repeats)


def _data(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    return data.records(project.params, sizes.repeats)


def _readers(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    return readers.records(Path("models"), sizes.samples)


def _commands(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    return commands.records(sizes.repeats, commands.commands())


SUBJECTS: dict[str, Callable[[Project, Sizes], list[dict[str, Any]]]] = {
    "frames": _frames,
    "large-frames": _large_frames,
    "loop": _loop,
    "configured-loop": _configured_loop,
    "training": _training,
    "extractor": _extractor,
    "growth": _growth,
    "data": _data,
    "readers": _readers,
    "commands": _commands,
}
