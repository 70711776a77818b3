"""FastMETRO's architecture: published sizes, masked attention, shapes; and how it is timed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import sparse
from toys import make_sampling

from hmdiff.fastmetro import JOINTS, FastMETRO, query_mask, sine_positions
from hmdiff.stages.speed import timing_record

FINE, MIDDLE, COARSE = 30, 20, 12


def random_ups(*sizes: int) -> list[sparse.csr_matrix]:
    random = np.random.default_rng(0)
    return [
        sparse.random(many, few, 0.2, format="csr", random_state=random)
        for many, few in pairwise(sizes)
    ]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    faces = make_sampling().coarse_faces
    return FastMETRO(8, faces, random_ups(FINE, MIDDLE, COARSE), "M").eval().requires_grad_(False)


@pytest.mark.parametrize(("size", "published"), [("S", 9.30e6), ("M", 17.12e6), ("L", 24.94e6)])
def test_the_sizes_are_the_published_ones(size, published):
    ups = [sparse.csr_matrix((6890, 1723)), sparse.csr_matrix((1723, 431))]
    network = FastMETRO(2048, np.array([[0, 1, 2]]), ups, size)
    upsampler, whole = (
        sum(parameter.numel() for parameter in module.parameters())
        for module in (network.upsample, network)
    )
    assert whole - upsampler == pytest.approx(published, rel=0.01)
    assert upsampler == pytest.approx(0.74e6, rel=0.01)


def test_a_feature_map_becomes_a_camera_joints_and_meshes(network):
    camera, joints, coarse, full = network(torch.randn(2, 8, 7, 7))
    assert camera.shape == (2, 3) and joints.shape == (2, JOINTS, 3)
    assert coarse.shape == (2, COARSE, 3) and full.shape == (2, FINE, 3)


def test_the_full_mesh_is_the_fixed_matrix_times_the_learned_layer(network):
    _, _, coarse, full = network(torch.randn(2, 8, 7, 7))
    middle = network.upsample(coarse.transpose(1, 2)).transpose(1, 2)
    fixed = torch.from_numpy(random_ups(FINE, MIDDLE, COARSE)[0].toarray()).float()
    assert torch.allclose(full, fixed @ middle, atol=1e-5)


def test_images_of_a_batch_do_not_mix(network):
    images = torch.randn(3, 8, 7, 7)
    together = network(images)[-1]
    alone = torch.cat([network(image[None])[-1] for image in images])
    assert torch.allclose(together, alone, atol=1e-4)


def test_the_place_of_an_image_token_matters(network):
    image = torch.randn(1, 8, 7, 7)
    assert not torch.allclose(network(image)[-1], network(image.flip(3))[-1], atol=1e-4)


def test_a_vertex_attends_to_neighbours_and_joints_only():
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    mask = query_mask(faces, 4)
    assert mask[:JOINTS].all() and mask[:, :JOINTS].all()
    wanted = [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]
    assert torch.equal(mask[JOINTS:, JOINTS:], torch.tensor(wanted, dtype=torch.bool))


def test_the_mask_keeps_other_vertices_out_of_self_attention(network):
    """A changed vertex reaches its neighbours and no one else, unless the mask is lifted."""
    layer = network.transformers[1].decoder[0].self_attention
    queries = torch.randn(1, len(network.mask), 128)
    changed = queries.clone()
    changed[:, JOINTS] += 1
    for mask, reached in (
        (network.mask, network.mask[:, JOINTS]),
        (torch.ones_like(network.mask), torch.ones(len(network.mask), dtype=torch.bool)),
    ):
        difference = layer(queries, changed, changed, mask) - layer(queries, queries, queries, mask)
        assert torch.equal(difference[0].abs().amax(1) > 1e-5, reached)


def test_positions_tell_all_places_apart_and_leave_the_camera_token():
    positions = sine_positions(128)
    assert positions.shape == (50, 128) and not positions[0].any()
    assert torch.cdist(positions[1:], positions[1:]).add(10 * torch.eye(49)).min() > 0.1


def test_a_timing_is_the_median_with_its_extremes():
    record = timing_record("x", [0.5, 0.1, 0.2], chains=5, steps=40)
    assert (record["value"], record["low"], record["high"]) == (5, 2, 10)
    assert record["repeats"] == 3 and record["unit"] == "1/s"
