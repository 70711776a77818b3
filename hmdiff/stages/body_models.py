"""Stage ``body_models``: the open stand-in, or the user's licensed model in a clean file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from hmdiff.bodies.assets import read_makehuman
from hmdiff.bodies.licensed import find_licensed, read_licensed
from hmdiff.bodies.mano import build_mano
from hmdiff.bodies.model_files import write_folder
from hmdiff.bodies.regressors import evaluation_regressor
from hmdiff.bodies.smpl import build_smpl
from hmdiff.files import sha256
from hmdiff.kinds import MODELS
from hmdiff.params import Params

_BUILDERS = {"smpl": build_smpl, "mano": build_mano}


def run(model: str, licensed: Path, out: Path, params: Params) -> None:
    """Write ``out``: the model's pickle, regressor.npy (J, V) and model.json.

    Args:
        model: "smpl" or "mano".
        licensed: folder where a user may have placed the licensed model.
    """
    kind = MODELS[model]
    path = find_licensed(licensed, kind)
    if path is not None:
        arrays, regressor = read_licensed(path, kind)
        facts = {"source": "licensed", "file": path.name, "sha256": sha256(path)}
    else:
        # One thread: the sums of a parallel matrix product depend on the number of threads.
        with threadpool_limits(1):
            rng = np.random.default_rng(params.seed)
            arrays = _BUILDERS[model](read_makehuman(), params.body_models[model], rng)
            own = arrays["J_regressor"].toarray()
            regressor = evaluation_regressor(kind, own, arrays["v_template"])
        facts = {"source": "stand-in", "assets": "MakeHuman (CC0)", "seed": params.seed}
    write_folder(out, kind, arrays, regressor, facts)
    print(f"{out}: {facts['source']} {model}, {kind.vertices} vertices, {kind.faces} faces")
