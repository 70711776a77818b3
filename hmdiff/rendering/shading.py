"""Colour of what a z-buffer found: Blinn-Phong (1977) with a hemisphere of ambient light, a shadow
map filtered over 3 x 3 texels, and bilinear textures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hmdiff.rendering.raster import fill, jit

SHADOW_SIZE = 256  # texels
SHADOW_BIAS = (0.01, 1.5)  # metres, texels: keeps a surface from shadowing itself
SAME_SURFACE = 0.01  # samples of a pixel this close in relative depth share one shading


class Shadow(NamedTuple):
    """An orthographic depth map seen from the light."""

    axes: NDArray  # (3, 3) float32, rows: the map's x and y and the direction to the light
    origin: NDArray  # (3,) float32, metres along the axes
    scale: np.float32  # texels a metre
    bias: np.float32  # metres
    map: NDArray  # (size, size) float32, metres along the third axis from the origin; 0: empty


class Surface(NamedTuple):
    """All meshes of a frame as one list of triangles."""

    points: NDArray  # (n, 2) float64, samples
    vertices: NDArray  # (n, 3) float32, camera frame, metres
    normals: NDArray  # (n, 3) float32
    attributes: NDArray  # (n, 7) float32: red, green, blue, u, v, texture's share, specular
    faces: NDArray  # (m, 3) int32
    mesh: NDArray  # (m,) int32, index of the face's mesh
    texels: NDArray  # (k, 3) float32, the textures of all meshes one after the other
    textures: NDArray  # (meshes, 3) int64: first texel, height, width


def cast_shadow(vertices: NDArray, faces: NDArray, direction: NDArray) -> Shadow:
    """Depth map of triangles seen from a distant light.

    vertices (n, 3) float32, metres; faces (m, 3) int32; direction (3,) unit, towards the light.
    """
    helper = np.eye(3)[np.argmin(np.abs(direction))]
    first = np.cross(direction, helper)
    first /= np.linalg.norm(first)
    axes = np.stack([first, np.cross(direction, first), direction])
    along = vertices.astype(np.float64) @ axes.T
    low, high = along.min(axis=0), along.max(axis=0)
    scale = (SHADOW_SIZE - 4) / max(float((high - low)[:2].max()), 1e-6)
    origin = low - np.array([2.0 / scale, 2.0 / scale, 1.0])  # 1 m: depth is positive
    along -= origin
    triangle = np.full((SHADOW_SIZE, SHADOW_SIZE), -1, np.int32)
    depth = np.zeros((SHADOW_SIZE, SHADOW_SIZE), np.float32)
    fill(along[:, :2] * scale, np.ascontiguousarray(along[:, 2]), faces, triangle, depth)
    bias = SHADOW_BIAS[0] + SHADOW_BIAS[1] / scale
    return Shadow(
        axes.astype(np.float32),
        origin.astype(np.float32),
        np.float32(scale),
        np.float32(bias),
        depth,
    )


@jit
def _light_share(shadow, x, y, z):
    """Share of 3 x 3 texels of the shadow map that see the point."""
    axes, origin, texels = shadow.axes, shadow.origin, shadow.map
    u = (x * axes[0, 0] + y * axes[0, 1] + z * axes[0, 2] - origin[0]) * shadow.scale
    v = (x * axes[1, 0] + y * axes[1, 1] + z * axes[1, 2] - origin[1]) * shadow.scale
    depth = x * axes[2, 0] + y * axes[2, 1] + z * axes[2, 2] - origin[2] + shadow.bias
    last = texels.shape[0] - 1
    seen = 0
    for j in range(-1, 2):
        for i in range(-1, 2):
            column, row = min(max(int(u) + i, 0), last), min(max(int(v) + j, 0), last)
            if texels[row, column] <= depth:
                seen += 1
    return np.float32(seen) / np.float32(9.0)


@jit
def _texel(surface, mesh, u, v, channel_out):
    """Bilinear look-up; the texture repeats beyond [0, 1)."""
    textures, texels = surface.textures, surface.texels
    start, height, width = textures[mesh, 0], textures[mesh, 1], textures[mesh, 2]
    x = (u - np.floor(u)) * width - np.float32(0.5)
    y = (v - np.floor(v)) * height - np.float32(0.5)
    fx, fy = x - np.floor(x), y - np.floor(y)
    x0, y0 = int(np.floor(x)), int(np.floor(y))  # from -1 to the last
    x1, y1 = x0 + 1, y0 + 1
    x0, x1 = x0 if x0 >= 0 else width - 1, x1 if x1 < width else 0
    y0, y1 = y0 if y0 >= 0 else height - 1, y1 if y1 < height else 0
    for k in range(3):
        above = texels[start + y0 * width + x0, k] * (1 - fx)
        above += texels[start + y0 * width + x1, k] * fx
        below = texels[start + y1 * width + x0, k] * (1 - fx)
        below += texels[start + y1 * width + x1, k] * fx
        channel_out[k] = above * (1 - fy) + below * fy


@jit
def _shade_sample(surface, shadow, colour, ambient, t, sx, sy, work, out):
    """Colour of triangle t at the sample centre (sx, sy), into out (3,)."""
    faces = surface.faces
    a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
    points, vertices, normals = surface.points, surface.vertices, surface.normals
    values = surface.attributes
    ax, ay = points[a, 0], points[a, 1]
    bx, by = points[b, 0], points[b, 1]
    cx, cy = points[c, 0], points[c, 1]
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    # Barycentrics on the screen over depth, rescaled: barycentrics on the triangle.
    p = np.float32(((bx - sx) * (cy - sy) - (by - sy) * (cx - sx)) / area) / vertices[a, 2]
    q = np.float32(((cx - sx) * (ay - sy) - (cy - sy) * (ax - sx)) / area) / vertices[b, 2]
    r = np.float32(((ax - sx) * (by - sy) - (ay - sy) * (bx - sx)) / area) / vertices[c, 2]
    total = np.float32(1.0) / (p + q + r)
    p, q, r = p * total, q * total, r * total
    x = p * vertices[a, 0] + q * vertices[b, 0] + r * vertices[c, 0]
    y = p * vertices[a, 1] + q * vertices[b, 1] + r * vertices[c, 1]
    z = p * vertices[a, 2] + q * vertices[b, 2] + r * vertices[c, 2]
    nx = p * normals[a, 0] + q * normals[b, 0] + r * normals[c, 0]
    ny = p * normals[a, 1] + q * normals[b, 1] + r * normals[c, 1]
    nz = p * normals[a, 2] + q * normals[b, 2] + r * normals[c, 2]
    length = np.float32(1.0) / max(np.sqrt(nx * nx + ny * ny + nz * nz), np.float32(1e-6))
    # The image's y points down, so a triangle seen from outside has a negative area there;
    # one seen from inside (through an open wrist) is lit on that side.
    if area > 0:
        length = -length
    nx, ny, nz = nx * length, ny * length, nz * length

    axes = shadow.axes
    lx, ly, lz = axes[2, 0], axes[2, 1], axes[2, 2]
    facing = nx * lx + ny * ly + nz * lz
    lit = np.float32(0.0)
    shine = np.float32(0.0)
    if facing > 0:
        lit = _light_share(shadow, x, y, z)
        back = np.float32(1.0) / np.sqrt(x * x + y * y + z * z)
        hx, hy, hz = lx - x * back, ly - y * back, lz - z * back
        size = max(np.sqrt(hx * hx + hy * hy + hz * hz), np.float32(1e-6))
        half = (nx * hx + ny * hy + nz * hz) / size
        specular = values[a, 6]
        if half > 0 and specular > 0:
            power = half * half * half  # 3
            power *= power  # 6
            power *= power  # 12
            shine = specular * lit * power * power  # Blinn-Phong exponent 24
        lit *= facing
    # The sky is up, at -y; the ground gives back half as much.
    glow = ambient * (np.float32(0.75) - np.float32(0.25) * ny)
    brightness = glow + (np.float32(1.0) - ambient) * np.float32(1.25) * lit

    share = p * values[a, 5] + q * values[b, 5] + r * values[c, 5]
    if share > 0:
        u = p * values[a, 3] + q * values[b, 3] + r * values[c, 3]
        v = p * values[a, 4] + q * values[b, 4] + r * values[c, 4]
        _texel(surface, surface.mesh[t], u, v, work)
    for k in range(3):
        own = p * values[a, k] + q * values[b, k] + r * values[c, k]
        albedo = own * (1 - share) + work[k] * share if share > 0 else own
        out[k] = min(albedo * brightness * colour[k] + shine, np.float32(1.0))


@jit
def resolve(surface, shadow, colour, ambient, triangle, nearness, supersample, image, ids):
    """Shade every sample of a window and average them into its pixels, in place.

    triangle, nearness (h * s, w * s) of :func:`fill`; colour (3,) float32 of the light; ambient
    float32 in [0, 1]; image (h, w, 3) uint8 holds the background; ids (h, w) int32 takes the index
    of the mesh that covers most samples of the pixel (the first of equals), -1 for the background.
    """
    height, width = ids.shape
    n = supersample
    samples = n * n
    work, shaded = np.zeros(3, np.float32), np.zeros(3, np.float32)
    seen = np.zeros(samples, np.int32)
    for y in range(height):
        for x in range(width):
            red, green, blue = np.float32(0.0), np.float32(0.0), np.float32(0.0)
            last, last_near = -1, np.float32(0.0)
            covered = False
            for s in range(samples):
                if triangle[y * n + s // n, x * n + s % n] >= 0:
                    covered = True
            if not covered:
                continue
            for s in range(samples):
                row, column = y * n + s // n, x * n + s % n
                t = triangle[row, column]
                if t < 0:
                    seen[s] = -1
                    red += np.float32(image[y, x, 0]) / np.float32(255.0)
                    green += np.float32(image[y, x, 1]) / np.float32(255.0)
                    blue += np.float32(image[y, x, 2]) / np.float32(255.0)
                    continue
                seen[s] = surface.mesh[t]
                near = nearness[row, column]
                if seen[s] != last or abs(near - last_near) > SAME_SURFACE * last_near:
                    _shade_sample(
                        surface, shadow, colour, ambient, t, column + 0.5, row + 0.5, work, shaded
                    )
                    last, last_near = seen[s], near
                red += shaded[0]
                green += shaded[1]
                blue += shaded[2]
            scale = np.float32(255.0) / np.float32(samples)
            image[y, x, 0] = int(red * scale + np.float32(0.5))
            image[y, x, 1] = int(green * scale + np.float32(0.5))
            image[y, x, 2] = int(blue * scale + np.float32(0.5))
            most = 0
            for s in range(samples):
                count = 0
                for other in range(samples):
                    if seen[other] == seen[s]:
                        count += 1
                if count > most:
                    most, ids[y, x] = count, seen[s]
