"""g with its condition, parametrisation and schedule: everything that the reverse process calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hmdiff.compute import autocast
from hmdiff.diffusion.conditions import Condition
from hmdiff.diffusion.denoiser import WIDTH, Denoiser, KeysValues
from hmdiff.diffusion.fastmetro import FastMETRODenoiser
from hmdiff.diffusion.lift import PoseToMesh
from hmdiff.diffusion.parametrisation import Parametrisation
from hmdiff.diffusion.schedule import NoiseSchedule
from hmdiff.params.models import DenoiserParams, DiffusionParams, ExperimentParams

SPREAD = 0.2  # about the deviation of vertices from the mean mesh, model units


def needs_mask(experiment: ExperimentParams, denoiser: DenoiserParams) -> bool:
    """Whether the network of ``experiment`` masks attention by the edges of the coarse mesh."""
    return denoiser.adjacency_mask or experiment.model == "fastmetro"


class MeshDiffusion(nn.Module):
    """The trained part of one experiment: ``diffusion``, ``direct`` (Baselines A and B), ...

    A direct model is the same network that gives the mesh in one forward pass, from the mean mesh
    at step K (Sec. 5.2, Table 3). It predicts a mesh and no noise, so that it always uses the edm
    form, which there is the mean mesh plus sigma_data times the output. So is ``fastmetro``, with
    FastMETRO's transformers in the place of g.
    """

    def __init__(
        self,
        experiment: ExperimentParams,
        diffusion: DiffusionParams,
        denoiser: DenoiserParams,
        mean: Tensor,
        joints: int,
        mask: Tensor | None = None,
    ):
        """``mean`` (V, 3) is the mean coarse training mesh in metres, ``mask`` see the denoiser."""
        super().__init__()
        self.scale = getattr(diffusion.scale, experiment.kind)
        self.direct = experiment.model != "diffusion"
        self.schedule = NoiseSchedule.from_params(diffusion)
        form = "edm" if self.direct else diffusion.parametrisation
        self.parametrisation = Parametrisation(
            form, self.schedule, mean.float() * self.scale, diffusion.sigma_data
        )
        # Fitted before training: U's mean to a coarse mesh, about which the mesh is diffused then.
        lifted = diffusion.centre == "prior" and not self.direct
        self.lift = PoseToMesh(joints, len(mean)) if lifted else None
        self.place = nn.Linear(3, WIDTH, bias=False) if lifted and denoiser.sees_centre else None
        self.condition = Condition(experiment.condition, joints, self.scale)
        if experiment.fastmetro is not None:
            self.denoiser = FastMETRODenoiser(WIDTH, mask, joints, experiment.fastmetro)
        else:
            self.denoiser = Denoiser(len(mean), diffusion.steps, experiment.depth, denoiser, mask)

    def context(self, image_feature: Tensor, draws: Tensor) -> list[KeysValues]:
        """Keys and values of f_I (B, 49, 128) and U's draws (B, n, J, 3), once for all steps."""
        return self.denoiser.context(self.condition(image_feature, draws))

    def shift(self, centre: Tensor) -> Tensor | None:
        """How far each image's mesh is diffused from the mean mesh, (B, 1, V, 3) in model units;
        None: not at all. ``centre`` (B, J, 3) is U's mean in metres."""
        if self.lift is None:
            return None
        return (self.scale * self.lift(centre) - self.parametrisation.mean)[:, None]

    def seen(self, shift: Tensor | None) -> list[Tensor]:
        """What the tokens have of :meth:`shift`, (B, 1, V, 128), once for all steps: nothing unless
        ``denoiser.sees_centre``, and then a projection of each vertex's place."""
        return [] if self.place is None else [self.place(shift / SPREAD)]

    def output(
        self,
        h_k: Tensor,
        k: int | Tensor,
        context: list[KeysValues],
        seen: Sequence[Tensor] = (),
    ) -> Tensor:
        """The raw float32 output of the network for h_k (B, N, V, 3) in model units.

        ``h_k`` is moved back by the shift already; ``seen`` is what :meth:`seen` gives of it.
        """
        return self.denoiser(self.parametrisation.network_input(h_k, k), k, context, *seen).float()

    def predictor(
        self, context: list[KeysValues], precision: str, shift: Tensor | None = None
    ) -> Callable[[Tensor, int | Tensor], tuple[Tensor, Tensor]]:
        """``predict(h_k, k) -> (h0_hat, s)`` for the reverse process; Eq. 7 itself is float32.

        With ``shift`` the network sees and says meshes moved back by it. That is the same process:
        h_k moves by sqrt(alpha_k) times as much, and s not at all.
        """
        with autocast(self.parametrisation.mean.device, precision):
            seen = self.seen(shift)

        def predict(h_k: Tensor, k: int | Tensor) -> tuple[Tensor, Tensor]:
            if shift is not None:
                h_k = h_k - self.schedule.alpha(k) ** 0.5 * shift
            with autocast(h_k.device, precision):
                output = self.output(h_k, k, context, seen)
            h0_hat, s = self.parametrisation.decode(output, h_k, k)
            return h0_hat if shift is None else h0_hat + shift, s

        return predict

    def direct_start(self, images: int) -> Tensor:
        """(B, 1, V, 3): h_K of a direct model, at which its network sees zeros."""
        alpha = self.schedule.alpha(self.schedule.steps)
        return (alpha**0.5 * self.parametrisation.mean).expand(images, 1, -1, -1)


def build_model(
    seed_generator: torch.Generator,
    experiment: ExperimentParams,
    diffusion: DiffusionParams,
    denoiser: DenoiserParams,
    mean: Tensor,
    joints: int,
    mask: Tensor | None = None,
) -> MeshDiffusion:
    """A :class:`MeshDiffusion` with initial weights that depend on ``seed_generator`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_generator.initial_seed())
        return MeshDiffusion(experiment, diffusion, denoiser, mean, joints, mask)
