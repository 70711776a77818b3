"""The rasteriser against rays and closed forms; scenes, backgrounds and poses keep their word."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numba
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from hmdiff.errors import UserError
from hmdiff.rendering import backgrounds, occluders, poses, raster
from hmdiff.rendering.appearance import sample_clothing
from hmdiff.rendering.forearm import boundary_loop, sample_forearm
from hmdiff.rendering.scene import Appearance, Light, Mesh, render_frame, sample_light

CAMERA = np.array([[60.0, 0.0, 24.5], [0.0, 55.0, 17.0], [0.0, 0.0, 1.0]])
WIDTH, HEIGHT = 48, 36
OVERHEAD = Light(np.array([0.0, 0.0, -1.0]), np.ones(3), 0.0)  # from the camera, nothing else


def plain(count: int, colour=(0.8, 0.8, 0.8)) -> Appearance:
    return Appearance(
        colours=np.tile(colour, (count, 1)),
        uv=np.zeros((count, 2)),
        texture=np.ones((1, 1, 3)),
        texture_mix=np.zeros(count),
        specular=0.0,
    )


def ball(centre, radius=0.4, colour=(0.8, 0.8, 0.8), subdivisions=3) -> Mesh:
    shape = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return Mesh(shape.vertices + centre, shape.faces, plain(len(shape.vertices), colour))


def square(depth: float, half: float, look: Appearance | None = None) -> Mesh:
    """Facing the camera; vertices from the top left, clockwise in the image."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    vertices = np.column_stack([corners, np.full(4, depth)])
    return Mesh(vertices, np.array([[0, 2, 1], [0, 3, 2]]), look or plain(4))


