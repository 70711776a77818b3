"""HMDiff: distribution-aligned diffusion for human mesh recovery, as a reproducible pipeline."""

import time

__version__ = "0.1.0"
STARTED = time.monotonic()  # seconds, of a clock that nobody sets
