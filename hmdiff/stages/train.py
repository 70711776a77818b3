"""Stage ``train@EXPERIMENT``: g, a baseline or the linear control, with its upsampling layers."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.compute import generator, resolve_device, use_threads
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.diffusion.denoiser import adjacency_mask
from hmdiff.diffusion.model import MeshDiffusion, build_model
from hmdiff.diffusion.upsample import Upsampler
from hmdiff.errors import UserError
from hmdiff.extractor.features import Features, read_features
from hmdiff.files import atomic_directory
from hmdiff.params import Params
from hmdiff.training.folder import Recipe, TrainedModel, save_model
from hmdiff.training.linear import fit_ridge
from hmdiff.training.loop import train
from hmdiff.training.upsampling import downsample, train_upsampler


def run(
    experiment: str,
    features: Path,
    sampling: Path,
    body: Path,
    prepared: Path,
    out: Path,
    params: Params,
) -> None:
    """Train ``params.experiments[experiment]`` and write its model folder to ``out``.

    Args:
        features: one features file or a folder of them.
        sampling, body: artefacts of mesh_sampling and body_models.
        prepared: folder of prepared files, for the full meshes of the upsampling layers.

    Raises:
        UserError: the features lack usable rows, or training diverges.
    """
    what = params.experiments.get(experiment)
    if what is None:
        known = ", ".join(params.experiments)
        raise UserError(f"params.yaml: experiments: has no {experiment!r}; take one of {known}")
    use_threads(params.compute.threads)
    body_model, mesh_sampling = BodyModel.load(body), MeshSampling.load(sampling)
    training = read_features(features, "train")
    meshed = _with_mesh(training, features)
    validation = _with_mesh(read_features(features, "val"), features)
    # The control starts from U's centre; H_U's lift from true joints, for it must carry U's
    # noise over and not smooth it.
    source = "centre" if what.model == "linear" else "joints"
    pose_to_mesh, curve = fit_ridge(
        getattr(meshed, source), meshed.coarse,
        getattr(validation, source), validation.coarse,
        params.training.ridge,
    )  # fmt: skip
    network = None
    if what.model != "linear":
        mean = meshed.coarse.mean(0)
        network, curve = _network(experiment, training, mean, body_model, mesh_sampling, params)
    upsampler = _upsampler(prepared, body_model, mesh_sampling, params)
    recipe = Recipe(
        what,
        params.diffusion,
        params.denoiser,
        len(body_model.regressor),
        upsampler.sizes,
        {
            "name": experiment,
            "seed": params.seed,
            "training": params.training.model_dump(mode="json"),
            "datasets": sorted(set(training.names)),
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
    print(f"train@{experiment}: {len(training)} training rows; {figures}")


def _network(
    experiment: str,
    training: Features,
    mean: Tensor,
    body_model: BodyModel,
    sampling: MeshSampling,
    params: Params,
) -> tuple[MeshDiffusion, list[dict[str, float]]]:
    """The trained network and its curve; ``mean`` is the mean coarse mesh (Vc, 3)."""
    regressor = torch.as_tensor(sampling.coarse_regressor(body_model.regressor.numpy()))  # f
    faces = torch.as_tensor(sampling.coarse_faces).long()
    mask = adjacency_mask(faces, len(mean)) if params.denoiser.adjacency_mask else None
    network = build_model(
        generator(params.seed, "weights"),
        params.experiments[experiment],
        params.diffusion,
        params.denoiser,
        mean,
        len(regressor),
        mask,
    )
    return train(
        network,
        training,
        regressor,
        faces,
        params.training,
        seed=params.seed,
        device=resolve_device(params.compute.device),
        precision=params.compute.precision,
        name=experiment,
    )


def _upsampler(
    prepared: Path, body_model: BodyModel, sampling: MeshSampling, params: Params
) -> Upsampler:
    upsampler = Upsampler.from_sampling(sampling.ups)
    meshes = _full_meshes(prepared, body_model, params.training.upsampler_samples)
    if not len(meshes):
        return upsampler
    return train_upsampler(
        upsampler,
        meshes,
        downsample(sampling.down, meshes),
        params.training,
        seed=params.seed,
        device=resolve_device(params.compute.device),
    )


def _with_mesh(features: Features, path: Path) -> Features:
    """The rows with a mesh and all joints: the mean mesh and the ridge maps need both."""
    rows = (features.valid_mesh & features.valid_joints.all(1)).nonzero()[:, 0]
    if not len(rows):
        raise UserError(
            f"{path}: valid_mesh: no sample of a split has a mesh and all joints; "
            "add a data set with meshes to the experiment's features"
        )
    return features.select(rows)


def _full_meshes(prepared: Path, body_model: BodyModel, count: int) -> Tensor:
    """At most ``count`` root-relative training meshes (n, V, 3), evenly spaced over all files."""
    found = []
    for path in sorted(prepared.glob("*.h5")):
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
