"""Changes of colour, side, rotation and scale that make more of the training images (METRO's)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from hmdiff.distributed import Share, whole
from hmdiff.kinds import Kind
from hmdiff.params.models import AugmentationParams


def mirror_order(kind: Kind) -> list[int]:
    """For each joint the one that takes its place in a mirrored image (R_ and L_ swap)."""
    other = {"R_": "L_", "L_": "R_"}
    names = [other.get(name[:2], name[:2]) + name[2:] for name in kind.joints]
    return [kind.joints.index(name) for name in names]


def jitter_colour(
    images: Tensor,
    gain: float,
    offset: float,
    generator: torch.Generator,
    share: Share | None = None,
) -> Tensor:
    """Each channel of each image times U(1-gain, 1+gain) plus U(-offset, offset).

    The gain is METRO's per-channel noise. Images (B, 3, S, S) in 0..1; the result is clipped.
    Here and below, ``share`` says which images of a batch they are; None: all.
    """
    share = share or whole(len(images))
    scale = 1 + gain * (2 * share.draw(torch.rand, 3, 1, 1, random=generator) - 1)
    shift = offset * (2 * share.draw(torch.rand, 3, 1, 1, random=generator) - 1)
    return (images * scale.to(images.device) + shift.to(images.device)).clamp(0, 1)


def mirror(
    images: Tensor,
    joints: Tensor,
    valid: Tensor,
    order: list[int],
    probability: float,
    generator: torch.Generator,
    share: Share | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mirror some of the images left to right, with their joints (x is negated, sides swap).

    Args:
        images: (B, 3, S, S).
        joints: (B, J, 3) root-relative camera metres.
        valid: (B, J) bool.
        order: of :func:`mirror_order`.
        probability: of each image to be mirrored.
    """
    share = share or whole(len(images))
    chosen = (share.draw(torch.rand, random=generator) < probability).to(images.device)
    flipped = joints[:, order] * joints.new_tensor([-1.0, 1.0, 1.0])
    return (
        torch.where(chosen[:, None, None, None], images.flip(-1), images),
        torch.where(chosen[:, None, None], flipped, joints),
        torch.where(chosen[:, None], valid[:, order], valid),
    )


def draw_turn(
    share: Share, params: AugmentationParams, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Angles in radians and sides of the crop over its own side, (n,) each.

    METRO's: N(0, rotation) held within the limit, for ``rotation_share`` of the images, else 0;
    and N(1, scale) held within its own.
    """
    limit, reach = params.rotation_limit, params.scale_limit
    degrees = params.rotation * share.draw(torch.randn, random=generator)
    degrees = degrees.clamp(-limit, limit)
    turned = share.draw(torch.rand, random=generator) < params.rotation_share
    sides = 1 + params.scale * share.draw(torch.randn, random=generator)
    angles = torch.where(turned, degrees * math.pi / 180, 0.0)
    return angles, sides.clamp(1 - reach, 1 + reach)


def turn_images(images: Tensor, angles: Tensor, sides: Tensor) -> Tensor:
    """Images (B, 3, S, S) turned clockwise about their middle and cut out again.

    The crop's side is multiplied by ``sides`` (B,): above 1 the person gets smaller. Only the
    stored crop is there, so that what lies outside is black.
    """
    cos, sin = angles.cos(), angles.sin()
    # Where each pixel of the result comes from: the inverse of :func:`turn_points`.
    matrix = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    matrix = functional.pad(matrix * sides[:, None, None], (0, 1)).to(images)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def turn_points(points: Tensor, angles: Tensor) -> Tensor:
    """Root-relative points (B, n, 3) turned with the image, about the camera's optical axis.

    Clockwise on the screen, for x is right and y down. That is exact for a crop in the middle of
    the image, and for others as exact as a camera without perspective. The scale of a crop does
    not change metres.
    """
    cos, sin = (part.to(points)[:, None] for part in (angles.cos(), angles.sin()))
    x, y, z = points.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y, z], -1)


def turn(
    images: Tensor,
    points: Tensor,
    params: AugmentationParams,
    generator: torch.Generator,
    share: Share | None = None,
) -> tuple[Tensor, Tensor]:
    """Turn and rescale images (B, 3, S, S) in 0..1, and turn their points (B, n, 3)."""
    if not (params.rotation or params.scale):
        return images, points
    angles, sides = draw_turn(share or whole(len(images)), params, generator)
    return turn_images(images, angles, sides), turn_points(points, angles)