def grey(value: int = 60, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def cast_rays(vertices, faces, camera, width, height):
    """Moller-Trumbore (1997) for each pixel centre: nearest triangle, -1 for none, and how far the
    decision is from changing (barycentric distance to an edge or relative depth to the next)."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3) @ np.linalg.inv(camera).T
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    edge1, edge2 = b - a, c - a
    p = np.cross(rays[:, None], edge2[None])
    determinant = (p * edge1).sum(-1)
    u = -(p * a).sum(-1) / determinant
    q = np.cross(-a, edge1)
    v = (rays[:, None] * q).sum(-1) / determinant
    distance = (q * edge2).sum(-1) / determinant  # = z, since the ray's z is 1
    bary = np.minimum(np.minimum(u, v), 1 - u - v)
    hit = (bary >= 0) & (distance > 0)
    z = np.where(hit, distance, np.inf)
    order = np.sort(z, axis=1)
    nearest = np.where(hit.any(1), z.argmin(1), -1)
    with np.errstate(invalid="ignore"):
        gap = np.nan_to_num(order[:, 1] / order[:, 0] - 1, nan=np.inf, posinf=np.inf)
    sure = np.minimum(np.abs(bary).min(1), gap)
    return nearest.reshape(height, width), sure.reshape(height, width)


@pytest.mark.parametrize("seed", range(6))
def test_every_pixel_shows_the_triangle_that_its_ray_meets_first(seed):
    rng = np.random.default_rng(seed)
    soup = rng.uniform([-1.2, -1, 1.0], [1.2, 1, 4.0], (45, 3))
    sphere = ball([0.3, -0.2, 2.0], subdivisions=2)
    vertices = np.concatenate([soup, sphere.vertices])
    faces = np.concatenate([np.arange(45).reshape(15, 3), sphere.faces + 45])
    triangle, nearness = raster.rasterise(vertices, faces, CAMERA, WIDTH, HEIGHT)
    expected, sure = cast_rays(vertices, faces, CAMERA, WIDTH, HEIGHT)
    decided = sure > 1e-5
    assert decided.mean() > 0.98
    assert (expected >= 0).any() and (expected < 0).any()
    np.testing.assert_array_equal(triangle[decided], expected[decided])
    assert ((nearness > 0) == (triangle >= 0)).all()


def test_neighbouring_triangles_leave_no_hole_between_them():
    triangle, _ = raster.rasterise(
        square(2.0, 3.0).vertices, square(2.0, 3.0).faces, CAMERA, WIDTH, HEIGHT
    )
    assert (triangle >= 0).all()


def test_the_map_of_ids_is_the_mask_of_the_mesh_that_is_in_front():
    near, far = ball([0.1, 0, 1.6], 0.3), ball([-0.1, 0, 2.6], 0.6)
    _, ids = render_frame([far, near], CAMERA, grey(), OVERHEAD, supersample=1)
    alone = [
        raster.rasterise(mesh.vertices, mesh.faces, CAMERA, WIDTH, HEIGHT)[0] >= 0
        for mesh in (far, near)
    ]
    np.testing.assert_array_equal(ids == 1, alone[1])
    np.testing.assert_array_equal(ids == 0, alone[0] & ~alone[1])
    np.testing.assert_array_equal(ids == -1, ~alone[0] & ~alone[1])


@pytest.mark.parametrize("supersample", [1, 2, 3])
def test_only_the_covered_pixels_of_the_background_change(supersample):
    background = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    kept = background.copy()
    mesh = ball([0, 0, 3.0], 0.3, (0.0, 0.0, 0.0))
    image, ids = render_frame([mesh], CAMERA, background, OVERHEAD, supersample)
    assert image.shape == (HEIGHT, WIDTH, 3) and ids.shape == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(background, kept)
    changed = (image != background).any(-1)
    u, v = np.meshgrid(np.arange(WIDTH) + 0.5 - 24.5, np.arange(HEIGHT) + 0.5 - 17.0)
    radius = np.hypot(u / 60, v / 55) * 3.0
    assert not changed[radius > 0.34].any()
    assert changed[radius < 0.28].all() and (ids[radius < 0.28] == 0).all()


def test_a_diffuse_ball_has_the_brightness_of_the_cosine_law():
    direction = np.array([-0.5, -0.4, -0.8])
    light = Light(direction / np.linalg.norm(direction), np.array([1.0, 0.9, 0.8]), 0.0)
    camera = np.array([[300.0, 0, 32], [0, 300.0, 32], [0, 0, 1]])
    mesh = ball([0, 0, 3.0], 0.25, (0.5, 0.5, 0.5), subdivisions=5)
    image, ids = render_frame([mesh], camera, grey(0, 64, 64), light, supersample=1)
    x, y = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
    rays = np.stack([(x - 32) / 300, (y - 32) / 300, np.ones_like(x)], -1)
    along = rays @ [0, 0, 3.0] / (rays**2).sum(-1)
    miss = (rays**2).sum(-1) * along**2
    depth = along - np.sqrt(np.maximum(0.25**2 - (9 - miss), 0) / (rays**2).sum(-1))
    normals = (rays * depth[..., None] - [0, 0, 3.0]) / 0.25
    cosine = normals @ light.direction
    inner = (ids == 0) & (9 - miss < 0.23**2) & (cosine > 0.35)  # clear of the ball's own shadow
    assert inner.sum() > 800
    expected = 255 * 0.5 * 1.25 * cosine[inner][:, None] * light.colour
    np.testing.assert_allclose(image[inner], expected, atol=2.5)


def test_what_stands_between_the_light_and_a_wall_darkens_it():
    wall, screen = square(3.0, 1.0), ball([0.0, -0.25, 2.2], 0.15)
    slanted = Light(np.array([0.0, -0.6, -0.8]), np.ones(3), 0.2)
    lit, _ = render_frame([wall], CAMERA, grey(), slanted)
    shaded, ids = render_frame([wall, screen], CAMERA, grey(), slanted)
    # The shadow of the ball's centre: along the light from y = -0.25 to z = 3.
    y = -0.25 + 0.8 * 0.6 / 0.8
    row, column = int(17 + 55 * y / 3), 24
    assert ids[row, column] == 0
    assert shaded[row, column].max() < 0.5 * lit[row, column].min()
    assert (shaded[17, 8] == lit[17, 8]).all()


def test_a_texture_is_interpolated_on_the_surface_and_not_on_the_screen():
    ramp = np.repeat(((np.arange(256) + 0.5) / 256)[None, :, None], 3, axis=2)
    uv = np.array([[0.02, 0.5], [0.98, 0.5], [0.98, 0.5], [0.02, 0.5]])
    look = Appearance(np.zeros((4, 3)), uv, ramp, np.ones(4), 0.0)
    vertices = np.array([[-0.5, -0.4, 2.0], [0.9, -0.7, 4.0], [0.9, 0.7, 4.0], [-0.5, 0.4, 2.0]])
    mesh = Mesh(vertices, np.array([[0, 2, 1], [0, 3, 2]]), look)
    everywhere = Light(np.array([0.0, 0.0, -1.0]), np.full(3, 1 / 0.75), 1.0)
    image, ids = render_frame([mesh], CAMERA, grey(0), everywhere, supersample=1)
    row = 17  # here the ray's y is almost 0 and the normal's share of it is nil
    for column in np.flatnonzero(ids[row] == 0):
        slope = (column + 0.5 - 24.5) / 60  # x = slope z meets x = -0.5 + 0.7 (z - 2)
        z = 1.9 / (0.7 - slope)
        expected = 255 * (0.02 + 0.96 * (z - 2) / 2)
        assert abs(float(image[row, column, 0]) - expected) < 2.0


def test_a_pixel_that_is_half_covered_is_a_mixture():
    camera = np.array([[10.0, 0, 4.5], [0, 10.0, 4], [0, 0, 1]])
    half_plane = Mesh(
        np.array([[0.0, -9, 1], [9, -9, 1], [9, 9, 1], [0, 9, 1]]),
        np.array([[0, 2, 1], [0, 3, 2]]),
        plain(4, (0.0, 0.0, 0.0)),
    )
    image, _ = render_frame([half_plane], camera, grey(200, 8, 8), OVERHEAD, supersample=2)
    assert (image[:, :4] == 200).all() and (image[:, 4] == 100).all() and (image[:, 5:] == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    vertices=arrays(np.float64, (6, 3), elements=st.floats(-4, 4, width=32)),
    faces=arrays(np.int64, (5, 3), elements=st.integers(0, 5)),
)
def test_flat_triangles_and_those_behind_the_camera_do_no_harm(vertices, faces):
    image, ids = render_frame([Mesh(vertices, faces, plain(6))], CAMERA, grey(), OVERHEAD)
    assert set(np.unique(ids)) <= {-1, 0}
    whole = faces[(vertices[faces, 2] >= raster.NEAR).all(1)]
    if not len(whole):
        assert (ids == -1).all() and (image == 60).all()


def test_a_mesh_behind_the_camera_or_beside_the_frame_is_not_drawn():
    for centre in ([0, 0, -2.0], [50.0, 0, 2.0], [0, -40.0, 2.0]):
        image, ids = render_frame([ball(centre)], CAMERA, grey(), OVERHEAD)
        assert (image == 60).all() and (ids == -1).all()
    assert (render_frame([], CAMERA, grey(), OVERHEAD)[0] == 60).all()


def test_vertices_that_are_not_finite_are_refused():
    mesh = ball([0, 0, 2.0])
    mesh.vertices[3, 1] = np.nan
    with pytest.raises(ValueError, match="mesh 1"):
        render_frame([ball([0, 0, 3.0]), mesh], CAMERA, grey(), OVERHEAD)


def draw_everything(seed: int) -> bytes:
    """A picture with every random part of this package in it."""
    rng = np.random.default_rng(seed)
    template = trimesh.creation.icosphere(subdivisions=3).vertices
    faces = trimesh.creation.icosphere(subdivisions=3).faces
    mesh = Mesh(template * 0.4 + [0, 0, 2.5], faces, sample_clothing(rng, template, "body"))
    hand = Mesh(template * 0.2 + [0.5, 0, 2.5], faces, sample_clothing(rng, template, "hand"))
    background = backgrounds.sample_background(rng, "train", (64, 48), "varied")
    scene = [mesh, hand, occluders.sample_occluder(rng, mesh.vertices)]
    image, ids = render_frame(scene, CAMERA, background, sample_light(rng))
    sequence = poses.pose_sequence(rng, 3, 60.0)
    return image.tobytes() + ids.tobytes() + sequence.tobytes()


def test_the_same_seed_gives_the_same_bytes():
    assert draw_everything(5) == draw_everything(5)
    assert draw_everything(5) != draw_everything(6)


def test_compiling_works_where_no_cache_folder_is_writable(monkeypatch):
    compile_ = numba.njit

    def without_cache(**options):
        if options["cache"]:
            raise RuntimeError("cannot cache function: no locator available")
        return compile_(**options)

    monkeypatch.setattr(numba, "njit", without_cache)
    assert raster.jit(lambda x: x + 1)(2) == 3


@pytest.mark.parametrize("seed", range(20))
def test_an_occluder_stands_wholly_before_its_target_and_hides_it(seed):
    target = ball([0.05, 0.0, 2.5], 0.4)
    thing = occluders.sample_occluder(np.random.default_rng(seed), target.vertices)
    assert thing.vertices[:, 2].min() > raster.NEAR
    assert thing.vertices[:, 2].max() < target.vertices[:, 2].min()
    _, ids = render_frame([target, thing], CAMERA, grey(), OVERHEAD, supersample=1)
    alone = raster.rasterise(thing.vertices, thing.faces, CAMERA, WIDTH, HEIGHT)[0] >= 0
    np.testing.assert_array_equal(ids == 1, alone)
    uncovered = raster.rasterise(target.vertices, target.faces, CAMERA, WIDTH, HEIGHT)[0] >= 0
    hidden = (uncovered & alone).sum() / uncovered.sum()
    assert 0 < hidden < 1


def test_an_occluder_fits_before_a_target_that_fills_the_frame():
    target = ball([0.0, 0.1, 1.4], 0.9).vertices
    for seed in range(100):
        thing = occluders.sample_occluder(np.random.default_rng(seed), target).vertices
        assert thing[:, 2].min() > raster.NEAR and thing[:, 2].max() < target[:, 2].min()


@pytest.mark.parametrize(
    ("vertices", "faces", "volume"),
    [
        (*occluders.box(np.array([0.2, 0.3, 0.5]))[:2], 0.03),
        (*occluders.capsule(0.1, 0.4)[:2], np.pi * 0.01 * 0.4 + 4 / 3 * np.pi * 0.001),
    ],
)
def test_occluders_are_closed_and_face_outwards(vertices, faces, volume):
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    enclosed = (a * np.cross(b, c)).sum() / 6  # positive for anticlockwise outer faces
    assert volume * 0.9 < enclosed < volume * 1.001
    merged = trimesh.Trimesh(vertices, faces, process=True)
    merged.update_faces(merged.nondegenerate_faces())  # a ball's poles
    assert merged.is_watertight


def test_no_two_splits_share_a_photograph():
    names = [name for pool in backgrounds.POOLS.values() for name in pool]
    assert len(set(names)) == len(names) and set(names) == set(backgrounds.FILES)
    hashes = {hashlib.sha256(backgrounds.photograph(name).tobytes()).digest() for name in names}
    assert len(hashes) == len(names)
    assert set(backgrounds.CREDITS) == set(names)


def test_a_split_draws_only_on_its_own_photographs(monkeypatch):
    opened = []

    def note(name, original=backgrounds.photograph):
        opened.append(name)
        return original(name)

    monkeypatch.setattr(backgrounds, "photograph", note)
    for pool, names in backgrounds.POOLS.items():
        opened.clear()
        rng = np.random.default_rng(1)
        for _ in range(30):
            backgrounds.sample_background(rng, pool, (32, 24), "varied")
        assert set(opened) == set(names)


def test_the_studios_of_two_splits_have_no_hue_in_common():
    ranges = sorted(backgrounds.STUDIO_HUES.values())
    assert set(backgrounds.STUDIO_HUES) == set(backgrounds.POOLS)
    assert all(0 <= low < high < 1 for low, high in ranges)
    assert all(first[1] < second[0] for first, second in pairwise(ranges))


@pytest.mark.parametrize("size", [(97, 33), (40, 300), (481, 360)])
@pytest.mark.parametrize("style", ["studio", "varied"])
def test_backgrounds_have_the_asked_size_and_are_not_blank(size, style):
    rng = np.random.default_rng(2)
    for pool in backgrounds.POOLS:
        for _ in range(6):
            image = backgrounds.sample_background(rng, pool, size, style)
            assert image.shape == (size[1], size[0], 3) and image.dtype == np.uint8
            assert image.std() > 0.5


def test_a_missing_photograph_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(backgrounds.FILES, "missing", ("skimage", "data/missing.png"))
    with pytest.raises(UserError, match=r"missing\.png.*reinstall skimage"):
        backgrounds.photograph("missing")
    monkeypatch.setitem(backgrounds.FILES, "absent", ("no_such_package_here", "x.png"))
    with pytest.raises(UserError, match="no_such_package_here: not installed"):
        backgrounds.photograph("absent")


def test_an_unknown_pool_or_style_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="pool"):
        backgrounds.sample_background(rng, "dev", (8, 8), "varied")
    with pytest.raises(ValueError, match="style"):
        backgrounds.sample_background(rng, "train", (8, 8), "plain")


@pytest.mark.parametrize("kind", ["body", "hand"])
@pytest.mark.parametrize("seed", range(8))
def test_clothes_are_colours_and_stay_within_their_atlas(kind, seed):
    rng = np.random.default_rng(seed)
    template = rng.uniform([-0.85, -1.15, -0.1], [0.85, 0.55, 0.2], (500, 3))
    look = sample_clothing(rng, template, kind)
    assert look.colours.shape == (500, 3) and look.uv.shape == (500, 2)
    for values in (look.colours, look.uv, look.texture, look.texture_mix):
        assert values.min() >= 0 and values.max() <= 1


def test_clothes_of_an_unknown_kind_are_refused():
    with pytest.raises(ValueError, match="body or hand"):
        sample_clothing(np.random.default_rng(0), np.zeros((4, 3)), "foot")


def yaw_of(orientations: np.ndarray) -> np.ndarray:
    """Degrees about y of where the body's front (+z) points."""
    front = Rotation.from_rotvec(orientations).apply([0, 0, 1.0])
    return np.degrees(np.arctan2(front[:, 0], front[:, 2]))


def test_yaw_keeps_to_its_limit_and_uses_it():
    rng = np.random.default_rng(0)
    yaw = yaw_of(np.stack([poses.pose_sequence(rng, 1, 60.0)[0, :3] for _ in range(400)]))
    assert np.abs(yaw).max() < 61 and yaw.min() < -50 and yaw.max() > 50
    sequences = [poses.pose_sequence(rng, 40, 30.0)[:, :3] for _ in range(20)]
    assert np.abs(yaw_of(np.concatenate(sequences))).max() < 33  # the tilt adds a little


@pytest.mark.parametrize("frames", [1, 2, 12, 13, 60])
def test_a_sequence_is_smooth_and_moves(frames):
    sequence = poses.pose_sequence(np.random.default_rng(frames), frames, 60.0)
    assert sequence.shape == (frames, 72)
    turns = Rotation.from_rotvec(sequence.reshape(-1, 3))
    if frames > 1:
        step = (turns[:-24].inv() * turns[24:]).magnitude()
        # At most half a turn in KEY_FRAMES steps, 1.5 times the mean speed at its fastest.
        assert step.max() <= 1.5 * np.pi / poses.KEY_FRAMES + 1e-9
        assert step.max() > 1e-3


def test_knees_and_elbows_bend_one_way_only():
    rng = np.random.default_rng(3)
    sampled = np.stack([poses.sample_body_pose(rng) for _ in range(500)])
    assert sampled.shape == (500, 23, 3)
    knees, elbows = sampled[:, [3, 4]], sampled[:, [17, 18]]
    assert knees[..., 0].min() >= 0 and knees[..., 0].max() < 2.7 and not knees[..., 1:].any()
    assert (elbows[:, 0, 1] <= 0).all() and (elbows[:, 1, 1] >= 0).all()
    assert np.abs(elbows[..., 1]).max() <= 2.0


def test_compose_is_the_product_of_rotations():
    rng = np.random.default_rng(4)
    turn = Rotation.random(rng=rng).as_matrix()
    orientations = rng.normal(size=(2, 5, 3))
    composed = poses.compose(turn, orientations)
    expected = turn @ Rotation.from_rotvec(orientations.reshape(-1, 3)).as_matrix()
    np.testing.assert_allclose(
        Rotation.from_rotvec(composed.reshape(-1, 3)).as_matrix(), expected, atol=1e-12
    )


def test_the_palm_or_the_back_of_the_hand_looks_at_the_camera():
    rng = np.random.default_rng(5)
    turns = Rotation.from_rotvec(
        np.stack([poses.sample_hand_orientation(rng, 60.0) for _ in range(500)])
    )
    palm, fingers = turns.apply([0, -1.0, 0]), turns.apply([-1.0, 0, 0])
    assert (palm[:, 2] < 0).mean() > 0.3 and (palm[:, 2] > 0).mean() > 0.3
    # The fingers' lean out of the image is the tilt alone; about them the palm turns by yaw.
    tilt = np.arcsin(np.clip(fingers[:, 2], -1, 1))
    yaw = np.arccos(np.clip(np.abs(palm[:, 2]) / np.cos(tilt), 0, 1))
    assert np.degrees(yaw).max() < 60.1 and np.degrees(yaw).max() > 55
    assert abs(np.degrees(tilt.std()) - 20) < 3


def test_a_hand_pose_lies_within_the_limits_of_its_components():
    rng = np.random.default_rng(6)
    basis = np.linalg.qr(rng.normal(size=(45, 45)))[0]
    sampled = np.stack([poses.sample_hand_pose(rng, basis) for _ in range(300)])
    weights = sampled @ basis.T
    count = len(poses.HAND_DEVIATIONS)
    assert np.abs(weights[:, count:]).max() < 1e-9
    assert (np.abs(weights[:, :count]) <= poses.HAND_LIMIT * poses.HAND_DEVIATIONS + 1e-9).all()
    assert (weights[:, 0].std() > 0.8 * poses.HAND_DEVIATIONS[0]).all()


def open_hand() -> Mesh:
    """A ball from which a cap is cut: one boundary loop at its top, +y."""
    whole = ball([0, 0, 0], 0.05)
    keep = (whole.vertices[whole.faces, 1] < 0.03).any(1)
    faces = whole.faces[keep]
    used, compact = np.unique(faces, return_inverse=True)
    look = plain(len(used), (0.3, 0.5, 0.7))
    return Mesh(whole.vertices[used] + [0, 0, 0.5], compact.reshape(-1, 3), look)


def test_a_forearm_continues_the_wrist_away_from_the_hand():
    hand = open_hand()
    loop = boundary_loop(hand.faces)
    arm = sample_forearm(np.random.default_rng(7), hand)
    np.testing.assert_allclose(arm.vertices[: len(loop)], hand.vertices[loop], atol=1e-12)
    assert arm.vertices[:, 1].max() > 0.2
    assert arm.vertices[:, 1].min() > hand.vertices[loop, 1].min() - 1e-9
    assert (arm.appearance.colours == [0.3, 0.5, 0.7]).all()
    assert len(arm.appearance.colours) == len(arm.vertices)
    normals = raster.vertex_normals(arm.vertices, arm.faces)
    outward = arm.vertices - arm.vertices.reshape(-1, len(loop), 3).mean(1).repeat(len(loop), 0)
    assert ((normals * outward).sum(1) > 0).all()


def test_a_mesh_without_one_loop_has_no_wrist():
    with pytest.raises(ValueError, match="no boundary"):
        boundary_loop(ball([0, 0, 0]).faces)
    with pytest.raises(ValueError, match="more than one"):
        boundary_loop(np.array([[0, 1, 2], [3, 4, 5]]))
