"""Placed copies of data sets, and what stands in for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmdiff.datasets.camera import tight_box
from hmdiff.datasets.placed import is_placed, take
from hmdiff.datasets.standins import look_at, split_evenly
from hmdiff.errors import UserError


def test_a_readme_alone_is_not_a_placed_copy(tmp_path):
    assert not is_placed(tmp_path / "nowhere")
    (tmp_path / "README.md").write_text("place it here")
    (tmp_path / ".gitkeep").touch()
    assert not is_placed(tmp_path)
    (tmp_path / "images").mkdir()
    assert is_placed(tmp_path)


def test_a_placed_copy_is_linked_and_its_linked_files_are_followed(tmp_path):
    disk, placed, out = (tmp_path / name for name in ("disk", "placed", "out"))
    for folder in (disk, placed / "a", placed / "images", out):
        folder.mkdir(parents=True)
    (placed / "README.md").write_text("ours")
    (placed / "a" / "x.json").write_text("[]")
    (disk / "y.jpg").write_bytes(b"y")
    (placed / "images" / "y.jpg").symlink_to(disk / "y.jpg")
    take(placed, out)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "a/x.json",
        "images/y.jpg",
    ]
    assert (out / "a" / "x.json").samefile(placed / "a" / "x.json")
    assert not (out / "images" / "y.jpg").is_symlink()


def test_a_linked_folder_is_refused_for_dvc_does_not_look_behind_it(tmp_path):
    disk, placed, out = (tmp_path / name for name in ("disk", "placed", "out"))
    for folder in (disk, placed, out):
        folder.mkdir()
    (placed / "images").symlink_to(disk)
    with pytest.raises(UserError, match=r"images: a linked folder.*cp -rs"):
        take(placed, out)


def test_a_link_to_nowhere_is_refused_by_name(tmp_path):
    (tmp_path / "placed").mkdir()
    (tmp_path / "placed" / "y.jpg").symlink_to(tmp_path / "lost.jpg")
    with pytest.raises(UserError, match=r"y\.jpg: a link to nowhere"):
        take(tmp_path / "placed", tmp_path / "out")


@given(total=st.integers(1, 500), longest=st.integers(1, 60))
def test_parts_are_as_few_and_as_even_as_can_be(total, longest):
    parts = split_evenly(total, longest)
    assert sum(parts) == total and max(parts) <= longest
    assert max(parts) - min(parts) <= 1 and (len(parts) - 1) * longest < total


@given(
    position=st.tuples(*[st.floats(-5, 5)] * 2, st.floats(1, 5)),
    roll=st.floats(-0.5, 0.5),
)
def test_a_camera_sees_its_target_in_the_middle_and_up_is_up(position, roll):
    target = np.array([0.3, 0.2, -0.5])
    rotation, move = look_at(np.array(position), target, np.array([0.0, 1, 0]), roll)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)
    seen = rotation @ target + move
    np.testing.assert_allclose(seen[:2], 0, atol=1e-9)
    assert seen[2] == pytest.approx(np.linalg.norm(np.array(position) - target))
    assert (rotation @ [0, 1, 0])[1] < 0  # the world's up is up in the picture, y down


def test_a_tight_box_touches_its_points():
    np.testing.assert_array_equal(tight_box(np.array([[3.0, 9], [5, 1], [4, 4]])), [3, 1, 2, 8])
