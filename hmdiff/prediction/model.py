"""A trained experiment with all that it needs to recover meshes from pictures: ``hmdiff.load``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import hmdiff
from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.compute import resolve_device, resolve_precision
from hmdiff.datasets.crop import Square, cut, square_about
from hmdiff.diffusion.alignment import Alignment
from hmdiff.errors import UserError
from hmdiff.evaluation.selection import read_selected
from hmdiff.extractor.extraction import extract
from hmdiff.extractor.features import unlabelled
from hmdiff.extractor.model import WEIGHTS, Extractor, load_extractor, unit_range
from hmdiff.files import read_json, sha256
from hmdiff.inference import Prediction, Predictor
from hmdiff.params import Params, load_params
from hmdiff.prediction.camera import fit_translation, full_camera
from hmdiff.prediction.inputs import Box, as_picture, check_box
from hmdiff.prediction.recovery import Recovery, Trace


class Recoverer:
    """Pictures in, :class:`~hmdiff.prediction.recovery.Recovery` out."""

    def __init__(
        self,
        predictor: Predictor,
        extractor: Extractor,
        body: BodyModel,
        sampling: MeshSampling,
        params: Params,
        how: dict[str, Any],
        settings: dict[str, Any],
    ):
        """``how`` is handed to :meth:`Predictor.predict`, ``settings`` to every recovery."""
        self.predictor = predictor
        self.extractor = extractor
        self.body = body
        self.sampling = sampling
        self.params = params
        self.how = how
        self.settings = settings

    def predict(
        self,
        image: str | Path | Image.Image | NDArray,
        bbox: Box | None = None,
        focal: float | None = None,
    ) -> Recovery:
        """The person (body) or right hand (hand) in one picture.

        Args:
            image: a file, a PIL image, or (h, w, 3) uint8 RGB.
            bbox: x, y, width, height in pixels, tight about the person; the crop is a square about
                it. Without one the whole picture is the crop.
            focal: focal length in pixels, if known.

        Raises:
            UserError: the picture cannot be read, or the box is outside it.
        """
        return self.predict_many([as_picture(image)], [bbox], focal)[0]

    def predict_many(
        self,
        pictures: Sequence[Image.Image],
        boxes: Sequence[Box | None],
        focal: float | None = None,
    ) -> list[Recovery]:
        """One batch: a person a row. The result of a row does not depend on its neighbours."""
        kind, size = self.body.kind, self.extractor.architecture.image_size
        margin = getattr(self.params.predict.margin, kind.name)
        squares, fitted, crops = [], [], []
        for picture, box in zip(pictures, boxes, strict=True):
            square, filled = _crop(picture.size, box, margin)
            squares.append(square)
            fitted.append(filled)
            crops.append(np.asarray(cut(picture, square, 1, size)))
        # Named by content: the same crop gets the same noise, whatever its file is called.
        names = [hashlib.sha256(crop.tobytes()).hexdigest()[:16] for crop in crops]
        steps: list[tuple[int, Tensor, Tensor, Tensor]] = []

        def watch(_: int, k: int, h_k: Tensor, h0_hat: Tensor, dat: Alignment | None) -> None:
            ratio = torch.full((len(names),), torch.nan) if dat is None else dat.ratio[:, 0].cpu()
            steps.append((k, h_k[:, 0].cpu(), h0_hat[:, 0].cpu(), ratio))

        arrays = extract(
            self.extractor,
            unit_range(
                torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2), self.predictor.device
            ),
            names,
            draws=self.params.prior.draws,
            seed=self.params.seed,
            precision=self.predictor.precision,
        )
        prediction = self.predictor.predict(
            unlabelled(arrays, names),
            batch=len(names),
            keep_chains=True,
            callback=watch,
            **self.how,
        )
        return [
            self._recovery(row, prediction, steps, picture.size, square, box, focal)
            for row, (picture, square, box) in enumerate(
                zip(pictures, squares, fitted, strict=True)
            )
        ]

    def _recovery(
        self,
        row: int,
        prediction: Prediction,
        steps: list[tuple[int, Tensor, Tensor, Tensor]],
        size: tuple[int, int],
        square: Square,
        box: NDArray,
        focal: float | None,
    ) -> Recovery:
        vertices, chains = prediction.full[row], prediction.chains[row]
        with torch.no_grad():
            full = self.predictor.model.upsampler(chains.to(self.predictor.device)).cpu()
        samples = self.body.root_relative(full)[0]
        spread = 1000 * (samples - samples.mean(0)).square().sum(-1).mean(0).sqrt()
        camera = full_camera(size, self.params.predict.focal)
        if focal is not None:
            camera[[0, 1], [0, 1]] = focal
        coarse = chains.shape[1:]
        return Recovery(
            kind=self.body.kind,
            vertices=vertices.numpy(),
            joints=self.body.joints(vertices[None])[0].numpy(),
            samples=samples.numpy(),
            samples_coarse=chains.numpy(),
            spread=spread.numpy(),
            faces=self.body.faces,
            coarse_faces=self.sampling.coarse_faces,
            camera=camera,
            translation=fit_translation(vertices.numpy(), box, camera),
            box=box,
            crop=np.array([square.left, square.top, square.side]),
            image_size=size,
            active_steps=float(prediction.active_steps[row]),
            ratio=float(prediction.ratio[row]),
            trace=Trace(
                k=np.array([k for k, *_ in steps], np.int64),
                h_k=np.array([h[row].numpy() for _, h, *_ in steps]).reshape(-1, *coarse),
                h0_hat=np.array([h[row].numpy() for *_, h, _ in steps]).reshape(-1, *coarse),
                ratio=np.array([float(ratio[row]) for *_, ratio in steps], np.float32),
            ),
            settings=self.settings,
        )


def _crop(size: tuple[int, int], box: Box | None, margin: float) -> tuple[Square, NDArray]:
    """What the network sees, and the box that the mesh is to fill; pixels."""
    if box is not None:
        check_box(box, size)
        return square_about(np.asarray(box), margin), np.asarray(box, np.float64)
    square = square_about(np.array([0, 0, *size]), 1.0)
    side = square.side / margin
    corner = np.array(size) / 2 - side / 2
    return square, np.array([*corner, side, side])


def find_checkpoint(kind: str, project: Path) -> Path:
    """The experiment that the project's own evaluations run with DAT on this kind of mesh.

    Raises:
        UserError: no method of params.yaml does.
    """
    params = project / "params.yaml"
    for method in load_params(params).methods.values():
        if method.kind == kind and method.guidance == "dat":
            return project / "models/train" / method.experiment
    raise UserError(f"{params}: methods: none is a {kind} with guidance dat; give a checkpoint")


def load(
    checkpoint: str | Path,
    *,
    device: str | None = None,
    steps: int | None = None,
    chains: int | None = None,
) -> Recoverer:
    """Read a trained experiment and what it was trained with.

    Args:
        checkpoint: folder ``models/train/NAME`` of a project in which the pipeline has run; the
            extractor, the body model, the mesh sampling and params.yaml are taken from there.
        device: as ``compute.device`` of params.yaml, which is the default.
        steps: of the reverse process; default: those that were chosen on validation data.
        chains: N; default: ``reverse.chains`` of params.yaml.

    Raises:
        UserError: something is missing or damaged; the line says what to run.
    """
    folder = Path(checkpoint).resolve()
    if not folder.is_dir():
        raise UserError(f"{checkpoint}: no trained model there; run `dvc repro` in its project")
    if len(folder.parents) < 3 or folder.parent.name != "train":
        raise UserError(f"{checkpoint}: not a folder models/train/NAME of a project; name one")
    project = folder.parents[2]
    params = load_params(project / "params.yaml")
    if device is None:
        resolved = resolve_device(params.compute.device)
    else:
        resolved = resolve_device(device, "device")
        compute = params.compute.model_copy(update={"device": device})
        params = params.model_copy(update={"compute": compute})
    precision = resolve_precision(params.compute)
    record = read_json(folder / "model.json")
    kind = record.get("kind") if isinstance(record, dict) else None
    if kind not in ("body", "hand"):
        raise UserError(f"{folder / 'model.json'}: kind: {kind!r}; run its train stage again")
    body = BodyModel.load(project / "models" / kind)
    sampling = MeshSampling.load(project / f"models/sampling/{kind}.npz")
    extractor_folder = project / "models/extractor" / kind
    extractor = load_extractor(extractor_folder, resolved)
    predictor = Predictor.load(folder, body, sampling, resolved, precision)
    method, guidance = _method(folder.name, params)
    network = predictor.model.network
    if network is None or network.direct:
        steps, chains, guidance = 1, 1, "none"
    elif steps is None:
        if method is None:
            raise UserError(f"{checkpoint}: no method of params.yaml runs it; give its steps")
        steps = read_selected(project / f"runs/steps/{method}.json", method).steps
    elif not 1 <= steps <= network.schedule.steps:
        raise UserError(f"steps: {steps} is not between 1 and K = {network.schedule.steps}")
    if chains is not None and chains < 1:
        raise UserError(f"chains: {chains} is less than 1; take 1 or more")
    reverse = params.reverse.changed(params.methods[method].reverse if method else {})
    reverse = reverse.model_copy(update={"chains": chains or reverse.chains})
    how = {"steps": steps, "reverse": reverse, "guidance": guidance, "seed": params.seed}
    settings = {
        "experiment": folder.name,
        "kind": kind,
        "body_model": body.source,
        "preset": params.preset,
        "trained_on": record.get("datasets", []),
        "steps": steps,
        "guidance": guidance,
        "seed": params.seed,
        "draws": params.prior.draws,
        "precision": precision,
        "reverse": reverse.model_dump(mode="json"),
        "predict": params.predict.model_dump(mode="json"),
        "weights": sha256(folder / "weights.safetensors"),
        "extractor": sha256(extractor_folder / WEIGHTS),
        "code_version": hmdiff.__version__,
    }
    return Recoverer(predictor, extractor, body, sampling, params, how, settings)


def _method(experiment: str, params: Params) -> tuple[str | None, str]:
    """The method that runs an experiment, the one with DAT before others, and its guidance."""
    found = [(n, m.guidance) for n, m in params.methods.items() if m.experiment == experiment]
    found.sort(key=lambda pair: pair[1] != "dat")
    return found[0] if found else (None, "dat")
