"""What the vertices attend to: the image feature f_I, the prior distribution U, or both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hmdiff.diffusion.denoiser import WIDTH

IMAGE_TOKENS = 49  # Sec. 4.3


class Condition(nn.Module):
    """Condition tokens (B, T, 128) from the stored features of an image.

    ``image`` is the paper's: the 49 tokens of f_I, without a learned projection, normalised and
    with a learned position each (attention is blind to order). ``pose`` has one token a joint
    made of mean and spread of U's draws; ``both`` concatenates the two (Tables 3 and 4).
    """

    def __init__(self, condition: str, joints: int, scale: float):
        super().__init__()
        self.scale = scale
        self.image = condition in ("image", "both")
        self.pose = condition in ("pose", "both")
        if self.image:
            self.image_norm = nn.LayerNorm(WIDTH)
            self.image_position = nn.Parameter(0.3 * torch.randn(IMAGE_TOKENS, WIDTH))
        if self.pose:
            self.pose_projection = nn.Linear(6, WIDTH)
            self.joint_id = nn.Parameter(0.3 * torch.randn(joints, WIDTH))

    def forward(self, image_feature: Tensor, draws: Tensor) -> Tensor:
        """``image_feature`` (B, 49, 128), ``draws`` (B, n, J, 3) metres, root-relative."""
        tokens = []
        if self.image:
            tokens.append(self.image_norm(image_feature.float()) + self.image_position)
        if self.pose:
            draws = draws * self.scale
            moments = torch.cat([draws.mean(1), draws.std(1, correction=0)], -1)  # (B, J, 6)
            tokens.append(self.pose_projection(moments) + self.joint_id)
        return torch.cat(tokens, 1)
