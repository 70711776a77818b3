"""From files of truth and predictions to a report, under a protocol's own formats."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from hmdiff.evaluation.freihand_files import read_submission, read_truth
from hmdiff.evaluation.npz_files import find_regressor, read_points
from hmdiff.evaluation.npz_rows import NpzRows
from hmdiff.evaluation.protocols import Protocol, load_protocol
from hmdiff.evaluation.scoring import report, score_points


def score_files(
    name: str,
    gt: Path,
    pred: Path,
    body: Path,
    regressor: Path | None,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The report (see :func:`hmdiff.evaluation.scoring.report`) of ``pred`` against ``gt``.

    Args:
        name: of the protocol.
        gt, pred: for a hand FreiHAND's files, for a body an .npz each.
        body, regressor: see :func:`hmdiff.evaluation.npz_files.find_regressor`.
        resamples, seed: of the intervals.

    Raises:
        UserError: the protocol is unknown, or a file is missing, damaged or does not fit.
    """
    protocol = load_protocol(name)
    facts = {"gt": str(gt), "pred": str(pred)}
    if protocol.kind == "hand":
        return _score_hands(protocol, gt, pred, resamples, seed, facts)
    with NpzRows(gt) as true_file, NpzRows(pred) as predicted_file:
        truth = read_points(true_file, protocol, truth=True)
        predicted = read_points(predicted_file, protocol, truth=False)
        matched = "sample_id" if truth.ids is not None and predicted.ids is not None else "order"
        rows, origin = find_regressor(regressor, body, predicted, truth)
        samples = score_points(protocol, protocol.metrics, predicted, truth, rows)
    return report(protocol, samples, resamples, seed, **facts, matched_by=matched, **origin)


def _score_hands(
    protocol: Protocol, gt: Path, pred: Path, resamples: int, seed: int, facts: dict[str, str]
) -> dict[str, Any]:
    official = protocol.official
    # Reading takes as long as scoring and holds Python's lock, hence another process.
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        reading = pool.submit(read_truth, gt)
        predicted = read_submission(pred)
        truth = reading.result()
    if len(truth) != official.samples:
        print(
            f"hmdiff: warning: {gt}: {len(truth)} samples, but the official evaluation has "
            f"{official.samples}; these figures are not comparable with published ones",
            file=sys.stderr,
        )
    metrics = list(official.keys.values())
    samples = score_points(protocol, metrics, predicted, truth, margin=official.margin)
    return report(protocol, samples, resamples, seed, **facts, matched_by="order")
