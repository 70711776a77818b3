"""Decimation, and the maps D and U between a mesh and its coarser levels."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_bodies import write_toy_model

from hmdiff.bodies.decimation import decimate
from hmdiff.bodies.sampling import MeshSampling, build_sampling
from hmdiff.bodies.surface import boundary_loops, closest_points, least_area_patch, split_quads
from hmdiff.errors import UserError
from hmdiff.kinds import BODY
from hmdiff.params import load_params
from hmdiff.stages import mesh_sampling

STIFFNESS = 2e-3


@pytest.fixture(scope="module")
def ball():
    mesh = trimesh.creation.icosphere(subdivisions=3)  # 642 vertices
    vertices = np.asarray(mesh.vertices) * [0.3, 0.5, 0.2]
    return SimpleNamespace(vertices=vertices, faces=np.asarray(mesh.faces))


def open_grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A wavy square sheet."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(size), np.arange(size)))
    vertices = np.column_stack([x, y, np.sin(x) * np.cos(y)]) * 0.05
    corner = (np.arange(size - 1) + size * np.arange(size - 1)[:, None]).ravel()
    quads = np.column_stack([corner, corner + 1, corner + size + 1, corner + size])
    return vertices, split_quads(quads, vertices)


def bent(vertices: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Smooth random deformations of a mesh, (count, V, 3)."""
    rng = np.random.default_rng(seed)
    squares = np.column_stack([vertices**2, vertices * np.roll(vertices, 1, axis=1)])
    linear = np.eye(3) + 0.3 * rng.normal(size=(count, 3, 3))
    return vertices @ linear + squares @ rng.normal(size=(count, 6, 3))


