"""FreiHAND as published: lists, versions, and what is lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hmdiff.datasets import freihand
from hmdiff.datasets.camera import intrinsics, project
from hmdiff.errors import UserError

PIXEL = 0.5
METRE = 1e-4


def _hands(count: int, seed: int) -> freihand.Hands:
    rng = np.random.default_rng(seed)
    centre = np.array([0, 0, 0.7])
    return freihand.Hands(
        cameras=np.stack([intrinsics(rng.uniform(400, 500), 112.0) for _ in range(count)]),
        joints=rng.normal(0, 0.05, (count, 21, 3)) + centre,
        vertices=rng.normal(0, 0.05, (count, 778, 3)) + centre,
        poses=rng.normal(0, 0.5, (count, 48)),
        betas=rng.normal(size=(count, 10)),
    )


def _write_freihand(root: Path, versions: int = 4) -> dict[str, freihand.Hands]:
    hands = {"training": _hands(5, 3), "evaluation": _hands(2, 4)}
    for part, value in hands.items():
        freihand.write_lists(root, part, value)
        (root / part / "rgb").mkdir(parents=True, exist_ok=True)
        for number in range(5 * versions if part == "training" else 2):
            Image.new("RGB", (224, 224), (number * 9, 40, 90)).save(
                freihand.image_path(root, part, number)
            )
    return hands


def test_freihand_comes_back_and_its_versions_share_the_ground_truth(tmp_path):
    hands = _write_freihand(tmp_path)
    samples = {s.sample_id: s for s in freihand.read(tmp_path, held_out=2)}
    for version in range(4):
        for index in range(3):
            sample = samples[f"training/{version * 5 + index:08d}"]
            own = hands["training"]
            assert sample.split == "train"
            np.testing.assert_allclose(sample.vertices, own.vertices[index], atol=METRE)
            np.testing.assert_allclose(sample.joints, own.joints[index], atol=METRE)
            np.testing.assert_allclose(sample.pose, own.poses[index], atol=1e-6)
            pixels = project(own.joints[index], own.cameras[index])
            assert np.abs(project(sample.joints, sample.camera) - pixels).max() < PIXEL
    assert {name for name, s in samples.items() if s.split == "val"} == {
        "training/00000003",
        "training/00000004",
    }
    assert {name for name, s in samples.items() if s.split == "test"} == {
        "evaluation/00000000",
        "evaluation/00000001",
    }
    assert len(samples) == 4 * 3 + 2 + 2


def test_freihand_lists_have_the_native_shapes_and_scale(tmp_path):
    hands = _write_freihand(tmp_path)["training"]
    mano = np.array(json.loads((tmp_path / "training_mano.json").read_text()))
    scale = np.array(json.loads((tmp_path / "training_scale.json").read_text()))
    assert mano.shape == (5, 1, 61) and scale.shape == (5,)
    bones = np.linalg.norm(hands.joints[:, 9] - hands.joints[:, 10], axis=1)
    np.testing.assert_allclose(scale, bones, atol=1e-6)
    np.testing.assert_allclose(mano[:, 0, 60], bones, atol=1e-6)


def test_a_lost_freihand_image_or_list_is_one_line(tmp_path):
    _write_freihand(tmp_path)
    freihand.image_path(tmp_path, "training", 7).unlink()
    with pytest.raises(UserError, match="19 images for 5 samples"):
        list(freihand.read(tmp_path, held_out=1))
    _write_freihand(tmp_path)
    (tmp_path / "training_xyz.json").write_text("[[1, 2], [3]]")
    with pytest.raises(UserError, match=r"training_xyz\.json"):
        list(freihand.read(tmp_path, held_out=1))
