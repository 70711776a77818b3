"""Changes of colour and side that make more of the training images."""

from __future__ import annotations

import torch
from torch import Tensor

from hmdiff.kinds import Kind


def mirror_order(kind: Kind) -> list[int]:
    """For each joint the one that takes its place in a mirrored image (R_ and L_ swap)."""
    other = {"R_": "L_", "L_": "R_"}
    names = [other.get(name[:2], name[:2]) + name[2:] for name in kind.joints]
    return [kind.joints.index(name) for name in names]


def jitter_colour(images: Tensor, gain: float, offset: float, generator: torch.Generator) -> Tensor:
    """Each channel of each image times U(1-gain, 1+gain) plus U(-offset, offset).

    The gain is METRO's per-channel noise. Images (B, 3, S, S) in 0..1; the result is clipped.
    """
    shape = (len(images), 3, 1, 1)
    scale = 1 + gain * (2 * torch.rand(shape, generator=generator) - 1)
    shift = offset * (2 * torch.rand(shape, generator=generator) - 1)
    return (images * scale.to(images.device) + shift.to(images.device)).clamp(0, 1)


def mirror(
    images: Tensor,
    joints: Tensor,
    valid: Tensor,
    order: list[int],
    probability: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mirror some of the images left to right, with their joints (x is negated, sides swap).

    Args:
        images: (B, 3, S, S).
        joints: (B, J, 3) root-relative camera metres.
        valid: (B, J) bool.
        order: of :func:`mirror_order`.
        probability: of each image to be mirrored.
    """
    chosen = (torch.rand(len(images), generator=generator) < probability).to(images.device)
    flipped = joints[:, order] * joints.new_tensor([-1.0, 1.0, 1.0])
    return (
        torch.where(chosen[:, None, None, None], images.flip(-1), images),
        torch.where(chosen[:, None, None], flipped, joints),
        torch.where(chosen[:, None], valid[:, order], valid),
    )
