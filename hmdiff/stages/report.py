"""Stage ``report``: one page with everything, the metrics for DVC, the trainings in MLflow."""

from __future__ import annotations

from pathlib import Path

from hmdiff.costs import read_costs
from hmdiff.dvclock import recorded_hashes
from hmdiff.files import write_json, write_text
from hmdiff.machine import current_commit
from hmdiff.params import Params
from hmdiff.report.contents import gather, metrics_of
from hmdiff.report.provenance import provenance
from hmdiff.report.render import to_html
from hmdiff.report.runs import training_runs
from hmdiff.report.trainings import read_trainings
from hmdiff.tracking import log_run
from hmdiff.tracking.stopped import ABOUT, EXPERIMENT


def run(
    evaluations: Path,
    speed: Path,
    trained: Path,
    extractors: Path,
    sampling: Path,
    figures: Path,
    prepared: Path,
    notice: Path,
    metrics: Path,
    out: Path,
    params: Params,
) -> None:
    """Write ``out`` (HTML) and ``metrics`` (JSON), and log the trainings that are new.

    Args:
        evaluations, speed: what the tables are made of.
        trained, extractors: folders of model folders.
        sampling: folder of the files sampling_KIND.json.
        figures: folder of Figures 2 and 3.
        prepared: folder of KIND/DATASET.h5.
        notice: licences, as text.

    Raises:
        UserError: something is missing or damaged; the line names the stage to run.
    """
    commit = current_commit()
    # A page about its own making would differ each time it is made.
    costs = {name: cost for name, cost in read_costs().items() if name != "report"}
    trainings, data = read_trainings(extractors, trained), provenance(prepared)
    contents = gather(
        evaluations, speed, sampling, figures, notice, trainings, data, costs, params, commit
    )  # fmt: skip
    write_text(out, to_html(contents))
    write_json(metrics, metrics_of(contents.sections))
    runs = training_runs(trainings, data, costs, recorded_hashes(), params, commit)
    log_run(EXPERIMENT, runs, ABOUT)
    verdicts = ", ".join(f"{count} {name}" for name, count in sorted(contents.verdicts.items()))
    print(f"{out}: differences in Tables 3 to 5: {verdicts}")
