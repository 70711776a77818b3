"""The exported denoiser gives torch's numbers, whatever the sizes, and nothing else is kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from toys import make_features, make_trained, rng

from hmdiff.errors import UserError
from hmdiff.prediction import onnx_export
from hmdiff.prediction.onnx_export import export_onnx

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")


def test_a_step_of_the_graph_is_a_step_of_torch(tmp_path):
    features = make_features(3)
    model = make_trained(features, condition="both")
    path = tmp_path / "g.onnx"
    assert export_onnx(model, path) < 1e-4
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["alphas"]) == pytest.approx(model.network.schedule.alphas.tolist())
    h_k = torch.randn(3, 5, 12, 3, generator=rng(1))
    image_feature = features.image_feature.float().numpy()
    draws = features.draws.numpy()
    inputs = {"h_k": h_k.numpy(), "k": np.array(30), "image_feature": image_feature, "draws": draws}
    (found,) = session.run(None, inputs)
    context = model.network.context(features.image_feature, features.draws)
    wanted, _ = model.network.predictor(context, "fp32")(h_k, 30)
    assert found == pytest.approx(wanted.numpy(), abs=1e-4)


def test_a_graph_that_differs_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match=r"differs from torch by \d.*e-\d"):
        export_onnx(make_trained(make_features(3), condition="image"), tmp_path / "g.onnx")
    assert not list(tmp_path.iterdir())


def test_a_linear_model_has_no_denoiser(tmp_path):
    model = make_trained(make_features(24), model="linear")
    with pytest.raises(UserError, match="no denoiser"):
        export_onnx(model, tmp_path / "g.onnx")
