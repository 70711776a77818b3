"""Records of runs for comparison in MLflow's UI; a failure here warns and never ends a stage.

The store is ``mlflow.db`` in the working directory, or what MLFLOW_TRACKING_URI names. MLflow
itself, which takes seconds, is imported when something is recorded.
"""

from hmdiff.tracking.runs import Input, Run, dotted, log_run
from hmdiff.tracking.stopped import StoppedTraining
from hmdiff.tracking.store import DEFAULT_STORE, ENVIRONMENT, SQLITE, tracking_uri

__all__ = [
    "DEFAULT_STORE", "ENVIRONMENT", "SQLITE", "Input", "Run", "StoppedTraining", "dotted",
    "log_run", "tracking_uri",
]  # fmt: skip
