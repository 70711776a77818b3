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
from hmdiff.benchmarks.timing import rates, speed_up
from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.compute import resolve_device, resolve_precision, use_threads
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.evaluation.selection import read_steps
from hmdiff.extractor.features import FeatureFiles, Features
from hmdiff.extractor.model import Extractor, load_extractor
from hmdiff.inference import Predictor
from hmdiff.machine import describe
from hmdiff.params import Params
from hmdiff.stages.speed import METHOD, contestants, interleaved

FASTMETRO = "fastmetro_l"


@dataclass(frozen=True)
class Sizes:
    """How much is measured; the defaults take minutes on two cores."""

    repeats: int = 3
    batch: int = 8  # images at once, where there are several
    samples: int = 50  # of the data sets whose reading is timed; and ten times as many
    loop_images: int = 1  # of the loop alone, whose reference takes most of the time


class Project:
    """What the stages have made for the method ``dat`` of params.yaml."""

    def __init__(self, params: Params) -> None:
        use_threads(params.compute.threads_alone)
        self.params = params
        self.what = params.methods[METHOD]
        self.device = resolve_device(params.compute.device)
        self.precision = resolve_precision(params.compute)
        self.steps_file = Path("runs/steps", f"{METHOD}.json")

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
    found = []
    for subject in subjects:
        found += SUBJECTS[subject](project, sizes)
    facts = {"threads": torch.get_num_threads(), "precision": project.precision}
    describe(out, found, preset=params.preset, **facts)
    draw(found, out.with_suffix(".svg"))


def _frames(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    """Image to full mesh, at batch 1 and batched, by the stage ``speed``'s own code."""
    _, methods = contestants(
        project.predictor, project.extractor, project.sampling, project.steps_file, project.params
    )
    speed = project.params.speed.model_copy(update={"repeats": sizes.repeats})
    params = project.params.model_copy(update={"speed": speed})
    found = []
    with project.prepared() as file:
        for batch in dict.fromkeys((1, sizes.batch)):
            size = project.extractor.architecture.image_size
            times = interleaved(methods, file, size, params, batch)
            names = {name: f"frames {name} B={batch}" for name in methods}
            found += [rates(names[name], batch, times[name], "images/s") for name in methods]
            found += [
                speed_up(f"{names[name]} speed", times[name], names[FASTMETRO], times[FASTMETRO])
                for name in methods
                if name != FASTMETRO
            ]
    return found


def _loop(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    rows, speed = project.features(sizes.loop_images), project.params.speed
    paper = project.params.reverse.model_copy(update={"chains": speed.chains, "eta": 0.0})
    return loop.records(project.predictor, rows, paper, speed.steps, sizes.repeats)


def _configured_loop(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    rows, steps = project.features(sizes.batch), read_steps(project.steps_file, METHOD)
    reverse = project.params.reverse.model_copy(update={"eta": 0.0})
    return loop.records(project.predictor, rows, reverse, steps, sizes.repeats)


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
    rows, reverse = project.features(sizes.batch), project.params.reverse
    return growth.records(project.predictor, rows, reverse, sizes.repeats)


def _data(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    return data.records(project.params, sizes.repeats)


def _readers(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    return readers.records(Path("models"), sizes.samples)


def _commands(project: Project, sizes: Sizes) -> list[dict[str, Any]]:
    return commands.records(sizes.repeats, commands.commands())


SUBJECTS: dict[str, Callable[[Project, Sizes], list[dict[str, Any]]]] = {
    "frames": _frames,
    "loop": _loop,
    "configured-loop": _configured_loop,
    "training": _training,
    "extractor": _extractor,
    "growth": _growth,
    "data": _data,
    "readers": _readers,
    "commands": _commands,
}
