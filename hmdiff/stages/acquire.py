"""Stage ``acquire``: a data set in its native layout, placed by the user or rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hmdiff.acquisition.catalogue import find as find_published
from hmdiff.checkpoints import checkpoints
from hmdiff.datasets.placed import is_placed, take
from hmdiff.datasets.registry import Layout, find
from hmdiff.errors import UserError
from hmdiff.files import atomic_directory, remove_partial, sha256, write_json
from hmdiff.params import Params
from hmdiff.rendering.backgrounds import CREDITS


def run(dataset: str, body: Path, placed: Path, out: Path, params: Params) -> None:
    """Write the native layout and ``manifest.json`` to the folder ``out``.

    Args:
        dataset: a key of ``datasets`` in params.yaml.
        body: folder of the body or hand model, with which the stand-in is rendered.
        placed: where a user puts a real copy. ``acquire.source`` of params.yaml says whether it is
            taken: auto takes it where it holds more than its README.md.

    Raises:
        UserError: the real copy is incomplete, or is asked for and not there; or it should be
            rendered and there are no parameters for it.
    """
    settings, layout = find(dataset, params)
    facts: dict[str, Any] = {"dataset": dataset}
    source = params.acquire.source
    if source == "real" or (source == "auto" and is_placed(placed)):
        _check(placed, settings.layout)
        with atomic_directory(out) as folder:
            take(placed, folder)
            facts |= {"source": "real"}
            _describe(folder, layout, facts)
    else:
        standin = params.standins.get(dataset)
        if standin is None or standin.layout != settings.layout:
            raise UserError(
                f"params.yaml: standins.{dataset}: none of the layout of datasets.{dataset}; "
                f"add one, or place the real data in {placed} and let acquire.source be real"
            )
        decisive = {
            "standin": standin.model_dump(mode="json", exclude={"workers"}),
            "dataset": settings.model_dump(mode="json"),
        }
        with checkpoints(f"acquire@{dataset}", params, decisive, [body]) as kept:
            remove_partial(out)
            with atomic_directory(out) as folder:
                persons = layout.render(folder, body, standin, settings, params.seed, kept)
                facts |= {"source": "rendered", "seed": params.seed, "persons": persons}
                _describe(folder, layout, facts | {"credits": CREDITS})
    print(f"{out}: {facts['source']}, {facts.get('persons', 'persons are counted by prepare')}")


def _check(placed: Path, layout: str) -> None:
    """Raise a UserError that names the first part of the layout that the real copy lacks."""
    lost = find_published(layout).lacking(placed)
    if lost:
        what = f"has no {lost[0]}" if is_placed(placed) else "holds no real copy"
        raise UserError(
            f"{placed}: {what}; complete it as its README.md and `hmdiff data status` say, or "
            "let acquire.source in params.yaml be rendered"
        )


def _describe(folder: Path, layout: Layout, facts: dict[str, Any]) -> None:
    """Write ``manifest.json``: ``facts``, how many images, and the annotation files' hashes."""
    annotations = sorted(folder.glob(layout.annotations))
    facts = facts | {
        "images": sum(1 for _ in folder.rglob(layout.images)),
        "annotations": {path.relative_to(folder).as_posix(): sha256(path) for path in annotations},
    }
    write_json(folder / "manifest.json", facts)
