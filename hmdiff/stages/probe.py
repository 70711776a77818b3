"""Stage ``probe@NAME``: what plain regressions get out of the frozen features."""

from __future__ import annotations

from pathlib import Path

import h5py
from tabulate import tabulate

from hmdiff.compute import use_threads
from hmdiff.errors import UserError
from hmdiff.extractor.features import FeatureFiles
from hmdiff.machine import current_commit
from hmdiff.params import Params
from hmdiff.params.probes import ProbeParams
from hmdiff.probes.results import ABOUT, SPLIT, probe_run, records, table, write_probe
from hmdiff.probes.rows import by_dataset, probe
from hmdiff.tables.notices import STAND_IN
from hmdiff.tracking import log_run
from hmdiff.training.data import with_mesh


def run(name: str, features: Path, out: Path, params: Params) -> None:
    """Write ``out``/NAME.csv and .json of ``params.probes[name]``; log one run a regression.

    Args:
        features: folder of the features files of one kind; no test row is used.

    Raises:
        UserError: the probe is unknown, a file is missing or damaged, or no row has a mesh.
    """
    what = find_probe(name, params)
    use_threads(params.compute.threads)
    paths = [features / f"{dataset}.h5" for dataset in what.datasets]
    # Augmented copies are no images of their own.
    training, validation = (FeatureFiles(paths, split, copies=False) for split in ("train", SPLIT))
    rows = with_mesh(training, features, "train"), with_mesh(validation, features, SPLIT)
    found = list(probe(training, validation, rows, what))
    sources = {}
    for path in paths:
        with h5py.File(path, "r") as file:
            sources[path.stem] = str(file.attrs["source"])
    parts = by_dataset(validation, rows[1])
    made = records(name, found, parts, sources, params, current_commit())
    note = (
        f"Mean vertex error of the coarse mesh in mm, root-relative, on {len(rows[1])} validation "
        f"images; fitted to {len(found[0].training)} training images. Differences are to the first "
        "row, the linear control, paired, with 95 % bootstrap intervals over images."
    )
    if "rendered" in sources.values():
        note += f" Numbers are {STAND_IN}."
    paths = write_probe(made, out)
    log_run("probes", probe_run(what, params, made, note, paths), ABOUT)
    print(tabulate(table(made), headers="keys", showindex=False, floatfmt=".1f"), note, sep="\n\n")


def find_probe(name: str, params: Params) -> ProbeParams:
    """``probes.NAME`` of params.yaml, which was checked when it was read.

    Raises:
        UserError: there is none.
    """
    if name not in params.probes:
        known = ", ".join(params.probes) or "none"
        raise UserError(f"params.yaml: probes: has no {name!r}; take one of {known}")
    return params.probes[name]
