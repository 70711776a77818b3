"""Counts that speed rests on, and that no clock is needed for: evaluations, passes, copies."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toys import (
    make_body,
    make_features,
    make_sampling,
    make_trained,
    reverse_params,
    training_params,
)

from hmdiff.benchmarks.training import make_batch
from hmdiff.inference import Predictor
from hmdiff.training.objective import Objective

STEPS, CHAINS, IMAGES = 8, 3, 2
COPIES = {"aten::copy_", "aten::cat", "aten::clone", "aten::_to_copy"}


class Copied(TorchDispatchMode):
    """Bytes that copying operators have written."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if function._schema.name in COPIES and isinstance(result, torch.Tensor):
            self.bytes += result.nbytes
        return result


@pytest.fixture
def rows():
    return make_features(IMAGES)


@pytest.fixture
def predictor(rows):
    return Predictor(make_trained(rows), make_body(), make_sampling())


@pytest.fixture
def counts(predictor, monkeypatch) -> Counter:
    """Forward passes of g, computations of the image's keys and values, backward passes."""
    found: Counter = Counter()
    network = predictor.model.network.denoiser
    network.register_forward_hook(lambda *_: found.update(["evaluations"]))
    context, gradient, backward = network.context, torch.autograd.grad, torch.Tensor.backward

    def counted(name, function):
        def call(*arguments, **options):
            found.update([name])
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(network, "context", counted("contexts", context))
    monkeypatch.setattr(torch.autograd, "grad", counted("backward", gradient))
    monkeypatch.setattr(torch.Tensor, "backward", counted("backward", backward))
    return found


def predict(predictor, rows, **how):
    how = {"steps": STEPS, "reverse": reverse_params(chains=CHAINS), **how}
    return predictor.predict(rows, batch=IMAGES, **how)


def test_without_dat_a_step_is_one_evaluation_for_all_chains_and_images(predictor, rows, counts):
    predict(predictor, rows)
    assert counts == {"evaluations": STEPS, "contexts": 1}


def test_with_dat_a_step_adds_one_backward_pass_for_all_chains_and_images(predictor, rows, counts):
    predict(predictor, rows, guidance="dat", activation=False)
    assert counts == {"evaluations": STEPS, "contexts": 1, "backward": STEPS}


def test_a_second_order_step_takes_no_evaluation_more(predictor, rows, counts):
    reverse = reverse_params(chains=CHAINS, solver="dpmpp_2m")
    predict(predictor, rows, reverse=reverse, guidance="dat", activation=False)
    assert counts == {"evaluations": STEPS, "contexts": 1, "backward": STEPS}


def test_dat_in_the_last_steps_alone_has_a_backward_pass_in_them_alone(predictor, rows, counts):
    reverse = reverse_params(chains=CHAINS, guided_steps=2)
    done = predict(predictor, rows, reverse=reverse, guidance="dat", activation=False)
    assert counts == {"evaluations": STEPS, "contexts": 1, "backward": 2}
    assert (done.active_steps == 2).all() and done.ratio.isfinite().all()


def test_once_dat_is_off_no_step_has_a_backward_pass(predictor, rows, counts):
    reverse = reverse_params(chains=CHAINS, threshold=0.9)
    done = predict(predictor, rows, guidance="dat", reverse=reverse, keep_chains=True)
    longest = counts["backward"]
    assert counts == {"evaluations": STEPS, "contexts": 1, "backward": longest}
    assert done.active_steps.max() <= longest < STEPS


def test_a_training_step_is_one_evaluation_and_one_backward_pass(predictor, rows, counts):
    model = predictor.model.network.requires_grad_(True)
    faces = torch.as_tensor(make_sampling().coarse_faces).long()
    objective = Objective(model, predictor.regressor_f, faces, training_params(), "fp32")
    shares, _ = objective(make_batch(rows, model))
    shares.sum().backward()
    assert counts == {"evaluations": 1, "contexts": 1, "backward": 1}


@pytest.mark.parametrize(("guidance", "limit"), [("none", 13), ("dat", 25)])
def test_the_bytes_that_are_copied_an_image_stay_below_a_limit(predictor, rows, guidance, limit):
    """In units of the tokens of all chains of an image, a step: a token is 128 float32."""
    predict(predictor, rows)  # what is made once is made
    with Copied() as copied:
        predict(predictor, rows, guidance=guidance, activation=False)
    tokens = CHAINS * 12 * 128 * 4
    assert copied.bytes / (IMAGES * STEPS * tokens) < limit
