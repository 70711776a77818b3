"""A GPU, where there is one, gives the processor's numbers, and so do recordings."""

from __future__ import annotations

import copy

import pytest
import torch
from toys import (
    Stopped,
    make_body,
    make_features,
    make_model,
    make_sampling,
    make_trained,
    reverse_params,
    stop_after,
    training_params,
)

from hmdiff.checkpoints import UNSAVED, Checkpoints
from hmdiff.compute import seeded_init
from hmdiff.extractor.extraction import extract
from hmdiff.extractor.model import Architecture, Extractor
from hmdiff.inference import Predictor
from hmdiff.replay import Replayed, _Recording
from hmdiff.training import loop

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

GUIDANCES = ["none", "dat", "disrupted"]


@pytest.fixture(scope="module")
def features():
    return make_features(6)


@pytest.fixture(scope="module", autouse=True)
def exact():
    """float32 products without tf32, on both devices alike."""
    torch.backends.cudnn.allow_tf32 = False


def predict(features, device: str, guidance: str, times: int = 1, precision: str = "fp32"):
    """The last of so many predictions; the third one is a replay."""
    model = Predictor(
        make_trained(features), make_body(), make_sampling(), device, precision
    )  # fmt: skip
    how = {"steps": 6, "guidance": guidance, "reverse": reverse_params(chains=4)}
    for _ in range(times):
        found = model.predict(features, batch=3, **how)
    recorded = [one for one in model.reverse._recordings.values() if one is not None]
    assert len(recorded) == (device == "cuda" and times > 1)
    return found


@pytest.mark.parametrize("guidance", GUIDANCES)
def test_meshes_of_a_gpu_are_those_of_the_processor(features, guidance):
    # Two batches: the first is run as it is, the second recorded.
    own = predict(features, "cpu", guidance)
    other = predict(features, "cuda", guidance, times=2)
    assert (own.full - other.full).abs().max() < 2e-4  # metres, of float32
    assert torch.equal(own.active_steps, other.active_steps)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("guidance", GUIDANCES)
def test_a_replayed_process_is_the_one_that_was_recorded(
    features, guidance, precision, monkeypatch
):
    replayed = predict(features, "cuda", guidance, times=3, precision=precision)
    monkeypatch.setattr(Replayed, "__call__", lambda self, *t, **s: self.function(*t, **s))
    model = Predictor(
        make_trained(features), make_body(), make_sampling(), "cuda", precision
    )  # fmt: skip
    how = {"steps": 6, "guidance": guidance, "reverse": reverse_params(chains=4)}
    plain = model.predict(features, batch=3, **how)
    assert torch.allclose(replayed.coarse, plain.coarse, atol=1e-6)
    assert torch.equal(replayed.active_steps, plain.active_steps)


def test_features_of_a_gpu_are_those_of_the_processor():
    with seeded_init(0, "images"):
        images = torch.rand(4, 3, 112, 112)
    architecture = Architecture("body", "resnet10t", 112, (16, 16, 16), 1.15)
    own = Extractor(architecture).eval().requires_grad_(False)
    other = copy.deepcopy(own).to("cuda", memory_format=torch.channels_last)
    names = [f"toy/{i}" for i in range(4)]
    how = {"draws": 5, "seed": 0, "precision": "fp32"}
    expected = extract(own, images, names, **how)
    for _ in range(3):
        found = extract(other, images.to("cuda"), names, **how)
    for name, tolerance in (("centre", 1e-4), ("spread", 1e-4), ("image_feature", 2e-2)):
        assert abs(found[name] - expected[name]).max() < tolerance, name


def train(features, device: str, checkpoints: Checkpoints = UNSAVED):
    sampling = make_sampling()
    regressor = torch.as_tensor(sampling.coarse_regressor(make_body().regressor.numpy()))
    return loop.train(
        make_model(vertices=12),
        features,
        regressor,
        torch.as_tensor(sampling.coarse_faces).long(),
        training_params(),
        seed=3,
        device=torch.device(device),
        precision="fp32",
        name="toy",
        checkpoints=checkpoints,
    )


def test_a_training_on_a_gpu_follows_that_on_the_processor(features):
    (own, curve), (other, curve_of_gpu) = (train(features, name) for name in ("cpu", "cuda"))
    for row, row_of_gpu in zip(curve, curve_of_gpu, strict=True):
        assert row_of_gpu == pytest.approx(row, rel=2e-3)
    for value, value_of_gpu in zip(own.parameters(), other.parameters(), strict=True):
        assert (value - value_of_gpu.cpu()).abs().max() < 2e-3


def test_a_training_on_a_gpu_goes_on_where_it_was_stopped(features, tmp_path, monkeypatch):
    whole, _ = train(features, "cuda")
    kept = Checkpoints("toy", tmp_path, seconds=0)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(loop, "update_average", stop_after(12, loop.update_average))
        train(features, "cuda", kept)
    assert kept.files.found()
    resumed, _ = train(features, "cuda", kept)
    # Not to the bit: sums of CUDA's backward passes come in any order, and AdamW amplifies them.
    for value, value_of_whole in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert (value - value_of_whole).abs().max() < 2e-3


def test_a_broken_number_does_not_stay_in_a_recording():
    def halves(tensor):
        return (tensor / 2, tensor.sum())

    tensors = (torch.ones(3, device="cuda"),)
    recording = _Recording(halves, tensors, {})
    assert recording.replay((torch.full((3,), torch.nan, device="cuda"),))[0].isnan().all()
    half, total = recording.replay((4 * tensors[0],))
    assert half.tolist() == [2, 2, 2] and float(total) == 12
    assert recording.replay(tensors)[0].tolist() == [0.5, 0.5, 0.5] and half.tolist() == [2, 2, 2]


def test_what_looks_at_a_number_is_run_as_it_is(capsys):
    replayed = Replayed(lambda tensor: (tensor * float(tensor.sum()),))
    for value in (1.0, 2.0, 3.0, 4.0):
        assert float(replayed(torch.full((2,), value, device="cuda"))[0][0]) == 2 * value**2
    assert capsys.readouterr().err.count("not recorded") == 1
    # The device is usable afterwards.
    assert float(torch.ones(2, device="cuda").sum()) == 2
