"""``python -m hmdiff.datasets.benchmark``: how fast each layout is prepared, and in what memory.

Of every layout a stand-in of n samples and one of ten times as many are rendered, with the body
and hand model of ``--models``. Each is prepared as the stage ``prepare`` does it, in a process of
its own, whose peak memory Linux tells. Images a second count reading, decoding, cropping, writing;
those a second of processor time hold on a busy machine too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hmdiff.bodies.model import BodyModel
from hmdiff.datasets.preparation import records
from hmdiff.datasets.registry import find
from hmdiff.datasets.tally import Tally
from hmdiff.datasets.writer import write_prepared
from hmdiff.params import Params, load_params
from hmdiff.params.data import (
    CocoDataset,
    MPIIDataset,
    MuCoDataset,
    UP3DDataset,
    WildStandIn,
)

# Those that params.yaml does not have: settings as in presets/paper.yaml.
_WILD = {
    "up3d": UP3DDataset(layout="up3d", kind="body", crop=1.2, smallest_box=50),
    "muco": MuCoDataset(layout="muco", kind="body", crop=1.25, smallest_box=50, fit_limit=25),
    "coco": CocoDataset(layout="coco", kind="body", crop=1.2, smallest_box=50, keypoints=6),
    "mpii": MPIIDataset(layout="mpii", kind="body", crop=1.25, smallest_box=50, keypoints=6),
}
_FEW = 4  # samples of the other splits


def _params(records: int, frame: int) -> Params:
    """params.yaml with all seven data sets and stand-ins of ``records`` training samples."""
    params = load_params()
    changes = {"train": records, "val": _FEW, "test": _FEW, "frame": frame}
    standins = {}
    for name, record in params.standins.items():
        known = {key: changes[key] for key in changes if key in type(record).model_fields}
        standins[name] = record.model_copy(update=known)
    for name in _WILD:
        standins[name] = WildStandIn(
            layout=name, train=records, frame=frame, yaw=60, pairs=0.3, workers=1
        )
    hands = params.datasets["freihand"].model_copy(update={"held_out": _FEW})
    datasets = params.datasets | _WILD | {"freihand": hands}
    return params.model_copy(update={"standins": standins, "datasets": datasets})


def _peak() -> float:
    """Peak resident memory of this process since it began, MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _one(dataset: str, raw: Path, models: Path) -> None:
    """Prepare ``raw`` in this process; print what it took as JSON."""
    params = _params(1, 64)
    settings, layout = find(dataset, params)
    body = BodyModel.load(models / settings.kind)
    tally, start = Tally(), (time.perf_counter(), time.process_time())
    samples = layout.read(raw, body, settings, tally)
    rows = records(
        samples, lambda sample: layout.square(sample, settings), body, params.prepare, tally
    )
    attrs = {"dataset": dataset, "source": "rendered"}
    count = write_prepared(raw.with_suffix(".h5"), rows, body.kind, attrs)
    seconds, of_cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    took = {"samples": count, "seconds": seconds, "cpu": of_cpu, "peak": _peak()}
    print(json.dumps(took))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100, help="n")
    parser.add_argument("--frame", type=int, default=640, help="pixels; freihand's are 224")
    parser.add_argument("--models", type=Path, default=Path("models"), help="with body and hand")
    parser.add_argument("--only", nargs="*", help="some of the data sets")
    parser.add_argument("--one", nargs=2, metavar=("DATASET", "RAW"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _one(options.one[0], Path(options.one[1]), options.models)
        return
    print(f"{'data set':10} {'samples':>8} {'images/s':>9} {'images/CPU s':>13} {'MiB':>6}")
    for dataset in options.only or _params(1, 64).datasets:
        for count in (options.records, 10 * options.records):
            with tempfile.TemporaryDirectory() as folder:
                params = _params(count, options.frame)
                settings, layout = find(dataset, params)
                raw, model = Path(folder) / "raw", options.models / settings.kind
                layout.render(raw, model, params.standins[dataset], settings, params.seed)
                command = [
                    *(sys.executable, "-m", "hmdiff.datasets.benchmark"),
                    *("--models", str(options.models), "--one", dataset, str(raw)),
                ]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            took = json.loads(output.splitlines()[-1])
            number = took["samples"]
            rates = f"{number / took['seconds']:9.0f} {number / took['cpu']:13.0f}"
            print(f"{dataset:10} {number:8} {rates} {took['peak']:6.0f}", flush=True)


if __name__ == "__main__":
    main()
