"""What a reader has to know about a table's numbers: sentences for captions and the console."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hmdiff.tables.measured import Speed, Summary
from hmdiff.tables.paper import citation, dataset_title

SEQUENCES = {"3dpw", "human36m"}
BEWARE = {
    4: [
        "Steps needed: the fewest candidates whose error on validation images is close to the "
        "best; the paper: the best on the test set."
    ],
    5: ["Disrupted acts in every step, on the mean over U's draws, for their sum diverges there."],
}
STAND_IN = "measured on rendered stand-ins, not on the real data set"


def notices(number: int, measured: Mapping[str, Summary], speed: Speed | None) -> list[str]:
    """Where quoted and measured numbers are from, what the spread means, what to beware of.

    Args:
        number: of the table. measured: its evaluations by name.
    """
    summaries = measured.values()
    sentences = [f"Columns headed paper are quoted ({citation()})."]
    parts = [*summaries, *([speed] if speed else [])]
    if rendered := _titles(parts, "rendered"):
        sentences.append(f"The others are {STAND_IN} ({rendered}).")
    if real := _titles(parts, "real"):
        sentences.append(f"Measured on real images: {real}.")
    sentences.append("Errors are in millimetres.")
    sentences.append("± is half of the 95 % bootstrap interval over the test samples.")
    if any(summary.dataset in SEQUENCES for summary in summaries):
        sentences.append("Frames of one sequence are not independent: intervals are too narrow.")
    if number == 3:
        sentences.append(_baseline_b(measured["3dpw_baseline_b"], measured["3dpw_dat"]))
    sentences += BEWARE.get(number, [])
    if speed is not None:
        sentences += _speed_notices(summaries, speed)
    return sentences


def _baseline_b(baseline: Summary, ours: Summary) -> str:
    return (
        f"Baseline B stacks {baseline.trained.experiment.depth} blocks in one pass, Ours takes "
        f"{ours.chains} chains of {ours.steps} steps: their cost is not matched."
    )


def _speed_notices(summaries: Collection[Summary], speed: Speed) -> list[str]:
    machine = speed.machine
    sentences = [
        f"FPS: one image at a time to the full mesh, median of the repeats, on {machine.device} "
        f"({machine.cpus} CPUs, {machine.threads} threads, {machine.precision}), with "
        f"{machine.backbone} at {machine.image_size} pixels in both models; "
        "the paper: GeForce RTX 3090.",
        "FastMETRO-L is untrained here: its speed is measured, its error is quoted.",
    ]
    rows = {"hmdiff_configured": "Ours", "hmdiff_paper": "Ours, the paper's N and steps"}
    for name, row in rows.items():
        timing = speed.timing(name)
        sentences.append(f"FPS of {row}: {timing.chains} chains, {timing.steps} steps.")
    sentences += [f"Errors of Ours: {run.chains} chains, {run.steps} steps." for run in summaries]
    return sentences


def _titles(parts: Collection[Summary | Speed], source: str) -> str:
    datasets = {part.dataset for part in parts if part.source == source}
    return ", ".join(dataset_title(dataset) for dataset in sorted(datasets))
