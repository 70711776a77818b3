"""Stages ``train@EXPERIMENT`` and ``finetune@NAME``: g, a baseline or the linear control, with its
upsampling layers."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from hmdiff.batches import mixture_files, row_weights
from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.checkpoints import Checkpoints, checkpoints
from hmdiff.compute import generator, resolve_device, resolve_precision, use_threads
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.diffusion.denoiser import adjacency_mask
from hmdiff.diffusion.model import MeshDiffusion, build_model, needs_mask
from hmdiff.diffusion.upsample import Upsampler
from hmdiff.errors import UserError
from hmdiff.extractor.features import FeatureFiles
from hmdiff.files import atomic_directory
from hmdiff.params import Params
from hmdiff.training.folder import Recipe, TrainedModel, save_model
from hmdiff.training.linear import fit_ridge
from hmdiff.training.loop import train
from hmdiff.training.plan import Plan, make_plan
from hmdiff.training.upsampling import downsample, train_upsampler

BLOCK = 4096  # rows read at once where all of them are gone through


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
    """Train ``experiment`` and write its model folder to ``out``.

    Args:
        experiment: a key of ``experiments`` in params.yaml; with ``base``, of ``finetunes``.
        features: folder of the features files of its data sets.
        sampling, body: artefacts of mesh_sampling and body_models.
        prepared: folder of their prepared files, for the full meshes of the upsampling layers.
        base: model folder to start from.

    Raises:
        UserError: the features lack usable rows, or training diverges.
    """
    plan = make_plan(experiment, base, params)
    stage = "train" if base is None else "finetune"
    settings = {
        "experiment": plan.experiment.model_dump(mode="json"),
        "diffusion": plan.diffusion.model_dump(mode="json"),
        "denoiser": plan.denoiser.model_dump(mode="json"),
        "training": plan.training.model_dump(mode="json"),
        "datasets": dict(plan.datasets),
    }
    inputs = [*mixture_files(features, plan.datasets), body, sampling]
    inputs += [] if base is None else [base]
    with checkpoints(f"{stage}@{experiment}", params, settings, inputs) as kept:
        _run(plan, features, sampling, body, prepared, out, params, kept)


def _run(
    plan: Plan,
    features: Path,
    sampling: Path,
    body: Path,
    prepared: Path,
    out: Path,
    params: Params,
    kept: Checkpoints,
) -> None:
    use_threads(params.compute.threads)
    body_model, mesh_sampling = BodyModel.load(body), MeshSampling.load(sampling)
    files = mixture_files(features, plan.datasets)
    training, validation = FeatureFiles(files, "train"), FeatureFiles(files, "val")
    meshed = _with_mesh(training, features, "train")
    # The control starts from U's centre; H_U's lift from true joints, for it must carry U's
    # noise over and not smooth it.
    source = "centre" if plan.experiment.model == "linear" else "joints"
    pose_to_mesh, curve = fit_ridge(
        _pairs(training, meshed, source),
        _pairs(validation, _with_mesh(validation, features, "val"), source),
        params.training.ridge,
    )
    network = None
    if plan.experiment.model != "linear":
        network = _network(plan, training, meshed, body_model, mesh_sampling, params)
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
            "training": plan.training.model_dump(mode="json"),
            "datasets": dict(plan.datasets),
        },
    )
    with atomic_directory(out) as folder:
        save_model(TrainedModel(recipe, network, pose_to_mesh, upsampler), folder)
        with open(folder / "curve.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, curve[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(curve)
    row = min(curve, key=lambda row: row["val_mpve"]) if network is None else curve[-1]
    figures = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
    size = f"{len(training)} training rows, {training.bytes / 1e9:.2f} GB on disk"
    print(f"{out}: {size}; {figures}")


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
    meshes = _full_meshes(prepared, body_model, plan.training.upsampler_samples)
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


def _with_mesh(features: FeatureFiles, path: Path, split: str) -> Tensor:
    """Rows with a mesh and all joints: the mean mesh and the ridge maps need both."""
    rows = (features.read("valid_mesh") & features.read("valid_joints").all(1)).nonzero()[:, 0]
    if not len(rows):
        raise UserError(
            f"{path}: valid_mesh: no {split} sample has a mesh and all joints; "
            "add a data set with meshes to the experiment's datasets"
        )
    return rows


def _pairs(features: FeatureFiles, rows: Tensor, source: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Poses (``source``) and coarse meshes of ``rows``, block by block."""
    for part in rows.split(BLOCK):
        yield features.read(source, part), features.read("coarse", part)


def _full_meshes(prepared: Sequence[Path], body_model: BodyModel, count: int) -> Tensor:
    """At most ``count`` root-relative training meshes (n, V, 3), evenly spaced over all files."""
    found = []
    for path in prepared:
        with PreparedFile(path) as file:
            train_rows = torch.as_tensor(file.indices("train"))
            rows = train_rows[torch.as_tensor(file.array("valid_mesh"))[train_rows]]
        found += [(path, row) for row in rows.tolist()]
    count = min(count, len(found))
    picked = [found[i * len(found) // count] for i in range(count)]
    meshes = [torch.empty(0, len(body_model.template), 3)]
    for path in sorted({path for path, _ in picked}):
        with PreparedFile(path) as file:
            rows = [row for other, row in picked if other == path]
            meshes.append(torch.as_tensor(file.meshes(rows, body_model)))
    return torch.cat(meshes)
