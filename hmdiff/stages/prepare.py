"""Stage ``prepare``: a native layout to one HDF5 file of crops and ground truth."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from hmdiff.bodies.model import BodyModel
from hmdiff.checkpoints import checkpoints
from hmdiff.checkpoints.identity import listing
from hmdiff.compute import use_threads
from hmdiff.datasets.preparation import records
from hmdiff.datasets.registry import find
from hmdiff.datasets.tally import Tally
from hmdiff.datasets.writer import write_prepared
from hmdiff.errors import UserError
from hmdiff.files import read_json, remove_partial
from hmdiff.memory import return_large_blocks
from hmdiff.params import Params


def run(dataset: str, raw: Path, body: Path, out: Path, params: Params) -> None:
    """Write ``out`` (HDF5) from the native layout in ``raw``.

    Args:
        dataset: a key of ``datasets`` in params.yaml.
        raw: folder that the stage ``acquire`` wrote.
        body: folder of the body or hand model.

    Raises:
        UserError: the model is for the other kind, or a stand-in where the data are real; an
            annotation is damaged, or too many images are.
    """
    use_threads(params.compute.threads)
    return_large_blocks()
    settings, layout = find(dataset, params)
    manifest = read_json(raw / "manifest.json")
    model = BodyModel.load(body)
    if model.kind.name != settings.kind:
        raise UserError(
            f"{body}: a {model.kind.name} model, but {dataset} shows a {settings.kind}; give the "
            "other model"
        )
    source = manifest.get("source") if isinstance(manifest, dict) else None
    if source not in ("real", "rendered"):
        raise UserError(f"{raw}/manifest.json: source: {source!r}; run acquire@{dataset} again")
    if source == "real" and model.source != "licensed":
        name = model.kind.model
        raise UserError(
            f"{body}: a stand-in, but {dataset} is real and made for {name.upper()}; place the "
            f"model as data/licensed/{name}/README.md says"
        )
    attrs = {
        "dataset": dataset,
        "source": source,
        "crop": layout.crop,
        "protocol": layout.protocol(raw, settings),
        "ground_truth": getattr(settings, "ground_truth", "native"),
    }
    tally = Tally()
    decisive = {
        "prepare": params.prepare.model_dump(exclude={"workers"}),
        "dataset": settings.model_dump(mode="json"),
    }
    with checkpoints(
        f"prepare@{dataset}", params, decisive, [body], lambda: {"raw": listing(raw)}
    ) as kept:
        remove_partial(out)
        rows = records(
            layout.read(raw, model, settings, tally),
            lambda sample: layout.square(sample, settings),
            model,
            params.prepare,
            tally,
            kept,
        )
        written = write_prepared(
            out,
            tqdm(rows, "prepare", disable=None),
            model.kind,
            attrs,
            closing=lambda: {"skipped": tally.as_json()},
        )
    print(f"{out}: {written} samples, {source}; left out: {tally}")
