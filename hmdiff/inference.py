"""From stored features to meshes: a row of the tables is one call of :meth:`Predictor.predict`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.compute import autocast
from hmdiff.diffusion.alignment import Alignment
from hmdiff.diffusion.denoiser import KeysValues
from hmdiff.diffusion.noise import ChainNoise
from hmdiff.diffusion.reverse import reverse_process
from hmdiff.diffusion.schedule import NoiseSchedule
from hmdiff.errors import UserError
from hmdiff.extractor.features import Features
from hmdiff.params.runs import ReverseParams
from hmdiff.replay import Replayed
from hmdiff.training.folder import TrainedModel, load_model

StepCallback = Callable[[int, int, Tensor, Tensor, Alignment | None], None]
"""(first image of the batch, k, h_k, h0_hat, alignment) with meshes (B, N, Vc, 3) in metres."""


@dataclass(frozen=True)
class Run:
    """How a diffusion model is run: one row of Tables 3 to 5.

    Attributes:
        steps: of the solver.
        reverse: solver, chains, eta, and the numbers of DAT.
        guidance: ``dat`` is Algorithm 1, ``disrupted`` pulls h_k itself towards U (Table 5).
        start: ``noise`` is H_K, ``prior`` is H_U: one draw of U a chain, lifted to a mesh.
        prior: ``draws`` of U, or its ``peak`` u_c alone, for the guidance and for H_U.
        activation: False is "Ours w/o AS".
        seed: of the noise, together with each row's sample_id.
    """

    steps: int
    reverse: ReverseParams
    guidance: Literal["none", "dat", "disrupted"] = "none"
    start: Literal["noise", "prior"] = "noise"
    prior: Literal["draws", "peak"] = "draws"
    activation: bool = True
    seed: int = 0

    def alignment(
        self,
        draws: Tensor,
        peak: Tensor,
        regressor: Tensor,
        schedule: NoiseSchedule,
        scale: float,
        static: bool = False,
    ) -> Alignment | None:
        """The guidance of one batch with U's draws (B, n, J, 3) and u_c (B, J, 3) in metres.

        ``regressor`` is f, ``scale`` model units per metre, ``static`` see :class:`Alignment`.
        """
        if self.guidance == "none":
            return None
        disrupted = self.guidance == "disrupted"
        reduction = self.reverse.disrupted_reduction if disrupted else self.reverse.reduction
        # u_c replaces n terms of Eq. 10's sum by one: weighted n-fold it pulls as hard (A8).
        equal = self.prior == "peak" and self.reverse.peak_weight == "equal"
        last = None if disrupted else self.reverse.guided_steps
        guided = None if last is None else schedule.visited_steps(self.steps)[:-1][-last:]
        return Alignment(
            draws=scale * self.samples(draws, peak).to(regressor.device),
            regressor=regressor,
            schedule=schedule,
            gamma=self.reverse.gamma,
            threshold=self.reverse.threshold,
            reduction=reduction,
            first_gap=self.reverse.gap,
            gradient=self.reverse.gradient,
            measured_on="h" if disrupted else "h0",
            activation=self.activation,
            weight=draws[:, : self.reverse.draws].shape[1] if equal and reduction == "sum" else 1,
            guided=guided,
            static=static,
        )

    def samples(self, draws: Tensor, peak: Tensor) -> Tensor:
        """What stands for U, (B, n, J, 3) metres: the draws that are used, or u_c with n = 1."""
        chosen = draws[:, : self.reverse.draws] if self.prior == "draws" else peak[:, None]
        return chosen.float()


def given(rows: Features, device: torch.device) -> tuple[Tensor, ...]:
    """What the reverse process reads of images: image_feature, draws, peak, centre."""
    columns = (rows.image_feature, rows.draws, rows.peak, rows.centre)
    return tuple(column.to(device) for column in columns)


@dataclass(frozen=True)
class Prediction:
    """Meshes of n images in root-relative metres, on the CPU.

    Attributes:
        coarse: (n, Vc, 3) centre of H_0, the mean of the chains (A11).
        full: (n, V, 3), minus its own regressed root joint.
        active_steps: (n,) steps with DAT, the mean over the chains; 0 without guidance.
        ratio: (n,) last R_k that was measured, the mean over the chains; NaN without guidance.
        chains: (n, N, Vc, 3) if they were asked for.
    """

    coarse: Tensor
    full: Tensor
    active_steps: Tensor
    ratio: Tensor
    chains: Tensor | None = None


class Predictor:
    """A trained experiment, ready to run: diffusion, direct and linear models alike."""

    def __init__(
        self,
        model: TrainedModel,
        body: BodyModel,
        sampling: MeshSampling,
        device: torch.device | str = "cpu",
        precision: Literal["bf16", "fp32"] = "fp32",
    ):
        self.model = model.to(device)
        self.device = torch.device(device)
        self.precision = precision
        regressor = body.regressor.cpu()
        self.root_row = regressor[body.kind.root]
        self.regressor_f = torch.as_tensor(sampling.coarse_regressor(regressor.numpy())).to(device)
        self.reverse = Replayed(self._process)

    @classmethod
    def load(
        cls,
        folder: Path,
        body: BodyModel,
        sampling: MeshSampling,
        device: torch.device | str = "cpu",
        precision: Literal["bf16", "fp32"] = "fp32",
    ) -> Predictor:
        """Read a folder of the train stage.

        Raises:
            UserError: the folder is damaged, or was trained for another mesh.
        """
        model = load_model(folder)
        joints, full = body.regressor.shape
        found = (model.recipe.joints, model.recipe.sizes[-1], model.recipe.sizes[0])
        wanted = (joints, full, sampling.up.shape[1])
        if found != wanted:
            raise UserError(
                f"{folder}/model.json: joints, vertices and coarse vertices are {found}, but body "
                f"model and mesh sampling have {wanted}; train it again with these"
            )
        return cls(model, body, sampling, device, precision)

    def predict(
        self,
        features: Features,
        *,
        batch: int = 8,
        keep_chains: bool = False,
        callback: StepCallback | None = None,
        **how: Any,
    ) -> Prediction:
        """Meshes for all n rows of ``features``, ``batch`` images at a time.

        ``how`` are the fields of :class:`Run`: steps, reverse, guidance, start, prior, activation
        and seed. Direct and linear models ignore them.

        Raises:
            UserError: a prediction is not finite (the guidance, or the training, diverged).
        """
        run = Run(**how)
        parts = []
        for first in range(0, len(features), batch):
            rows = features.select(torch.arange(first, min(first + batch, len(features))))
            if self.model.network is None:
                part = self._linear(rows)
            elif self.model.network.direct:
                part = self._direct(rows)
            else:
                part = self._diffusion(rows, run, callback and partial(callback, first))
            finite = part[0].flatten(1).isfinite().all(1)
            if not finite.all():
                wrong = rows.sample_id[int((~finite).nonzero()[0])]
                raise UserError(_not_finite(wrong, run.guidance))
            parts.append(part)
        chains, active_steps, ratio = (torch.cat(column) for column in zip(*parts, strict=True))
        coarse = chains.mean(1)
        return Prediction(
            coarse=coarse,
            full=self.full(coarse, batch),
            active_steps=active_steps,
            ratio=ratio,
            chains=chains if keep_chains else None,
        )

    def _context(self, image_feature: Tensor, draws: Tensor) -> list[KeysValues]:
        with torch.no_grad(), autocast(self.device, self.precision):
            return self.model.network.context(
                image_feature.to(self.device), draws.float().to(self.device)
            )

    def _diffusion(
        self, rows: Features, run: Run, callback: Callable[..., None] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        network, chains = self.model.network, run.reverse.chains
        shape = (self.regressor_f.shape[1], 3)
        noise = ChainNoise(run.seed, rows.sample_id, chains, shape, run.reverse.antithetic)
        if run.start == "noise":
            h_K = noise().to(self.device)  # Alg. 1 line 1
        else:
            # H_U of Table 5: chain i starts from draw i, in turn if there are fewer draws.
            samples = run.samples(rows.draws, rows.peak)
            samples = samples[:, torch.arange(chains) % samples.shape[1]]
            h_K = network.scale * self.model.pose_to_mesh(samples.to(self.device))
        inputs = (h_K, *given(rows, self.device))
        if callback is None and run.reverse.eta == 0:
            h_0, *told = self.reverse(*inputs, run=replace(run, seed=0))
        else:
            h_0, *told = self._process(*inputs, run=run, noise=noise, callback=callback)
        if not told:
            return self._unguided(h_0 / network.scale)
        active_steps, ratio = told
        active_steps = active_steps.float().mean(1)
        return (h_0 / network.scale).cpu(), active_steps.cpu(), ratio.mean(1).cpu()

    def _process(
        self,
        h_K: Tensor,
        image_feature: Tensor,
        draws: Tensor,
        peak: Tensor,
        centre: Tensor,
        *,
        run: Run,
        noise: Callable[[], Tensor] | None = None,
        callback: Callable[..., None] | None = None,
    ) -> tuple[Tensor, ...]:
        """h_0 in model units and, with guidance, active_steps and ratio (B, N) of the alignment."""
        network = self.model.network
        static = self.device.type == "cuda"  # where asking a GPU for a number costs more than g
        alignment = run.alignment(
            draws, peak, self.regressor_f, network.schedule, network.scale, static
        )

        def report(k: int, h_k: Tensor, h0_hat: Tensor) -> None:
            callback(k, h_k / network.scale, h0_hat / network.scale, alignment)

        h_0 = reverse_process(
            network.predictor(
                self._context(image_feature, draws), self.precision, network.shift(centre)
            ),
            h_K,
            network.schedule,
            run.steps,
            guidance=alignment,
            eta=run.reverse.eta,
            noise=noise and (lambda: noise().to(self.device)),
            callback=report if callback else None,
            solver=run.reverse.solver,
        )
        return (h_0,) if alignment is None else (h_0, alignment.active_steps, alignment.ratio)

    def _direct(self, rows: Features) -> tuple[Tensor, Tensor, Tensor]:
        network = self.model.network
        predict = network.predictor(self._context(rows.image_feature, rows.draws), self.precision)
        with torch.no_grad():
            h0_hat, _ = predict(network.direct_start(len(rows)), network.schedule.steps)
        return self._unguided(h0_hat / network.scale)

    def _linear(self, rows: Features) -> tuple[Tensor, Tensor, Tensor]:
        return self._unguided(self.model.pose_to_mesh(rows.centre.float().to(self.device))[:, None])

    @staticmethod
    def _unguided(chains: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count = len(chains)
        return chains.cpu(), torch.zeros(count), torch.full((count,), torch.nan)

    def full(self, coarse: Tensor, batch: int = 8) -> Tensor:
        """h_m, (n, V, 3): upsampled coarse meshes (n, Vc, 3) minus their own root joint."""
        parts = []
        with torch.no_grad():
            for rows in coarse.split(batch):
                full = self.model.upsampler(rows.to(self.device)).cpu()
                root = torch.einsum("v,bvc->bc", self.root_row, full)
                parts.append(full - root[:, None])
        return torch.cat(parts)


def _not_finite(sample: str, guidance: str) -> str:
    if guidance == "none":
        return (
            f"params.yaml: training.learning_rate: the mesh of sample {sample} is not finite "
            "without guidance; train again with a lower one"
        )
    return (
        f"params.yaml: reverse.gamma: the mesh of sample {sample} is not finite with "
        f"guidance {guidance!r}; lower gamma or take the mean as reduction"
    )
