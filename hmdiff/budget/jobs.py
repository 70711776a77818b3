"""The stages of a preset with the seconds that each of them takes, and the disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hmdiff.budget.assumptions import Assumptions, Splits
from hmdiff.budget.measured import CPUCosts, Units
from hmdiff.errors import UserError
from hmdiff.params import Params

MEASURED_STEPS = 40  # of the solver in the unit costs of `evaluate`


@dataclass(frozen=True)
class Job:
    """One stage of the run.

    Attributes:
        gpu, cpu: seconds on one GPU, and beside them on the CPU alone.
        needs: names of the jobs that it waits for.
    """

    name: str
    gpu: float = 0.0
    cpu: float = 0.0
    needs: Sequence[str] = field(default_factory=tuple)

    def seconds(self, gpus: float = 1.0) -> float:
        """With its GPU work split over ``gpus``."""
        return self.gpu / gpus + self.cpu


def jobs(params: Params, units: Units, cpu: CPUCosts, given: Assumptions) -> list[Job]:
    """Every stage that takes more than minutes, in an order in which none waits for a later one.

    Raises:
        UserError: a data set has no count, or a unit cost is missing.
    """
    counts = given.counts
    for name in params.datasets:
        if name not in counts or name not in cpu.prepare:
            raise UserError(f"{name}: counts: no images, or no measured preparation; add them")
    found = [
        Job(f"prepare@{name}", cpu=counts[name].all * cpu.prepare[name]) for name in params.datasets
    ]
    for kind, item in params.extractor.items():
        seen = sum(counts[name].val for name in item.datasets) * item.validations
        seconds = item.samples * units["train extractor"] + seen * units["extract"]
        needs = [f"prepare@{name}" for name in item.datasets]
        found.append(Job(f"pretrain_extractor@{kind}", gpu=seconds, needs=needs))
    for name, item in params.datasets.items():
        rows = feature_rows(counts[name], params.features.copies)
        needs = (f"prepare@{name}", f"pretrain_extractor@{item.kind}")
        found.append(Job(f"extract_features@{name}", gpu=rows * units["extract"], needs=needs))
    return [*found, *_trainings(params, units), *_evaluations(params, units, cpu, given)]


def feature_rows(splits: Splits, copies: int) -> int:
    """Rows of a features file: all images, and further copies of those of training."""
    return splits.all + (copies - 1) * splits.train


def _trainings(params: Params, units: Units) -> Iterator[Job]:
    settings = params.training
    for name, item in params.experiments.items():
        needs = [f"extract_features@{dataset}" for dataset in item.datasets]
        samples = 0 if item.model == "linear" else settings.samples * settings.repeats
        seconds = samples * units[f"train {name}"] if samples else 0.0
        yield Job(f"train@{name}", gpu=seconds, needs=needs)
    for name, item in params.finetunes.items():
        needs = [f"train@{item.base}", *(f"extract_features@{part}" for part in item.datasets)]
        seconds = item.samples * settings.repeats * units[f"train {item.base}"]
        yield Job(f"train@{name}", gpu=seconds, needs=needs)


def _evaluations(params: Params, units: Units, cpu: CPUCosts, given: Assumptions) -> Iterator[Job]:
    repeats = params.training.repeats

    def image(experiment: str, guidance: str, steps: float) -> float:
        base = getattr(params.trained[experiment], "base", experiment)
        diffusion = params.experiments[base].model == "diffusion"
        # `disrupted` pulls h_k itself, at about the price of `dat`.
        kind = "none" if guidance == "none" else "dat"
        seconds = units[f"evaluate {base} {kind}"]
        return seconds * steps / MEASURED_STEPS if diffusion else seconds

    for name, item in params.methods.items():
        images = given.counts[item.dataset].val
        if params.evaluation.selection_samples is not None:
            images = min(images, params.evaluation.selection_samples)
        tried = sum(item.candidates) if len(item.candidates) > 1 else 0
        seconds = images * image(item.experiment, item.guidance, tried) if tried else 0.0
        scoring = images * len(item.candidates) * cpu.score if tried else 0.0
        needs = [f"train@{item.experiment}", f"extract_features@{item.dataset}"]
        yield Job(f"select_steps@{name}", gpu=seconds, cpu=scoring, needs=needs)
    for name, item in params.evaluations.items():
        images = given.counts[item.dataset].test
        if params.evaluation.samples is not None:
            images = min(images, params.evaluation.samples)
        images *= repeats
        tried = params.methods[item.method].candidates
        steps = given.steps if len(tried) > 1 else tried[0]
        seconds = images * image(item.experiment, item.guidance, steps)
        needs = [f"select_steps@{item.method}", f"extract_features@{item.dataset}"]
        yield Job(f"evaluate@{name}", gpu=seconds, cpu=images * cpu.score, needs=needs)


def disk(params: Params, cpu: CPUCosts, given: Assumptions, archives: float) -> dict[str, float]:
    """GB by what takes it; ``archives`` are the bytes of the downloads whose size is known."""
    chosen = {name: given.counts[name] for name in params.datasets}
    rows = sum(feature_rows(splits, params.features.copies) for splits in chosen.values())
    images = sum(splits.all for splits in chosen.values())
    parts = {
        "archives": archives,
        "unpacked": archives * given.archives,
        "prepared": images * given.prepared_bytes,
        "features": rows * cpu.feature_bytes,
    }
    return {name: size / 1e9 for name, size in parts.items()}
