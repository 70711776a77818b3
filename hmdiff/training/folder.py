"""The model folder: weights.safetensors and a model.json from which the modules are rebuilt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from hmdiff.diffusion.lift import PoseToMesh
from hmdiff.diffusion.model import MeshDiffusion, needs_mask
from hmdiff.diffusion.upsample import Upsampler
from hmdiff.errors import UserError
from hmdiff.files import read_json, write_json
from hmdiff.params.models import DenoiserParams, DiffusionParams, ExperimentParams

WEIGHTS, RECORD = "weights.safetensors", "model.json"


def repeat_folder(folder: Path, number: int) -> Path:
    """Where the training with seed ``seed + number`` lies: the first one in ``folder`` itself."""
    return folder / "repeats" / str(number) if number else folder


def repeat_label(stage: str, number: int) -> str:
    """The name of the checkpoints of a ``stage`` for that training."""
    return f"{stage}.{number}" if number else stage


def repeats(folder: Path) -> list[Path]:
    """The model folders of all trainings in ``folder``, the first one first."""
    found = sorted(folder.glob("repeats/*"), key=lambda path: int(path.name))
    return [folder, *found]


@dataclass(frozen=True)
class Recipe:
    """Everything besides the weights: the parameters and sizes that the modules are built from."""

    experiment: ExperimentParams
    diffusion: DiffusionParams
    denoiser: DenoiserParams
    joints: int
    sizes: Sequence[int]  # vertex counts from coarse to full
    notes: dict[str, Any] = field(default_factory=dict)  # provenance, for the reader


class TrainedModel(nn.Module):
    """One experiment's trained parts.

    ``network`` is None for the linear control; for the others ``pose_to_mesh`` is the lift of U
    to meshes, for the linear control it is the control itself.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: MeshDiffusion | None,
        pose_to_mesh: PoseToMesh,
        upsampler: Upsampler,
    ):
        super().__init__()
        self.recipe = recipe
        self.network = network
        self.pose_to_mesh = pose_to_mesh
        self.upsampler = upsampler


def save_model(model: TrainedModel, folder: Path) -> None:
    """Write the two files into an existing ``folder`` (the caller makes it atomic)."""
    recipe = model.recipe
    state = model.state_dict()
    save_file({name: value.cpu().contiguous() for name, value in state.items()}, folder / WEIGHTS)
    record = {
        "kind": recipe.experiment.kind,
        "experiment": recipe.experiment.model_dump(mode="json"),
        "diffusion": recipe.diffusion.model_dump(mode="json"),
        "denoiser": recipe.denoiser.model_dump(mode="json"),
        "joints": recipe.joints,
        "sizes": list(recipe.sizes),
        **recipe.notes,
    }
    write_json(folder / RECORD, record)


def load_model(folder: Path) -> TrainedModel:
    """Read a folder that :func:`save_model` wrote; the modules are on the CPU, in eval mode.

    Raises:
        UserError: a file is missing or damaged, or the two do not belong together.
    """
    folder = Path(folder)
    record = read_json(folder / RECORD)
    remedy = "run its train stage again"
    try:
        recipe = Recipe(
            experiment=ExperimentParams.model_validate(record["experiment"]),
            diffusion=DiffusionParams.model_validate(record["diffusion"]),
            denoiser=DenoiserParams.model_validate(record["denoiser"]),
            joints=record["joints"],
            sizes=record["sizes"],
        )
    except (KeyError, TypeError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / RECORD}: not a model record ({reason}); {remedy}") from None
    try:
        model = _build(recipe)
    except (IndexError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{folder / RECORD}: sizes or joints of no model ({reason}); {remedy}"
        ) from None
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except FileNotFoundError:
        raise UserError(f"{folder / WEIGHTS}: no such file; {remedy}") from None
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{folder / WEIGHTS}: does not fit {RECORD} ({reason}); {remedy}") from None
    return model.eval().requires_grad_(False)


def _build(recipe: Recipe) -> TrainedModel:
    """The modules of ``recipe``, whose weights are still to come."""
    coarse, network = recipe.sizes[0], None
    if recipe.experiment.model != "linear":
        shape = torch.zeros(coarse, 3)
        mask = torch.zeros(coarse, coarse, dtype=torch.bool)
        network = MeshDiffusion(
            recipe.experiment,
            recipe.diffusion,
            recipe.denoiser,
            shape,
            recipe.joints,
            mask if needs_mask(recipe.experiment, recipe.denoiser) else None,
        )
    return TrainedModel(recipe, network, PoseToMesh(recipe.joints, coarse), Upsampler(recipe.sizes))
