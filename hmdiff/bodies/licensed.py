"""A user's licensed SMPL or MANO files, converted once to the clean form of a model folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from hmdiff.bodies.model_files import file_name, read_arrays, read_regressor
from hmdiff.bodies.regressors import evaluation_regressor
from hmdiff.bodies.row_orders import metro_order
from hmdiff.errors import UserError
from hmdiff.kinds import GENDERS, Kind

# Official names, whatever their case: smplx's, and those of SMPL 1.0, SMPL 1.1 and SMPLify.
_OFFICIAL = r"basicmodel_{}_lbs_10_207_0_v1\.[01]\.0"
_NAMES = {
    "smpl": {
        "neutral": rf"smpl_neutral|{_OFFICIAL.format('neutral')}",
        "male": rf"smpl_male|{_OFFICIAL.format('m')}",
        "female": rf"smpl_female|{_OFFICIAL.format('f')}",
    },
    "mano": {"neutral": "mano_right"},
}
_H36M = "J_regressor_h36m.npy"


def find_licensed(folder: Path, kind: Kind) -> dict[str, Path]:
    """The licensed model files in ``folder`` under their official names, by gender; maybe none.

    Raises:
        UserError: there are pickles in the folder, but no neutral one with an official name, or
            two for one gender.
    """
    pickles = sorted(folder.glob("*.pkl"))
    found: dict[str, Path] = {}
    for gender in GENDERS:
        pattern = rf"(?:{_NAMES[kind.model].get(gender, '(?!)')})\.pkl"
        named = [path for path in pickles if re.fullmatch(pattern, path.name, re.IGNORECASE)]
        if len(named) > 1:
            raise UserError(
                f"{named[0]}: {named[1].name} beside it is a {gender} model as well; keep one"
            )
        if named:
            found[gender] = named[0]
    if pickles and "neutral" not in found:
        strangers = [path for path in pickles if path not in found.values()]
        if strangers:
            raise UserError(f"{strangers[0]}: unknown name; rename it to {file_name(kind)}")
        raise UserError(
            f"{folder / file_name(kind)}: no such file; the neutral model is needed too"
        )
    return found


def read_licensed(
    paths: dict[str, Path], kind: Kind
) -> tuple[dict[str, dict[str, Any]], np.ndarray]:
    """Arrays of each gender under smplx's names, without chumpy, and the scored joints' regressor.

    For SMPL the regressor is the user's ``J_regressor_h36m.npy`` beside the file, in METRO's or
    in GraphCMR's row order; for MANO it follows from the model.
    """
    models = {gender: _clean(path, kind) for gender, path in paths.items()}
    template = models["neutral"]["v_template"]
    if kind.model == "mano":
        own = models["neutral"]["J_regressor"].toarray()
        return models, evaluation_regressor(kind, own, template)
    beside = paths["neutral"].parent / _H36M
    if not beside.is_file():
        raise UserError(
            f"{beside}: no such file; a licensed SMPL needs the Human3.6M joint regressor, "
            "see data/licensed/smpl/README.md"
        )
    return models, metro_order(beside, read_regressor(beside, kind), template[None])


def _clean(path: Path, kind: Kind) -> dict[str, Any]:
    arrays = read_arrays(path, kind)
    own = arrays["J_regressor"]
    own = own.toarray() if sp.issparse(own) else own
    arrays["J_regressor"] = sp.csc_matrix(own)
    return arrays | {"J": own @ arrays["v_template"], "bs_style": "lbs", "bs_type": "lrotmin"}
