"""What `hmdiff measure` prints is what was used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hmdiff.machine import describe, record
from hmdiff.resources import disk_bytes, run_measured

HOLD = "import time; block = bytearray({size}); time.sleep(2)"


def test_peak_memory_is_that_of_all_processes_together():
    child = HOLD.format(size=150_000_000)
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    both = f"block = bytearray(100_000_000); {parent}"
    cost = run_measured([sys.executable, "-c", both])
    assert cost.code == 0
    assert 250e6 < cost.peak_bytes < 400e6
    assert cost.seconds >= 2


def test_a_failing_command_keeps_its_status():
    assert run_measured([sys.executable, "-c", "raise SystemExit(7)"]).code == 7


def test_cpu_time_counts_the_work_of_grandchildren():
    work = "sum(range(20_000_000))"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])"
    idle = run_measured([sys.executable, "-c", "pass"])
    assert run_measured([sys.executable, "-c", parent]).cpu_seconds > idle.cpu_seconds + 0.1


def test_a_file_of_two_names_takes_its_place_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(bytes(1_000_000))
    once = disk_bytes([tmp_path])
    (tmp_path / "two").hardlink_to(tmp_path / "a" / "one")
    assert disk_bytes([tmp_path]) == once
    assert 1_000_000 <= once < 1_100_000


def test_records_are_written_as_json_and_csv(tmp_path):
    out = tmp_path / "cost.json"
    describe(out, [record("wall", [3.0, 1.0, 2.0], "min")], command="true")
    (row,) = json.loads(out.read_text())["records"]
    assert (row["value"], row["low"], row["high"], row["n"]) == (2.0, 1.0, 3.0, 3)
    head, line = out.with_suffix(".csv").read_text().splitlines()
    assert head.startswith("name,value,unit") and line.startswith("wall,2.0,min")


def test_the_command_measures_and_writes(tmp_path):
    out = Path(tmp_path, "cost.json")
    done = subprocess.run(
        ["hmdiff", "measure", "--out", str(out), "--", sys.executable, "-c", "print('ran')"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert "ran" in done.stdout and "peak memory" in done.stdout
    assert {row["name"] for row in json.loads(out.read_text())["records"]} == {
        "wall", "cpu", "peak memory",
    }  # fmt: skip
