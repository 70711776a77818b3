"""Model folders: one pickle that smplx reads, the joint regressor, and where both come from."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from hmdiff.bodies.unpickle import as_array, read_pickle
from hmdiff.errors import UserError
from hmdiff.files import ARRAY_DAMAGE, atomic_directory, read_json, write_json
from hmdiff.kinds import MODELS, Kind

FILE_NAMES = {"smpl": "SMPL_{}.pkl", "mano": "MANO_RIGHT.pkl"}  # smplx's; {}: the gender
_BETAS = 10


def file_name(kind: Kind, gender: str = "neutral") -> str:
    """Name of a gender's pickle in a model folder, by which smplx finds it; a hand has none."""
    return FILE_NAMES[kind.model].format(gender.upper())


def shapes(kind: Kind) -> dict[str, tuple[int, ...]]:
    """Shape that each array of a model file of this kind must have."""
    joints = kind.parameters // 3
    arrays: dict[str, tuple[int, ...]] = {
        "v_template": (kind.vertices, 3),
        "f": (kind.faces, 3),
        "shapedirs": (kind.vertices, 3, _BETAS),
        "posedirs": (kind.vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, kind.vertices),
        "kintree_table": (2, joints),
        "weights": (kind.vertices, joints),
    }
    if kind.model == "mano":
        numbers = kind.parameters - 3
        arrays |= {"hands_mean": (numbers,), "hands_components": (numbers, numbers)}
    return arrays


def read_arrays(path: Path, kind: Kind) -> dict[str, Any]:
    """The arrays of a model file, checked; a shape space beyond 10 components is cut there.

    Raises:
        UserError: the file is not a model of this kind; the line names the key.
    """
    content = read_pickle(path)
    arrays: dict[str, Any] = {}
    for key, shape in shapes(kind).items():
        if key not in content:
            raise UserError(
                f"{path}: {key} is missing; this is not a {kind.model.upper()} model file"
            )
        try:
            array = as_array(content[key])
        except ValueError as error:
            raise UserError(f"{path}: {key} {error}; use the official file") from None
        if sp.issparse(array) and key != "J_regressor":
            raise UserError(f"{path}: {key} is a sparse matrix; use the official file")
        if key == "shapedirs" and isinstance(array, np.ndarray) and array.ndim == 3:
            array = array[..., :_BETAS]
        found = getattr(array, "shape", None)
        if found != shape:
            raise UserError(
                f"{path}: {key} has shape {found} instead of {shape}; "
                f"use the file of the {kind.model.upper()} model"
            )
        arrays[key] = array
    _check_values(path, arrays, kind)
    return arrays


def write_folder(
    folder: Path,
    kind: Kind,
    arrays: Mapping[str, Mapping[str, Any]],
    regressor: np.ndarray,
    facts: Mapping,
) -> None:
    """Write the models' pickles, ``regressor.npy`` (J, V) float64 and ``model.json``, at once.

    ``arrays`` holds those of each gender, "neutral" among them; the regressor serves all.
    """
    with atomic_directory(folder) as temporary:
        for gender, content in arrays.items():
            with open(temporary / file_name(kind, gender), "wb") as file:
                pickle.dump(dict(content), file, protocol=2)
        np.save(temporary / "regressor.npy", regressor.astype(np.float64))
        write_json(temporary / "model.json", {"model": kind.model, **facts})


def read_folder(
    folder: Path, gender: str = "neutral"
) -> tuple[Kind, dict[str, Any], np.ndarray, dict[str, Any]]:
    """Kind, arrays, regressor and facts of a folder that :func:`write_folder` wrote.

    Raises:
        UserError: a file of it is missing or damaged, or it has no model of this gender.
    """
    facts = read_json(folder / "model.json")
    name, source = (
        (facts.get("model"), facts.get("source")) if isinstance(facts, dict) else (None, None)
    )
    if name not in tuple(MODELS) or source not in ("stand-in", "licensed"):
        raise UserError(
            f"{folder / 'model.json'}: lacks a known model and its source; run body_models again"
        )
    kind = MODELS[name]
    path = folder / file_name(kind, gender)
    if gender != "neutral" and not path.exists():
        raise UserError(
            f"{path}: no such file, but gendered ground truth needs it; place {path.name} as "
            f"data/licensed/{name}/README.md says and run body_models@{name}, or take neutral "
            "ground truth (datasets.*.ground_truth in params.yaml)"
        )
    regressor = read_regressor(folder / "regressor.npy", kind)
    return kind, read_arrays(path, kind), regressor, facts


def read_regressor(path: Path, kind: Kind) -> np.ndarray:
    """A joint regressor (kind.joints, V) as float64.

    Raises:
        UserError: no such file, not an ``.npy`` of numbers, or of another shape.
    """
    shape = (kind.joint_count, kind.vertices)
    try:
        regressor = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it holds the {shape[0]} scored joints") from None
    except ARRAY_DAMAGE:
        raise UserError(f"{path}: not a readable .npy array; copy the file again") from None
    if getattr(regressor, "shape", None) != shape or regressor.dtype.kind not in "biuf":
        raise UserError(f"{path}: not a numeric array of shape {shape}; copy the file again")
    return regressor.astype(np.float64)


def _check_values(path: Path, arrays: Mapping[str, Any], kind: Kind) -> None:
    for key, array in arrays.items():
        values = array.data if sp.issparse(array) else array
        if not np.isfinite(values).all():
            raise UserError(f"{path}: {key} holds values that are not finite; use another copy")
    if arrays["f"].min() < 0 or arrays["f"].max() >= kind.vertices:
        raise UserError(f"{path}: f refers to vertices that do not exist; use another copy")
    parents = arrays["kintree_table"][0, 1:].astype(np.int64)
    if not ((parents >= 0) & (parents <= np.arange(len(parents)))).all():
        raise UserError(f"{path}: kintree_table is not a tree; use another copy")
