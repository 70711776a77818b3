"""Protocols: the published ones, read as data, and scores under them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from scipy.spatial.transform import Rotation

from hmdiff.errors import UserError
from hmdiff.evaluation.items import find_evaluation, find_method, protocol_of
from hmdiff.evaluation.protocols import FILE, UNITS, load_protocol, score
from hmdiff.evaluation.recovery import check_ground_truth
from hmdiff.evaluation.selection import fewest_steps
from hmdiff.kinds import BODY, HAND
from hmdiff.params import load_params

NAMES = ("3dpw", "human36m", "freihand")
PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")


def meshes(kind, seed: int = 0, count: int = 5, vertices: int = 60):
    """Predicted and true toy meshes, true joints, and a regressor whose rows sum to 1."""
    rng = np.random.default_rng(seed)
    regressor = rng.random((kind.joint_count, vertices)) ** 8
    regressor /= regressor.sum(1, keepdims=True)
    truth = rng.normal(0, 0.3, (count, vertices, 3))
    predicted = truth + rng.normal(0, 0.05, truth.shape)
    return predicted, truth, regressor @ truth, regressor


# The published protocols


def test_the_fourteen_joints_are_metros():
    """H36M_J17_TO_J14 of METRO's config.py, in the row order of J_regressor_h36m_correct."""
    for name in ("3dpw", "human36m"):
        protocol = load_protocol(name)
        wanted = [3, 2, 1, 4, 5, 6, 16, 15, 14, 11, 12, 13, 8, 10]
        assert protocol.indices(protocol.joints) == wanted


def test_each_protocol_reports_what_the_paper_prints():
    metrics = {name: set(load_protocol(name).metrics) for name in NAMES}
    assert metrics == {
        "3dpw": {"MPVE", "MPJPE", "PA-MPJPE"},
        "human36m": {"MPJPE", "PA-MPJPE"},
        "freihand": {"PA-MPVPE", "PA-MPJPE", "F@5", "F@15"},
    }
    assert not load_protocol("human36m").needs_meshes
    assert load_protocol("freihand").indices(load_protocol("freihand").joints) == list(range(21))


def test_only_freihand_allows_reflections():
    assert {name: load_protocol(name).reflections for name in NAMES} == {
        "3dpw": False,
        "human36m": False,
        "freihand": True,
    }


def test_every_metric_has_a_unit():
    assert {UNITS[metric] for metric in ("F@5", "F@15")} == {"1"}
    assert {unit for metric, unit in UNITS.items() if not metric.startswith("F")} == {"mm"}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("joints", ["R_Ankle", "Tail"], "unknown joint 'Tail'"),
        ("recentre", [["Pelvis", "Wrist"]], "unknown joint 'Wrist'"),
        ("mesh_root", ["Navel"], "unknown joint 'Navel'"),
        ("primary", "PA-MPVPE", "primary must be one of metrics"),
        ("metrics", ["MPJPE", "MPEG"], r"3dpw\.metrics\.1: "),
        ("colour", "red", r"3dpw\.colour: Extra"),
    ],
)
def test_a_wrong_field_is_one_clear_line(tmp_path, field, value, message):
    protocols = YAML(typ="safe").load(FILE.read_text(encoding="utf-8"))
    protocols["3dpw"][field] = value
    path = tmp_path / "protocols.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump(protocols, file)
    with pytest.raises(UserError, match=message) as line:
        load_protocol("3dpw", path)
    assert "\n" not in str(line.value) and str(path) in str(line.value)


def test_an_unknown_protocol_is_one_clear_line():
    with pytest.raises(UserError, match=r"'agora'.*human36m, 3dpw, freihand") as line:
        load_protocol("agora")
    assert "\n" not in str(line.value)


# Scores


def test_metros_double_recentring_by_hand():
    """One vertex a joint. The pelvis is 40 mm off, the hips are right, and one ankle is 28 mm off:
    the pelvis' error vanishes from MPJPE in the second recentring, but stays in MPVE."""
    protocol = load_protocol("3dpw")
    truth = np.random.default_rng(0).normal(0, 0.3, (1, 17, 3))
    predicted = truth + np.array([1.0, -2.0, 5.0])
    predicted[0, BODY.joints.index("Pelvis"), 0] += 0.040
    predicted[0, BODY.joints.index("R_Ankle"), 1] += 0.028
    found = score(protocol, predicted, truth, truth, np.eye(17)).iloc[0]
    assert found["MPJPE"] == pytest.approx(28 / 14)
    # About its own pelvis, 15 vertices of 17 are 40 mm off, one not, the ankle by both.
    assert found["MPVE"] == pytest.approx((15 * 40 + np.hypot(40, 28)) / 17)


