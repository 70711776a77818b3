"""Meshes, a light and a camera to a picture and a map of which mesh is seen where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmdiff.rendering.raster import fill, project, vertex_normals
from hmdiff.rendering.shading import Surface, cast_shadow, resolve


@dataclass(frozen=True)
class Appearance:
    """What a surface looks like, apart from its shape. Colours are in [0, 1]."""

    colours: NDArray  # (n, 3), at the vertices
    uv: NDArray  # (n, 2), in texture lengths; the texture repeats beyond [0, 1)
    texture: NDArray  # (h, w, 3)
    texture_mix: NDArray  # (n,), 0: the vertex colour, 1: the texture
    specular: float  # strength of the highlight, 0 to about 0.3


@dataclass(frozen=True)
class Mesh:
    """A surface in front of the camera; faces run anticlockwise seen from outside."""

    vertices: NDArray  # (n, 3), camera frame, metres
    faces: NDArray  # (m, 3)
    appearance: Appearance


@dataclass(frozen=True)
class Light:
    """A distant light and the share of light that comes from everywhere."""

    direction: NDArray  # (3,) unit, camera frame, towards the light
    colour: NDArray  # (3,), about 1
    ambient: float  # 0 to 1


def sample_light(rng: np.random.Generator) -> Light:
    """A light above and mostly before the subject, slightly warm or cold."""
    direction = rng.normal(size=3)
    direction[1] = -abs(direction[1]) - 0.4  # from above
    direction[2] = -abs(direction[2]) - 0.3  # from the camera's side
    warmth = rng.uniform(-0.08, 0.08)
    colour = rng.uniform(0.85, 1.15) * np.array([1.0 + warmth, 1.0, 1.0 - warmth])
    return Light(direction / np.linalg.norm(direction), colour, float(rng.uniform(0.35, 0.7)))


def _join(meshes: Sequence[Mesh]) -> Surface:
    """One surface of all meshes; its ``points`` are not yet projected."""
    offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces, normals, attributes, texels, textures, owner = [], [], [], [], [], []
    first = 0
    for index, mesh in enumerate(meshes):
        if not np.isfinite(mesh.vertices).all():
            raise ValueError(f"mesh {index} has vertices that are not finite")
        look, own = mesh.appearance, np.ascontiguousarray(mesh.faces, np.int32)
        faces.append(own + np.int32(offsets[index]))
        normals.append(vertex_normals(mesh.vertices, own))
        specular = np.full((len(mesh.vertices), 1), look.specular)
        attributes.append(np.hstack([look.colours, look.uv, look.texture_mix[:, None], specular]))
        texels.append(look.texture.reshape(-1, 3))
        textures.append((first, *look.texture.shape[:2]))
        first += len(texels[-1])
        owner.append(np.full(len(own), index, np.int32))
    return Surface(
        points=np.zeros((offsets[-1], 2)),
        vertices=np.concatenate([mesh.vertices for mesh in meshes]).astype(np.float32),
        normals=np.concatenate(normals).astype(np.float32),
        attributes=np.concatenate(attributes).astype(np.float32),
        faces=np.concatenate(faces),
        mesh=np.concatenate(owner),
        texels=np.concatenate(texels).astype(np.float32),
        textures=np.array(textures, np.int64),
    )


def render_frame(
    meshes: Sequence[Mesh],
    camera: NDArray,
    background: NDArray,
    light: Light,
    supersample: int = 2,
) -> tuple[NDArray, NDArray]:
    """Draw meshes over a background; the frame has the background's size.

    camera (3, 3): intrinsics in pixels, pixel (x, y) covering [x, x + 1) x [y, y + 1); background
    (h, w, 3) uint8. Only the window that the meshes cover is rasterised, with ``supersample``
    squared samples a pixel. A triangle that reaches behind the camera is left out.

    Returns the image (h, w, 3) uint8 and ids (h, w) int32: the index into ``meshes`` of what is
    seen, -1 for the background. The same input gives the same bytes.
    """
    image = np.array(background, np.uint8, order="C")
    height, width = image.shape[:2]
    ids = np.full((height, width), -1, np.int32)
    if not meshes:
        return image, ids
    surface = _join(meshes)
    points, nearness = project(surface.vertices, camera)
    inside = points[nearness > 0]
    if not len(inside):
        return image, ids
    left, top = np.clip(np.floor(inside.min(axis=0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(inside.max(axis=0)), 0, (width, height)).astype(int)
    if right <= left or bottom <= top:
        return image, ids
    surface = surface._replace(points=(points - (left, top)) * supersample)
    shape = ((bottom - top) * supersample, (right - left) * supersample)
    triangle = np.full(shape, -1, np.int32)
    depth = np.zeros(shape, np.float32)
    fill(surface.points, nearness, surface.faces, triangle, depth)
    resolve(
        surface,
        cast_shadow(surface.vertices, surface.faces, np.asarray(light.direction, np.float64)),
        np.asarray(light.colour, np.float32),
        np.float32(light.ambient),
        triangle,
        depth,
        supersample,
        image[top:bottom, left:right],
        ids[top:bottom, left:right],
    )
    return image, ids
