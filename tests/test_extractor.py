"""phi_I and phi_P: shapes, backbones, their folder, and the features that they leave."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from toy_extractor import SMALL

from hmdiff.compute import seeded_init
from hmdiff.errors import UserError
from hmdiff.extractor.backbone import Backbone
from hmdiff.extractor.features import (
    ARRAYS,
    features_writer,
    read_features,
)
from hmdiff.extractor.model import (
    Extractor,
    image_feature,
    load_extractor,
    save_extractor,
)
from hmdiff.extractor.timm_import import import_timm


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor(SMALL, seed=3).eval()


def test_an_image_gives_the_papers_shapes(extractor):
    context, xy, z = extractor(torch.rand(2, 3, 56, 56))
    assert context.shape == (2, extractor.backbone.channels, 7, 7)
    assert xy.shape == z.shape == (2, 21, 56, 56)
    assert image_feature(context).shape == (2, 49, 128)


def test_full_size_images_go_through_timms_own_features():
    backbone = Backbone("resnet10t", 224).eval()
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(backbone(image), backbone.net.forward_features(image))
        assert backbone(image).shape == (1, 512, 7, 7)


def test_the_image_feature_is_the_mean_of_neighbouring_channels():
    context = torch.rand(2, 2048, 7, 7)
    expected = context.numpy().reshape(2, 128, 16, 49).mean(2).transpose(0, 2, 1)
    assert np.allclose(image_feature(context), expected, atol=1e-6)


def test_a_learned_projection_is_the_image_feature_and_all_that_the_head_sees(tmp_path):
    model = Extractor(dataclasses.replace(SMALL, feature="projected"), seed=3).eval()
    found = model(torch.rand(2, 3, 56, 56))
    assert found.context.shape == (2, 128, 7, 7)
    assert torch.equal(image_feature(found.context), found.context.flatten(2).transpose(1, 2))
    for kept, again in zip(found[1:], model.head(found.context), strict=True):
        assert torch.equal(kept, again)
    save_extractor(model, tmp_path, {})
    assert load_extractor(tmp_path).architecture.feature == "projected"


def test_the_seed_alone_decides_the_first_weights():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, same, other = (Extractor(SMALL, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    weights = [model.head.heatmaps.weight for model in (one, other)]
    assert not torch.equal(*weights)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("no_such_net", 112, "timm has no 'no_such_net'"),
        ("vit_tiny_patch16_224", 56, "'vit_tiny_patch16_224' has no feature level of stride 8"),
        ("vit_tiny_patch16_224", 224, "'vit_tiny_patch16_224' gives no 7 x 7 map"),
        ("hrnet_w18_small", 112, "'hrnet_w18_small' gives no 7 x 7 map at image_size 112"),
    ],
)
def test_a_backbone_without_the_map_is_one_clear_line(name, size, message):
    with pytest.raises(UserError, match=message) as error:
        Backbone(name, size)
    assert "params.yaml" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("size", [112, 224])
def test_backbone_weights_come_from_a_file(tmp_path, size):
    timm = import_timm()
    with seeded_init(5):
        net = timm.create_model("resnet10t", pretrained=False)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    loaded = Backbone("resnet10t", size, tmp_path / "net.safetensors")
    theirs = net.state_dict()
    assert len(loaded.net.state_dict()) > 50
    for key, value in loaded.net.state_dict().items():
        assert torch.equal(value, theirs[key])


def test_a_small_hrnet_gives_what_timm_gives_with_the_same_file(tmp_path):
    """The file is as timm distributes it: with the classifier, which the backbone lacks."""
    timm = import_timm()
    with seeded_init(5):
        net = timm.create_model("hrnet_w18_small", pretrained=False).eval()
    assert "classifier.weight" in net.state_dict()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    with seeded_init(6):
        loaded = Backbone("hrnet_w18_small", 224, tmp_path / "net.safetensors").eval()
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(images), net.forward_features(images))


def test_weights_of_another_backbone_are_one_clear_line(tmp_path):
    save_file({"stem": torch.zeros(1)}, tmp_path / "net.safetensors")
    with pytest.raises(UserError, match=r"net\.safetensors: cannot build the backbone 'resnet10t'"):
        Backbone("resnet10t", 112, tmp_path / "net.safetensors")
    with pytest.raises(UserError, match=r"absent\.safetensors: no such file"):
        Backbone("resnet10t", 112, tmp_path / "absent.safetensors")


# Its folder ---------------------------------------------------------------------------------------


def test_a_saved_extractor_gives_the_same_output(tmp_path, extractor):
    save_extractor(extractor, tmp_path, {"seed": 3})
    loaded = load_extractor(tmp_path)
    assert loaded.architecture == SMALL
    images = torch.rand(2, 3, 56, 56)
    with torch.no_grad():
        for ours, theirs in zip(extractor(images), loaded(images), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_truncated_weights_are_one_clear_line(tmp_path, extractor):
    save_extractor(extractor, tmp_path, {})
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"weights\.safetensors: .*run pretrain_extractor again"):
        load_extractor(tmp_path)


def test_weights_and_record_must_belong_together(tmp_path, extractor):
    save_extractor(extractor, tmp_path, {})
    record = tmp_path / "extractor.json"
    record.write_text(record.read_text().replace('"hand"', '"body"'))
    with pytest.raises(UserError, match=r"weights\.safetensors: not the weights"):
        load_extractor(tmp_path)
    record.write_text('{"architecture": {"kind": "hand"}}')
    with pytest.raises(UserError, match=r"extractor\.json: architecture is not complete"):
        load_extractor(tmp_path)


# Features -----------------------------------------------------------------------------------------


def _block(rows: range) -> dict:
    rng = np.random.default_rng(rows.start)
    n = len(rows)
    shapes = {"draws": (25, 21, 3), "coarse": (195, 3)}
    block: dict = {
        name: rng.normal(size=(n, *shapes.get(name, (21, 3)))).astype(np.float32)
        for name in ("draws", "centre", "peak", "spread", "coarse", "joints")
    }
    block["image_feature"] = rng.normal(size=(n, 49, 128)).astype(np.float16)
    block["valid_mesh"] = rng.random(n) < 0.5
    block["valid_joints"] = rng.random((n, 21)) < 0.5
    block["split"] = np.array([row % 3 for row in rows], np.uint8)
    block["copy"] = np.zeros(n, np.uint16)
    return block | {"sample_id": [f"s{row}" for row in rows]}


def _write_features(path: Path, dataset: str) -> list[dict]:
    blocks = [_block(range(0, 4)), _block(range(4, 7))]
    with features_writer(path, 7, {"dataset": dataset, "kind": "hand"}) as writer:
        for block in blocks:
            writer.append(block)
    return blocks


def test_features_come_back_as_they_went_in(tmp_path):
    blocks = _write_features(tmp_path / "b.h5", "bb")
    one = read_features(tmp_path / "b.h5", "val")
    assert one.sample_id == ["s1", "s4"] and one.names == ["bb", "bb"]
    for name in ARRAYS:
        whole = np.concatenate([block[name] for block in blocks])
        assert np.array_equal(getattr(one, name).numpy(), whole[[1, 4]])
        assert getattr(one, name).numpy().dtype == whole.dtype


def test_a_subset_is_evenly_spaced_and_always_the_same(tmp_path):
    _write_features(tmp_path / "a.h5", "aa")
    rows = read_features(tmp_path / "a.h5", "train").select([0, 1, 2, 0, 1, 2])
    numbered = dataclasses.replace(rows, sample_id=list("abcdef"))
    assert numbered.subset(3).sample_id == ["a", "c", "e"]
    assert numbered.subset(6) is numbered and numbered.subset(None) is numbered
    assert torch.equal(numbered.subset(3).centre, numbered.centre[::2])
    assert numbered.select(torch.tensor([5, 0])).sample_id == ["f", "a"]


def test_unfinished_features_leave_no_file(tmp_path):
    path = tmp_path / "a.h5"
    with (
        pytest.raises(RuntimeError, match="4 of 7 rows"),
        features_writer(path, 7, {"dataset": "aa"}) as writer,
    ):
        writer.append(_block(range(0, 4)))
    assert list(tmp_path.iterdir()) == []


def test_bad_features_are_one_clear_line(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(UserError, match=r"a\.h5: no such file; run extract_features@a"):
        read_features(path, "train")
    _write_features(path, "aa")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.h5: is cut or not HDF5"):
        read_features(path, "train")
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        del file["peak"]
    with pytest.raises(UserError, match=r"a\.h5: .*'peak'.*run extract_features@a"):
        read_features(path, "train")
