"""Damaged and hostile files are read, or refused in one line; nothing else happens.

A few cases of each reader run with all tests, always the same ones. `make fuzz` takes more than
100,000, other ones each time: HMDIFF_FUZZ is their number a reader, HMDIFF_FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import warnings
from collections import Counter
from unittest.mock import patch

import fuzz_archives
import fuzz_hdf5
import fuzz_layouts
import fuzz_models
import fuzz_texts
import pytest
from fuzzing import bounded, watched
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pickle_mutations import RAN

from hmdiff.errors import UserError

CASES = int(os.environ.get("HMDIFF_FUZZ", "12"))
BATCH = 500  # that share a limit of memory: what Python has not given back yet adds up
SEED = int(os.environ.get("HMDIFF_FUZZ_SEED", "0"))
MODULES = (fuzz_archives, fuzz_hdf5, fuzz_layouts, fuzz_models, fuzz_texts)
TARGETS = {name: make for module in MODULES for name, make in module.TARGETS.items()}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, limits memory")
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_damaged_file_is_read_or_refused_in_one_line_and_does_nothing_else(
    name, tmp_path, monkeypatch
):
    print(f"HMDIFF_FUZZ={CASES} HMDIFF_FUZZ_SEED={SEED}")
    root = tmp_path.resolve()
    with patch("time.time", lambda: 1.7e9):  # which archives hold: the same bytes each time
        target = TARGETS[name](root)
    whole = {path: path.read_bytes() for path in target.damaged}
    outcomes: Counter[str] = Counter()
    (root / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(root / "tmp"))
    monkeypatch.chdir(root)

    how = settings(
        deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    cases = st.one_of(
        [st.tuples(st.just(path), damaged) for path, damaged in sorted(target.damaged.items())]
    )

    def run(case) -> None:
        path, content = case
        path.write_bytes(content)
        try:
            with watched(root):
                target.read()
            outcomes["read"] += 1
        except UserError as error:
            outcomes["refused"] += 1
            check(str(error), str(root))
        finally:
            path.write_bytes(whole[path])
        assert not (root / RAN).exists()

    target.read()  # what is valid
    for first in range(0, CASES, BATCH):
        count = min(BATCH, CASES - first)
        gc.collect()
        with warnings.catch_warnings(), bounded():
            warnings.simplefilter("ignore")
            seed(SEED + first)(settings(how, max_examples=count)(given(cases)(run)))()
    assert outcomes.total() >= CASES
    assert outcomes["refused"] or CASES < 100  # else nothing was damaged
    print(f"{name}: {dict(outcomes)}")


def check(line: str, root: str) -> None:
    """One line that names the file and what to do."""
    assert "\n" not in line and len(line) < 20_000, line
    assert root in line and ";" in line, line
