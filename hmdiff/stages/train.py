"""Stages ``train@EXPERIMENT`` and ``finetune@NAME``: g, a baseline or the linear control, with its
upsampling layers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import torch
from torch import Tensor

from hmdiff.batches import mixture_files, row_weights
from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.checkpoints import Checkpoints, checkpoints
from hmdiff.compute import generator, resolve_device, resolve_precision, use_threads
from hmdiff.diffusion.denoiser import adjacency_mask
from hmdiff.diffusion.model import MeshDiffusion, build_model, needs_mask
from hmdiff.diffusion.upsample import Upsampler
from hmdiff.distributed import is_main
from hmdiff.extractor.features import FeatureFiles
from hmdiff.files import atomic_directory
from hmdiff.params import Params
from hmdiff.tracking import StoppedTraining
from hmdiff.training.data import BLOCK, full_meshes, pairs, with_mesh
from hmdiff.training.folder import (
    WEIGHTS,
    Recipe,
    TrainedModel,
    repeat_folder,
    repeat_label,
    save_model,
)
from hmdiff.training.linear import fit_ridge
from hmdiff.training.loop import train
from hmdiff.training.plan import Plan, make_plan
from hmdiff.training.upsampling import downsample, train_upsampler


def run(
    experiment: str,
    features: Path,
    sampling: Path,
    body: Path,
    prepared: Path,
    out: Path,
    params: Params,
    base: Path | None = None,
) -> None:
    """Train ``experiment``, once for each seed, and write its model folder to ``out``.

    Args:
        experiment: a key of ``experiments`` in params.yaml; with ``base``, of ``finetunes``.
        features: folder of the features files of its data sets.
        sampling, body: artefacts of mesh_sampling and body_models.
        prepared: folder of their prepared files, for the full meshes of the upsampling layers.
        base: model folder to start from.

    Raises:
        UserError: the features lack usable rows, or training diverges.
    """
    label = f"{'train' if base is None else 'finetune'}@{experiment}"
    trained = []
    # A finished repeat keeps its snapshots until the last one is done: nothing is trained twice.
    with ExitStack() as stack:
        for number in range(_count(experiment, params)):
            start = None if base is None else repeat_folder(base, number)
            plan = make_plan(experiment, start, params)
            seeded = params.model_copy(update={"seed": params.seed + number})
            kept = stack.enter_context(
                _checkpoints(
                    repeat_label(label, number),
                    plan, features, sampling, body, start, seeded,
                    repeat_folder(out, number) / WEIGHTS,
                )
            )  # fmt: skip
            trained.append(_run(plan, features, sampling, body, prepared, seeded, kept))
        if not is_main():
            return
        with atomic_directory(out) as folder:
            for number, (model, curve) in enumerate(trained):
                _write(model, curve, repeat_folder(folder, number))
    for model, curve in trained:
        row = min(curve, key=lambda row: row["val_mpve"]) if model.network is None else curve[-1]
        figures = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
        notes = model.recipe.notes
        size = f"{notes['rows']} training rows, {notes['bytes'] / 1e9:.2f} GB on disk"
        print(f"{out}: seed {notes['seed']}, {size}; {figures}")


def _count(experiment: str, params: Params) -> int:
    """Of trainings; chance has no part in the linear control."""
    known = params.experiments.get(experiment)
    return 1 if known is not None and known.model == "linear" else params.training.repeats


def _checkpoints(
    label: str,
    plan: Plan,
    features: Path,
    sampling: Path,
    body: Path,
    base: Path | None,
    params: Params,
    weights: Path,
) -> AbstractContextManager[Checkpoints]:
    settings = {
        "experiment": plan.experiment.model_dump(mode="json"),
        "diffusion": plan.diffusion.model_dump(mode="json"),
        "denoiser": plan.denoiser.model_dump(mode="json"),
        "training": plan.training.model_dump(mode="json"),
        "datasets": dict(plan.datasets),
    }
    inputs = [*mixture_files(features, plan.datasets), body, sampling]
    inputs += [] if base is None else [base]
    tags = {"stage": "train", "name": plan.name, "seed": params.seed, "preset": params.preset}
    training = StoppedTraining(label, weights, tags)
    return checkpoints(label, params, settings, inputs, training=training)


def _run(
    plan: Plan,
    features: Path,
    sampling: Path,
    body: Path,
    prepared: Path,
    params: Params,
    kept: Checkpoints,
) -> tuple[TrainedModel, list[dict[str, float]]]:
    """One training and its curve."""
    use_threads(params.compute.threads)
    body_model, mesh_sampling = BodyModel.load(body), MeshSampling.load(sampling)
    files = mixture_files(features, plan.datasets)
    training, validation = FeatureFiles(files, "train"), FeatureFiles(files, "val")
    meshed = with_mesh(training, features, "train")
    # The control starts from U's centre; H_U's lift from true joints, for it must carry U's
    # noise over and not smooth it.
    source = "centre" if plan.experiment.model == "linear" else "joints"
    pose_to_mesh, curve = fit_ridge(
        pairs(training, meshed, source),
        pairs(validation, with_mesh(validation, features, "val"), source),
        params.training.ridge,
    )
    network = None
    if plan.experiment.model != "linear":
        network = _network(plan, training, meshed, body_model, mesh_sampling, params)
        if network.lift is not None and plan.start is None:
            network.lift, _ = fit_ridge(
                pairs(training, meshed, "centre"),
                pairs(validation, with_mesh(validation, features, "val"), "centre"),
                params.training.ridge,
            )
        network, curve = _trained(network, plan, training, body_model, mesh_sampling, params, kept)
    files = mixture_files(prepared, plan.datasets)
    upsampler = _upsampler(plan, files, body_model, mesh_sampling, params)
    recipe = Recipe(
        plan.experiment,
        plan.diffusion,
        plan.denoiser,
        len(body_model.regressor),
        upsampler.sizes,
        {
            "name": plan.name,
            **plan.notes,
            "parameters": sum(p.numel() for p in network.parameters()) if network else None,
            "seed": params.seed,
            "rows": len(training),
            "bytes": training.bytes,
            "training": plan.training.model_dump(mode="json"),
            "datasets": dict(plan.datasets),
        },
    )
    return TrainedModel(recipe, network, pose_to_mesh, upsampler), curve


def _write(model: TrainedModel, curve: list[dict[str, float]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, folder)
    with open(folder / "curve.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, curve[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(curve)


def _network(
    plan: Plan,
    training: FeatureFiles,
    meshed: Tensor,
    body_model: BodyModel,
    sampling: MeshSampling,
    params: Params,
) -> MeshDiffusion:
    """The network before training: the one to start from, or a new one about the mean mesh."""
    if plan.start is not None:
        return plan.start.network.requires_grad_(True)
    total = sum(training.read("coarse", rows).double().sum(0) for rows in meshed.split(BLOCK))
    mean = (total / len(meshed)).float()
    faces = torch.as_tensor(sampling.coarse_faces).long()
    masked = needs_mask(plan.experiment, plan.denoiser)
    mask = adjacency_mask(faces, len(mean)) if masked else None
    return build_model(
        generator(params.seed, "weights"),
        plan.experiment,
        plan.diffusion,
        plan.denoiser,
        mean,
        len(body_model.regressor),
        mask,
    )


def _trained(
    network: MeshDiffusion,
    plan: Plan,
    training: FeatureFiles,
    body_model: BodyModel,
    sampling: MeshSampling,
    params: Params,
    kept: Checkpoints,
) -> tuple[MeshDiffusion, list[dict[str, float]]]:
    """The trained network and its curve."""
    return train(
        network,
        training,
        torch.as_tensor(sampling.coarse_regressor(body_model.regressor.numpy())),  # f
        torch.as_tensor(sampling.coarse_faces).long(),
        plan.training,
        weights=row_weights(training.counts, list(plan.datasets.values())),
        seed=params.seed,
        device=resolve_device(params.compute.device),
        precision=resolve_precision(params.compute),
        name=plan.name,
        checkpoints=kept,
    )


def _upsampler(
    plan: Plan,
    prepared: Sequence[Path],
    body_model: BodyModel,
    sampling: MeshSampling,
    params: Params,
) -> Upsampler:
    if plan.start is not None:
        upsampler = plan.start.upsampler.requires_grad_(True)
    else:
        upsampler = Upsampler.from_sampling(sampling.ups)
    meshes = full_meshes(prepared, body_model, plan.training.upsampler_samples)
    if not len(meshes):
        return upsampler
    return train_upsampler(
        upsampler,
        meshes,
        downsample(sampling.down, meshes),
        plan.training,
        seed=params.seed,
        device=resolve_device(params.compute.device),
    )
