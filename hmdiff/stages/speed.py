"""Stage ``speed``: frames a second from image to full mesh, HMDiff and FastMETRO (Table 6)."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.compute import autocast, resolve_device, resolve_precision, seeded_init, use_threads
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.evaluation.selection import read_selected
from hmdiff.extractor.extraction import extract
from hmdiff.extractor.features import unlabelled
from hmdiff.extractor.model import Extractor, load_extractor, unit_range
from hmdiff.fastmetro import FastMETRO
from hmdiff.files import write_json
from hmdiff.inference import Predictor
from hmdiff.params import Params
from hmdiff.params.runs import ReverseParams
from hmdiff.replay import Replayed

METHOD, FAST = "dat", "fast"  # of params.yaml

Recover = Callable[[Tensor, list[str]], Tensor]
"""(images (B, 3, S, S) uint8, their sample ids) -> full meshes (B, V, 3) on the CPU."""


def run(
    model: Path,
    extractor: Path,
    prepared: Path,
    body: Path,
    sampling: Path,
    steps: Path,
    out: Path,
    params: Params,
) -> None:
    """Time both methods on one machine, one backbone, one precision; write ``out`` (JSON).

    HMDiff with DAT runs at the paper's N and steps with DDIM, as the method ``dat`` and as the
    method ``fast`` are evaluated. FastMETRO-L has random weights: its speed does not depend on
    them, and its error is quoted from the paper.

    Args:
        model, extractor: folders of the trained diffusion model and of the extractor.
        prepared: file whose test images are used.
        body, sampling: artefacts of body_models and mesh_sampling.
        steps: folder of the numbers of reverse steps of both methods (select_steps).
    """
    use_threads(params.compute.threads_alone)
    mesh_sampling = MeshSampling.load(sampling)
    device, precision = resolve_device(params.compute.device), resolve_precision(params.compute)
    predictor = Predictor.load(model, BodyModel.load(body), mesh_sampling, device, precision)
    network = load_extractor(extractor, device)
    settings, methods = contestants(predictor, network, mesh_sampling, steps, params)
    with PreparedFile(prepared) as file:
        facts = {name: str(file.attrs[name]) for name in ("dataset", "source")}
        times = interleaved(methods, file, network.architecture.image_size, params)
    records = [timing_record(name, times[name], settings[name]) for name in methods]
    machine = _machine(network, device, precision)
    write_json(out, {"records": records, **facts, "seed": params.seed, "machine": machine})
    figures = ", ".join(f"{row['name']} {row['value']:.3g}" for row in records)
    print(f"{out}: frames a second on {machine['device']}: {figures}")


@dataclass(frozen=True)
class Way:
    """How HMDiff is run: DAT with so many steps."""

    steps: int
    reverse: ReverseParams


def contestants(
    predictor: Predictor, network: Extractor, sampling: MeshSampling, steps: Path, params: Params
) -> tuple[dict[str, Way | None], dict[str, Recover]]:
    """How each method is run, None of FastMETRO, and the methods; all on one backbone, in one
    precision."""
    precision = resolve_precision(params.compute)
    # Whatever params.yaml takes for its own rows.
    paper = {
        "chains": params.speed.chains,
        "solver": "ddim",
        "guided_steps": None,
        "antithetic": False,
    }
    ways: dict[str, Way | None] = {
        "hmdiff_paper": Way(params.speed.steps, params.reverse.changed(paper)),
        "hmdiff_configured": _chosen(METHOD, steps, params),
        "hmdiff_fast": _chosen(FAST, steps, params),
        "fastmetro_l": None,
    }
    transformer = _fastmetro_l(network, sampling, params)
    # Recorded as HMDiff's networks are, where there are recordings.
    middle = Replayed(partial(_fastmetro_middle, network, transformer, precision))
    methods: dict[str, Recover] = {
        name: partial(_hmdiff, network, predictor, params, way)
        if way
        else partial(_fastmetro, network, transformer, middle)
        for name, way in ways.items()
    }
    return ways, methods


def _chosen(method: str, steps: Path, params: Params) -> Way:
    """A method as select_steps has chosen that it is run."""
    selected = read_selected(steps / f"{method}.json", method)
    return Way(selected.steps, selected.params(params).reverse)


def interleaved(
    methods: dict[str, Recover], file: PreparedFile, size: int, params: Params, batch: int = 1
) -> dict[str, list[float]]:
    """Seconds of every repeat; the methods take turns, so that a busy machine slows all alike.

    All of them see the same ``batch`` test images (``size`` pixels) in a repeat; reading them is
    not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in methods}
    ids, rows = file.sample_ids(), file.indices("test")
    # A GPU records at the second call, and so replays from the third on.
    warmup = max(params.speed.warmup, 3 if torch.cuda.is_available() else 0)
    for repeat in range(warmup + params.speed.repeats):
        chosen = [int(rows[(repeat * batch + i) % len(rows)]) for i in range(batch)]
        images = [torch.from_numpy(file.image(row, size)).permute(2, 0, 1) for row in chosen]
        pixels, names = torch.stack(images), [ids[row] for row in chosen]
        for name, recover in methods.items():
            start = time.perf_counter()
            recover(pixels, names)  # ends on the CPU, so that a GPU has finished
            if repeat >= warmup:
                times[name].append(time.perf_counter() - start)
    return times


def timing_record(name: str, seconds: list[float], way: Way | None) -> dict[str, Any]:
    """Median frames a second, with the slowest and the fastest repeat."""
    return {
        "name": name,
        "value": 1 / statistics.median(seconds),
        "unit": "1/s",
        "low": 1 / max(seconds),
        "high": 1 / min(seconds),
        "repeats": len(seconds),
        "chains": way and way.reverse.chains,
        "steps": way and way.steps,
    }


def _hmdiff(
    network: Extractor,
    predictor: Predictor,
    params: Params,
    way: Way,
    images: Tensor,
    names: list[str],
) -> Tensor:
    arrays = extract(
        network, unit_range(images, network.mean.device), names, draws=params.prior.draws,
        seed=params.seed, precision=resolve_precision(params.compute),
    )  # fmt: skip
    how = {"steps": way.steps, "reverse": way.reverse, "guidance": "dat", "seed": params.seed}
    return predictor.predict(unlabelled(arrays, names), batch=len(names), **how).full


@torch.no_grad()
def _fastmetro(
    network: Extractor, transformer: FastMETRO, middle: Replayed, images: Tensor, names: list[str]
) -> Tensor:
    *_, mesh = middle(unit_range(images, network.mean.device))
    return transformer.full(mesh).cpu()


def _fastmetro_middle(
    network: Extractor, transformer: FastMETRO, precision: str, images: Tensor
) -> tuple[Tensor, ...]:
    with autocast(images.device, precision):
        pixels = (images - network.mean) / network.deviation
        context = network.backbone(pixels.contiguous(memory_format=torch.channels_last))
        return transformer.middle(context)


def _fastmetro_l(network: Extractor, sampling: MeshSampling, params: Params) -> FastMETRO:
    with seeded_init(params.seed, "fastmetro"):
        transformer = FastMETRO(network.backbone.channels, sampling.coarse_faces, sampling.ups)
    if resolve_precision(params.compute) == "bf16":
        # Once, where autocast would cast 25 M weights at every frame.
        for part in transformer.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.to(torch.bfloat16)
    return transformer.to(network.mean.device).eval().requires_grad_(False)


def _machine(network: Extractor, device: torch.device, precision: str) -> dict[str, Any]:
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "torch": torch.__version__,
        "backbone": network.architecture.backbone,
        "image_size": network.architecture.image_size,
    }
