"""The CNN backbone phi_I (Sec. 4.3): any timm network that yields a 7 x 7 feature map."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hmdiff.errors import UserError
from hmdiff.extractor.imagenet import IMAGENET, imagenet_weights
from hmdiff.extractor.timm_import import import_timm

GRID = 7  # the context feature f_c is GRID x GRID (Sec. 4.3)


class Backbone(nn.Module):
    """phi_I: normalised images (B, 3, S, S) -> context feature f_c (B, C, 7, 7).

    At S = 224 f_c is timm's ``forward_features`` (``hrnet_w64``: 2048 x 7 x 7, as in the paper).
    At any other S it is the map of the level whose stride is S / 7 (112 pixels: stride 16), so
    that smaller images keep the paper's 49 image tokens.

    Args:
        name: a timm architecture.
        image_size: S, pixels.
        pretrained: safetensors file of timm weights for ``name``, "imagenet" for those of an
            installed package, or None for a random start. Nothing is ever downloaded.

    Raises:
        UserError: the name is unknown, has no 7 x 7 map at this size, or the file does not fit.
    """

    def __init__(self, name: str, image_size: int, pretrained: Path | str | None = None) -> None:
        super().__init__()
        timm = import_timm()  # here, because it takes a second and the command line must not
        if name not in timm.list_models():
            raise UserError(
                f"params.yaml: extractor backbone: timm has no {name!r}; "
                "see timm.list_models() for the names"
            )
        options: dict = {"pretrained": False}
        if pretrained is not None:
            if pretrained == IMAGENET:
                with torch.random.fork_rng(devices=[]):  # the rest starts as it does with a file
                    state = imagenet_weights(timm.create_model(name), name)
            else:
                state = _read_weights(Path(pretrained))
            options = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}}
        self.level = image_size != 32 * GRID
        try:
            if self.level:
                level = _level(timm, name, image_size)
                self.net = timm.create_model(
                    name, features_only=True, out_indices=(level,), **options
                )
            else:
                self.net = timm.create_model(name, num_classes=0, global_pool="", **options)
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            source = pretrained or "params.yaml"
            raise UserError(
                f"{source}: cannot build the backbone {name!r} ({reason}); "
                "choose another name or weights made by timm for this one"
            ) from None
        if pretrained is not None:
            _check_complete(self.net, state, name, pretrained)
        self.channels = self._measure(name, image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) -> f_c (B, C, 7, 7)."""
        return self.net(images)[0] if self.level else self.net.forward_features(images)

    def _measure(self, name: str, image_size: int) -> int:
        """C, from a blank image: timm's own table of strides is not right for every network."""
        training = self.training
        try:
            with torch.no_grad():
                shape = tuple(self.eval()(torch.zeros(1, 3, image_size, image_size)).shape)
        except (RuntimeError, AssertionError) as error:
            shape = (" ".join(str(error).split())[:120],)
        finally:
            self.train(training)
        if len(shape) != 4 or shape[2:] != (GRID, GRID):
            raise UserError(
                f"params.yaml: extractor backbone: {name!r} gives no {GRID} x {GRID} map at "
                f"image_size {image_size} (got {shape}); try another name, or image_size 224"
            )
        return shape[1]


def _level(timm, name: str, image_size: int) -> int:
    """Index of the feature level whose stride is ``image_size / 7``."""
    stride = image_size // GRID
    try:
        strides = timm.create_model(name, features_only=True).feature_info.reduction()
    except (RuntimeError, AttributeError):
        strides = []
    if stride not in strides:
        raise UserError(
            f"params.yaml: extractor backbone: {name!r} has no feature level of stride {stride}, "
            f"which image_size {image_size} needs (has {strides}); try another name or size"
        )
    return strides.index(stride)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; place it as data/licensed/backbone/README.md says, or let "
            "extractor pretrained be null in params.yaml"
        ) from None
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: not readable as safetensors ({error}); mend extractor pretrained"
        ) from None


def _check_complete(net: nn.Module, state: dict[str, Tensor], name: str, path: Path | str) -> None:
    """timm only warns where a feature level lacks weights, and leaves it random."""

    def plain(key: str) -> str:  # feature levels are called stages_0, not stages.0
        return key.replace("_", ".")

    given = {plain(key) for key in state}
    for key in net.state_dict():
        if not key.endswith("num_batches_tracked") and plain(key) not in given:
            raise UserError(
                f"{path}: cannot build the backbone {name!r} (no weight {key!r} in it); "
                "choose another name or weights made by timm for this one"
            )