@pytest.fixture(scope="module")
def sampling(ball):
    return build_sampling(
        ball.vertices, ball.faces, [160, 40], STIFFNESS,
        bent(ball.vertices, 2, 0), bent(ball.vertices, 60, 1), 12, 1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("target", [641, 300, 100, 20])
def test_a_closed_surface_stays_closed_and_gets_exactly_the_wanted_vertices(ball, target):
    kept, faces = decimate([ball.vertices], ball.faces, target, STIFFNESS)
    assert len(kept) == target == len(np.unique(kept))
    mesh = trimesh.Trimesh(ball.vertices[kept], faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 2
    assert len(faces) == 2 * target - 4
    assert np.unique(faces).tolist() == list(range(target))


def test_a_handle_is_kept():
    mesh = trimesh.creation.torus(1.0, 0.4, major_sections=30, minor_sections=16)
    kept, faces = decimate([np.asarray(mesh.vertices)], np.asarray(mesh.faces), 90, STIFFNESS)
    coarse = trimesh.Trimesh(mesh.vertices[kept], faces, process=False)
    assert coarse.is_watertight and coarse.euler_number == 0


def test_a_coarse_surface_stays_close_to_the_fine_one(ball):
    kept, faces = decimate([ball.vertices], ball.faces, 160, STIFFNESS)
    fine = trimesh.Trimesh(ball.vertices, ball.faces, process=False)
    coarse = trimesh.Trimesh(ball.vertices[kept], faces, process=False)
    assert 0.9 * fine.volume < coarse.volume < fine.volume


def test_protected_vertices_and_the_shortened_boundary_stay():
    vertices, faces = open_grid(12)
    protected = [27, 77, 100]
    kept, coarse = decimate([vertices], faces, 60, STIFFNESS, protected=protected, boundary=20)
    assert set(protected) <= set(kept.tolist())
    (loop,) = boundary_loops(coarse)
    assert len(loop) == 20
    assert trimesh.Trimesh(vertices[kept], coarse, process=False).euler_number == 1


def test_mirrored_collapses_keep_a_mesh_symmetric(ball):
    places = {tuple(point): i for i, point in enumerate(ball.vertices.round(9).tolist())}
    flipped = (ball.vertices * [-1, 1, 1]).round(9) + 0.0
    mirror = np.array([places[tuple(point)] for point in flipped.tolist()])
    kept, _ = decimate([ball.vertices], ball.faces, 200, STIFFNESS, mirror=mirror)
    assert set(mirror[kept].tolist()) == set(kept.tolist())


def test_too_few_vertices_are_refused(ball):
    with pytest.raises(ValueError, match="no legal collapse"):
        decimate([ball.vertices], ball.faces, 3, STIFFNESS)


def test_the_quadrics_of_all_poses_count():
    # Flat in the first pose, so only the second one tells where the waves are.
    waves, faces = open_grid(12)
    errors = []
    for poses in ([waves * [1, 1, 0]], [waves * [1, 1, 0], waves]):
        kept, coarse = decimate(poses, faces, 70, STIFFNESS)
        face, weights = closest_points(waves, waves[kept], coarse)
        found = np.einsum("nc,ncd->nd", weights, waves[kept][coarse[face]])
        errors.append(np.linalg.norm(found - waves, axis=1).mean())
    assert errors[1] < 0.8 * errors[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_closest_points_agree_with_trimesh(seed):
    rng = np.random.default_rng(seed)
    mesh = trimesh.creation.icosphere(subdivisions=2)
    points = rng.normal(size=(40, 3))
    face, weights = closest_points(points, np.asarray(mesh.vertices), np.asarray(mesh.faces))
    assert (weights >= 0).all()
    assert np.allclose(weights.sum(1), 1)
    found = np.einsum("nc,ncd->nd", weights, mesh.vertices[mesh.faces[face]])
    _, distance, _ = trimesh.proximity.closest_point_naive(mesh, points)
    assert np.allclose(np.linalg.norm(found - points, axis=1), distance, atol=1e-9)


def test_a_patch_closes_a_hole_with_the_area_of_its_polygon():
    # An L-shaped plane polygon: the least area is the polygon's own, though it is not convex.
    corners = np.array([[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]], dtype=float)
    vertices = np.column_stack([corners, np.zeros(6)])
    triangles = least_area_patch(list(range(6)), vertices)
    assert trimesh.Trimesh(vertices, triangles, process=False).area == pytest.approx(3.0)
    assert len(triangles) == 4


def test_a_hole_is_found_and_its_fill_has_the_right_winding(ball):
    around = (ball.faces == 0).any(1)
    opened = ball.faces[~around]
    (loop,) = boundary_loops(opened)
    closed = np.concatenate([opened, least_area_patch(loop, ball.vertices)])
    mesh = trimesh.Trimesh(ball.vertices, closed, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent


def test_d_selects_existing_vertices_exactly(ball, sampling):
    assert [down.shape for down in sampling.downs] == [(160, 642), (40, 160)]
    for down in sampling.downs:
        assert (np.diff(down.indptr) == 1).all() and (down.data == 1).all()
        assert len(np.unique(down.indices)) == down.shape[0]
    chosen = sampling.down.indices
    assert np.array_equal(sampling.down @ ball.vertices, ball.vertices[chosen])


def test_every_level_is_a_closed_manifold_of_its_own_vertices(sampling):
    for faces, count in zip(sampling.faces, (642, 160, 40), strict=True):
        vertices = np.random.default_rng(0).normal(size=(count, 3))
        mesh = trimesh.Trimesh(vertices, faces, process=False)
        assert mesh.is_watertight and mesh.euler_number == 2


def test_a_round_trip_commutes_with_translation(ball, sampling):
    meshes = bent(ball.vertices, 1, 5)
    there = meshes + np.array([1.0, -20.0, 300.0])
    assert np.allclose(sampling.round_trip(there), sampling.round_trip(meshes), atol=1e-9)


def test_u_fitted_on_posed_meshes_is_better_on_other_posed_meshes(ball, sampling):
    plain = build_sampling(
        ball.vertices, ball.faces, [160, 40], STIFFNESS,
        bent(ball.vertices, 2, 0), np.zeros((0, 642, 3)), 12, 1e-4,
    )  # fmt: skip
    others = bent(ball.vertices, 20, 2)
    assert sampling.round_trip(others).mean() < 0.4 * plain.round_trip(others).mean()
    assert all((up.data >= 0).all() for up in plain.ups)  # barycentric


def test_the_expected_noise_keeps_the_weights_small(ball, sampling):
    bold = build_sampling(
        ball.vertices, ball.faces, [160, 40], STIFFNESS,
        bent(ball.vertices, 2, 0), bent(ball.vertices, 60, 1), 12, 1e-2,
    )  # fmt: skip
    assert bold.up.multiply(bold.up).sum() < sampling.up.multiply(sampling.up).sum()


def test_the_coarse_regressor_reads_joints_off_the_coarse_mesh(ball, sampling):
    rng = np.random.default_rng(3)
    regressor = rng.dirichlet(np.ones(642) * 0.05, size=4)
    coarse = sampling.coarse_regressor(regressor)
    assert coarse.shape == (4, 40)
    assert coarse.dtype == np.float32
    assert np.allclose(coarse.sum(1), 1)
    for mesh in bent(ball.vertices, 5, 4):
        assert np.allclose(coarse @ (sampling.down @ mesh), regressor @ mesh, atol=0.01)


def test_a_saved_sampling_comes_back_the_same_and_twice_the_same_bytes(tmp_path, sampling):
    for name in ("a.npz", "b.npz"):
        sampling.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    read = MeshSampling.load(tmp_path / "a.npz")
    assert np.array_equal(read.up.toarray(), sampling.up.toarray())
    assert np.array_equal(read.down.toarray(), sampling.down.toarray())
    assert all(map(np.array_equal, read.faces, sampling.faces))


def test_a_damaged_or_missing_sampling_is_one_clear_line(tmp_path, sampling):
    path = tmp_path / "a.npz"
    with pytest.raises(UserError, match=r"a\.npz: no such file"):
        MeshSampling.load(path)
    sampling.save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"a\.npz: not a readable"):
        MeshSampling.load(path)
    np.savez(path, faces_0=np.zeros((0, 3)), faces_1=np.zeros((0, 3)))
    with pytest.raises(UserError, match=r"a\.npz: lacks down_0_data"):
        MeshSampling.load(path)


def test_what_is_no_archive_of_levels_is_one_clear_line(tmp_path, sampling):
    path = tmp_path / "a.npz"
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))  # the bytes of an .npy
    with pytest.raises(UserError, match=r"a\.npz: not a readable"):
        MeshSampling.load(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(UserError, match=r"a\.npz: lacks faces_0"):
        MeshSampling.load(path)


@pytest.mark.parametrize("levels", [(6890, 431), (7000, 431), (1723, 400), (1723,)])
def test_levels_that_do_not_fit_the_model_name_the_parameter(tmp_path, levels):
    params = load_params(Path(__file__).parents[1] / "params.yaml")
    options = params.mesh_sampling["smpl"].model_copy(update={"levels": levels})
    params = params.model_copy(update={"mesh_sampling": {"smpl": options}})
    body = write_toy_model(tmp_path / "body", BODY)
    with pytest.raises(UserError, match=r"mesh_sampling\.smpl\.levels: .* 6890 to 431"):
        mesh_sampling.run("smpl", body, tmp_path / "a.npz", tmp_path / "a.json", params)


def test_a_sampling_file_with_a_pickle_inside_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", faces_0=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="not a readable"):
        MeshSampling.load(tmp_path / "a.npz")
