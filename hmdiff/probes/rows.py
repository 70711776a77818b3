"""The regressions of a probe: what each is given, and what it is fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hmdiff.extractor.features import FeatureFiles
from hmdiff.params.probes import ProbeParams
from hmdiff.probes.maps import Fitted, fit_kernel, fit_linear, vertex_errors

HELD_OUT = 10  # every tenth training row chooses penalties and is not fitted


@dataclass(frozen=True)
class Row:
    """One regression.

    Attributes:
        inputs: of INPUTS, side by side.
        added: it is fitted to what the control, the first row, leaves, and adds to it; so small
            penalties of few inputs and large ones of many go together.
    """

    inputs: tuple[str, ...]
    form: Literal["linear", "kernel"]
    added: bool = False

    @property
    def name(self) -> str:
        words = " and ".join(INPUTS[name] for name in self.inputs)
        return f"{words}, added to the control" if self.added else words


# Fields of features files, in words.
INPUTS = {
    "centre": "U's mean", "peak": "u_c", "spread": "U's spread", "image_feature": "f_I",
    "joints": "the true joints",
}  # fmt: skip

ROWS = (
    Row(("centre",), "linear"),
    Row(("image_feature",), "linear"),
    Row(("peak", "spread"), "linear", added=True),
    Row(("image_feature",), "linear", added=True),
    Row(("centre",), "kernel", added=True),
    Row(("centre", "image_feature"), "kernel", added=True),
    # No image gives them: what is left is what U's errors do not explain.
    Row(("joints",), "linear"),
)


@dataclass(frozen=True)
class Probed:
    """What one row leaves: mean vertex errors in metres, and the held-out rows' choice."""

    row: Row
    training: Tensor  # (n_train,) of the rows that it was fitted to
    validation: Tensor  # (n_val,)
    chosen: dict[str, float]


def probe(
    training: FeatureFiles,
    validation: FeatureFiles,
    rows: tuple[Tensor, Tensor],
    what: ProbeParams,
) -> Iterator[Probed]:
    """Fit every one of ROWS; ``rows`` are the training and validation rows that have a mesh.

    Of the training rows at most ``what.rows``, evenly spaced, are taken.
    """
    count = min(what.rows, len(rows[0]))
    taken = rows[0][torch.arange(count) * len(rows[0]) // count]
    held = torch.arange(count) % HELD_OUT == 0
    true = [_read(files, ("coarse",), r) for files, r in ((training, taken), (validation, rows[1]))]
    control: list[Tensor] = []
    for row in ROWS:
        x, new = (
            _read(files, row.inputs, r) for files, r in ((training, taken), (validation, rows[1]))
        )
        base = control if row.added else [torch.zeros(1), torch.zeros(1)]
        fitted = _fit(row, x, true[0] - base[0], held, what)
        found = [fitted.predict(x) + base[0], fitted.predict(new) + base[1]]
        control = control or found
        errors = [vertex_errors(a, b) for a, b in zip(found, true, strict=True)]
        yield Probed(row, errors[0][~held], errors[1], fitted.chosen)


def _fit(row: Row, x: Tensor, y: Tensor, held: Tensor, what: ProbeParams) -> Fitted:
    if row.form == "linear":
        return fit_linear(x, y, held, what.penalties)
    return fit_kernel(x, y, held, what.penalties, what.widths, what.landmarks)


def _read(files: FeatureFiles, names: tuple[str, ...], rows: Tensor) -> Tensor:
    """Fields of features files side by side, (n, D) float32."""
    return torch.cat([files.read(name, rows).float().flatten(1) for name in names], dim=1)


def by_dataset(files: FeatureFiles, rows: Tensor) -> Mapping[str, Tensor]:
    """Which of ``rows`` are of each data set, as numbers into them."""
    names = [files.names[row] for row in rows.tolist()]
    return {
        name: torch.tensor([at for at, own in enumerate(names) if own == name])
        for name in dict.fromkeys(names)
    }
