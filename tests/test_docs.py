"""The documentation tells the truth: its commands, messages, parameters, files and tables."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paper_map
import pytest
from doc_commands import PAGES, ROOT, added, blocks, check, is_parameter, params
from doc_runs import ELSEWHERE, failed
from engines import commit, copy_project, run
from ruamel.yaml import YAML
from toy_bodies import write_toy_model

from hmdiff import contact_sheet, diffusion
from hmdiff.errors import UserError
from hmdiff.kinds import BODY
from hmdiff.params import load_params

COMMANDS = sorted({command for block in blocks("sh") for command in block.commands})
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in PAGES}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_is_shown_exists_with_its_options_and_targets(command):
    assert check(command) is None


@pytest.mark.parametrize(
    "command",
    [
        "hmdiff tabel 1",
        "hmdiff doctor --fast",
        "hmdiff data fetsh 3dpw",
        "hmdiff data fetch 3dpw --accept",
        "dvc repo",
        "dvc repro table8",
        "dvc repro train@imagenet",
        "dvc exp run -S reverse.gama=1 table5",
        "snakemake --cors 8",
        "snakemake trian",
        "snakemake --workflow-profile profiles/none all",
        "make table",
        "python -m hmdiff.nothing",
        "hmdif doctor",
    ],
)
def test_a_command_that_does_not_exist_is_found(command):
    assert check(command) is not None


def test_commands_that_are_run_elsewhere_are_shown():
    assert set(ELSEWHERE) <= set(COMMANDS)


def test_marked_blocks_run_as_they_are_written(tmp_path):
    """In a copy of the project, without data or results; each command once, page by page."""
    copy_project(tmp_path)
    commit(tmp_path)
    marked = [block for block in blocks("sh") if block.run]
    assert {block.page for block in marked} >= {"quickstart.md", "real_data.md"}
    commands = dict.fromkeys(command for block in marked for command in block.commands)
    assert failed(tmp_path, "\n".join(["set -euxo pipefail", *commands])) is None
    assert load_params(tmp_path / "params.yaml") == load_params(ROOT / "params.yaml")


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    write_toy_model(tmp_path / "models/body", BODY)
    monkeypatch.chdir(tmp_path)
    (block,) = [block for block in blocks("python") if block.page == "your_method.md"]
    exec(compile(block.text, block.page, "exec"), {})
    assert "PA-MPJPE" in capsys.readouterr().out


def test_what_the_examples_add_to_the_parameters_is_valid_and_makes_stages(tmp_path):
    tree = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert set(added()) == {"datasets", "standins", "evaluations", "sweeps", "probes"}
    for section, entries in added().items():
        assert not set(entries) & set(tree[section]), "the example is no longer new"
        tree[section].update(entries)
    copy_project(tmp_path)
    with open(tmp_path / "params.yaml", "w") as file:
        YAML(typ="safe").dump(tree, file)
    load_params(tmp_path / "params.yaml")
    for name in ("dvc.yaml", "hmdiff/tables/layout.yaml"):
        merge(tmp_path / name)
    shutil.copytree(ROOT / "data/licensed/3dpw", tmp_path / "data/licensed/mine")
    listed = run(tmp_path, "dvc", "stage", "list", "--name-only")
    wanted = {"acquire@mine", "prepare@mine", "evaluate@3dpw_u_c_without_as"}
    wanted |= {"sweep@pull", "probe@body"}
    assert wanted <= set(listed.split())


def merge(path: Path) -> None:
    """Lists and mappings of add_row.md's examples that belong in ``path``, added to it."""
    tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    examples = [YAML(typ="safe").load(block.text) for block in blocks("yaml")]
    (example,) = [one for one in examples if set(one) <= set(tree)]
    if "stages" in example:
        ((name, stage),) = example["stages"].items()
        tree["stages"][name]["deps"] += stage["deps"]
    else:
        ((number, rows),) = example.items()
        tree[number].update(rows)
    with open(path, "w") as file:
        YAML(typ="safe").dump(tree, file)


def templates() -> list[str]:
    """Every text in the code, with ``...`` where something is put in."""
    found = []
    for path in (ROOT / "hmdiff").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "..." for v in node.values)
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return [re.sub(r"\.{4,}", "...", text) for text in found]


MESSAGES = re.findall(
    r"^\| `([^`]+(?:`[^`|]+`[^`|]+)*)` \|", TEXTS["troubleshooting.md"].partition("## Engines")[0],
    re.MULTILINE,
)  # fmt: skip


