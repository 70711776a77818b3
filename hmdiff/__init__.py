"""HMDiff: distribution-aligned diffusion for human mesh recovery, as a reproducible pipeline."""

__version__ = "0.1.0"
