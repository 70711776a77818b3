"""How the time of a prediction grows with chains, steps, images at once, and images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hmdiff.benchmarks.timing import exponent, interleaved
from hmdiff.extractor.features import Features
from hmdiff.inference import Predictor
from hmdiff.machine import record
from hmdiff.params.runs import ReverseParams

SIZES: dict[str, Sequence[int]] = {
    "chains": (1, 5, 10, 25),
    "steps": (5, 20, 50, 200),
    "batch": (1, 2, 4, 8),
    "images": (1, 2, 4, 8),
}
FEW = {"chains": 5, "steps": 10}  # of what does not grow


def records(
    predictor: Predictor,
    rows: Features,
    settings: ReverseParams,
    repeats: int,
    sizes: Mapping[str, Sequence[int]] = SIZES,
) -> list[dict[str, Any]]:
    """Seconds of every size with DAT on at every step, and the exponent of each series.

    ``batch`` images are predicted at once, ``images`` one after the other. DAT never switches off
    here, so that the work is the same whatever the model has learned.
    """
    things: dict[str, Callable[[], Any]] = {}
    for series, values in sizes.items():
        things |= dict(_series(predictor, rows, settings, series, values))
    times = interleaved(things, repeats)
    found = [record(name, seconds, "s") for name, seconds in times.items()]
    for series, values in sizes.items():
        repeats_of = zip(*(times[f"time {series}={value}"] for value in values), strict=True)
        fits = [exponent(values, seconds) for seconds in repeats_of]
        found.append(record(f"exponent {series}", fits, "1"))
    return found


def _series(
    predictor: Predictor,
    rows: Features,
    settings: ReverseParams,
    series: str,
    values: Sequence[int],
) -> Iterator[tuple[str, Callable[[], Any]]]:
    for value in values:
        chains = value if series == "chains" else FEW["chains"]
        steps = value if series == "steps" else FEW["steps"]
        count = value if series in ("batch", "images") else 1
        part = rows.select([i % len(rows) for i in range(count)])
        how = {
            "batch": count if series == "batch" else 1,
            "steps": steps,
            "reverse": settings.model_copy(update={"chains": chains}),
            "guidance": "dat",
            "activation": False,
        }
        yield f"time {series}={value}", lambda part=part, how=how: predictor.predict(part, **how)
