"""phi_I and phi_P: shapes, files, training and the two stages."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.utils.data import Dataset
from toy_bodies import write_toy_model
from toys import Stopped, checkpoint_params, stop_after

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.compute import autocast, generator, resolve_device, resolve_precision, seeded_init
from hmdiff.datasets.crop import encode_jpeg
from hmdiff.datasets.sample import Sample
from hmdiff.datasets.writer import Record, write_prepared
from hmdiff.distributed import whole
from hmdiff.errors import UserError
from hmdiff.extractor.augmentation import jitter_colour, mirror, mirror_order, turn_points
from hmdiff.extractor.backbone import Backbone
from hmdiff.extractor.features import (
    ARRAYS,
    FeatureFiles,
    Features,
    features_writer,
    read_features,
)
from hmdiff.extractor.model import (
    Architecture,
    Extractor,
    image_feature,
    load_extractor,
    save_extractor,
)
from hmdiff.extractor.timm_import import import_timm
from hmdiff.extractor.training import (
    Pool,
    _backward,
    learning_rate,
    split_pool,
    train_extractor,
    validate,
)
from hmdiff.kinds import BODY, HAND, KINDS
from hmdiff.params import Params, load_params
from hmdiff.params.models import AugmentationParams, FeaturesParams
from hmdiff.stages import extract_features, pretrain_extractor

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
SMALL = Architecture("hand", "resnet10t", 56, (16, 16, 16), 0.22)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor(SMALL, seed=3).eval()


# The network -------------------------------------------------------------------------------------


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


# Its folder --------------------------------------------------------------------------------------


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


# Training ----------------------------------------------------------------------------------------


class Dots(Dataset):
    """Blank images with a bright patch; every joint sits where the patch is."""

    def __init__(self, count: int, joint_count: int = HAND.joint_count) -> None:
        rng = np.random.default_rng(0)
        self.images = torch.zeros(count, 3, 56, 56, dtype=torch.uint8)
        corners = torch.as_tensor(rng.integers(0, 49, (count, 2)))
        for image, (row, column) in zip(self.images, corners, strict=True):
            image[:, row : row + 7, column : column + 7] = 255
        places = torch.cat([corners.flip(1) / 49 - 0.5, torch.zeros(count, 1)], 1) * 0.3
        self.joints = places[:, None].expand(-1, joint_count, -1).clone()
        self.joints[:, 0] = 0
        self.valid = torch.ones(count, joint_count, dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.images[row], self.joints[row], self.valid[row]


def _pool(images: Dataset) -> Pool:
    names = [f"image {row}" for row in range(len(images))]
    return Pool(images, names, torch.ones(len(images)))


def _settings(**changes):
    values = {"image_size": 56, "backbone": "resnet10t", "channels": (16, 16, 16), "warmup": 2}
    values |= {"batch": 8, "samples": 16, "validations": 1, "learning_rate": 1e-3}
    values |= {"datasets": {"toy": 1.0}}
    return PARAMS.extractor["hand"].model_copy(update=values | changes)


def _augmentation(**changes) -> AugmentationParams:
    values = dict.fromkeys(AugmentationParams.model_fields, 0.0)
    return AugmentationParams(**(values | {"rotation_limit": 60, "scale_limit": 0.25} | changes))


def _train(extractor: Extractor, pool: Pool, settings, seed: int = 0) -> list[dict[str, float]]:
    return train_extractor(
        extractor, pool, pool, settings, seed=seed, device=CPU, precision="fp32", workers=0
    )


def test_two_steps_on_one_batch_lower_the_loss():
    pool = _pool(Dots(8))
    settings = _settings(samples=24, validations=3, augmentation=_augmentation(), warmup=0)
    losses = [point["loss"] for point in _train(Extractor(SMALL), pool, settings)]
    assert losses[2] < losses[1] < losses[0]


def test_training_finds_the_joints():
    pool = _pool(Dots(32))
    extractor = Extractor(SMALL)
    settings = _settings(samples=400, learning_rate=3e-3, validations=2, warmup=5)
    curve = _train(extractor, pool, settings)
    still = Dots(32).joints
    constant = (still - still.mean(0)).norm(dim=-1).mean().item() * 1000
    assert [point["samples"] for point in curve] == [200, 400]
    assert curve[-1]["val_mpjpe"] < 0.8 * constant
    # The curve's figure is the error in millimetres of U's mean, over images.
    images, joints, _ = (torch.stack(column) for column in zip(*Dots(32), strict=True))
    with torch.no_grad():
        centre = extractor.prior(extractor(images.float() / 255)).centre
    error = 1000 * np.linalg.norm((centre - joints).numpy(), axis=-1).mean()
    assert curve[-1]["val_mpjpe"] == pytest.approx(error, abs=0.01)


def test_the_same_seed_gives_the_same_weights():
    runs = []
    for seed in (0, 0, 1):
        extractor = Extractor(SMALL)
        _train(extractor, _pool(Dots(20)), _settings(), seed)
        runs.append(torch.cat([parameter.flatten() for parameter in extractor.parameters()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_a_loss_that_is_not_finite_names_the_step_and_the_images():
    images = Dots(8)
    images.joints[5] = torch.nan  # called valid, so this is bad data
    with pytest.raises(UserError, match=r"not finite at step 0 .*image 5"):
        _train(Extractor(SMALL), _pool(images), _settings())


def test_joints_that_are_not_valid_do_not_count_in_validation(extractor):
    images = Dots(6)
    error = validate(extractor, _pool(images), 4, CPU, "fp32")
    images.joints[:, 7:] = torch.nan
    images.valid[:, 7:] = False
    masked = validate(extractor, _pool(images), 4, CPU, "fp32")
    assert np.isfinite(masked) and masked != error


def test_gradients_of_parts_add_up_to_the_batchs():
    """But for BatchNorm, which is held still here; joints are valid in unequal numbers."""
    images = Dots(8)
    images.valid[:3, 5:] = False
    batch = tuple(torch.stack(column) for column in zip(*images, strict=True))
    found = []
    for micro_batch in (None, 2, 4):
        extractor = Extractor(SMALL).eval()
        settings = _settings(micro_batch=micro_batch)
        loss = _backward(extractor, batch, whole(8), settings, generator(0), CPU, "fp32")
        found.append((loss, [parameter.grad for parameter in extractor.parameters()]))
    for loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        for one, other in zip(gradients, found[0][1], strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_the_learning_rate_rises_and_falls_to_nought():
    rates = [learning_rate(step, 100, 10, 2.0) for step in range(100)]
    assert rates[:3] == pytest.approx([0.2, 0.4, 0.6])
    assert max(rates) == rates[10] == 2.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(1.0) and rates[-1] < 0.01


# Augmentation ------------------------------------------------------------------------------------


def test_mirroring_swaps_sides_and_twice_is_nothing():
    order = mirror_order(BODY)
    names = [BODY.joints[row] for row in order]
    assert names[1:4] == ["L_Hip", "L_Knee", "L_Ankle"] and names[0] == "Pelvis"
    batch = torch.rand(3, 3, 8, 8), torch.randn(3, 17, 3), torch.rand(3, 17) < 0.5
    once = mirror(*batch, order, 1.0, generator(0))
    twice = mirror(*once, order, 1.0, generator(0))
    for before, after in zip(batch, twice, strict=True):
        assert torch.equal(before, after)
    right, left = BODY.joints.index("R_Wrist"), BODY.joints.index("L_Wrist")
    assert torch.equal(once[1][:, left, 1:], batch[1][:, right, 1:])
    assert torch.equal(once[1][:, left, 0], -batch[1][:, right, 0])
    assert torch.equal(once[2][:, left], batch[2][:, right])
    assert torch.equal(once[0][..., 0], batch[0][..., -1])
    untouched = mirror(*batch, order, 0.0, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(batch, untouched, strict=True))


def test_colours_change_per_channel_and_stay_in_range():
    grey = torch.full((64, 3, 4, 4), 0.5)
    changed = jitter_colour(grey, 0.2, 0.1, generator(0))
    assert changed.min() >= 0.3 and changed.max() <= 0.7
    assert torch.equal(changed, changed[..., :1, :1].expand_as(changed))
    assert changed[:, :, 0, 0].std(0).min() > 0.02
    assert jitter_colour(grey * 2, 0.5, 0.5, generator(0)).max() == 1
    assert torch.equal(jitter_colour(grey, 0, 0, generator(0)), grey)


# Device, precision, streams ----------------------------------------------------------------------


def test_an_absent_device_is_one_clear_line():
    assert resolve_device("cpu") == CPU
    for name in ("hip:99", "meta", "gpu"):
        with pytest.raises(UserError, match=r"params\.yaml: compute\.device: cannot use") as error:
            resolve_device(name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("amx", "avx", "wanted"), [(1, 0, "bf16"), (0, 1, "bf16"), (0, 0, "fp32")])
def test_auto_is_bf16_only_where_the_processor_has_it(monkeypatch, amx, avx, wanted):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(amx))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(avx))
    committed = load_params(Path(__file__).parents[1] / "params.yaml").compute
    settings = committed.model_copy(update={"device": "cpu", "precision": "auto"})
    assert resolve_precision(settings) == wanted
    for named in ("bf16", "fp32"):
        assert resolve_precision(settings.model_copy(update={"precision": named})) == named


def test_precision_decides_what_a_layer_computes_in():
    layer = torch.nn.Linear(2, 2)
    with autocast(CPU, "bf16"):
        assert layer(torch.rand(1, 2)).dtype == torch.bfloat16
    with autocast(CPU, "fp32"):
        assert layer(torch.rand(1, 2)).dtype == torch.float32


def test_streams_follow_their_names():
    def first(*tokens: object) -> int:
        return int(torch.randint(2**62, (), generator=generator(*tokens)))

    assert first(0, "a", 1) == first(0, "a", 1)
    values = [first(*tokens) for tokens in ((0, "a", 1), (0, "a", 2), (1, "a", 1), (0, "a1"))]
    assert len(set(values)) == 4
    # Pinned: a stream may never change under stored results.
    assert generator(0, "prior", "x").initial_seed() == 7493984796811237305


# Features ----------------------------------------------------------------------------------------


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


# The stages --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A toy hand model, its sampling, and a prepared file of 12 samples, two without a mesh."""
    folder = tmp_path_factory.mktemp("workplace")
    body = BodyModel.load(write_toy_model(folder / "hand", HAND))
    kept = np.arange(0, 4 * 194 + 1, 4)
    down = sp.csr_matrix((np.ones(195), (np.arange(195), kept)), (195, 778))
    faces = [body.faces, np.array([[0, 1, 2]])]
    MeshSampling(faces, [down], [sp.csr_matrix(down.T)]).save(folder / "hand.npz")
    rng = np.random.default_rng(0)
    records = []
    for row in range(12):
        pixels = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
        pose = {
            "pose": rng.normal(0, 0.3, 48),
            "betas": rng.normal(size=10),
            "translation": np.zeros(3),
        }
        joints = rng.normal(0, 0.05, (21, 3))
        sample = Sample(
            f"s{row}",
            Path("unused.png"),
            ("train", "train", "val", "test")[row % 4],
            np.zeros(4),
            np.eye(3),
            joints=joints,
            **({} if row in (4, 9) else pose),
        )
        jpeg = encode_jpeg(pixels, PARAMS.prepare.quality, PARAMS.prepare.chroma)
        records.append(Record(sample, jpeg, np.eye(3), joints))
    attrs = {"dataset": "toy", "source": "rendered"}
    write_prepared(folder / "prepared" / "toy.h5", records, HAND, attrs)
    return folder


