"""The profiles name options that Snakemake has, and hand every stage's requests on."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from ruamel.yaml import YAML
from slurm_cluster import lacking
from snakemake.cli import get_argument_parser

ROOT = Path(__file__).resolve().parent.parent
PROFILES = sorted(path.parent.name for path in ROOT.glob("profiles/*/config.yaml"))
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
# Of an executor that is not in the lock: with it, its own options are looked at as well.
PLUGINS = {"slurm": "slurm", "kubernetes": "cluster-generic"}


def profile(name: str) -> dict:
    return YAML(typ="safe").load((ROOT / "profiles" / name / "config.yaml").read_text())


@cache
def options() -> set[str]:
    parser = get_argument_parser(profiles=None)
    return {word for action in parser._actions for word in action.option_strings}


def unknown(name: str) -> set[str]:
    """Keys that are no option, of a plugin only where that is installed."""
    prefix = f"{PLUGINS.get(name, name)}-"
    installed = any(option.startswith(f"--{prefix}") for option in options())
    return {
        key
        for key in profile(name)
        if f"--{key}" not in options() and (installed or not key.startswith(prefix))
    }


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_names_options_that_exist(name):
    assert unknown(name) == set()
    assert profile(name)["rerun-triggers"] == ["mtime"], "DVC says what has changed"


def test_an_option_that_does_not_exist_is_found(monkeypatch):
    monkeypatch.setitem(globals(), "profile", lambda _: {"jobs": 1, "retires": 1})
    assert unknown("slurm") == {"retires"}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_says_what_it_asks_a_cluster_for(name):
    meta = STAGES[name].get("do", STAGES[name])["meta"]
    assert set(meta) == {"threads", "mem_mb", "gpu"}
    one = (1, "${compute.processes}")
    assert meta["gpu"] in (0, *one), "a process uses one device"
    assert meta["gpu"] in (0, 1) or meta["threads"] == meta["gpu"]


@pytest.mark.parametrize("gpus", [0, 1])
def test_slurm_is_asked_for_processors_memory_and_gpus(gpus):
    plugin = "snakemake_executor_plugin_slurm"
    sbatch = pytest.importorskip(f"{plugin}.submit_string").get_submit_command
    gres = pytest.importorskip(f"{plugin}.utils").set_gres_string
    resources = Resources(mem_mb=3000, gpu=gpus, runtime=60)
    job = SimpleNamespace(threads=4, resources=resources)
    names = ("run_uuid", "slurm_logfile", "comment_str", "account", "partition", "workdir")
    words = f"{sbatch(job, dict.fromkeys(names, ''))} {gres(job)}".split()
    assert "--cpus-per-task=4" in words
    assert words[words.index("--mem") + 1] == "3000"
    assert [word for word in words if "gpu" in word] == ["--gpus=1"] * gpus


class Resources(dict):
    """By key and by name, as Snakemake has them."""

    __getattr__ = dict.__getitem__


def test_where_slurm_is_not_installed_a_line_says_how_to(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    line = lacking()
    assert "slurmctld" in line and "apt-get install" in line and "\n" not in line


KUBECTL = """\
#!/bin/sh
case $1 in
    create) cat > manifest.yaml; echo job.batch/hmdiff-x ;;
    get) echo "$STATE" ;;
esac
"""


@pytest.fixture
def kubectl(tmp_path, monkeypatch) -> Path:
    """A folder in which a stand-in of kubectl keeps what it is given."""
    program = tmp_path / "bin/kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kubernetes(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [ROOT / "profiles/kubernetes" / program, *arguments], text=True, check=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    return done.stdout.strip()


def test_kubernetes_is_asked_for_processors_memory_and_gpus(kubectl):
    assert kubernetes("submit", "4", "3000", "1", "/x/job.sh") == "job.batch/hmdiff-x"
    pod = YAML(typ="safe").load((kubectl / "manifest.yaml").read_text())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["requests"] == {"cpu": "4", "memory": "3000M"}
    assert container["resources"]["limits"] == {"memory": "3000M", "nvidia.com/gpu": "1"}
    assert container["command"][-1] == "/x/job.sh"
    mounted = {volume["name"] for volume in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize(
    "state, said",
    [
        ("hmdiff-x", "running"), ("hmdiff-xComplete", "success"), ("hmdiff-xFailed", "failed"),
        ("hmdiff-xSuccessCriteriaMet Complete", "success"), ("", "failed"),
    ],
)  # fmt: skip
def test_kubernetes_states_are_read(kubectl, monkeypatch, state, said):
    monkeypatch.setenv("STATE", state)
    assert kubernetes("status", "job.batch/hmdiff-x") == said
