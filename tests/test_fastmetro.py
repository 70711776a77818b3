"""FastMETRO's architecture: published sizes, masked attention, shapes; and how it is timed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import sparse
from toys import (
    denoiser_params,
    diffusion_params,
    experiment_params,
    make_body,
    make_features,
    make_sampling,
    reverse_params,
    rng,
    training_params,
)

from hmdiff.diffusion.denoiser import adjacency_mask
from hmdiff.diffusion.fastmetro import query_mask, sine_positions
from hmdiff.diffusion.model import build_model
from hmdiff.diffusion.upsample import Upsampler
from hmdiff.fastmetro import JOINTS, FastMETRO
from hmdiff.inference import Predictor
from hmdiff.params.models import FastMETROParams
from hmdiff.stages.speed import Way, timing_record
from hmdiff.training.folder import Recipe, TrainedModel, load_model, save_model
from hmdiff.training.linear import fit_ridge
from hmdiff.training.loop import train

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
    mask = query_mask(adjacency_mask(torch.as_tensor(faces), 4), JOINTS)
    assert mask[:JOINTS].all() and mask[:, :JOINTS].all()
    wanted = [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]
    assert torch.equal(mask[JOINTS:, JOINTS:], torch.tensor(wanted, dtype=torch.bool))


def test_the_mask_keeps_other_vertices_out_of_self_attention(network):
    """A changed vertex reaches its neighbours and no one else, unless the mask is lifted."""
    layer = network.head.transformers[1].decoder[0].self_attention
    queries = torch.randn(1, len(network.head.mask), 128)
    changed = queries.clone()
    changed[:, JOINTS] += 1
    for mask, reached in (
        (network.head.mask, network.head.mask[:, JOINTS]),
        (torch.ones_like(network.head.mask), torch.ones(len(network.head.mask), dtype=torch.bool)),
    ):
        difference = layer(queries, changed, changed, mask) - layer(queries, queries, queries, mask)
        assert torch.equal(difference[0].abs().amax(1) > 1e-5, reached)


def test_positions_tell_all_places_apart_and_leave_the_camera_token():
    positions = sine_positions(128)
    assert positions.shape == (50, 128) and not positions[0].any()
    assert torch.cdist(positions[1:], positions[1:]).add(10 * torch.eye(49)).min() > 0.1


SIZE = FastMETROParams(widths=(16, 8), heads=2, layers=1)


def head_in_place_of_g(features):
    what = experiment_params(model="fastmetro", condition="image", depth=0, fastmetro=SIZE)
    faces = torch.as_tensor(make_sampling().coarse_faces).long()
    return build_model(
        rng(), what, diffusion_params(steps=50), denoiser_params(), features.coarse.mean(0), 4,
        adjacency_mask(faces, 12),
    )  # fmt: skip


def test_on_stored_features_the_head_is_trained_by_the_loop_of_every_row(tmp_path):
    """It learns, goes through a model folder, and predicts without chance from f_I alone."""
    features, sampling = make_features(), make_sampling()
    regressor = torch.as_tensor(sampling.coarse_regressor(make_body().regressor.numpy()))
    network, curve = train(
        head_in_place_of_g(features), features, regressor,
        torch.as_tensor(sampling.coarse_faces).long(),
        training_params(samples=1000, learning_rate=3e-3),
        seed=0, device=torch.device("cpu"), precision="fp32",
    )  # fmt: skip
    assert curve[-1]["v"] < 0.9 * curve[0]["v"] and curve[-1]["diff"] == 0
    what = experiment_params(model="fastmetro", condition="image", depth=0, fastmetro=SIZE)
    recipe = Recipe(what, diffusion_params(steps=50), denoiser_params(), 4, (12, 42))
    pairs = [(features.joints, features.coarse)]
    lift, _ = fit_ridge(pairs, pairs, [1e-6])
    model = TrainedModel(recipe, network, lift, Upsampler.from_sampling(sampling.ups))
    save_model(model, tmp_path)
    found = [
        Predictor(each, make_body(), sampling).predict(
            features, steps=3, reverse=reverse_params(), seed=seed
        )
        for seed, each in ((0, model.eval()), (1, load_model(tmp_path)))
    ]
    assert torch.equal(found[0].coarse, found[1].coarse)
    blind = replace(features, draws=torch.randn_like(features.draws))
    how = {"steps": 3, "reverse": reverse_params()}
    assert torch.equal(
        Predictor(model, make_body(), sampling).predict(blind, **how).coarse, found[0].coarse
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"fastmetro": None},
        {"model": "direct", "depth": 1},
        {"condition": "pose"},
        {"fastmetro": {"widths": [16, 6], "heads": 2, "layers": 1}},
    ],
)
def test_a_size_that_does_not_fit_is_refused(changes):
    what = {"model": "fastmetro", "condition": "image", "depth": 0, "fastmetro": SIZE}
    with pytest.raises(ValidationError, match=r"fastmetro|condition|widths"):
        experiment_params(**(what | changes))


def test_a_timing_is_the_median_with_its_extremes():
    record = timing_record("x", [0.5, 0.1, 0.2], Way(40, reverse_params(chains=5)))
    assert (record["value"], record["low"], record["high"]) == (5, 2, 10)
    assert record["repeats"] == 3 and record["unit"] == "1/s"
    assert (record["chains"], record["steps"]) == (5, 40)
    record = timing_record("y", [0.5], None)
    assert record["chains"] is None and record["steps"] is None
