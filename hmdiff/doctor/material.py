"""Models, data sets and trained weights: licensed, rendered, or not there yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hmdiff.acquisition.catalogue import LICENSED
from hmdiff.acquisition.status import Status, status
from hmdiff.doctor.findings import Context, Finding
from hmdiff.errors import UserError
from hmdiff.extractor.imagenet import IMAGENET, packaged
from hmdiff.files import read_json
from hmdiff.kinds import KINDS
from hmdiff.params import load_params
from hmdiff.params.models import BACKBONES

BUILD = "`make tables` or `dvc repro`"


def models(context: Context) -> Iterator[Finding]:
    """SMPL and MANO: the licensed file or the stand-in, and whether it has been built."""
    strict = load_params(context.params).acquire.source == "real"
    for kind in KINDS.values():
        item = status(kind.model, context.root / LICENSED / kind.model)
        path = context.root / "models" / kind.name / "model.json"
        built = read_json(path).get("source") if path.is_file() else None
        name = kind.model.upper()
        if item.state == "partial" or (strict and item.state == "missing"):
            state = "problem" if strict else "warning"
            yield Finding(state, f"{name}: {item.state}: {item.line}", item.todo)
        elif item.state == "present" and built == "stand-in":
            found = f"{name}: the licensed file was placed, but {path.parent} is the stand-in"
            yield Finding("warning", found, f"{BUILD}, which convert it")
        else:
            which = "licensed" if item.state == "present" else "open stand-in"
            yield Finding("ok", f"{name}: {which}, {'built' if built else 'not built yet'}")


def data(context: Context) -> Iterator[Finding]:
    """Each data set of params.yaml: what ``acquire`` would take."""
    params = load_params(context.params)
    for name, dataset in params.datasets.items():
        item = status(dataset.layout, context.root / LICENSED / name)
        yield _dataset(name, item, params.acquire.source, name in params.standins)


def _dataset(name: str, item: Status, source: str, standin: bool) -> Finding:
    placed = f"{name}: real copy {item.state}"
    if item.state == "present":
        unused = ", not used (acquire.source: rendered)" if source == "rendered" else ""
        return Finding("ok", placed + unused)
    if source == "real":
        return Finding("problem", f"{placed} and acquire.source is real", item.todo)
    if item.state != "missing" and source == "auto":
        lost = f"; it lacks {item.lacks[0]}" if item.lacks else ""
        return Finding("warning", placed + lost, item.todo)
    if not standin:
        remedy = f"{item.todo}; or add standins.{name}"
        return Finding("problem", f"{placed}, and params.yaml has no stand-in of it", remedy)
    return Finding("ok", f"{name}: rendered stand-in ({item.state} as a real copy)")


def weights(context: Context) -> Iterator[Finding]:
    """What has been trained, and the backbones' own weights where params.yaml names some."""
    params = load_params(context.params)
    for kind, extractor in params.extractor.items():
        if extractor.pretrained == IMAGENET:
            try:
                packaged(extractor.backbone)
            except UserError as error:
                yield Finding("problem", *str(error).split("; ", 1))
        elif extractor.pretrained and not Path(context.root, extractor.pretrained).is_file():
            found = f"extractor.{kind}.pretrained: {extractor.pretrained}: no such file"
            remedy = (
                f"place the weights there, as {BACKBONES}/README.md says, or write null to train "
                "from random ones"
            )
            yield Finding("problem", found, remedy)
    trained = [
        name
        for name in params.experiments
        if (context.root / "models/train" / name / "model.json").is_file()
    ]
    found = f"{len(trained)} of {len(params.experiments)} experiments are trained"
    if len(trained) < len(params.experiments):
        yield Finding("warning", f"{found} here", f"{BUILD}; or `dvc pull` from a remote with them")
    else:
        yield Finding("ok", found)
