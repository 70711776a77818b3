"""The denoiser g as an ONNX graph, compared with torch before it is kept."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hmdiff.compute import generator
from hmdiff.diffusion.conditions import IMAGE_TOKENS
from hmdiff.diffusion.denoiser import WIDTH
from hmdiff.diffusion.model import MeshDiffusion
from hmdiff.errors import UserError
from hmdiff.files import atomic_file
from hmdiff.training.folder import TrainedModel

TOLERANCE = 1e-4  # model units; the largest difference from torch with which a graph is kept
OPSET = 18
INPUTS = ("h_k", "k", "image_feature", "draws")


class Evaluation(nn.Module):
    """One evaluation of g with Eq. 7, everything that changes from step to step as an input.

    h_k (B, N, Vc, 3) in model units, k () int64, and what g attends to: f_I (B, 49, 128), and for
    models with a pose condition the draws of U (B, n, J, 3) in metres. Gives h0_hat, like h_k; s
    of Eq. 6 is (h_k - sqrt(alpha_k) h0_hat) / sqrt(1 - alpha_k).
    """

    def __init__(self, network: MeshDiffusion):
        super().__init__()
        self.network = network

    def forward(
        self, h_k: Tensor, k: Tensor, image_feature: Tensor | None, draws: Tensor | None
    ) -> Tensor:
        context = self.network.context(image_feature, draws)
        return self.network.predictor(context, "fp32")(h_k, k)[0]


def export_onnx(model: TrainedModel, out: Path) -> float:
    """Write g of ``model`` to ``out`` and return its greatest difference from torch, model units.

    The graph's metadata hold alpha_0..alpha_K, the scale (model units a metre) and the units.
    Images, chains and draws may be any number.

    Raises:
        UserError: the model has no g, onnx is not installed, or the two differ by more than
            ``TOLERANCE``; nothing is written then.
    """
    if model.network is None:
        raise UserError("export-onnx: a linear model has no denoiser; name a diffusion model")
    if model.network.lift is not None:
        raise UserError(
            "export-onnx: this model is centred on each image's U, which the graph does not "
            "hold; name one that was trained with diffusion.centre: mean"
        )
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise UserError(
            f"export-onnx: {error.name} is not installed; run `pip install 'hmdiff[onnx]'`"
        ) from None
    network = model.network.cpu().eval()
    evaluation = Evaluation(network)
    example = _inputs(model, images=2, chains=3, k=network.schedule.steps)
    names = [name for name in INPUTS if example[name] is not None]
    # The axes that may be of any length, by input.
    images, chains, draws = (torch.export.Dim(name) for name in ("images", "chains", "draws"))
    axes = {
        "h_k": {0: images, 1: chains},
        "k": None,
        "image_feature": {0: images},
        "draws": {0: images, 1: draws},
    }
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own internals
        program = torch.onnx.export(
            evaluation,
            tuple(example.values()),
            input_names=names,
            output_names=["h0_hat"],
            dynamic_shapes={name: axes[name] if name in names else None for name in INPUTS},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    graph = program.model_proto
    facts = {
        "alphas": json.dumps(network.schedule.alphas.tolist()),
        "scale": str(network.scale),
        "units": "h_k and h0_hat: metres times scale; draws: metres",
        "experiment": model.recipe.experiment.model_dump_json(),
    }
    onnx.helper.set_model_props(graph, facts)
    onnx.checker.check_model(graph)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    difference = _compare(evaluation, session, model, names)
    if not difference <= TOLERANCE:
        raise UserError(
            f"{out}: differs from torch by {difference:.2g} model units, more than {TOLERANCE:g}; "
            "use the versions of requirements.lock"
        )
    with atomic_file(out) as temporary:
        temporary.write_bytes(graph.SerializeToString())
    return difference


def _inputs(model: TrainedModel, images: int, chains: int, k: int) -> dict[str, Tensor | None]:
    """Random inputs; None for what the model does not attend to."""
    network, random = model.network, generator(0, "onnx", images, chains, k)
    condition = network.condition
    shapes = {
        "h_k": (images, chains, model.recipe.sizes[0], 3),
        "image_feature": (images, IMAGE_TOKENS, WIDTH) if condition.image else None,
        "draws": (images, 5, model.recipe.joints, 3) if condition.pose else None,
    }
    found = {
        name: None if shape is None else torch.randn(shape, generator=random)
        for name, shape in shapes.items()
    }
    found["k"] = torch.tensor(k)
    return {name: found[name] for name in INPUTS}


@torch.no_grad()
def _compare(evaluation: Evaluation, session, model: TrainedModel, names: list[str]) -> float:
    """Greatest |ONNX - torch| from the first step to the last, with other sizes than traced."""
    last, worst = model.network.schedule.steps, 0.0
    for images, chains, k in ((1, 1, last), (1, 4, last // 2), (3, 2, 1)):
        inputs = _inputs(model, images, chains, k)
        wanted = evaluation(*inputs.values()).numpy()
        (found,) = session.run(None, {name: inputs[name].numpy() for name in names})
        worst = max(worst, float(np.abs(found - wanted).max()))
    return worst
