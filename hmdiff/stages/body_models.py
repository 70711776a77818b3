"""Stage ``body_models``: the open stand-in, or the user's licensed model in clean files."""

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
    """Write ``out``: a pickle for each gender, regressor.npy (J, V) and model.json.

    Args:
        model: "smpl" or "mano".
        licensed: folder where a user may have placed the licensed model; of SMPL's genders the
            neutral one is a must.
    """
    kind = MODELS[model]
    paths = find_licensed(licensed, kind)
    if paths:
        arrays, regressor = read_licensed(paths, kind)
        files = {gender: {"file": path.name, "sha256": sha256(path)}
                 for gender, path in paths.items()}  # fmt: skip
        facts = {"source": "licensed", "files": files}
    else:
        # One thread: the sums of a parallel matrix product depend on the number of threads.
        with threadpool_limits(1):
            rng = np.random.default_rng(params.seed)
            arrays = _BUILDERS[model](read_makehuman(), params.body_models[model], rng)
            own = arrays["neutral"]["J_regressor"].toarray()
            regressor = evaluation_regressor(kind, own, arrays["neutral"]["v_template"])
        facts = {"source": "stand-in", "assets": "MakeHuman (CC0)", "seed": params.seed}
    write_folder(out, kind, arrays, regressor, facts)
    genders = " and ".join(arrays)
    print(f"{out}: {facts['source']} {model} ({genders}), {kind.vertices} vertices")
