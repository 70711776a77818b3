"""`hmdiff verify` tells a rebuild that is the same from one that is close, and both from others."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from hmdiff.cli import app
from hmdiff.errors import UserError
from hmdiff.verify import compare, damaged_objects, rebuild

RECORD = {
    "table": 4, "row": "Ours", "dataset": "3dpw", "source": "rendered", "metric": "MPJPE",
    "measured": 100.0, "ci_low": 90.0, "ci_high": 112.0, "quoted": False, "commit": "a",
}  # fmt: skip
OUTS = {
    "models/train/image": "aa.dir", "runs/speed.json": "bb", "results/table4.json": "cc",
    "results/metrics.json": "dd",
}  # fmt: skip


def write(folder: Path, outs: dict[str, str] = OUTS, mean_mm: float = 1.25, **changes) -> Path:
    """A project's lock and results."""
    (folder / "results").mkdir(parents=True)
    listed = [{"path": path, "md5": digest} for path, digest in outs.items()]
    with open(folder / "dvc.lock", "w") as file:
        YAML(typ="safe").dump({"schema": "2.0", "stages": {"all": {"outs": listed}}}, file)
    speed = RECORD | {"metric": "FPS", "measured": changes.pop("fps", 3.0)}
    unmeasured = RECORD | {"row": "FastMETRO", "measured": None, "quoted": True}
    records = [RECORD | changes, speed, unmeasured]
    (folder / "results/table4.json").write_text(json.dumps(records))
    sampling = {"mean_mm": mean_mm, "levels": [6890, 431], "body_model": "stand-in"}
    (folder / "results/sampling_body.json").write_text(json.dumps(sampling))
    return folder


def test_a_rebuild_of_the_same_content_is_exact(tmp_path):
    verdict = compare(write(tmp_path / "a"), write(tmp_path / "b"))
    assert verdict.exact and verdict.close
    assert verdict.same == sorted(OUTS) and verdict.changing == []
    assert verdict.figures == 4  # an error, the sampling's mean and its two levels


def test_what_tells_times_or_commits_may_differ(tmp_path):
    outs = OUTS | {"runs/speed.json": "x", "results/table4.json": "y"}
    verdict = compare(write(tmp_path / "a"), write(tmp_path / "b", outs, fps=9.0, commit="b"))
    assert verdict.exact and verdict.close
    assert verdict.changing == ["results/table4.json", "runs/speed.json"]


@pytest.mark.parametrize(
    ("changes", "close"),
    [
        ({"measured": 111.9}, True),
        ({"measured": 112.1}, False),
        ({"measured": 89.0}, False),
        ({"mean_mm": 1.2509}, True),
        ({"mean_mm": 1.252}, False),
        ({"row": "Other"}, False),
    ],
)
def test_other_weights_are_named_and_figures_have_their_tolerance(tmp_path, changes, close):
    outs = OUTS | {"models/train/image": "other.dir"}
    verdict = compare(write(tmp_path / "a"), write(tmp_path / "b", outs, **changes))
    assert verdict.differing == ["models/train/image"] and not verdict.exact
    assert verdict.close == close
    said = "\n".join(verdict.lines())
    assert "differs: models/train/image" in said
    assert said.count("outside: ") == (not close)


def test_an_output_that_one_side_lacks_differs(tmp_path):
    fewer = {path: digest for path, digest in OUTS.items() if path != "models/train/image"}
    for name, (ours, theirs) in {"c": (OUTS, fewer), "d": (fewer, OUTS)}.items():
        verdict = compare(write(tmp_path / name / "a", ours), write(tmp_path / name / "b", theirs))
        assert verdict.differing == ["models/train/image"]


def test_a_project_without_a_lock_is_one_clear_line(tmp_path):
    write(tmp_path / "a")
    with pytest.raises(UserError, match=r"b/dvc\.lock: records no output; run `dvc repro` there"):
        compare(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(("changes", "codes"), [({}, (0, 1)), ({"measured": 130.0}, (1, 1))])
def test_the_command_fails_where_figures_do_and_on_demand_where_content_does(
    tmp_path, monkeypatch, changes, codes
):
    monkeypatch.chdir(write(tmp_path / "a"))
    write(tmp_path / "b", OUTS | {"models/train/image": "other.dir"}, **changes)
    for options, code in zip(([], ["--exact"]), codes, strict=True):
        done = CliRunner().invoke(app, ["verify", "--rebuilt", "../b", *options])
        assert done.exit_code == code, done.output
        assert "differs: models/train/image" in done.output


STAGE = """\
stages:
  a:
    cmd: cp in.txt out.txt
    deps: [in.txt]
    outs: [out.txt]
"""


@pytest.fixture
def project(tmp_path) -> Path:
    """A committed and run DVC project of one stage."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dvc.yaml").write_text(STAGE)
    (folder / "in.txt").write_text("1\n")
    user = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for command in (
        ("git", "init", "-q"),
        ("dvc", "init", "-q"),
        ("dvc", "repro", "-q"),
        ("git", "add", "."),
        ("git", *user, "commit", "-qm", "all"),
    ):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def test_a_rebuild_runs_the_last_commit_from_an_empty_cache(project, tmp_path):
    (project / "in.txt").write_text("not committed")
    rebuild(project, tmp_path / "clone")
    assert (tmp_path / "clone/out.txt").read_text() == "1\n"
    assert compare(project, tmp_path / "clone").same == ["out.txt"]


def test_a_damaged_file_of_the_cache_is_found_which_dvc_believes(project):
    cache = project / ".dvc/cache"
    assert damaged_objects(cache) == []
    (path,) = cache.glob("files/md5/??/*")
    path.chmod(0o644)
    path.write_text("2\n")
    path.chmod(0o444)
    assert damaged_objects(cache) == [path]
    shutil.rmtree(cache)
    assert damaged_objects(cache) == []


def test_every_committed_result_can_be_held_against_a_rebuild():
    """Table 7, which quotes nothing and has joints, as well."""
    root = Path(__file__).parent.parent
    verdict = compare(root, root)
    assert not verdict.differing and not verdict.outside
    tables = [json.loads(path.read_text()) for path in (root / "results").glob("table*.json")]
    measured = [row for table in tables for row in table if row.get("ci_low") is not None]
    wanted = [row for row in measured if row["metric"] != "FPS" and not row.get("quoted")]
    assert verdict.figures >= len(wanted) and {row["table"] for row in wanted} == set(range(1, 8))
