"""A user's licensed SMPL or MANO file, converted once to the clean form of a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from hmdiff.bodies.model_files import read_arrays, read_regressor
from hmdiff.bodies.regressors import evaluation_regressor
from hmdiff.bodies.row_orders import metro_order
from hmdiff.errors import UserError
from hmdiff.kinds import Kind

_NAMES = {
    "smpl": ("SMPL_NEUTRAL.pkl", "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl"),
    "mano": ("MANO_RIGHT.pkl",),
}
_H36M = "J_regressor_h36m.npy"


def find_licensed(folder: Path, kind: Kind) -> Path | None:
    """The licensed model file in ``folder``, under one of its official names, if there is one.

    Raises:
        UserError: there are pickles in the folder, but none has an official name.
    """
    for name in _NAMES[kind.model]:
        if (folder / name).is_file():
            return folder / name
    strangers = sorted(folder.glob("*.pkl"))
    if strangers:
        raise UserError(f"{strangers[0]}: unknown name; rename it to {_NAMES[kind.model][0]}")
    return None


def read_licensed(path: Path, kind: Kind) -> tuple[dict[str, Any], np.ndarray]:
    """Arrays under smplx's names, without chumpy, and the regressor of the scored joints.

    For SMPL the regressor is the user's ``J_regressor_h36m.npy`` beside the file, in METRO's or
    in GraphCMR's row order; for MANO it follows from the model.
    """
    arrays = read_arrays(path, kind)
    template = arrays["v_template"]
    own = arrays["J_regressor"]
    own = own.toarray() if sp.issparse(own) else own
    arrays["J_regressor"] = sp.csc_matrix(own)
    arrays |= {"J": own @ template, "bs_style": "lbs", "bs_type": "lrotmin"}
    if kind.model == "mano":
        return arrays, evaluation_regressor(kind, own, template)
    beside = path.parent / _H36M
    if not beside.is_file():
        raise UserError(
            f"{beside}: no such file; a licensed SMPL needs the Human3.6M joint regressor, "
            "see data/licensed/smpl/README.md"
        )
    return arrays, metro_order(beside, read_regressor(beside, kind), template[None])
