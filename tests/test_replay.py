"""Recorded processes: on a GPU alone, but what they must not do shows on a CPU too."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toys import make_body, make_features, make_sampling, make_trained, reverse_params

from hmdiff import replay
from hmdiff.inference import Predictor, Run, given
from hmdiff.replay import Replayed

VARIANTS = [
    {"guidance": "none"},
    {"guidance": "dat"},
    {"guidance": "dat", "activation": False},
    {"guidance": "dat", "prior": "peak"},
    {"guidance": "dat", "reverse": {"guided_steps": 2, "solver": "dpmpp_2m"}},
    {"guidance": "disrupted", "activation": False},
]


@pytest.fixture(scope="module")
def features():
    return make_features(3)


@pytest.fixture(scope="module")
def predictor(features):
    return Predictor(make_trained(features), make_body(), make_sampling())


@pytest.fixture
def static(monkeypatch):
    """Every alignment as it is on a GPU."""
    alignment = Run.alignment
    monkeypatch.setattr(Run, "alignment", lambda *given: alignment(*given[:6], True))


def how(variant: dict) -> dict:
    reverse = {"chains": 4, "threshold": 0.7} | variant.get("reverse", {})
    return {"steps": 6} | variant | {"reverse": reverse_params(**reverse)}


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_process_that_asks_nothing_gives_the_same_numbers(
    features, predictor, variant, monkeypatch
):
    asked = predictor.predict(features, **how(variant))
    alignment = Run.alignment
    monkeypatch.setattr(Run, "alignment", lambda *given: alignment(*given[:6], True))
    found = predictor.predict(features, **how(variant))
    assert torch.equal(found.coarse, asked.coarse)
    assert torch.equal(found.active_steps, asked.active_steps)
    assert torch.equal(found.ratio.nan_to_num(-1), asked.ratio.nan_to_num(-1))
    if variant == {"guidance": "dat"}:
        assert 0 < asked.active_steps.min() < asked.active_steps.max() <= 6


class Looks(TorchDispatchMode):
    """Counts how often the program looks at a number that would be on the GPU."""

    def __init__(self, schedule):
        super().__init__()
        self.count, self.own = 0, schedule.alphas.untyped_storage().data_ptr()

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            self.count += arguments[0].untyped_storage().data_ptr() != self.own
        return function(*arguments, **(settings or {}))


def looks(predictor, features, run: Run) -> int:
    start = torch.zeros(len(features), run.reverse.chains, 12, 3)
    with Looks(predictor.model.network.schedule) as mode:
        predictor.reverse(start, *given(features, predictor.device), run=run)
    return mode.count


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_what_is_recorded_looks_at_no_number(features, predictor, variant, static):
    assert looks(predictor, features, Run(**how(variant))) == 0


def test_on_a_processor_the_process_looks_whether_dat_is_still_active(features, predictor):
    assert looks(predictor, features, Run(**how({"guidance": "dat"}))) > 0


def pretended(*shape: int) -> SimpleNamespace:
    return SimpleNamespace(is_cuda=True, shape=shape, dtype=torch.float32, device="cuda:0")


class Recording:
    """In place of one of CUDA."""

    def __init__(self, function, tensors, settings):
        self.shape = tensors[0].shape

    def replay(self, tensors):
        assert tensors[0].shape == self.shape
        return ("replayed",)


def test_each_shape_and_setting_is_run_then_recorded_then_replayed(monkeypatch):
    monkeypatch.setattr(replay, "_Recording", Recording)
    calls = []
    replayed = Replayed(lambda tensor, steps: calls.append((tensor.shape, steps)))
    for _ in range(3):
        replayed(pretended(2), steps=1)
    assert calls == [((2,), 1)] and replayed(pretended(2), steps=1) == ("replayed",)
    replayed(pretended(3), steps=1)
    replayed(pretended(2), steps=2)
    assert calls == [((2,), 1), ((3,), 1), ((2,), 2)]


def test_the_oldest_recordings_go(monkeypatch):
    monkeypatch.setattr(replay, "_Recording", Recording)
    replayed = Replayed(lambda tensor: ("run",))
    for size in range(replay.KEPT + 1):
        replayed(pretended(size))
    assert replayed(pretended(1)) == ("replayed",) and replayed(pretended(0)) == ("run",)


def test_what_cannot_be_recorded_is_run_and_said_once(monkeypatch, capsys):
    def refuse(*given):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(replay, "_Recording", refuse)
    replayed = Replayed(lambda tensor: ("run",))
    assert {replayed(pretended(2)) for _ in range(4)} == {("run",)}
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "operation not permitted when stream is capturing" in said


def test_a_copy_of_a_model_records_for_itself():
    class Model:
        def __init__(self):
            self.value = torch.zeros(1)
            self.replayed = Replayed(self.run)

        def run(self, tensor):
            return (tensor + self.value,)

    model = Model()
    other = copy.deepcopy(model)
    other.value += 1
    assert model.replayed(torch.zeros(1))[0] == 0 and other.replayed(torch.zeros(1))[0] == 1
