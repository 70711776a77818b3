"""Recovering the meshes of stored features and scoring them, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from hmdiff.bodies.model import BodyModel
from hmdiff.checkpoints import UNSAVED, Checkpoints
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.distributed import broadcast, process_count, process_number
from hmdiff.errors import UserError
from hmdiff.evaluation.calibration import spread_of
from hmdiff.evaluation.protocols import Protocol, score, scored_joints
from hmdiff.extractor.features import FeatureFiles, spaced
from hmdiff.inference import Predictor

CHUNK = 64  # images whose full meshes are held at once; no result depends on it


@dataclass(frozen=True)
class Recovered:
    """What n images gave.

    Attributes:
        samples: one row an image: ``sample_id``, the protocol's metrics, ``active_steps`` and
            ``ratio`` (the last R_k, NaN without guidance). Rounded to 1e-6, as far as the order
            of floating-point sums lets two machines agree.
        coarse: (n, Vc, 3) float32 recovered coarse meshes, root-relative metres.
        joint_error: (n, P, 3) mean of the chains minus truth, of the P joints of the protocol as
            f gives them on coarse meshes, about its origin; metres, float32.
        joint_spread: (n, P) their deviation a coordinate over the chains; 0 of one chain.
    """

    samples: pd.DataFrame
    coarse: np.ndarray
    joint_error: np.ndarray
    joint_spread: np.ndarray


def scorable(features: FeatureFiles, protocol: Protocol, count: int | None) -> FeatureFiles:
    """At most ``count`` rows, evenly spaced, of those with all the truth that is needed.

    Raises:
        UserError: there is none.
    """
    usable = features.read("valid_joints")[:, protocol.needed_joints].all(dim=1)
    if protocol.needs_meshes:
        usable &= features.read("valid_mesh")
    rows = usable.nonzero()[:, 0]
    if not len(rows):
        raise UserError(
            f"{features.names[0]}: valid_mesh, valid_joints: no image has the truth that "
            f"{', '.join(protocol.metrics)} need; look at its prepare stage"
        )
    return features.restricted(rows[spaced(len(rows), count)])


def check_ground_truth(protocol: Protocol, prepared: PreparedFile) -> None:
    """Refuse true meshes that the protocol does not score against.

    Raises:
        UserError: the prepared file was made with the other ground truth.
    """
    # Files that say nothing are from before there was a choice.
    found = str(prepared.attrs.get("ground_truth", "neutral"))
    if protocol.ground_truth != "native" and found != protocol.ground_truth:
        raise UserError(
            f"{prepared.path}: ground_truth: {found!r}, but protocol {protocol.name} needs "
            f"{protocol.ground_truth!r}; change datasets.*.ground_truth or the entry's protocol in "
            "params.yaml"
        )


def recover_and_score(
    predictor: Predictor,
    features: FeatureFiles,
    prepared: PreparedFile,
    body: BodyModel,
    protocol: Protocol,
    checkpoints: Checkpoints = UNSAVED,
    **how: Any,
) -> Recovered:
    """Meshes of all rows of ``features``, compared with the truth in ``prepared``.

    ``checkpoints`` hold chunks that were scored before; ``how`` is handed to
    :meth:`Predictor.predict`. Several processes take chunks in turn and hand each other what
    came out, so that their number changes nothing.

    Raises:
        UserError: ``features`` were not made from ``prepared``, its true meshes are not those of
            the protocol, or a prediction diverged.
    """
    check_ground_truth(protocol, prepared)
    rows = _prepared_rows(features, prepared)
    joints, regressor = prepared.array("joints")[rows], body.regressor.cpu().numpy()
    f = predictor.regressor_f.cpu()
    columns: list[dict[str, Any]] = []  # of each chunk
    arrays: list[list[torch.Tensor]] = []
    count = -(-len(features) // CHUNK)

    def scored(number: int) -> tuple[dict[str, Any], list[torch.Tensor]]:
        chunk = range(number * CHUNK, min((number + 1) * CHUNK, len(features)))
        part, true_joints = features.select(chunk), joints[chunk]
        truth = prepared.meshes(rows[chunk], body) if protocol.needs_meshes else None
        prediction = predictor.predict(part, keep_chains=True, **how)
        table = score(protocol, prediction.full.numpy(), truth, true_joints, regressor)
        numbers = {str(name): torch.tensor(table[name].to_numpy()) for name in table}
        column = {
            "sample_id": part.sample_id,
            **numbers,
            "active_steps": prediction.active_steps.double(),
            "ratio": prediction.ratio.double(),
        }
        spread = _joint_spread(protocol, (f @ prediction.chains).numpy(), true_joints)
        return column, [prediction.coarse, *map(torch.from_numpy, spread)]

    def results(first: int) -> Iterator[tuple[dict[str, Any], list[torch.Tensor]]]:
        for start in range(first, count, process_count()):
            mine = start + process_number()
            own = scored(mine) if mine < count else None
            for owner in range(min(process_count(), count - start)):
                yield broadcast(own, owner)

    kept = {"columns": columns, "arrays": arrays}
    for _, (column, parts) in checkpoints.steps(results, count, kept, "chunks"):
        columns.append(column)
        arrays.append(parts)
    tables = [pd.DataFrame({name: np.asarray(v) for name, v in c.items()}) for c in columns]
    samples = pd.concat(tables, ignore_index=True).round(6)
    joined = (torch.cat(column).numpy() for column in zip(*arrays, strict=True))
    return Recovered(samples, *joined)


def _prepared_rows(features: FeatureFiles, prepared: PreparedFile) -> np.ndarray:
    """Which rows of ``prepared`` those of ``features`` are; nothing is kept of the others.

    Raises:
        UserError: one of them is not there.
    """
    wanted = set(features.sample_id)
    row_of = {name: row for row, name in enumerate(prepared.sample_ids()) if name in wanted}
    unknown = [name for name in features.sample_id if name not in row_of]
    if unknown:
        raise UserError(
            f"{prepared.path}: sample_id: has no {unknown[0]!r}; run extract_features again"
        )
    return np.array([row_of[name] for name in features.sample_id])


def _joint_spread(
    protocol: Protocol, chains: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Error (n, P, 3) and spread (n, P) of joints (n, N, J, 3), whose truth is (n, J, 3)."""
    images, count = chains.shape[:2]
    scored = scored_joints(protocol, chains.reshape(images * count, *chains.shape[2:]))
    scored = scored.reshape(images, count, *scored.shape[1:])
    error = scored.mean(axis=1) - scored_joints(protocol, truth)
    return error.astype(np.float32), spread_of(scored).astype(np.float32)
