"""Presets are overlays that keep params.yaml valid and lead back to what is committed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from hmdiff.acquisition import catalogue
from hmdiff.errors import UserError
from hmdiff.evaluation.items import find_evaluation, find_method
from hmdiff.params import load_params
from hmdiff.presets import apply_preset, available

ROOT = Path(__file__).resolve().parent.parent
PRESETS = available(ROOT / "presets")


@pytest.fixture
def params(tmp_path) -> Path:
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path))


def keys(tree: dict, prefix: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    found = set()
    for key, value in tree.items():
        path = (*prefix, key)
        found |= keys(value, path) if isinstance(value, dict) else {path}
    return found


def overlay(name: str) -> dict:
    values = YAML(typ="safe").load((ROOT / "presets" / f"{name}.yaml").read_text())
    values.pop("add", None)
    return values


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_valid_parameters(params, name):
    apply_preset(name, params)
    assert load_params(params).preset == name


@pytest.mark.parametrize("name", PRESETS)
def test_the_default_preset_leads_back_to_the_committed_bytes(params, name):
    committed = params.read_bytes()
    apply_preset(name, params)
    assert (params.read_bytes() == committed) == (name == "default")
    apply_preset("default", params)
    assert params.read_bytes() == committed


def test_from_one_preset_to_another_is_as_from_the_default(params):
    apply_preset("smoke", params)
    direct = params.read_bytes()
    apply_preset("paper", params)
    apply_preset("smoke", params)
    assert params.read_bytes() == direct


def test_a_preset_is_the_same_twice(params):
    apply_preset("paper", params)
    once = params.read_bytes()
    assert apply_preset("paper", params) == 0
    assert params.read_bytes() == once


def test_the_papers_rows_of_3dpw_are_of_models_fine_tuned_on_it(params):
    apply_preset("paper", params)
    found = load_params(params)
    for name in found.methods:
        find_method(name, found)
    for name, item in found.evaluations.items():
        find_evaluation(name, found)
        datasets = set(found.trained[item.experiment].datasets)
        assert (datasets == {"3dpw"}) == (item.dataset == "3dpw"), name
        assert item.dataset in datasets
    with pytest.raises(UserError, match="take one of"):
        find_method("nobody", found)


def test_the_papers_backbone_starts_from_a_file_that_dvc_sees_and_the_catalogue_names(params):
    apply_preset("paper", params)
    extractors = load_params(params).extractor.values()
    stage = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]["pretrain_extractor"]
    entry = catalogue.find("backbone")
    for extractor in extractors:
        assert str(extractor.pretrained.parent) in stage["do"]["deps"]
        assert extractor.pretrained.name in entry.required
        assert extractor.pretrained.name.startswith(f"{extractor.backbone}.")


def test_backbone_weights_where_dvc_does_not_look_are_refused(params):
    text = params.read_text().replace("pretrained: null", "pretrained: weights/x.safetensors", 1)
    params.write_text(text)
    with pytest.raises(UserError, match=r"extractor\.body\.pretrained: .*data/licensed/backbone"):
        load_params(params)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_how_much_memory_its_trainings_need(params, name):
    """dvc.yaml takes it from there, so that the scheduler knows."""
    apply_preset(name, params)
    memory = load_params(params).memory
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    for stage, key in (
        ("pretrain_extractor", "pretrain_extractor"), ("train", "train"), ("finetune", "train"),
    ):  # fmt: skip
        assert stages[stage]["do"]["meta"]["mem_mb"] == f"${{memory.{key}}}"
        assert getattr(memory, key) >= 1000


@pytest.mark.parametrize("name", PRESETS)
def test_every_overlaid_key_has_its_committed_value_in_the_default_preset(name):
    assert keys(overlay(name)) <= keys(overlay("default"))


def test_comments_survive_a_preset(params):
    def comments() -> list[str]:
        return [line.split("#", 1)[1] for line in params.read_text().splitlines() if "#" in line]

    before = comments()
    apply_preset("smoke", params)
    assert len(before) > 30
    assert comments() == before


def test_an_unknown_preset_names_the_known_ones(params):
    before = params.read_text()
    with pytest.raises(UserError, match=r"unknown; one of .*smoke"):
        apply_preset("smoek", params)
    assert params.read_text() == before


def test_a_preset_with_a_wrong_key_or_value_leaves_the_parameters_alone(params):
    before = params.read_text()
    for text, reason in (("seeds: 1", "not a key"), ("seed: -1", "greater than or equal")):
        (params.parent / "presets/wrong.yaml").write_text(text)
        with pytest.raises(UserError, match=reason):
            apply_preset("wrong", params)
        assert params.read_text() == before


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("add: {experiments: {image: {kind: body}}}", "add.experiments.image: .*of this name"),
        ("add: {reverse: {speed: 3}}", "add.reverse: not one of datasets, standins"),
        ("add: {methods: {new: {kind: body}}}", "methods.new.experiment: Field required"),
        # What one of ruamel's readers takes and the other does not.
        ("prepare: \t {size: 32}", r"wrong\.yaml: not valid YAML .*mend"),
    ],
)
def test_a_wrong_addition_leaves_the_parameters_alone(params, text, reason):
    before = params.read_text()
    (params.parent / "presets/wrong.yaml").write_text(f"preset: wrong\n{text}\n")
    with pytest.raises(UserError, match=reason) as line:
        apply_preset("wrong", params)
    assert "\n" not in str(line.value)
    assert params.read_text() == before


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("seed: 0", "seed: minus one", "seed"),
        ("preset: default", "presets: default", "preset"),
        ("eta: 0.0", "eta: 2.0", "reverse.eta"),
        ("parametrisation: edm", "parametrisation: emd", "diffusion.parametrisation"),
        ("self_heads: 1", "self_heads: 3", "denoiser.self_heads"),
        ("cross_heads: 4", "cross_heads: 0", "denoiser.cross_heads"),
        ("body: 1.0, hand: 5.0", "body: 1.0", "diffusion.scale.hand"),
        ("body: 1.0, hand: 5.0", "body: 0.0, hand: 5.0", "diffusion.scale.body"),
        ("condition: image, depth: 1", "condition: image, depth: 0", "experiments.image: "),
    ],
)
def test_a_parameter_out_of_range_is_one_line_that_names_it(params, old, new, field):
    text = params.read_text()
    assert old in text
    params.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        load_params(params)
    assert field in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parameters_that_are_not_yaml_are_one_line(params):
    params.write_text("seed: [1\n")
    with pytest.raises(UserError, match="not valid YAML") as caught:
        load_params(params)
    assert "\n" not in str(caught.value)


def test_the_studys_sweeps_and_probes_are_stages_and_the_default_has_none(params):
    """DVC resolves dvc.yaml as it will for the run; nothing is run."""
    folder = params.parent
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    no_scm = True\n")

    def resolved() -> dict[str, str]:
        return {stage.name: stage.cmd for stage in Repo(str(folder)).index.stages}

    committed = resolved()
    assert not [name for name in committed if name.startswith(("sweep", "probe"))]
    apply_preset("study", params)
    sweeps, study = load_params(params).sweeps, resolved()
    added = {f"probe@{kind}" for kind in ("body", "hand")} | {f"sweep@{name}" for name in sweeps}
    assert set(study) - set(committed) == added
    for name, sweep in sweeps.items():
        command = study[f"sweep@{name}"]
        assert command.startswith(f"hmdiff sweep {name} --model models/train/{sweep.experiment} ")
        assert f"--steps runs/steps/{sweep.method}.json" in command


def test_the_study_compares_learning_rates_with_equal_budgets(params):
    apply_preset("study", params)
    found = load_params(params)
    rates = [item for item in found.sweeps.values() if item.parameter == "training.learning_rate"]
    trained = {name for name, item in found.experiments.items() if item.model != "linear"}
    assert {item.experiment for item in rates} == trained - {"hand"}
    for item in rates:
        own = found.experiments[item.experiment].learning_rate or found.training.learning_rate
        assert {own, *item.values} == {2e-3, 4e-3, 8e-3}
    assert len({item.images for item in rates}) == 1
    assert found.training.repeats >= 3
    for item in found.standins.values():
        assert item.yaw == 180
    images = found.evaluation.samples
    assert all(item.test >= images for item in found.standins.values())