def _params(**changes) -> Params:
    compute = PARAMS.compute.model_copy(update={"threads": 1, "workers": 0})
    extractors = {**PARAMS.extractor, "hand": _settings(batch=4, samples=8, **changes)}
    changes = {"compute": compute, "extractor": extractors, "checkpoint": checkpoint_params()}
    return PARAMS.model_copy(update=changes)


@pytest.fixture(scope="module")
def trained(workplace) -> Path:
    out = workplace / "extractor"
    pretrain_extractor.run("hand", workplace / "prepared", out, _params())
    return out


def _extract(workplace: Path, trained: Path, out: Path, params: Params) -> None:
    prepared = workplace / "prepared" / "toy.h5"
    extract_features.run(prepared, trained, workplace / "hand", workplace / "hand.npz", out, params)


def test_pre_training_writes_all_its_files(trained):
    assert sorted(path.name for path in trained.iterdir()) == [
        "curve.csv",
        "extractor.json",
        "weights.safetensors",
    ]
    with open(trained / "curve.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["samples"] == "8" and float(rows[-1]["val_mpjpe"]) > 0
    assert load_extractor(trained).architecture.backbone == "resnet10t"


def test_features_hold_the_truth_and_the_coarse_meshes(workplace, trained, tmp_path):
    _extract(workplace, trained, tmp_path / "toy.h5", _params())
    parts: list[Features] = [
        read_features(tmp_path / "toy.h5", split) for split in ("train", "val", "test")
    ]
    assert [len(part) for part in parts] == [6, 3, 3]
    assert parts[0].sample_id == ["s0", "s1", "s4", "s5", "s8", "s9"]
    assert parts[0].draws.shape == (6, PARAMS.prior.draws, 21, 3)
    assert parts[0].valid_mesh.tolist() == [True, True, False, True, True, False]
    assert parts[0].coarse[[2, 5]].isnan().all() and parts[0].coarse[[0, 1, 3, 4]].isfinite().all()
    with h5py.File(workplace / "prepared" / "toy.h5") as file:
        pose, betas = (torch.from_numpy(file[name][:1]) for name in ("pose", "betas"))
        joints = file["joints"][:1]
    body = BodyModel.load(workplace / "hand")
    mesh = body.vertices(pose, betas)
    mesh = mesh - body.joints(mesh)[:, :1]
    assert torch.allclose(parts[0].coarse[0], mesh[0, ::4][:195], atol=1e-6)
    assert np.array_equal(parts[0].joints[0].numpy(), joints[0])
    with h5py.File(tmp_path / "toy.h5") as file:
        assert file.attrs["source"] == "rendered" and len(file.attrs["extractor"]) == 64


def test_copies_of_training_images_are_turned_with_their_truth(workplace, trained, tmp_path):
    turning = _augmentation(rotation=30, rotation_share=1.0, scale=0.2, colour_gain=0.4)
    _extract(workplace, trained, tmp_path / "one.h5", _params(augmentation=turning))
    many = _params(augmentation=turning).model_copy(update={"features": FeaturesParams(copies=3)})
    _extract(workplace, trained, tmp_path / "many.h5", many)
    for split in ("train", "val", "test"):
        plain, same = (read_features(tmp_path / f"{name}.h5", split) for name in ("one", "many"))
        assert plain.sample_id == same.sample_id
        for name in ARRAYS:
            one, other = getattr(plain, name), getattr(same, name)
            assert torch.equal(one.nan_to_num(7), other.nan_to_num(7)), name
    plain = read_features(tmp_path / "one.h5", "train")
    rows = FeatureFiles([tmp_path / "many.h5"], "train")
    assert rows.sample_id == plain.sample_id * 3
    copies = rows.select(range(6, 18))
    assert torch.equal(copies.valid_mesh, plain.valid_mesh.repeat(2))
    # Joints tell the angle; the mesh has turned by the same.
    before, after = plain.joints.repeat(2, 1, 1), copies.joints
    assert torch.equal(after[..., 2], before[..., 2])
    x, y = (torch.view_as_complex(part[:, 5, :2].contiguous()) for part in (before, after))
    angles = (y / x).angle()
    assert angles.abs().min() > 0 and len(set(angles.tolist())) == 12
    coarse = turn_points(plain.coarse.repeat(2, 1, 1), angles)
    assert torch.allclose(coarse.nan_to_num(7), copies.coarse.nan_to_num(7), atol=1e-6)
    assert not torch.equal(copies.image_feature[:6], copies.image_feature[6:])
    assert not torch.equal(copies.image_feature[:6], plain.image_feature)


def test_features_do_not_depend_on_the_batch(workplace, trained, tmp_path):
    # What is left is rounding inside the convolutions, which may differ with the batch's size.
    found = []
    for batch in (3, 12):
        params = _params()
        settings = params.extractor["hand"].model_copy(update={"batch": batch})
        params = params.model_copy(update={"extractor": {**PARAMS.extractor, "hand": settings}})
        params = params.model_copy(
            update={"compute": params.compute.model_copy(update={"precision": "fp32"})}
        )
        _extract(workplace, trained, tmp_path / f"{batch}.h5", params)
        found.append(read_features(tmp_path / f"{batch}.h5", "train"))
    assert torch.allclose(found[0].centre, found[1].centre, atol=1e-4)
    assert ((found[0].draws - found[1].draws).norm(dim=-1) < 1e-3).float().mean() > 0.99


def test_the_same_seed_gives_the_same_feature_bytes(workplace, trained, tmp_path):
    for name in ("a.h5", "b.h5"):
        _extract(workplace, trained, tmp_path / name, _params())
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_an_extraction_that_was_stopped_goes_on_to_the_same_bytes(
    workplace, trained, tmp_path, monkeypatch, capfd
):
    """Three blocks of plain images and two of copies; the second stop is among the copies."""
    many = _params().model_copy(update={"features": FeaturesParams(copies=2)})
    many = many.model_copy(update={"checkpoint": checkpoint_params(seconds=0)})
    _extract(workplace, trained, tmp_path / "whole/toy.h5", many)
    whole = extract_features.extract
    for calls in (2, 2):
        monkeypatch.setattr(extract_features, "extract", stop_after(calls, whole))
        with pytest.raises(Stopped):
            _extract(workplace, trained, tmp_path / "toy.h5", many)
    # The last group is cut, as by a lost disk: its block is made again.
    last = sorted(many.checkpoint.folder.glob("extract_features@toy/*.pt"))[-1]
    last.write_bytes(last.read_bytes()[:-1])
    monkeypatch.setattr(extract_features, "extract", stop_after(2, whole))
    _extract(workplace, trained, tmp_path / "toy.h5", many)
    assert "goes on after block 3" in capfd.readouterr().err
    assert (tmp_path / "toy.h5").read_bytes() == (tmp_path / "whole/toy.h5").read_bytes()


def test_a_folder_of_the_other_kind_is_one_clear_line(workplace, trained, tmp_path):
    params = _params()
    params = params.model_copy(update={"extractor": dict.fromkeys(KINDS, params.extractor["hand"])})
    with pytest.raises(UserError, match=r"toy\.h5: kind: is hand, not body"):
        pretrain_extractor.run("body", workplace / "prepared", tmp_path / "out", params)
    with pytest.raises(UserError, match=r"toy\.h5: no such file; run prepare@toy"):
        pretrain_extractor.run("hand", tmp_path, tmp_path / "out", _params())
    with pytest.raises(UserError, match=r"toy\.h5: split: no image of 'val'"):
        split_pool([_without_validation(workplace, tmp_path)], [1.0], "val", 56)


def _without_validation(workplace: Path, folder: Path) -> Path:
    path = folder / "toy.h5"
    path.write_bytes((workplace / "prepared" / "toy.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file["split"][:] = 0
    return path
