"""Backbones that start from the ImageNet weights of a package in the lock."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import skimage.data
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from hmdiff.errors import UserError
from hmdiff.extractor import imagenet
from hmdiff.extractor.backbone import Backbone
from hmdiff.extractor.imagenet import imagenet_weights, packaged
from hmdiff.extractor.model import Architecture, Extractor
from hmdiff.extractor.timm_import import import_timm

NAME = "tf_efficientnet_lite0"
# Photographs that scikit-image carries, and ImageNet's classes of what is on them.
SEEN = {"chelsea": {281, 282, 285}, "coffee": {967, 968}}  # cats; espresso, a cup


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    net = import_timm().create_model(NAME)
    net.load_state_dict(imagenet_weights(net, NAME))
    return net.eval()


@pytest.mark.parametrize("photograph", SEEN)
def test_the_weights_are_imagenets_under_timms_names(network, photograph):
    picture = torch.from_numpy(getattr(skimage.data, photograph)()).permute(2, 0, 1)[None] / 255
    height, width = picture.shape[2:]
    left = (width - height) // 2
    square = picture[..., left : left + height]
    image = interpolate(square, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        scores = network(image * 2 - 1).softmax(1)[0]
    assert int(scores.argmax()) in SEEN[photograph]
    assert float(scores[list(SEEN[photograph])].sum()) > 0.8


def test_a_backbone_starts_from_them(network):
    theirs = network.state_dict()
    backbone = Backbone(NAME, 112, "imagenet")
    loaded = backbone.net.state_dict()
    assert len(loaded) > 200
    assert all(torch.equal(value, theirs[key]) for key, value in loaded.items())


def test_an_extractor_starts_as_it_does_from_a_file_of_them(network, tmp_path):
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    architecture = Architecture("hand", NAME, 112, (16, 8, 8), 0.25, "pooled")
    ours, theirs = (
        Extractor(architecture, 3, pretrained).state_dict()
        for pretrained in ("imagenet", tmp_path / "net.safetensors")
    )
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_any_other_backbone_is_one_clear_line():
    with pytest.raises(UserError, match=rf"imagenet is for the backbones {NAME}, not for 'resn"):
        Backbone("resnet10t", 112, "imagenet")


def test_a_package_that_is_not_installed_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(imagenet.PACKAGES, NAME, ("no-such-package", "weights.pth", ""))
    with pytest.raises(UserError, match=r"^no-such-package: not installed, .*; run `make setup`$"):
        packaged(NAME)


def test_a_damaged_file_is_one_clear_line(network, tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    path.write_bytes(packaged(NAME).read_bytes()[:-1])
    monkeypatch.setattr(imagenet, "packaged", lambda name: path)
    with pytest.raises(UserError, match=r"weights\.pth: damaged; .*`make setup`$"):
        imagenet_weights(network, NAME)


def test_the_package_is_read_and_never_imported():
    (module,) = {
        Path(str(file)).parts[0]
        for file in importlib.metadata.files(imagenet.PACKAGES[NAME][0])
        if str(file).endswith(".pth")
    }
    sources = Path(imagenet.__file__).parents[1].rglob("*.py")
    assert not any(f"import {module}" in source.read_text("utf-8") for source in sources)
