"""Quiet, repeatable tests: one thread a process, no tracking server, the long pipeline first."""

from __future__ import annotations

import os

# Before torch, numba and BLAS are imported, here and in every process that a test starts.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
# A stage of two threads (compute.threads_alone) beside other processes: one that waits must sleep,
# where it would spin through three quarters of the stage's processor time.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DVC_NO_ANALYTICS"] = "1"
for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
    os.environ.pop(variable, None)


def pytest_collection_modifyitems(items) -> None:
    """One worker takes the pipeline (minutes) at once; the other the short tests, quickest first.

    pytest-xdist hands out whole files in this order.
    """
    last = {"test_engines": 1}
    items.sort(
        key=lambda item: (
            item.get_closest_marker("pipeline") is None,
            last.get(item.module.__name__, 0),
        )
    )