def test_mpjpe_is_metros_two_subtractions_done_one_after_the_other():
    protocol = load_protocol("human36m")
    predicted, _, _, regressor = meshes(BODY)
    joints = np.random.default_rng(9).normal(0, 0.3, (5, 17, 3))
    order = [3, 2, 1, 4, 5, 6, 16, 15, 14, 11, 12, 13, 8, 10]
    wanted = []
    for vertices, true in zip(predicted, joints, strict=True):
        regressed = regressor @ vertices
        ours, theirs = (regressed - regressed[0])[order], (true - true[0])[order]
        ours, theirs = ours - (ours[2] + ours[3]) / 2, theirs - (theirs[2] + theirs[3]) / 2
        wanted.append(1000 * np.sqrt(((ours - theirs) ** 2).sum(1)).mean())
    found = score(protocol, predicted, None, joints, regressor)
    assert found["MPJPE"].to_numpy() == pytest.approx(wanted)
    assert list(found.columns) == ["MPJPE", "PA-MPJPE"]


def test_a_perfect_prediction_has_no_error_under_any_protocol():
    for name, kind in zip(NAMES, (BODY, BODY, HAND), strict=True):
        _, truth, joints, regressor = meshes(kind)
        found = score(load_protocol(name), truth + 3.0, truth, joints, regressor)
        for metric, values in found.items():
            assert values.to_numpy() == pytest.approx(
                1.0 if metric.startswith("F") else 0.0, abs=1e-9
            )


def test_a_mirrored_hand_scores_as_in_the_official_evaluator():
    _, truth, joints, regressor = meshes(HAND)
    found = score(load_protocol("freihand"), truth * [-1, 1, 1], truth, joints, regressor)
    assert found[["PA-MPVPE", "PA-MPJPE"]].to_numpy().max() < 1e-9
    _, truth, joints, regressor = meshes(BODY)
    body = score(load_protocol("3dpw"), truth * [-1, 1, 1], truth, joints, regressor)
    assert body["PA-MPJPE"].min() > 50


def test_a_hands_mesh_is_aligned_on_its_own_and_not_on_its_joints():
    """Joints that are far off leave the mesh's error and F-scores as they were."""
    predicted, truth, joints, regressor = meshes(HAND)
    protocol = load_protocol("freihand")
    right = score(protocol, predicted, truth, joints, regressor)
    wrong = score(protocol, predicted, truth, joints[:, ::-1], regressor)
    assert (wrong["PA-MPJPE"] > right["PA-MPJPE"]).all()
    columns = ["PA-MPVPE", "F@5", "F@15"]
    assert right[columns].equals(wrong[columns])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 5), order=st.permutations(range(5)))
def test_a_row_depends_neither_on_the_batch_nor_on_the_order(seed, size, order):
    for name, kind in zip(NAMES, (BODY, BODY, HAND), strict=True):
        predicted, truth, joints, regressor = meshes(kind, seed)
        protocol = load_protocol(name)

        def rows(chosen, protocol=protocol, data=(predicted, truth, joints), last=regressor):
            return score(protocol, *(array[chosen] for array in data), last).to_numpy()

        whole = rows(list(range(5)))
        parts = [rows(list(range(5))[first : first + size]) for first in range(0, 5, size)]
        assert np.concatenate(parts) == pytest.approx(whole, rel=1e-9)
        assert rows(list(order)) == pytest.approx(whole[list(order)], rel=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10))
def test_aligned_columns_ignore_the_predictions_frame_and_the_others_do_not(seed, scale):
    predicted, truth, joints, regressor = meshes(BODY, seed)
    turned = scale * predicted @ Rotation.random(rng=seed).as_matrix() + 1
    protocol = load_protocol("3dpw")
    before, after = (score(protocol, one, truth, joints, regressor) for one in (predicted, turned))
    assert after["PA-MPJPE"].to_numpy() == pytest.approx(before["PA-MPJPE"].to_numpy(), rel=1e-6)
    assert (after["MPVE"] > before["MPVE"]).all()


def test_a_protocol_with_meshes_refuses_to_do_without():
    predicted, _, joints, regressor = meshes(BODY)
    with pytest.raises(ValueError, match="need true meshes"):
        score(load_protocol("3dpw"), predicted, None, joints, regressor)


