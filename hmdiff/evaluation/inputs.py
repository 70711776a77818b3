"""What every stage opens that runs a trained model on stored features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmdiff.bodies.model import BodyModel
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.checkpoints import UNSAVED, Checkpoints
from hmdiff.compute import resolve_device, resolve_precision, use_threads
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.evaluation.items import read_trained
from hmdiff.evaluation.protocols import Protocol
from hmdiff.evaluation.recovery import Recovered, recover_and_score, scorable
from hmdiff.extractor.features import FeatureFiles, Features, open_features
from hmdiff.inference import Predictor
from hmdiff.params import Params


@dataclass(frozen=True)
class Inputs:
    """A model, the images of one split that can be scored, and their truth.

    Attributes:
        trained: the record of the training.
    """

    trained: dict[str, Any]
    rows: FeatureFiles
    predictor: Predictor
    body: BodyModel
    sampling: MeshSampling
    prepared: PreparedFile
    protocol: Protocol
    params: Params

    @property
    def source(self) -> str:
        """``rendered`` or ``real``."""
        return str(self.prepared.attrs["source"])

    def loaded(self) -> Features:
        """All rows in memory."""
        return self.rows.select(range(len(self.rows)))

    def recover(self, checkpoints: Checkpoints = UNSAVED, **how: Any) -> Recovered:
        """Meshes and scores; ``how`` is handed to :meth:`Predictor.predict`."""
        return recover_and_score(
            self.predictor, self.rows, self.prepared, self.body, self.protocol, checkpoints,
            reverse=self.params.reverse, seed=self.params.seed, **how,
        )  # fmt: skip

    def flop(self, **how: Any) -> int:
        """Floating-point operations of the network's matrix products for one image, forward and
        backward, counted while it is recovered; the upsampling layers' are in it."""
        # Imported here, for the stage that counts.
        from hmdiff.flop import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.predictor.predict(
                self.rows.select([0]), reverse=self.params.reverse, seed=self.params.seed, **how
            )
        return counter.get_total_flops()


@contextmanager
def opened(
    experiment: str,
    protocol: Protocol,
    split: str,
    count: int | None,
    *,
    model: Path,
    features: Path,
    prepared: Path,
    body: Path,
    sampling: Path,
    params: Params,
) -> Iterator[Inputs]:
    """At most ``count`` images of ``split``, evenly spaced, and all it takes to recover them.

    Args:
        model: folder of the trained ``experiment``.
        features, prepared: files of one data set.
        body, sampling: artefacts of body_models and mesh_sampling.

    Raises:
        UserError: an input is missing, damaged or of another experiment, or no image of the split
            can be scored.
    """
    use_threads(params.compute.threads)
    trained = read_trained(model, experiment)
    rows = scorable(open_features(features, split), protocol, count)
    body_model, mesh_sampling = BodyModel.load(body), MeshSampling.load(sampling)
    predictor = Predictor.load(
        model, body_model, mesh_sampling,
        resolve_device(params.compute.device), resolve_precision(params.compute),
    )  # fmt: skip
    with PreparedFile(prepared) as file:
        yield Inputs(trained, rows, predictor, body_model, mesh_sampling, file, protocol, params)
