"""Readers of models: pickles, folders of bodies, samplings, trained weights, checkpoints."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import torch
from fuzzing import Target
from hypothesis import strategies as st
from mutations import damaged_bytes, damaged_json
from pickle_mutations import VALUES, damaged_pickle
from scipy import sparse
from toy_bodies import write_toy_model
from toys import denoiser_params, diffusion_params, experiment_params

from hmdiff.bodies.model_files import read_folder
from hmdiff.bodies.sampling import MeshSampling
from hmdiff.bodies.unpickle import as_array, read_pickle
from hmdiff.checkpoints.files import read_state, write_state
from hmdiff.diffusion.lift import PoseToMesh
from hmdiff.diffusion.upsample import Upsampler
from hmdiff.errors import UserError
from hmdiff.kinds import HAND
from hmdiff.training.folder import RECORD, Recipe, TrainedModel, load_model, save_model


def _unpickler(root: Path) -> Target:
    path = root / "model.pkl"
    content = {"v": np.ones((3, 2)), "f": np.arange(4, dtype=">u4"), "s": "lrotmin", "p": [1, 2.5],
               "g": np.float64(3), "o": np.array(["a", None], object),
               "j": sparse.csc_matrix(np.eye(2))}  # fmt: skip

    def read() -> None:
        for value in read_pickle(path).values():
            try:
                as_array(value)
            except ValueError:  # as its callers expect
                continue

    path.write_bytes(pickle.dumps(content, protocol=2))
    return Target({path: damaged_pickle(path.read_bytes())}, read)


def _body(root: Path) -> Target:
    """A folder of the stage body_models."""
    folder = write_toy_model(root / "body", HAND)
    model, rows, facts = (folder / name for name in ("MANO_RIGHT.pkl", "regressor.npy", RECORD))
    damaged = {
        model: damaged_pickle(model.read_bytes()),
        rows: damaged_bytes(rows.read_bytes(), 128),
        facts: damaged_json(facts.read_text()),
    }
    return Target(damaged, lambda: read_folder(folder))


def _sampling(root: Path) -> Target:
    path = root / "sampling.npz"
    down = sparse.csr_matrix(np.eye(4)[:2])
    faces = [np.array([[0, 1, 2], [2, 1, 3]]), np.array([[0, 1, 1]])]
    MeshSampling(faces, [down], [sparse.csr_matrix(down.T)]).save(path)

    def read() -> None:
        sampling = MeshSampling.load(path)
        _ = sampling.down, sampling.up

    return Target({path: damaged_bytes(path.read_bytes(), 400)}, read)


def _trained(root: Path) -> Target:
    """The model folder of a training."""
    what = experiment_params(kind="hand", model="linear")
    recipe = Recipe(what, diffusion_params(steps=4), denoiser_params(), 2, (3, 5))
    model = TrainedModel(recipe, None, PoseToMesh(2, 3), Upsampler((3, 5)))
    save_model(model, root)
    record, weights = root / RECORD, root / "weights.safetensors"
    damaged = {
        record: damaged_json(record.read_text()),
        weights: damaged_bytes(weights.read_bytes(), 300),
    }
    return Target(damaged, lambda: load_model(root))


@st.composite
def _signed(draw, body: st.SearchStrategy[bytes]) -> bytes:
    """Content with the digest of a checkpoint, as only a hand can give it to a damaged one."""
    content = draw(body)
    return content + hashlib.sha256(content).digest()


def _pickled_state(value: object) -> bytes:
    """What torch writes of a value, and of a call that it would refuse to read."""
    stream = io.BytesIO()
    torch.save({"key": "", "step": 1, "x": value}, stream)
    return stream.getvalue()


def _checkpoint(root: Path) -> Target:
    path = root / "000000000001.pt"
    write_state(path, {"key": "", "step": 1, "kept": [torch.ones(2)], "words": ["a"]})
    whole = path.read_bytes()
    values = st.sampled_from([value for value in VALUES if not isinstance(value, list)])
    damaged = st.one_of(
        damaged_bytes(whole), _signed(damaged_bytes(whole[:-32])),
        _signed(values.map(_pickled_state)),
    )  # fmt: skip

    def read() -> None:
        # A stage says so in its line, and begins anew.
        if read_state(path, {"key", "step"}) is None:
            raise UserError(f"{path}: is damaged; begin anew")

    return Target({path: damaged}, read)


TARGETS = {
    "body": _body,
    "checkpoint": _checkpoint,
    "sampling": _sampling,
    "trained": _trained,
    "unpickler": _unpickler,
}
