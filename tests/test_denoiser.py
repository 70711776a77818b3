"""The network g: token layout, attention, conditions, and independence of images and chains."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional
from toys import denoiser_params, make_model, rng

from hmdiff.diffusion.conditions import Condition
from hmdiff.diffusion.denoiser import (
    Attention,
    Denoiser,
    adjacency_mask,
    attention,
    step_embedding,
)

VERTICES, JOINTS = 11, 4


def make_inputs(images: int = 3, chains: int = 2, vertices: int = VERTICES):
    random = rng(1)
    return (
        torch.randn(images, chains, vertices, 3, generator=random),
        torch.randn(images, 49, 128, generator=random),
        torch.randn(images, 6, JOINTS, 3, generator=random),
    )


def test_the_step_embedding_has_61_numbers_thirty_sines_thirty_cosines_and_a_zero():
    table = step_embedding(200)
    assert table.shape == (201, 61)
    assert torch.equal(table[:, 60], torch.zeros(201))
    k = 37
    for i in (0, 7, 29):
        angle = k / 10000 ** (i / 29)
        assert float(table[k, i]) == pytest.approx(math.sin(angle), abs=1e-5)
        assert float(table[k, 30 + i]) == pytest.approx(math.cos(angle), abs=1e-5)


def test_attention_equals_torchs_own_with_and_without_a_mask():
    query, key, value = torch.randn(3, 5, 2, 9, 8, generator=rng())
    mask = torch.rand(9, 9, generator=rng(1)) < 0.5
    mask |= torch.eye(9, dtype=torch.bool)
    for allowed in (None, mask):
        wanted = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        assert torch.allclose(attention(query, key, value, allowed), wanted, atol=1e-6)


def test_attention_in_parts_equals_attention_at_once():
    """9 samples of 600 x 600 weights do not fit one part."""
    query, key, value = torch.randn(3, 9, 1, 600, 4, generator=rng())
    wanted = functional.scaled_dot_product_attention(query, key, value)
    assert torch.allclose(attention(query, key, value), wanted, atol=1e-5)


def test_multi_head_attention_equals_torchs_module():
    ours = Attention(4)
    theirs = torch.nn.MultiheadAttention(128, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, context = torch.randn(2, 7, 128, generator=rng()), torch.randn(2, 5, 128, generator=rng(1))
    wanted, _ = theirs(x, context, context)
    assert torch.allclose(ours(x, ours.keys_values(context)), wanted, atol=1e-5)


def test_chains_that_share_an_image_equal_copies_of_the_image():
    model = make_model()
    h, image, draws = make_inputs(images=3, chains=2)
    together = model.output(h, 20, model.context(image, draws))
    copies = model.context(image.repeat_interleave(2, 0), draws.repeat_interleave(2, 0))
    apart = model.output(h.flatten(0, 1)[:, None], 20, copies)
    assert torch.allclose(together.flatten(0, 1), apart[:, 0], atol=1e-5)


def test_an_image_does_not_depend_on_its_batch_or_its_place_in_it():
    model = make_model()
    h, image, draws = make_inputs(images=4)
    k = torch.tensor([3, 50, 20, 1])
    whole = model.output(h, k, model.context(image, draws))
    order = torch.tensor([2, 0, 3, 1])
    shuffled = model.output(h[order], k[order], model.context(image[order], draws[order]))
    assert torch.allclose(shuffled, whole[order], atol=1e-5)
    alone = model.output(h[1:2], k[1:2], model.context(image[1:2], draws[1:2]))
    assert torch.allclose(alone, whole[1:2], atol=1e-5)


@pytest.mark.parametrize("condition", ["image", "pose", "both"])
def test_the_output_depends_on_exactly_the_named_conditions(condition):
    model = make_model(condition=condition)
    h, image, draws = make_inputs()
    base = model.output(h, 20, model.context(image, draws))
    other_image = model.output(h, 20, model.context(image.flip(0), draws))
    other_draws = model.output(h, 20, model.context(image, draws.flip(0)))
    assert torch.equal(base, other_image) == (condition == "pose")
    assert torch.equal(base, other_draws) == (condition == "image")


def test_condition_tokens_are_49_of_the_image_and_one_a_joint():
    _, image, draws = make_inputs()
    for condition, count in (("image", 49), ("pose", JOINTS), ("both", 49 + JOINTS)):
        assert Condition(condition, JOINTS, 1.0)(image, draws).shape == (3, count, 128)


def test_pose_tokens_see_the_draws_as_a_set_and_in_model_units():
    _, image, draws = make_inputs()
    condition = Condition("pose", JOINTS, 5.0)
    tokens = condition(image, draws)
    assert torch.allclose(condition(image, draws.flip(1)), tokens, atol=1e-5)
    condition.scale = 1.0
    assert torch.allclose(condition(image, 5 * draws), tokens, atol=1e-5)


def test_the_adjacency_mask_is_the_mesh_and_keeps_strangers_apart():
    faces = torch.tensor([[0, 1, 2], [2, 1, 3]])
    mask = adjacency_mask(faces, 5)
    edges = {(0, 1), (1, 2), (0, 2), (2, 3), (1, 3)}
    for a in range(5):
        for b in range(5):
            assert mask[a, b] == (a == b or (min(a, b), max(a, b)) in edges)
    model = make_model(vertices=5, mask=mask)
    h, image, draws = make_inputs(images=1, chains=1, vertices=5)
    context = model.context(image, draws)
    moved = h.clone()
    moved[0, 0, 4] += 1
    before, after = model.output(h, 20, context), model.output(moved, 20, context)
    assert torch.equal(before[:, :, :4], after[:, :, :4])
    assert not torch.equal(before[:, :, 4], after[:, :, 4])


def test_g_of_the_paper_has_the_documented_size():
    """Sec. 4.3 for a body: one block, and what the optional feed-forward layer adds."""
    network = Denoiser(431, 200, 1, denoiser_params(feedforward=0))
    layers = 2 * (4 * 128 * 128 + 4 * 128)  # query, key, value and output, twice
    norms, out = 2 * 2 * 128, 3 * 128 + 3
    size = sum(p.numel() for p in network.parameters())
    assert size == 431 * 64 + layers + norms + out == 160_579
    with_mlp = Denoiser(431, 200, 1, denoiser_params(feedforward=2))
    assert sum(p.numel() for p in with_mlp.parameters()) == size + 66_176


def test_depth_stacks_blocks_with_weights_of_their_own():
    shallow, deep = make_model(depth=1), make_model(depth=4)
    block = sum(p.numel() for p in shallow.denoiser.blocks.parameters())
    assert sum(p.numel() for p in deep.denoiser.blocks.parameters()) == 4 * block


def test_initial_weights_depend_on_the_seed_alone_and_leave_torchs_generator_alone():
    state = torch.get_rng_state()
    first = make_model().state_dict()
    torch.rand(3)
    second = make_model().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.set_rng_state(state)


def test_a_direct_model_starts_from_the_mean_mesh_whatever_the_parametrisation():
    model = make_model(model="direct", form="noise")
    _, image, draws = make_inputs()
    start = model.direct_start(3)
    k = model.schedule.steps
    assert torch.allclose(model.parametrisation.network_input(start, k), torch.zeros(1), atol=1e-6)
    predict = model.predictor(model.context(image, draws), "fp32")
    h0_hat, _ = predict(start, k)
    offset = h0_hat - model.parametrisation.mean
    output = model.output(start, k, model.context(image, draws))
    assert torch.allclose(offset, 0.2 * output, rtol=0.05, atol=1e-5)