@pytest.fixture(scope="module")
def code_texts() -> list[str]:
    return templates()


@pytest.mark.parametrize("message", MESSAGES)
def test_every_quoted_message_is_one_that_the_code_gives(message, code_texts):
    wanted = re.sub(r"\.{4,}", "...", message)
    assert any(wanted in text for text in code_texts)


def test_there_are_messages_and_an_invented_one_is_found(code_texts):
    assert len(MESSAGES) > 20
    assert not any("...: the moon is not full; wait" in text for text in code_texts)


@pytest.mark.parametrize("page", TEXTS)
def test_parameters_that_are_named_exist(page):
    sections = set(params()) - {"preset", "seed"}
    for name in re.findall(r"`([a-z_]+\.[\w.*]+)(?:: [^`]*)?`", TEXTS[page]):
        section, _, rest = name.partition(".")
        if section in sections and rest.partition(".")[0] not in ("NAME", "yaml", "py", "h5"):
            assert is_parameter(name), f"{name} is not in params.yaml"


@pytest.mark.parametrize("page", TEXTS)
def test_files_of_the_project_that_are_named_exist(page):
    names = re.findall(
        r"`((?:hmdiff|docs|tests|presets|profiles|workflow)/[\w./]+|[\w.]+\.(?:lock|yml))`",
        TEXTS[page],
    )
    for name in names:
        if "NAME" not in name:
            assert (ROOT / name).exists(), name


def test_every_preset_is_described():
    for name in ("README.md", "parameters.md"):
        for preset in (ROOT / "presets").glob("*.yaml"):
            assert f"| `{preset.stem}` |" in TEXTS[name], f"{name} lacks preset {preset.stem}"


def test_every_section_of_the_parameters_is_described():
    for section in params():
        assert f"`{section}`" in TEXTS["parameters.md"] or section == "preset", section


def test_every_stage_is_described():
    named = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage in named:
        name = re.sub(r"^table\d$", "table1", stage)
        assert f"`{name}`" in TEXTS["architecture.md"], stage
        assert re.search(rf"`{name}[`@]", TEXTS["README.md"]), stage


def test_the_paper_map_is_that_of_the_marks_in_the_code():
    shown = TEXTS["paper_map.md"].partition(paper_map.BEGIN)[2].partition(paper_map.END)[0]
    assert shown.strip() == paper_map.table().strip(), "renew it: python tests/paper_map.py"


def test_marks_are_read_as_they_are_written():
    assert paper_map.marks("# Alg. 1 lines 8 and 11") == ["Alg. 1 line 8", "Alg. 1 line 11"]
    assert paper_map.marks("(Eq. 6-7, Algorithm 1)") == ["Eq. 6", "Eq. 7"]
    assert paper_map.marks("(Song et al. 2021, Eq. 16)") == []


def test_the_notation_is_that_of_the_code():
    names = re.findall(r"^``(.+?)``", diffusion.__doc__, re.MULTILINE)
    assert len(names) > 10
    for name in names:
        assert f"| `{name}`" in TEXTS["notation.md"], name


def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.glob("*.html"))
    assert len(pages) > len(PAGES) - 1
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(
            r"<(?:script|img|iframe)[^>]*src=\"https?:|<link[^>]*stylesheet[^>]*\"http", text
        )


def test_pictures_are_small():
    for picture in (ROOT / "docs/pictures").iterdir():
        assert picture.stat().st_size < 200_000, picture.name


class Prepared:
    """A prepared file of two grey test images, real or rendered as its name says."""

    def __init__(self, path: Path) -> None:
        self.attrs = {"dataset": "3dpw", "source": path.stem}

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def indices(self, split: str) -> np.ndarray:
        return np.arange(2)

    def image(self, index: int, size: int) -> np.ndarray:
        return np.full((size, size, 3), 100 + index, np.uint8)


def test_a_contact_sheet_shows_rendered_images_under_a_caption_and_no_real_ones(monkeypatch):
    monkeypatch.setattr(contact_sheet, "PreparedFile", Prepared)
    sheet = np.asarray(contact_sheet.contact_sheet([Path("rendered.h5")] * 2, columns=2))
    tile, line = contact_sheet.TILE, contact_sheet.LINE
    assert sheet.shape == (2 * (tile + line), 2 * tile, 3)
    assert (sheet[line : line + tile, tile:] == 101).all()
    assert (sheet[:line] < 128).any(), "the caption is empty"
    with pytest.raises(UserError, match="forbids"):
        contact_sheet.contact_sheet([Path("real.h5")], columns=2)
