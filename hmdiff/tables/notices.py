"""What a reader has to know about a table's numbers: sentences for captions and the console."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hmdiff.tables.measured import Speed, Summary
from hmdiff.tables.paper import citation, dataset_title

SEQUENCES = {"3dpw", "human36m"}  # whose test images are frames of videos
STAND_IN = "measured on rendered stand-ins, not on the real data set"


def notices(number: int, measured: Mapping[str, Summary], speed: Speed | None) -> list[str]:
    """Where quoted and measured numbers are from, what the spread means, what to beware of.

    Args:
        number: of the table. measured: its evaluations by name.
    """
    summaries = measured.values()
    sentences = [f"Columns headed paper are quoted ({citation()})."]
    sentences += origin_notices([*summaries, *([speed] if speed else [])])
    sentences.append("Errors are in millimetres.")
    sentences.append(_interval_notice(summaries))
    if any(summary.dataset in SEQUENCES for summary in summaries):
        sentences.append("Frames of one sequence are not independent: intervals are too narrow.")
    sentences += _beware(number, measured)
    if speed is not None:
        sentences += _speed_notices(measured, speed)
    return sentences


def origin_notices(parts: Collection[Summary | Speed]) -> list[str]:
    """What was measured on stand-ins, and what on real images."""
    sentences = []
    if rendered := _titles(parts, "rendered"):
        sentences.append(f"Our numbers are {STAND_IN} ({rendered}).")
    if real := _titles(parts, "real"):
        sentences.append(f"Measured on real images: {real}.")
    return sentences


def _interval_notice(summaries: Collection[Summary]) -> str:
    trainings = max((len(summary.seeds) for summary in summaries), default=1)
    over = "the test samples" if trainings == 1 else f"the test samples and {trainings} trainings"
    return f"± is half of the 95 % bootstrap interval over {over}."


def verdict_notice(reference: str) -> str:
    """What the verdicts in CSV, JSON, MLflow and report mean."""
    return (
        f'A verdict (CSV, JSON) is on the difference to "{reference}" on the same samples: '
        "reproduced where its paired 95 % bootstrap interval excludes zero in the paper's "
        "direction, refuted where it does in the other, else undecided; better or worse of rows "
        "that the paper lacks."
    )


def _beware(number: int, measured: Mapping[str, Summary]) -> list[str]:
    """How rows differ from what their names suggest."""
    if number in (1, 6):
        return [_fastmetro(measured["human36m_fastmetro"])]
    if number == 3:
        depth = measured["3dpw_baseline_b"].trained.experiment.depth
        ours, stacked = measured["3dpw_dat"], measured["3dpw_baseline_b"]
        return [
            f"Network operations an image, counted: Ours {ours.gflop:.2f} GFLOP ({ours.chains} "
            f"chains of {ours.steps} steps, with DAT's backward passes), so "
            f"{ours.gflop / ours.chains:.2f} a chain; Baseline A "
            f"{measured['3dpw_baseline_a'].gflop:.2f}; Baseline B, {depth} blocks in one pass, "
            f"{stacked.gflop:.2f}, {stacked.gflop / ours.gflop * ours.chains:.2f} times a chain's."
        ]
    if number == 4:
        return [
            "Steps needed: the fewest of the candidates whose error on validation images is "
            "within the tolerance of params.yaml from the best; the paper reports the best on the "
            "test set."
        ]
    if number == 5:
        ours, disrupted = measured["3dpw_dat"], measured["3dpw_disrupted"]
        sentences = [
            f"In Ours, DAT was active in {ours.active_steps:.1f} of {ours.steps} steps; where that "
            "is all of them, Ours w/o AS is the same run."
        ]
        if disrupted.reverse.disrupted_reduction == "mean":
            sentences.append(
                "Disrupted pulls with the mean over the draws, in every step, since the sum "
                "diverges there."
            )
        return sentences
    return []


def _fastmetro(summary: Summary) -> str:
    """What stands behind our number of FastMETRO."""
    trained = summary.trained
    size = trained.experiment.fastmetro
    widths = " and ".join(map(str, size.widths))
    return (
        f"FastMETRO, measured: its two transformers, here of widths {widths} (heads: "
        f"{size.heads}, layers: {size.layers}), {trained.parameters / 1e6:.2f} million parameters "
        "(published: 512 and 128, 8 heads, 1 to 3 layers, 9.3 to 24.9 million), trained on the "
        "same frozen f_I, samples and mesh losses as Ours."
    )


def _speed_notices(measured: Mapping[str, Summary], speed: Speed) -> list[str]:
    machine, ours, fast = speed.machine, measured["human36m_dat"], measured["human36m_fast"]
    configured, paper = speed.timing("hmdiff_configured"), speed.timing("hmdiff_paper")
    return [
        f"FPS: one image at a time to the full mesh, median of the repeats, on {machine.device} "
        f"({machine.cpus} CPUs, {machine.threads} threads, {machine.precision}), with "
        f"{machine.backbone} at {machine.image_size} pixels in both models; "
        "the paper: GeForce RTX 3090.",
        "FPS of FastMETRO: FastMETRO-L with random weights.",
        f"Ours: error with {ours.chains} chains of {ours.steps} steps, FPS with "
        f"{configured.chains} chains of {configured.steps} steps.",
        f"Ours (fast): {fast.chains} chains of {fast.steps} steps, chosen on validation images.",
        f"The paper's N and steps: {paper.chains} chains of {paper.steps} steps, FPS only.",
    ]


def _titles(parts: Collection[Summary | Speed], source: str) -> str:
    datasets = {part.dataset for part in parts if part.source == source}
    return ", ".join(dataset_title(dataset) for dataset in sorted(datasets))