# The number of steps


@pytest.mark.parametrize(
    ("errors", "tolerance", "wanted"),
    [
        ({5: 90.0, 10: 80.7, 20: 80.0, 40: 80.1}, 0.01, 10),
        ({5: 90.0, 10: 80.9, 20: 80.0, 40: 80.1}, 0.01, 20),
        ({5: 90.0, 10: 80.7, 20: 80.0, 40: 80.1}, 0.0, 20),
        ({40: 80.0, 5: 80.0}, 0.0, 5),
        ({5: 88.0, 40: 80.0}, 0.10, 5),
        ({7: 3.0}, 0.0, 7),
    ],
)
def test_the_fewest_steps_within_the_tolerance_are_taken(errors, tolerance, wanted):
    assert fewest_steps(errors, tolerance) == wanted


# Which protocol, and against which truth


def test_an_entry_takes_its_data_sets_protocol_unless_it_names_another():
    item = PARAMS.evaluations["3dpw_dat"]
    assert protocol_of("x", item).name == "3dpw"
    gendered = item.model_copy(update={"protocol": "3dpw_gendered"})
    assert protocol_of("x", gendered).ground_truth == "gendered"
    method = PARAMS.methods["dat"].model_copy(update={"protocol": "3dpw_gendered"})
    assert protocol_of("x", method).recentre == (("Pelvis",),)
    wrong = item.model_copy(update={"protocol": "freihand"})
    with pytest.raises(UserError, match=r"evaluations\.a\.protocol: 'freihand' is for a hand"):
        protocol_of("evaluations.a", wrong)


@pytest.mark.parametrize(
    ("attrs", "protocol", "fits"),
    [
        ({}, "3dpw", True),  # from before there was a choice
        ({}, "3dpw_gendered", False),
        ({"ground_truth": "neutral"}, "3dpw", True),
        ({"ground_truth": "gendered"}, "3dpw", False),
        ({"ground_truth": "gendered"}, "3dpw_gendered", True),
        ({"ground_truth": "native"}, "3dpw", False),
        ({"ground_truth": "native"}, "freihand", True),
        ({"ground_truth": "gendered"}, "human36m", True),
    ],
)
def test_meshes_of_another_gender_are_not_scored(attrs, protocol, fits):
    file = SimpleNamespace(attrs=attrs, path="data/prepared/body/3dpw.h5")
    if fits:
        check_ground_truth(load_protocol(protocol), file)
        return
    with pytest.raises(UserError, match=r"3dpw\.h5: ground_truth: '\w+', but protocol") as line:
        check_ground_truth(load_protocol(protocol), file)
    assert "\n" not in str(line.value)


# Entries of params.yaml


def test_the_committed_entries_agree_with_one_another():
    for name in PARAMS.methods:
        assert find_method(name, PARAMS).candidates
    for name, item in PARAMS.evaluations.items():
        assert find_evaluation(name, PARAMS) == item
        assert load_protocol(item.dataset).kind == item.kind


def _changed(section: str, name: str, **fields):
    entries = getattr(PARAMS, section)
    changed = {**entries, name: entries[name].model_copy(update=fields)}
    return PARAMS.model_copy(update={section: changed})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "magic"}, "methods: has no 'magic'"),
        ({"experiment": "pose"}, r"3dpw_dat\.experiment: 'pose', but method dat has 'image'"),
        ({"kind": "hand"}, r"3dpw_dat\.kind: 'hand', but method dat has 'body'"),
        ({"dataset": "agora"}, "datasets: has no 'agora'"),
        ({"dataset": "freihand"}, r"kind: 'body', but data set freihand has 'hand'"),
    ],
)
def test_an_evaluation_that_disagrees_is_one_clear_line(fields, message):
    with pytest.raises(UserError, match=message) as line:
        find_evaluation("3dpw_dat", _changed("evaluations", "3dpw_dat", **fields))
    assert "\n" not in str(line.value)


def test_a_method_that_disagrees_is_one_clear_line():
    for fields, message in (
        ({"experiment": "hand"}, r"methods\.dat\.kind: 'body', but its experiment has 'hand'"),
        ({"dataset": "freihand"}, r"methods\.dat\.kind: 'body', but data set freihand has"),
    ):
        with pytest.raises(UserError, match=message):
            find_method("dat", _changed("methods", "dat", **fields))
    with pytest.raises(UserError, match="evaluations: has no '3dpw_dta'"):
        find_evaluation("3dpw_dta", PARAMS)
