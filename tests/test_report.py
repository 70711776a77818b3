"""The report: its numbers are the tables', its differences paired, and it needs nothing else."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest
from ruamel.yaml import YAML
from test_table7 import write_spread
from test_tables import EVIL, NUMBERS, load, write_samples, write_speed, write_summary

from hmdiff.costs import address, read_costs, recorded
from hmdiff.errors import UserError
from hmdiff.report.provenance import provenance
from hmdiff.report.runs import training_runs
from hmdiff.report.trainings import read_trainings
from hmdiff.stages import report as stage
from hmdiff.tables.build import build_table
from hmdiff.tables.paper import layout, paper_table
from hmdiff.tables.render import write_table

ROOT = Path(__file__).parents[1]
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)  # a PNG of one pixel
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def write_training(parent: Path, name: str, record: dict, *rows: str) -> None:
    folder = parent / name
    folder.mkdir(parents=True)
    kind = "extractor.json" if parent.name == "extractor" else "model.json"
    (folder / kind).write_text(json.dumps(record | {"seed": 0}))
    (folder / "curve.csv").write_text("\n".join(rows))
    (folder / "weights.safetensors").write_bytes(name.encode())


def write_prepared(folder: Path, kind: str, name: str, source: str = "rendered") -> None:
    path = folder / kind / f"{name}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(
            {
                "dataset": name,
                "kind": kind,
                "source": source,
                "crop": "square",
                "protocol": f"splits of {EVIL}",
                "splits": ["train", "val", "test"],
            }
        )
        file["split"] = np.repeat(np.arange(3, dtype=np.uint8), [5, 2, 1])


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """What all stages before the report write, made up."""
    monkeypatch.chdir(tmp_path)
    evaluations = tmp_path / "runs/evaluate"
    for name in {name for number in NUMBERS for name in paper_table(number).evaluations()}:
        write_summary(evaluations, name)
        write_samples(evaluations, name)
    for name in layout(7).values():
        write_spread(evaluations, name)
    figures = tmp_path / "results/figures"
    figures.mkdir(parents=True)
    for name in ("figure2", "figure3"):
        (figures / f"{name}.png").write_bytes(DOT)
        facts = {"caption": f"{name}, on rendered stand-ins <b>", "source": "rendered"}
        (figures / f"{name}.json").write_text(json.dumps(facts))
    write_speed(tmp_path / "runs")
    curve = ("samples,learning_rate,v", "16,0.1,0.9", "32,0.05,0.5")
    trained = tmp_path / "models/train"
    write_training(trained, "image", {"kind": "body", "datasets": ["3dpw", "human36m"]}, *curve)
    write_training(trained, "hand", {"kind": "hand", "datasets": ["freihand"]}, *curve)
    write_training(trained, "linear", {"kind": "body", "datasets": ["3dpw"]}, "penalty,val_mpve",
                   "0.1,200", "0.01,190")  # fmt: skip
    write_training(tmp_path / "models/extractor", "body", {"datasets": ["3dpw"]},
                   "samples,loss,val_mpjpe", "64,3.5,120")  # fmt: skip
    for kind, name in (("body", "3dpw"), ("body", "human36m"), ("hand", "freihand")):
        write_prepared(tmp_path / "data/prepared", kind, name)
    (tmp_path / "results/sampling_body.json").write_text(
        json.dumps({"mean_mm": 1.5, "p95_mm": 3, "max_mm": 9, "meshes": 8,
                    "levels": [6890, 431], "body_model": "stand-in"})
    )  # fmt: skip
    (tmp_path / "NOTICE").write_text(f"Licences & {EVIL}")
    return tmp_path


def make(project: Path, monkeypatch) -> tuple[str, list]:
    """Run the stage; the page, and what would have gone to MLflow."""
    logged = []
    monkeypatch.setattr(stage, "log_run", lambda *what: logged.append(what))
    stage.run(
        evaluations=Path("runs/evaluate"), speed=Path("runs/speed.json"),
        trained=Path("models/train"), extractors=Path("models/extractor"),
        sampling=Path("results"), prepared=Path("data/prepared"), notice=Path("NOTICE"),
        figures=Path("results/figures"), metrics=Path("results/metrics.json"),
        out=Path("results/report.html"), params=load(),
    )  # fmt: skip
    return (project / "results/report.html").read_text(encoding="utf-8"), logged


class Page(HTMLParser):
    """The rows of every table below each ``h2``, and all addresses."""

    def __init__(self, text: str):
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.captions: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self._here = self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        given = dict(attrs)
        self.addresses += [given[name] for name in ("src", "href", "action") if name in given]
        if tag == "h2":
            self._here = given["id"]
        if tag == "tr":
            self.rows.setdefault(self._here, []).append([])
        if tag in ("td", "th"):
            self.rows[self._here][-1].append("")
        if tag == "figcaption":
            self.captions.append("")
        if tag in ("td", "th", "figcaption"):
            self._inside = tag

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data):
        if self._inside in ("td", "th"):
            self.rows[self._here][-1][-1] += data
        elif self._inside:
            self.captions[-1] += data


def test_the_numbers_are_those_of_the_json(project, monkeypatch):
    page = Page(make(project, monkeypatch)[0])
    means = json.loads((project / "results/metrics.json").read_text())
    for number in NUMBERS:
        table = build_table(number, Path("runs/evaluate"), Path("runs/speed.json"), load(), None)
        records = json.loads(write_table(table, project / "out")[-1].read_text())
        digits = {
            (column.dataset, column.metric): column.decimals for column in table.paper.columns
        }
        # The first row of a name is the table's; the others are differences.
        rows = {row[0]: row[1:] for row in reversed(page.rows[f"table{number}"])}
        for record in records:
            shown = " ".join(rows[record["row"]])
            if record["measured"] is not None:
                places = digits[record["dataset"], record["metric"]]
                assert f"{record['measured']:.{places}f}" in shown
            if record["paper"] is not None:
                assert re.search(rf"\b{record['paper']:g}", shown)
        for name, summary in table.summaries.items():
            assert means[name] == {metric: mean.mean for metric, mean in summary.means.items()}


def test_what_comes_from_files_is_escaped(project, monkeypatch):
    text, _ = make(project, monkeypatch)
    assert "<script" not in text and html.escape(EVIL) in text
    assert "script" not in Page(text).tags


def test_the_page_needs_no_other_file_and_no_network(project, monkeypatch):
    page = Page(make(project, monkeypatch)[0])
    assert {address[:1] if address[0] == "#" else address[:5] for address in page.addresses} == {
        "#", "data:",
    }  # fmt: skip
    assert not page.tags & {"script", "link", "iframe", "object"}


def test_the_same_contents_give_the_same_bytes(project, monkeypatch):
    first = make(project, monkeypatch)
    with recorded("report"):  # its own cost is not on the page
        pass
    assert make(project, monkeypatch) == first


def test_every_caption_says_that_the_data_are_rendered(project, monkeypatch):
    with recorded("train@image"):
        pass
    text, _ = make(project, monkeypatch)
    sections = re.split(r"<h2 ", text)[1:]
    assert len(sections) == 13
    assert all("rendered" in part for part in sections if 'id="licences"' not in part)
    captions = Page(text).captions
    # Two figures; extractor, body, hand: the search of the control has no curve.
    assert len(captions) == 5
    assert all("rendered stand-ins" in caption for caption in captions)


def test_real_data_are_not_called_rendered(project, monkeypatch):
    for path in Path("runs/evaluate").iterdir():
        write_summary(Path("runs/evaluate"), path.name, source="real")
    for kind, name in (("body", "3dpw"), ("body", "human36m"), ("hand", "freihand")):
        write_prepared(Path("data/prepared"), kind, name, "real")
    speed = Path("runs/speed.json")
    for path in (speed, *Path("results/figures").glob("*.json")):
        path.write_text(path.read_text().replace("rendered stand-ins", "real images"))
        path.write_text(path.read_text().replace("rendered", "real"))
    text, _ = make(project, monkeypatch)
    assert "rendered" not in text and "stand-ins" not in text.replace('"stand-in"', "")
    assert "von Marcard" in text  # 3DPW asks to be cited


@pytest.mark.parametrize(
    ("lost", "remedy"),
    [
        ("runs/evaluate/3dpw_dat/samples.csv", "dvc repro evaluate@3dpw_dat"),
        ("models/train/image/curve.csv", "dvc repro train@image"),
        ("models/extractor/body/weights.safetensors", "dvc repro pretrain_extractor@body"),
        ("runs/speed.json", "dvc repro speed"),
        ("runs/evaluate/3dpw_standard/predictions.npz", "dvc repro evaluate@3dpw_standard"),
        ("results/figures/figure3.png", "dvc repro figure3"),
    ],
)
def test_what_is_missing_is_one_line_that_names_the_stage(project, monkeypatch, lost, remedy):
    (project / lost).unlink()
    with pytest.raises(UserError, match=remedy) as caught:
        make(project, monkeypatch)
    assert "\n" not in str(caught.value) and not (project / "results/report.html").exists()


def test_a_broken_prepared_file_is_one_line_that_names_it(project, monkeypatch):
    (project / "data/prepared/hand/freihand.h5").write_text("no HDF5")
    with pytest.raises(UserError, match=r"freihand\.h5: not a prepared file"):
        make(project, monkeypatch)


def test_a_training_is_a_run_with_curve_data_checkpoint_and_cost(project):
    trainings = read_trainings(Path("models/extractor"), Path("models/train"))
    with recorded("train@image"):
        pass
    hashes = {"data/prepared/body/3dpw.h5": "ab12"}
    data = provenance(Path("data/prepared"))
    run = training_runs(trainings, data, read_costs(), hashes, load(), "abc")
    runs = {child.tags["stage"] + "@" + child.tags["name"]: child for child in run.children}
    assert runs.keys() == {"pretrain_extractor@body", "train@image", "train@hand", "train@linear"}
    image = runs["train@image"]
    assert image.history["loss/v"] == [(16, 0.9), (32, 0.5)]
    assert list(image.history)[-1] == "learning_rate"  # what the UI compares is the first
    assert image.command == "dvc repro train@image" and "name" not in image.params
    began, ended = image.span
    assert 0 < ended - began == pytest.approx(60 * image.metrics["system/wall_minutes"])
    assert runs["train@hand"].span is None
    assert runs["train@linear"].history["val_mpve"] == [(0, 200.0), (1, 190.0)]
    assert image.tags["checkpoint"] == "models/train/image/weights.safetensors"
    assert len(image.tags[image.identity]) == 64 and image.tags["source"] == "rendered"
    assert [(item.name, item.digest) for item in image.inputs] == [("3dpw", "ab12")]
    assert 0 < image.metrics["system/peak_memory_gigabytes"] < 64
    assert not any(path.suffix == ".safetensors" for path in image.artifacts)
    models = {name: child.model for name, child in runs.items() if child.model}
    assert models == {"train@image": "hmdiff-body", "train@hand": "hmdiff-hand"}


def test_costs_are_named_as_dvc_names_the_stages():
    entries = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert address("table", {"number": 4, "out": Path("results")}) == "table4"
    assert address("train", {"experiment": "image", "out": Path("x")}) == "train@image"
    tuned = {"experiment": "image_3dpw", "base": Path("models/train/image"), "out": Path("x")}
    assert address("train", tuned) == "finetune@image_3dpw"
    assert address("select_steps", {"method": "dat", "model": Path("m")}) == "select_steps@dat"
    out = Path("data/features/body/3dpw.h5")
    assert address("extract_features", {"out": out}) == "extract_features@3dpw"
    assert address("speed", {"out": Path("runs/speed.json")}) in entries


def test_a_stage_that_fails_leaves_no_cost(project):
    with pytest.raises(UserError), recorded("train@image"):
        raise UserError("no")
    assert read_costs() == {}


def test_dvc_plots_the_curves_that_the_stages_write():
    raw = YAML(typ="safe").load(ROOT / "dvc.yaml")
    folders = {f"models/train/{name}" for name in load().experiments}
    folders |= {
        f"models/extractor/{kind}" for kind in raw["stages"]["pretrain_extractor"]["foreach"]
    }
    plotted = {path for plot in raw["plots"] for entry in plot.values() for path in entry["y"]}
    assert {str(Path(path).parent) for path in plotted} <= folders
    searches = {f"models/train/{name}" for name, e in load().experiments.items()
                if e.model == "linear"}  # fmt: skip
    assert folders - searches == {str(Path(path).parent) for path in plotted}


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to look at the page with")
def test_on_a_phone_the_page_is_no_wider_than_the_screen(project, monkeypatch, tmp_path):
    text, _ = make(project, monkeypatch)
    frame = f'<iframe srcdoc="{html.escape(text)}" style="border:0;width:390px;height:800px">'
    script = (
        "<script>onload = () => { const page = document.querySelector('iframe').contentDocument;"
        "document.title = [page.documentElement.scrollWidth, page.images.length,"
        "[...page.images].filter(i => i.naturalWidth).length].join(' '); }</script>"
    )
    wrapper = tmp_path / "phone.html"
    wrapper.write_text(f"<!DOCTYPE html><title>?</title>{frame}</iframe>{script}")
    picture = tmp_path / "phone.png"
    chromium = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={tmp_path}/profile", "--window-size=520,900"]  # fmt: skip
    shown = subprocess.run(
        [*chromium, "--dump-dom", wrapper.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    width, images, drawn = map(int, re.search(r"<title>([\d ]+)</title>", shown)[1].split())
    assert width == 390 and images == drawn == 5
    subprocess.run([*chromium, f"--screenshot={picture}", wrapper.as_uri()],
                   capture_output=True, check=True, timeout=120)  # fmt: skip
    assert picture.read_bytes().startswith(b"\x89PNG")
