"""How phi_I and phi_P are trained: loss, augmentation, device, precision and random streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from toy_extractor import SMALL, toy_augmentation, toy_settings

from hmdiff.compute import autocast, generator, resolve_device, resolve_precision
from hmdiff.distributed import whole
from hmdiff.errors import UserError
from hmdiff.extractor.augmentation import jitter_colour, mirror, mirror_order
from hmdiff.extractor.model import Extractor
from hmdiff.extractor.training import (
    Pool,
    _backward,
    learning_rate,
    train_extractor,
    validate,
)
from hmdiff.kinds import BODY, HAND
from hmdiff.params import load_params

CPU = torch.device("cpu")


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


def _train(extractor: Extractor, pool: Pool, settings, seed: int = 0) -> list[dict[str, float]]:
    return train_extractor(
        extractor, pool, pool, settings, seed=seed, device=CPU, precision="fp32", workers=0
    )


def test_two_steps_on_one_batch_lower_the_loss():
    pool = _pool(Dots(8))
    settings = toy_settings(samples=24, validations=3, augmentation=toy_augmentation(), warmup=0)
    losses = [point["loss"] for point in _train(Extractor(SMALL), pool, settings)]
    assert losses[2] < losses[1] < losses[0]


def test_training_finds_the_joints():
    pool = _pool(Dots(32))
    extractor = Extractor(SMALL)
    settings = toy_settings(samples=400, learning_rate=3e-3, validations=2, warmup=5)
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
        _train(extractor, _pool(Dots(20)), toy_settings(), seed)
        runs.append(torch.cat([parameter.flatten() for parameter in extractor.parameters()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_a_loss_that_is_not_finite_names_the_step_and_the_images():
    images = Dots(8)
    images.joints[5] = torch.nan  # called valid, so this is bad data
    with pytest.raises(UserError, match=r"not finite at step 0 .*image 5"):
        _train(Extractor(SMALL), _pool(images), toy_settings())


def test_joints_that_are_not_valid_do_not_count_in_validation():
    extractor, images = Extractor(SMALL, seed=3).eval(), Dots(6)
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
        settings = toy_settings(micro_batch=micro_batch)
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


# Augmentation -------------------------------------------------------------------------------------


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


# Device, precision, streams -----------------------------------------------------------------------


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
