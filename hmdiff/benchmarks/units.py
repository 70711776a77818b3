"""What one image or sample of a preset costs on the device that torch has.

Weights, images and features are random: nothing but the preset's sizes decides the time. So no
data set, no other stage and no network is needed, and this runs on a bare machine with a GPU:
``python -m hmdiff.benchmarks.units --out FILE``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from hmdiff.benchmarks.random_models import (
    make_extractor,
    make_rows,
    make_sampling,
    make_trained,
)
from hmdiff.benchmarks.timing import interleaved
from hmdiff.compute import generator, resolve_device, resolve_precision, use_threads
from hmdiff.distributed import whole
from hmdiff.extractor.extraction import extract
from hmdiff.extractor.model import Architecture, unit_range
from hmdiff.extractor.training import _backward
from hmdiff.inference import Predictor
from hmdiff.kinds import KINDS
from hmdiff.machine import describe, record
from hmdiff.params import Params
from hmdiff.params.models import ExperimentParams
from hmdiff.presets import preset_params
from hmdiff.training.loop import train

PRESET = "paper"
STEPS = 40  # of the solver (paper, Sec. 4.3)


@dataclass(frozen=True)
class Work:
    """How much is done in one repeat.

    Attributes:
        extractor_batch: images of a step of phi_I and phi_P; None: the preset's. Smaller ones fit
            into less memory and cost about as much an image on a CPU, more on a GPU.
        extractor_steps, steps: of the extractor's training and of g's.
        images: that are recovered; on a GPU more at once are faster.
    """

    repeats: int = 3
    extractor_batch: int | None = None
    extractor_steps: int = 10
    steps: int = 30
    images: int = 16


ON_GPU = Work()
ON_CPU = Work(extractor_batch=4, extractor_steps=1, steps=2, images=1)


def records(params: Params, device: torch.device, work: Work) -> list[dict[str, Any]]:
    """Seconds an image or a sample: medians of ``work.repeats`` after one that does not count.

    Args:
        params: of a preset, see :func:`hmdiff.presets.preset_params`.

    Returns:
        ``train extractor`` and ``extract`` (both networks of the body), ``train NAME`` of every
        experiment that has a network, and ``evaluate NAME GUIDANCE`` of every method but for the
        number of steps, which is STEPS; on a GPU also the memory of each in GB.
    """
    precision = resolve_precision(params.compute.model_copy(update={"device": device.type}))
    found: list[dict[str, Any]] = []
    for name, count, thing in _things(params, device, precision, work):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds = interleaved({name: _finished(thing, device)}, work.repeats)[name]
        unit = "s/sample" if name.startswith("train ") else "s/image"
        found.append(record(name, [value / count for value in seconds], unit))
        print(f"{name}: {found[-1]['value']:.3g} {unit}", flush=True)
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device) / 1e9
            found.append(record(f"{name} GPU memory", peak, "GB"))
    return found


def measure(
    out: Path, device: str = "auto", preset: str = PRESET, repeats: int = 3, project: Path = Path()
) -> None:
    """Write :func:`records` with what they were measured on to ``out`` (JSON), and a CSV.

    Raises:
        UserError: there is no such preset or device.
    """
    start = time.perf_counter()
    params, on = preset_params(preset, project), resolve_device(device, "--device")
    work = replace(ON_GPU if on.type == "cuda" else ON_CPU, repeats=repeats)
    use_threads(params.compute.threads_alone)
    found = records(params, on, work)
    print(f"{time.perf_counter() - start:.0f} s in all")
    describe(out, found, **facts(params, on, work))


def facts(params: Params, device: torch.device, work: Work) -> dict[str, Any]:
    """What stands beside the records in a file of unit costs."""
    return {
        "preset": params.preset,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": resolve_precision(params.compute.model_copy(update={"device": device.type})),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "work": asdict(work),
    }


def _things(
    params: Params, device: torch.device, precision: str, work: Work
) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """Name of each unit, how many of them are done at once, and what does them.

    One after the other: what a unit holds in memory is free before the next one is built.
    """
    yield from _extractor(params, device, precision, work)
    methods: dict[str, list[str]] = {}
    for method in params.methods.values():
        base = getattr(params.trained[method.experiment], "base", method.experiment)
        if method.guidance not in methods.setdefault(base, []):
            methods[base].append(method.guidance)
    for name, experiment in params.experiments.items():
        yield from _experiment(
            name, experiment, methods.get(name, []), params, device, precision, work
        )


def _extractor(
    params: Params, device: torch.device, precision: str, work: Work
) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    settings = params.extractor["body"]
    if work.extractor_batch is not None:
        settings = settings.model_copy(update={"batch": work.extractor_batch, "micro_batch": None})
    architecture = Architecture(
        "body", settings.backbone, settings.image_size, settings.channels,
        settings.half_extent, settings.feature,
    )  # fmt: skip
    network = make_extractor(architecture, params.seed, device)
    random, batch, size = generator(params.seed, "units"), settings.batch, settings.image_size
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=random)
    joints = 0.3 * torch.randn(batch, network.kind.joint_count, 3, generator=random)
    pixels = (images, joints, torch.ones(joints.shape[:2], dtype=torch.bool))
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.0, fused=True)

    def step() -> None:
        network.train()
        for _ in range(work.extractor_steps):
            optimiser.zero_grad(set_to_none=True)
            _backward(network, pixels, whole(batch), settings, random, device, precision)
            nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
            optimiser.step()

    yield "train extractor", work.extractor_steps * batch, step
    optimiser.zero_grad(set_to_none=True)
    network.eval().requires_grad_(False)
    names = [str(number) for number in range(batch)]

    def see() -> None:
        for _ in range(work.extractor_steps):
            extract(
                network, unit_range(images, device), names,
                draws=params.prior.draws, seed=params.seed, precision=precision,
            )  # fmt: skip

    yield "extract", work.extractor_steps * batch, see


def _experiment(
    name: str,
    experiment: ExperimentParams,
    guidances: list[str],
    params: Params,
    device: torch.device,
    precision: str,
    work: Work,
) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    kind = KINDS[experiment.kind]
    sampling = make_sampling(kind)
    trained = make_trained(experiment, sampling, params)
    regressor = torch.full((kind.joint_count, kind.vertices), 1 / kind.vertices)
    coarse = torch.as_tensor(sampling.coarse_regressor(regressor.numpy()))
    faces = torch.as_tensor(sampling.coarse_faces).long()
    rows = make_rows(kind, max(params.training.batch, work.images), params)
    settings = params.training.model_copy(
        update={"samples": work.steps * params.training.batch, "learning_rate": 1e-6}
    )

    def fit() -> None:
        train(
            trained.network, rows, coarse, faces, settings,
            seed=params.seed, device=device, precision=precision, name=name,
        )  # fmt: skip

    if trained.network is not None:
        yield f"train {name}", settings.samples, fit
    body = SimpleNamespace(regressor=regressor, kind=kind)
    predictor = Predictor(trained.eval().requires_grad_(False), body, sampling, device, precision)
    # The mean over the draws is the same work, and pulls too little for random weights to diverge.
    reverse = params.reverse.changed({"reduction": "mean"})
    seen = rows.subset(work.images)
    for guidance in guidances:
        # Without activation DAT stays on in all steps: the most that an image can cost.
        how: Mapping[str, Any] = {
            "steps": STEPS, "reverse": reverse, "guidance": guidance, "activation": False,
        }  # fmt: skip
        yield (
            f"evaluate {name} {guidance}",
            len(seen),
            lambda how=how: predictor.predict(seen, keep_chains=True, **how),
        )


def _finished(thing: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """``thing``, and the wait for what it has left to the GPU."""
    if device.type != "cuda":
        return thing

    def whole() -> None:
        thing()
        torch.cuda.synchronize(device)

    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="records (JSON); a CSV beside it")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--preset", default=PRESET)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    measure(given.out, given.device, given.preset, given.repeats)


if __name__ == "__main__":
    main()
