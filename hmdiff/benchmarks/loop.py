"""The reverse loop alone: against the reference, and against what the machine can do at most."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hmdiff.benchmarks import reference
from hmdiff.benchmarks.timing import PEAK_SIZE, interleaved, matrix_peak, rates, speed_up
from hmdiff.diffusion.noise import ChainNoise
from hmdiff.extractor.features import Features
from hmdiff.flop import FlopCounterMode
from hmdiff.inference import Predictor, Run, given
from hmdiff.machine import record
from hmdiff.params.runs import ReverseParams


def records(
    predictor: Predictor,
    rows: Features,
    settings: ReverseParams,
    steps: int,
    repeats: int,
    peak_size: int | None = None,
) -> list[dict[str, Any]]:
    """Of the loop with DAT for all ``rows`` at once; the reference and the peak take turns.

    Operations are those that the algorithm asks for: keys and values once an image, one
    evaluation of g a chain and step, one backward pass a chain and step with DAT, as torch counts
    them on the reference.
    """
    loop = Loop(predictor, rows, settings, steps)
    peak_size = peak_size or PEAK_SIZE[predictor.device.type]
    times = interleaved(
        {
            "loop": loop.run,
            "plain": loop.run_plain,
            "peak": matrix_peak(predictor.precision, peak_size, predictor.device),
        },
        repeats,
    )
    operations = loop.operations()
    achieved = [operations / seconds for seconds in times["loop"]]
    peak = [2 * peak_size**3 / seconds for seconds in times["peak"]]
    name = f"loop N={settings.chains} steps={steps} B={len(rows)}"
    return [
        rates(name, len(rows), times["loop"], "images/s"),
        rates(f"{name} plain", len(rows), times["plain"], "images/s"),
        speed_up(f"{name} speed-up", times["loop"], f"{name} plain", times["plain"]),
        record(f"{name} operations", [value / 1e9 for value in achieved], "GFLOP/s"),
        record(f"peak {predictor.precision}", [value / 1e9 for value in peak], "GFLOP/s"),
        record(
            f"{name} of peak",
            [own / best for own, best in zip(achieved, peak, strict=True)],
            "x",
            ratio_to=f"peak {predictor.precision}",
        ),
    ]


class Loop:
    """The reverse process with DAT of some images, and the same by the reference."""

    def __init__(
        self, predictor: Predictor, rows: Features, settings: ReverseParams, steps: int
    ) -> None:
        self.predictor, self.rows, self.settings, self.steps = predictor, rows, settings, steps
        self.model = predictor.model.network
        shape = (predictor.regressor_f.shape[1], 3)
        noise = ChainNoise(0, rows.sample_id, settings.chains, shape)
        self.h_K = noise().to(predictor.device)
        self.given = given(rows, predictor.device)
        self.feature, self.draws = self.given[0], self.given[1].float()
        self.active_steps = 0  # of all chains, in the last run

    def run(self) -> Tensor:
        """(B, N, V, 3) in model units."""
        run = Run(self.steps, self.settings, guidance="dat")
        meshes, active_steps, _ = self.predictor.reverse(self.h_K, *self.given, run=run)
        self.active_steps = int(active_steps.sum())
        return meshes.cpu()

    def run_plain(self) -> Tensor:
        """The same by :mod:`hmdiff.benchmarks.reference`."""
        return reference.reverse(
            self.model, self.feature, self.draws, self.h_K, self.predictor.regressor_f,
            self.steps, self.settings,
        ).cpu()  # fmt: skip

    def operations(self) -> int:
        """Floating-point operations of the last run."""
        evaluations = self.steps * self.h_K.shape[0] * self.h_K.shape[1]
        context, forward, backward = self._of_one()
        once = len(self.rows) * context
        return once + evaluations * forward + self.active_steps * backward

    def _of_one(self) -> tuple[int, int, int]:
        """Operations of an image's keys and values, of one evaluation of g without them, and of
        its backward pass to h_k."""
        k = self.model.schedule.steps
        tokens = self.model.condition(self.feature[:1], self.draws[:1]).detach()
        source = self.h_K[:1, 0].clone().requires_grad_()
        # Attention in its plain form: torch does not count all of its fused ones.
        with (
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            FlopCounterMode(display=False) as forward,
        ):
            output = reference.denoise(self.model, source, k, tokens)
        with FlopCounterMode(display=False) as backward:
            torch.autograd.grad(output.sum(), source)
        with torch.no_grad(), FlopCounterMode(display=False) as context:
            self.model.denoiser.context(tokens)
        once = context.get_total_flops()
        return once, forward.get_total_flops() - once, backward.get_total_flops()
