"""The command line: quick to start; what a user can mend is one clear line and exit code 2."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from hmdiff import cli
from hmdiff.cli import stages
from hmdiff.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def hmdiff(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "hmdiff"), *arguments]
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True, check=False)


def test_help_lists_every_stage_of_the_pipeline():
    shown = hmdiff("--help").stdout
    for stage in (ROOT / "hmdiff/stages").glob("[a-z]*.py"):
        assert stage.stem.replace("_", "-") in shown


def test_help_needs_no_heavy_library():
    code = (
        "import sys, hmdiff.cli; "
        "print({'torch', 'mlflow', 'numpy', 'pandas', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_stage_collects_garbage_once_it_is_imported_or_was_not():
    with pytest.raises(UserError), stages._without_collection():
        assert not gc.isenabled()
        raise UserError("params.yaml is damaged")
    gc.unfreeze()
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["tabel", "1"], "No such command 'tabel'"),
        (["table", "7", "--evaluations", "x", "--out", "y"], "less than or equal to 6"),
        (["body-models", "star", "--licensed", "x", "--out", "y"], "star"),
        (["preset", "huge"], "unknown; one of"),
        ([], "Missing command"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_code_2(arguments, reason):
    done = hmdiff(*arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert reason in done.stderr


class Broken:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError("data/a.h5: image 0: is cut; run prepare@a")


def test_an_error_in_a_loading_process_is_one_line_without_its_traceback(monkeypatch, capsys):
    def read(**_):
        list(DataLoader(Broken(), num_workers=1))

    monkeypatch.setattr(cli, "app", read)
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    error = capsys.readouterr().err
    assert error == "hmdiff: error: data/a.h5: image 0: is cut; run prepare@a\n"


def test_outside_a_project_the_missing_parameters_are_named(tmp_path):
    done = hmdiff("preset", "smoke", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
