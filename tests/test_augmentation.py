"""METRO's augmentation: what happens to the image happens to its joints."""

from __future__ import annotations

import math

import pytest
import torch

from hmdiff.distributed import whole
from hmdiff.extractor.augmentation import (
    draw_turn,
    mirror,
    mirror_order,
    turn,
    turn_images,
    turn_points,
)
from hmdiff.extractor.extraction import changed_copies
from hmdiff.kinds import BODY
from hmdiff.params.models import AugmentationParams

SIZE = 65  # pixels; odd, so that one pixel is in the middle
METRO = AugmentationParams(
    colour_gain=0.4, colour_offset=0.0, mirror=0.5, rotation=30, rotation_limit=60,
    rotation_share=0.4, scale=0.25, scale_limit=0.25,
)  # fmt: skip
NONE = METRO.model_copy(update={"colour_gain": 0.0, "mirror": 0.0, "rotation": 0.0, "scale": 0.0})


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spots(points: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, S, S) with a soft spot at (x, y) pixels from the middle, one a point (B, 2)."""
    axis = torch.arange(SIZE) - SIZE // 2
    x, y = (points[:, i, None] - axis for i in (0, 1))
    image = torch.exp(-0.5 * (x[:, None, :] ** 2 + y[:, :, None] ** 2) / 2.0**2)
    return image[:, None].expand(-1, 3, -1, -1).contiguous()


def centroid(images: torch.Tensor) -> torch.Tensor:
    """(B, 2) mean position of the light, pixels from the middle."""
    axis = (torch.arange(SIZE) - SIZE // 2).float()
    light = images[:, 0]
    total = light.sum((1, 2))
    return torch.stack([light.sum(1) @ axis, light.sum(2) @ axis], 1) / total[:, None]


def test_a_turned_spot_lands_where_its_turned_joint_projects():
    """Weak perspective: a joint at (x, y, z) metres is seen ``focal`` (x, y) pixels off."""
    joints = 0.1 * torch.randn(64, 1, 3, generator=rng())
    joints = joints * (0.15 / joints.norm(dim=-1, keepdim=True).clamp(min=0.15))
    focal = 100.0
    angles, sides = draw_turn(whole(64), METRO.model_copy(update={"rotation_share": 1.0}), rng(1))
    assert angles.abs().max() > 0.5 and sides.std() > 0.1
    seen = centroid(turn_images(spots(focal * joints[:, 0, :2]), angles, sides))
    expected = focal * turn_points(joints, angles)[:, 0, :2] / sides[:, None]
    assert torch.allclose(seen, expected, atol=0.05)


def test_a_quarter_turn_is_clockwise_on_the_screen():
    right = torch.tensor([[[1.0, 0.0, 5.0]]])
    down = turn_points(right, torch.tensor([math.pi / 2]))
    assert torch.allclose(down, torch.tensor([[[0.0, 1.0, 5.0]]]), atol=1e-6)
    image = torch.rand(1, 3, 8, 8, generator=rng())
    turned = turn_images(image, torch.tensor([math.pi / 2]), torch.ones(1))
    assert torch.allclose(turned, image.rot90(-1, (2, 3)), atol=1e-5)


def test_what_lies_outside_the_stored_crop_is_black():
    image = torch.ones(1, 3, 32, 32)
    smaller = turn_images(image, torch.zeros(1), torch.tensor([1.25]))
    assert smaller[..., 16, 16].min() == 1 and smaller[..., 0, 0].max() == 0
    assert float(smaller.mean()) == pytest.approx(1 / 1.25**2, rel=0.02)
    larger = turn_images(image, torch.zeros(1), torch.tensor([0.75]))
    assert torch.allclose(larger, image)


def test_the_draws_are_metros():
    angles, sides = draw_turn(whole(20000), METRO, rng())
    degrees = angles * 180 / math.pi
    assert float((degrees == 0).float().mean()) == pytest.approx(0.6, abs=0.015)
    turned = degrees[degrees != 0]
    assert float(turned.abs().max()) == pytest.approx(60, abs=1e-4)
    # N(0, 30) held within two deviations has 0.9795 of its deviation.
    assert float(turned.std()) == pytest.approx(0.9795 * 30, rel=0.02)
    assert (sides.min(), sides.max()) == (0.75, 1.25)
    assert float((sides == 1.25).float().mean()) == pytest.approx(0.1587, abs=0.01)


def test_no_augmentation_changes_nothing_and_draws_nothing():
    images, points = torch.rand(2, 3, 8, 8, generator=rng()), torch.randn(2, 4, 3, generator=rng())
    random = rng()
    before = random.get_state()
    same = turn(images, points, NONE, random)
    assert torch.equal(same[0], images) and torch.equal(same[1], points)
    assert torch.equal(random.get_state(), before)


def test_turning_does_not_move_depth_lengths_or_unknown_joints():
    points = torch.randn(5, 7, 3, generator=rng())
    points[:, 3] = torch.nan
    turned = turn_points(points, torch.linspace(-1, 1, 5))
    assert torch.equal(turned[:, :3, 2], points[:, :3, 2])
    assert torch.allclose(turned.norm(dim=-1)[:, 4:], points.norm(dim=-1)[:, 4:], atol=1e-6)
    assert turned[:, 3].isnan().all() and not turned[:, 4:].isnan().any()


def test_mirroring_and_turning_agree():
    """A mirror image turned one way is the mirror image of the other turn."""
    order = mirror_order(BODY)
    images, joints = torch.rand(2, 3, 16, 16, generator=rng()), torch.randn(2, 17, 3)
    valid, angles, sides = (
        torch.ones(2, 17, dtype=torch.bool),
        torch.tensor([0.4, -0.7]),
        torch.ones(2),
    )

    def mirrored(images, joints):
        return mirror(images, joints, valid, order, 1.0, rng())[:2]

    def turned(images, joints, angles):
        return turn_images(images, angles, sides), turn_points(joints, angles)

    for one, other in zip(
        turned(*mirrored(images, joints), angles),
        mirrored(*turned(images, joints, -angles)),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_copy_depends_on_its_name_and_not_on_its_batch():
    images, names = torch.rand(3, 3, 16, 16, generator=rng()), ["s/a#1", "s/b#1", "s/a#2"]
    params = METRO.model_copy(update={"rotation_share": 1.0})
    whole, angles = changed_copies(images, names, params, seed=0)
    for row, name in enumerate(names):
        alone, angle = changed_copies(images[row : row + 1], [name], params, seed=0)
        assert torch.equal(alone[0], whole[row]) and angle[0] == angles[row]
    assert len(set(angles.tolist())) == 3
    other, _ = changed_copies(images, names, params, seed=1)
    assert not torch.equal(other, whole)
    plain, still = changed_copies(images, names, NONE, seed=0)
    assert torch.allclose(plain, images, atol=1e-5) and not still.any()
