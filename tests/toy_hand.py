"""A toy hand through the stages select_steps and evaluate: files, models and parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from scipy import sparse
from toy_bodies import write_toy_model
from toys import checkpoint_params, denoiser_params, diffusion_params, experiment_params, rng

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.datasets.crop import encode_jpeg
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.writer import Record, write_prepared
from hmdiff.diffusion.lift import PoseToMesh
from hmdiff.diffusion.model import build_model
from hmdiff.diffusion.upsample import Upsampler
from hmdiff.extractor.features import features_writer
from hmdiff.kinds import HAND, Kind
from hmdiff.params import Params, load_params
from hmdiff.stages import evaluate
from hmdiff.training.folder import Recipe, TrainedModel, save_model

COUNT = 9  # of test images; the others are validation images


def toy_params() -> Params:
    committed = load_params(Path(__file__).parents[1] / "params.yaml")
    methods = dict(committed.methods)
    methods["hand"] = methods["hand"].model_copy(update={"candidates": (1, 2, 3)})
    return committed.model_copy(
        update={
            "methods": methods,
            "checkpoint": checkpoint_params(),
            "compute": committed.compute.model_copy(
                update={"device": "cpu", "precision": "fp32", "threads": 1}
            ),
            "reverse": committed.reverse.model_copy(update={"chains": 2}),
            "evaluation": committed.evaluation.model_copy(
                update={"samples": 4, "selection_samples": 3, "bootstrap": 200}
            ),
        }
    )


PARAMS = toy_params()


def write_sampling(path: Path, body: BodyModel) -> MeshSampling:
    """D keeps every so many vertices; U copies to each vertex the nearest kept one."""
    count, coarse = body.kind.vertices, body.kind.coarse
    kept = np.arange(0, count, -(-count // coarse))
    template = body.template.numpy()
    nearest = np.linalg.norm(template[:, None] - template[kept], axis=-1).argmin(1)
    ones = np.ones(count)
    down = sparse.csr_matrix((ones[:coarse], (np.arange(coarse), kept)), (coarse, count))
    up = sparse.csr_matrix((ones, (np.arange(count), nearest)), (count, coarse))
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    sampling = MeshSampling([body.faces, faces], [down], [up])
    sampling.save(path)
    return sampling


def write_data(folder: Path, body: BodyModel, sampling: MeshSampling) -> None:
    """Meshes that U can represent; U's draws and f_I are noise. Row 0 of test has no mesh."""
    count = COUNT + 6
    random = np.random.default_rng(0)
    coarse = 0.08 * random.normal(size=(count, HAND.coarse, 3))
    regressor = body.regressor.numpy().astype(np.float64)
    full = np.stack([sampling.up @ mesh for mesh in coarse])
    roots = (regressor[HAND.root] @ full)[:, None]
    full, coarse = (full - roots).astype(np.float32), (coarse - roots).astype(np.float32)
    joints = regressor @ full
    image = encode_jpeg(Image.new("RGB", (56, 56)), 90, "4:4:4")
    splits = ["test"] * COUNT + ["val"] * 6
    samples = [
        Sample(f"hand/{i}", Path("x"), split, np.ones(4), np.eye(3), vertices=full[i])
        for i, split in enumerate(splits)
    ]
    attrs = {"dataset": "freihand", "source": "rendered"}
    records = [Record(sample, image, np.eye(3), joints[i]) for i, sample in enumerate(samples)]
    write_prepared(folder / "prepared.h5", records, HAND, attrs)
    valid = np.ones(count, bool)
    valid[0] = False
    order = random.permutation(count)  # features need not be in the order of the prepared file
    block = {
        "image_feature": random.normal(size=(count, 49, 128)).astype(np.float16),
        "draws": joints[:, None] + random.normal(0, 0.01, (count, 5, 21, 3)),
        "centre": joints + random.normal(0, 0.01, joints.shape),
        "peak": joints,
        "spread": np.full(joints.shape, 0.01),
        "coarse": coarse,
        "joints": joints,
        "valid_mesh": valid,
        "valid_joints": np.ones((count, 21), bool),
        "split": np.array([{"test": 2, "val": 1}[split] for split in splits], np.uint8),
        "copy": np.zeros(count, np.uint16),
        "sample_id": np.array([sample.sample_id for sample in samples]),
    }
    block = {
        name: values[order].astype(np.float32 if values.dtype == float else values.dtype)
        for name, values in block.items()
    }
    block["sample_id"] = block["sample_id"].tolist()
    with features_writer(folder / "features.h5", count, attrs | {"kind": "hand"}) as writer:
        writer.append(block)


def write_models(
    folder: Path,
    sampling: MeshSampling,
    kind: Kind = HAND,
    forms: Mapping[str, str] = MappingProxyType({"hand": "diffusion", "hand_linear": "linear"}),
) -> None:
    """``diffusion``: an untrained g. ``linear``: one constant mesh, whatever the image."""
    joints = kind.joint_count
    for name, form in forms.items():
        what = experiment_params(kind=kind.name, model=form, condition="image")
        lift = PoseToMesh(joints, kind.coarse)
        lift.bias = 0.08 * torch.randn(kind.coarse * 3, generator=rng(1))
        network = None
        if form == "diffusion":
            network = build_model(
                rng(), what, diffusion_params(steps=50), denoiser_params(),
                0.08 * torch.randn(kind.coarse, 3, generator=rng(5)), joints, None,
            )  # fmt: skip
        recipe = Recipe(
            what, diffusion_params(steps=50), denoiser_params(), joints,
            (kind.coarse, kind.vertices),
            {
                "name": name,
                "parameters": sum(p.numel() for p in network.parameters()) if network else None,
            },
        )  # fmt: skip
        (folder / name).mkdir()
        model = TrainedModel(recipe, network, lift, Upsampler.from_sampling(sampling.ups))
        save_model(model, folder / name)


def write_toy_hand(folder: Path) -> Path:
    """Body, sampling, prepared.h5, features.h5 and two trained models below ``folder``."""
    body = BodyModel.load(write_toy_model(folder / "body", HAND))
    sampling = write_sampling(folder / "sampling.npz", body)
    write_data(folder, body, sampling)
    write_models(folder, sampling)
    return folder


def stage_inputs(toy: Path, experiment: str, **changes: Path) -> dict[str, Path]:
    return {
        "model": toy / experiment,
        "features": toy / "features.h5",
        "prepared": toy / "prepared.h5",
        "body": toy / "body",
        "sampling": toy / "sampling.npz",
    } | changes


def run_evaluate(toy: Path, out: Path, row: str = "linear", **changes) -> dict:
    method, name = {"linear": ("hand_linear", "freihand_linear"), "dat": ("hand", "freihand_dat")}[
        row
    ]
    steps = out.parent / f"{method}.json"
    steps.parent.mkdir(parents=True, exist_ok=True)
    steps.write_text(json.dumps({"method": method, "steps": 2 if row == "dat" else 1}))
    params = changes.pop("params", PARAMS)
    arguments = stage_inputs(toy, method) | {"steps": steps} | changes
    evaluate.run(name, out=out, params=params, **arguments)
    return json.loads((out / "summary.json").read_text())
