"""Stage ``pretrain_extractor``: phi_I and phi_P of one kind, from the data sets of its mixture."""

from __future__ import annotations

import csv
from pathlib import Path

from hmdiff.batches import mixture_files
from hmdiff.checkpoints import checkpoints
from hmdiff.compute import resolve_device, resolve_precision, use_threads
from hmdiff.datasets.prepared import PreparedFile
from hmdiff.distributed import is_main
from hmdiff.errors import UserError
from hmdiff.extractor.model import WEIGHTS, Architecture, Extractor, save_extractor
from hmdiff.extractor.training import split_pool, train_extractor
from hmdiff.files import atomic_directory
from hmdiff.params import Params
from hmdiff.tracking import StoppedTraining


def run(kind: str, prepared: Path, out: Path, params: Params) -> None:
    """Train on the train split of the kind's data sets; write the extractor's folder.

    Args:
        kind: "body" or "hand".
        prepared: folder of the prepared files of this kind.
        out: gets weights.safetensors, extractor.json and curve.csv.
    """
    use_threads(params.compute.threads)
    settings = params.extractor[kind]
    device = resolve_device(params.compute.device)
    paths = mixture_files(prepared, settings.datasets)
    sources = set()
    for path in paths:
        with PreparedFile(path) as file:
            sources.add(str(file.attrs["source"]))
            if file.attrs["kind"] != kind:
                raise UserError(f"{path}: kind: is {file.attrs['kind']}, not {kind}; move it away")
    architecture = Architecture(
        kind, settings.backbone, settings.image_size, settings.channels, settings.half_extent,
        settings.feature,
    )  # fmt: skip
    extractor = Extractor(architecture, params.seed, settings.pretrained)
    weights, size = list(settings.datasets.values()), settings.image_size
    train = split_pool(paths, weights, "train", size, settings.held_out)
    validation = split_pool(paths, weights, "val", size)
    facts = {
        "datasets": list(settings.datasets),  # as in model.json
        "sources": sorted(sources),
        "seed": params.seed,
        "settings": settings.model_dump(mode="json"),
    }
    read = [*paths, *([settings.pretrained] if isinstance(settings.pretrained, Path) else [])]
    label = f"pretrain_extractor@{kind}"
    tags = {"stage": "pretrain_extractor", "name": kind, "seed": params.seed}
    training = StoppedTraining(label, out / WEIGHTS, tags | {"preset": params.preset})
    with checkpoints(label, params, facts, read, training=training) as kept:
        curve = train_extractor(
            extractor,
            train,
            validation,
            settings,
            seed=params.seed,
            device=device,
            precision=resolve_precision(params.compute),
            workers=params.compute.workers,
            checkpoints=kept,
        )
        if not is_main():
            return
        with atomic_directory(out) as folder:
            save_extractor(extractor, folder, facts)
            with open(folder / "curve.csv", "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, curve[0].keys(), lineterminator="\n")
                writer.writeheader()
                writer.writerows(curve)
    last = curve[-1]
    print(
        f"{out}: {last['samples']} images seen, validation MPJPE {last['val_mpjpe']:.1f} mm "
        f"({', '.join(sorted(sources))} images)"
    )
