"""The extractor: phi_I and phi_P together, and the folder in which they are kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from hmdiff.compute import autocast, seeded_init
from hmdiff.errors import UserError
from hmdiff.extractor.backbone import GRID, Backbone
from hmdiff.extractor.heatmaps import Grid
from hmdiff.extractor.pose_head import PoseHead
from hmdiff.extractor.prior import Prior
from hmdiff.files import read_json, write_json
from hmdiff.kinds import KINDS, Kind
from hmdiff.replay import Replayed

WEIGHTS = "weights.safetensors"
RECORD = "extractor.json"
FEATURE = 128  # channels of f_I (Sec. 4.3)
# ImageNet's statistics of RGB in 0..1, by which METRO and its successors normalise.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build an extractor before its weights are known."""

    kind: str
    backbone: str
    image_size: int  # pixels
    channels: tuple[int, int, int]  # of the three deconvolutions
    half_extent: float  # metres
    feature: str = "pooled"  # or projected: how f_c becomes f_I (A12)


class Extraction(NamedTuple):
    """What one forward pass gives."""

    context: Tensor  # f_c (B, C, 7, 7), or its projection (B, 128, 7, 7)
    xy: Tensor  # logits of E_xy (B, J, 56, 56), float32
    z: Tensor  # logits of E_z (B, J, 56, 56), float32


class Extractor(nn.Module):
    """phi_I and phi_P: RGB images to the image feature f_I and the prior U.

    Args:
        architecture: names and sizes.
        seed: of the first weights.
        pretrained: safetensors of timm weights for the backbone, "imagenet", or None.
    """

    def __init__(
        self, architecture: Architecture, seed: int = 0, pretrained: Path | str | None = None
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.grid = Grid(architecture.half_extent)
        with seeded_init(seed, "extractor"):
            self.backbone = Backbone(architecture.backbone, architecture.image_size, pretrained)
            channels, self.projection = self.backbone.channels, nn.Identity()
            if architecture.feature == "projected":
                # In front of the head: what makes good heatmaps passes through f_I.
                self.projection = nn.Sequential(
                    nn.Conv2d(channels, FEATURE, 1, bias=False), nn.BatchNorm2d(FEATURE)
                )
                channels = FEATURE
            self.head = PoseHead(channels, architecture.channels, self.kind.joint_count)
        self._replayed = Replayed(self._infer)
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(MEAN).view(shape), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(shape), persistent=False)

    @property
    def kind(self) -> Kind:
        return KINDS[self.architecture.kind]

    def forward(self, images: Tensor) -> Extraction:
        """RGB images (B, 3, S, S) in 0..1, float32 -> f_c and the logits of both heatmaps."""
        images = (images - self.mean) / self.deviation
        context = self.backbone(images.contiguous(memory_format=torch.channels_last))
        context = self.projection(context)
        return Extraction(context, *self.head(context))

    @torch.no_grad()
    def infer(self, images: Tensor, precision: str) -> Extraction:
        """As :meth:`forward`, of a trained extractor; on CUDA recorded and replayed."""
        return Extraction(*self._replayed(images, precision=precision))

    def _infer(self, images: Tensor, precision: str) -> Extraction:
        with autocast(images.device, precision):
            return self(images)

    def prior(self, extraction: Extraction) -> Prior:
        """U of each image."""
        return Prior(extraction.xy, extraction.z, self.grid, self.kind.root)


def unit_range(images: Tensor, device: torch.device) -> Tensor:
    """uint8 RGB -> float32 in 0..1 on ``device``."""
    return images.to(device).float() / 255


def image_feature(context: Tensor) -> Tensor:
    """f_I (B, 49, 128) of f_c (B, C, 7, 7): flatten, then average over groups of channels.

    Sec. 4.3 sends the flattened 2048 x 49 feature through average pooling to 128 x 49, which is
    the mean over each 16 neighbouring channels. Transposed: 49 tokens of 128 numbers. Where C is
    not a multiple of 128, the groups differ by one channel (adaptive pooling); a learned projection
    to 128 channels passes unchanged.
    """
    tokens = context.float().flatten(2).transpose(1, 2)
    assert tokens.shape[1] == GRID * GRID
    return functional.adaptive_avg_pool1d(tokens, FEATURE)


def save_extractor(extractor: Extractor, folder: Path, facts: dict) -> None:
    """Write weights and ``extractor.json`` (architecture and ``facts``) into ``folder``.

    The caller makes ``folder`` atomic (:func:`hmdiff.files.atomic_directory`).
    """
    state = {name: value.contiguous().cpu() for name, value in extractor.state_dict().items()}
    # save_file would make it readable by its owner alone.
    (folder / WEIGHTS).write_bytes(save(state))
    write_json(folder / RECORD, {"architecture": asdict(extractor.architecture), **facts})


def load_extractor(folder: Path, device: torch.device | str = "cpu") -> Extractor:
    """Read a folder written by :func:`save_extractor`; in evaluation mode, without gradients.

    Raises:
        UserError: a file is missing, truncated, or does not belong to the other.
    """
    record = read_json(folder / RECORD)
    try:
        fields = dict(record["architecture"])
        fields["channels"] = tuple(fields["channels"])
        extractor = Extractor(Architecture(**fields))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / RECORD}: architecture is not complete ({error}); "
            "run pretrain_extractor again"
        ) from None
    weights = folder / WEIGHTS
    try:
        extractor.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{weights}: not the weights of this extractor ({reason}); run pretrain_extractor again"
        ) from None
    extractor.to(device, memory_format=torch.channels_last).eval()
    return extractor.requires_grad_(False)
