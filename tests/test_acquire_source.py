"""acquire.source: which data a run is made of, and that a missing real copy is said in advance."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engines import copy_project, environment, ran_by_snakemake
from toys import checkpoint_params

from hmdiff.acquisition.catalogue import catalogue, find
from hmdiff.acquisition.status import missing
from hmdiff.datasets.registry import LAYOUTS
from hmdiff.errors import UserError
from hmdiff.params import Params, load_params
from hmdiff.stages import acquire

ROOT = Path(__file__).resolve().parent.parent
PARAMS = load_params(ROOT / "params.yaml")
PARAMS = PARAMS.model_copy(update={"checkpoint": checkpoint_params()})


@pytest.fixture
def rendered(monkeypatch):
    """Rendering that only leaves a mark, so that no body model is needed."""

    def render(root, *_):
        (root / "rendered.json").write_text("[]")
        return {"train": 1, "val": 0, "test": 0}

    for name, layout in LAYOUTS.items():
        monkeypatch.setitem(LAYOUTS, name, replace(layout, render=render))


def from_source(source: str) -> Params:
    return PARAMS.model_copy(
        update={"acquire": PARAMS.acquire.model_copy(update={"source": source})}
    )


def place(folder: Path, name: str = "3dpw") -> None:
    for glob in find(name).required:
        path = folder / glob.split(" or ")[0].replace("*", "some")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def acquired(tmp_path: Path, source: str) -> str:
    out = tmp_path / "raw"
    acquire.run("3dpw", tmp_path / "body", tmp_path / "placed", out, from_source(source))
    return json.loads((out / "manifest.json").read_text())["source"]


@pytest.mark.parametrize("source", ["auto", "rendered"])
def test_without_a_placed_copy_the_stand_in_is_rendered(tmp_path, rendered, source):
    assert acquired(tmp_path, source) == "rendered"


@pytest.mark.parametrize(
    ("source", "taken"), [("auto", "real"), ("real", "real"), ("rendered", "rendered")]
)
def test_a_placed_copy_is_taken_unless_the_stand_in_is_asked_for(tmp_path, rendered, source, taken):
    place(tmp_path / "placed")
    assert acquired(tmp_path, source) == taken
    assert (tmp_path / "raw/rendered.json").exists() == (taken == "rendered")
    assert (tmp_path / "raw/sequenceFiles").exists() == (taken == "real")


@pytest.mark.parametrize("there", [False, True])
def test_a_real_copy_that_is_asked_for_and_missing_is_one_line(tmp_path, rendered, there):
    (tmp_path / "placed").mkdir()
    (tmp_path / "placed/README.md").touch()
    if there:
        (tmp_path / "placed/imageFiles").mkdir()
    with pytest.raises(UserError) as caught:
        acquired(tmp_path, "real")
    line = str(caught.value)
    assert ("has no sequenceFiles/train/*.pkl" if there else "holds no real copy") in line
    assert "hmdiff data status" in line and "\n" not in line
    assert not (tmp_path / "raw").exists()


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with the committed parameters, for real data only, and nothing placed."""
    text = (ROOT / "params.yaml").read_text()
    assert "  source: auto " in text
    (tmp_path / "params.yaml").write_text(text.replace("  source: auto ", "  source: real "))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_real_data_are_needed_and_missing_is_one_line_each(project):
    lines = missing()
    assert {line.split(":")[0] for line in lines} == {*PARAMS.datasets, "smpl", "mano"}
    assert all("\n" not in line and "missing" in line for line in lines)
    for name in (*PARAMS.datasets, "smpl", "mano"):
        place(project / "data/licensed" / name, name)
    assert missing() == []
    (project / "data/licensed/mano/MANO_RIGHT.pkl").unlink()
    assert [line.split(":")[0] for line in missing()] == ["mano"]


def test_weights_that_an_extractor_starts_from_are_missed_too(project):
    place_all = [(project / "data/licensed" / name, name) for name in (*PARAMS.datasets, "smpl")]
    for folder, name in [*place_all, (project / "data/licensed/mano", "mano")]:
        place(folder, name)
    weights = Path("data/licensed/backbone/some.safetensors")
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("pretrained: null", f"pretrained: {weights}"))
    (line,) = missing()
    assert line == f"backbone: missing: {weights}; see data/licensed/backbone/README.md"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert missing() == []
    params.write_text(params.read_text().replace(f"pretrained: {weights}", "pretrained: imagenet"))
    weights.unlink()
    assert missing() == []


@pytest.mark.parametrize("text", ["seed: 1", "acquire:", "acquire: {source: auto}", "[]", ""])
def test_with_any_other_source_nothing_is_missing(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    assert missing(tmp_path / "params.yaml") == []


def test_parameters_that_cannot_be_read_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"params\.yaml: no such file"):
        missing(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"params\.yaml: not valid YAML"):
        missing(tmp_path / "params.yaml")


def test_on_the_command_line_missing_data_are_exit_code_2(project):
    command = [str(Path(sys.executable).parent / "hmdiff"), "data", "missing"]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "hmdiff data fetch freihand" in done.stdout
    status = subprocess.run([*command[:2], "status"], text=True, capture_output=True, check=True)
    assert status.stdout.count("\n") == len(catalogue()) and "Traceback" not in status.stderr


def test_status_needs_no_heavy_library():
    code = (
        "import sys; from hmdiff.acquisition.status import statuses; statuses(); "
        "print({'torch', 'numpy', 'pandas', 'requests'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_snakemake_names_what_is_missing_and_starts_nothing(tmp_path):
    copy_project(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_text(path.read_text().replace("  source: auto ", "  source: real "))

    def snakemake(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            ["snakemake", "--cores", "1", "--nocolor", *arguments],
            cwd=tmp_path, env=environment(), text=True, check=False, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout

    code, shown = snakemake("-n", "body_models@mano")
    assert code == 0 and "body_models@mano" in ran_by_snakemake(shown)
    assert "3dpw: missing: `hmdiff data fetch 3dpw" in shown
    code, shown = snakemake("body_models@mano")
    assert code != 0 and "acquire.source is real: complete the data named above first" in shown
    assert not (tmp_path / "models").exists() and not (tmp_path / "data/raw").exists()
