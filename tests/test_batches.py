"""Mixtures: which rows training sees, how often, and where they are read from."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from toys import make_body, make_features, make_model, make_sampling, rng, training_params

from hmdiff.batches import epoch, mixture_files, row_weights, sample_batches
from hmdiff.errors import UserError
from hmdiff.extractor import features
from hmdiff.extractor.features import ARRAYS, FeatureFiles, features_writer, read_features
from hmdiff.params import load_params
from hmdiff.params.models import Mixture
from hmdiff.training.loop import train

ROOT = Path(__file__).parents[1]

# The order


def test_every_experiment_sees_the_same_number_of_samples_in_whole_epochs():
    batches = list(sample_batches(torch.ones(10), 43, 8, rng()))
    assert [len(batch) for batch in batches] == [8, 8, 8, 8, 8, 3]
    seen = torch.cat(batches)
    for start in range(0, 40, 10):
        assert sorted(seen[start : start + 10].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:20].tolist()


def test_a_weight_says_how_often_a_row_stands_in_an_epoch():
    weights = row_weights([3, 500, 2], [2.0, 0.25, 1.0])
    assert weights.tolist() == [2.0] * 3 + [0.25] * 500 + [1.0] * 2
    random = rng()
    counts = torch.stack([epoch(weights, random).bincount(minlength=505) for _ in range(20)])
    assert (counts[:, :3] == 2).all() and (counts[:, 503:] == 1).all()
    assert counts[:, 3:503].max() == 1
    share = counts[:, 3:503].float().mean()  # of 10,000 draws: deviation 0.0043
    assert float(share) == pytest.approx(0.25, abs=0.02)


def test_epochs_are_shuffled_and_follow_the_seed():
    weights = row_weights([40], [1.5])
    one, same, other = (epoch(weights, rng(seed)).tolist() for seed in (0, 0, 1))
    assert one == same != other
    assert one != sorted(one)


# The parameters


def test_a_list_of_data_sets_is_a_mixture_of_weight_one():
    mixture = TypeAdapter(Mixture).validate_python
    assert mixture(["b", "a"]) == {"b": 1.0, "a": 1.0}
    assert list(mixture(["b", "a"])) == ["b", "a"]
    assert mixture({"a": 2, "b": 0.5}) == {"a": 2.0, "b": 0.5}
    for wrong in ([], ["a", "a"], ["a", []], [3], {"a": 0}, {"a": -1}, "a"):
        with pytest.raises(ValidationError):
            mixture(wrong)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("depth: 1, datasets: [3dpw, human36m]", "depth: 1, datasets: [3dpv]",
         r"experiments\.image\.datasets: '3dpv' is no data set of kind body; take of human36m"),
        ("depth: 1, datasets: [3dpw, human36m]", "depth: 1, datasets: [freihand]",
         r"experiments\.image\.datasets: 'freihand' is no data set of kind body"),
        ("    datasets: [freihand]\n", "    datasets: [3dpw]\n",
         r"extractor\.hand\.datasets: '3dpw' is no data set of kind hand"),
        ("finetunes: {}", "finetunes: {x: {kind: body, base: hand, ONE}}",
         r"finetunes\.x\.base: 'hand' is no diffusion or direct experiment of kind body"),
        ("finetunes: {}", "finetunes: {x: {kind: body, base: linear, ONE}}",
         r"finetunes\.x\.base: 'linear' is no"),
        ("finetunes: {}", "finetunes: {pose: {kind: body, base: image, ONE}}",
         r"finetunes\.pose: an experiment has this name too"),
        ("micro_batch: null", "micro_batch: 5", r"extractor\.body: .*micro_batch must divide"),
    ],
)  # fmt: skip
def test_a_mixture_that_cannot_be_is_one_line(tmp_path, old, new, message):
    rest = "datasets: [3dpw], samples: 9, learning_rate: 1.0e-3, warmup: 0"
    text = (ROOT / "params.yaml").read_text()
    assert old in text
    (tmp_path / "params.yaml").write_text(text.replace(old, new.replace("ONE", rest), 1))
    with pytest.raises(UserError, match=message) as line:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(line.value)


# The files


def write_features(path: Path, count: int, seed: int = 0) -> None:
    """Rows of make_features in turns of train, val, test; the training rows once more, changed."""
    rows = make_features(count, seed)
    split = np.arange(count) % 3
    again = np.flatnonzero(split == 0)
    with features_writer(path, count + len(again), {"dataset": path.stem, "kind": "body"}) as file:
        for copy, chosen in enumerate((np.arange(count), again)):
            part = rows.select(chosen)
            block = {name: getattr(part, name).numpy() for name in ARRAYS}
            block["joints"] = block["joints"] + copy
            block |= {"split": split[chosen].astype(np.uint8), "sample_id": part.sample_id}
            file.append(block | {"copy": np.full(len(chosen), copy, np.uint16)})


@pytest.fixture
def folder(tmp_path) -> Path:
    for seed, (name, count) in enumerate({"a": 12, "b": 30, "other": 9}.items()):
        write_features(tmp_path / f"{name}.h5", count, seed)
    return tmp_path


def test_only_the_named_files_are_read_in_their_order(folder):
    (folder / "other.h5").write_bytes(b"no HDF5")
    files = FeatureFiles(mixture_files(folder, {"b": 1.0, "a": 1.0}), "val")
    assert files.names == ["b"] * 10 + ["a"] * 4
    assert files.counts == [10, 4] and len(files) == 14


def test_streamed_rows_are_those_read_whole(folder):
    files = FeatureFiles([folder / "b.h5", folder / "a.h5"], "train", copies=False)
    parts = [read_features(folder / name, "train") for name in ("b.h5", "a.h5")]
    picked = [13, 0, 10, 9, 9]  # of both files, out of order and twice
    rows = files.select(picked)
    assert rows.sample_id == [files.sample_id[row] for row in picked]
    for name in ARRAYS:
        whole = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(getattr(rows, name), whole[picked]), name
        assert torch.equal(files.read(name), whole), name
    everything = sum(getattr(part, name).nbytes for part in parts for name in ARRAYS)
    assert files.bytes == everything


def test_copies_are_rows_of_training_alone_and_evaluation_never_sees_them(folder):
    path = folder / "a.h5"
    plain = make_features(12).joints
    assert torch.equal(read_features(path, "train").joints, plain[::3])
    files = FeatureFiles([path], "train")
    assert torch.equal(files.read("joints"), torch.cat([plain[::3], plain[::3] + 1]))
    assert files.sample_id == files.sample_id[:4] * 2
    for split in ("val", "test"):
        assert len(FeatureFiles([path], split)) == 4


def test_training_on_files_is_training_on_the_same_rows_in_memory(folder):
    files = FeatureFiles([folder / "b.h5"], "train")
    sampling = make_sampling()
    results = []
    for rows in (files, files.select(range(len(files)))):
        model, _ = train(
            make_model(vertices=12),
            rows,
            torch.as_tensor(sampling.coarse_regressor(make_body().regressor.numpy())),
            torch.as_tensor(sampling.coarse_faces),
            training_params(samples=40),
            weights=row_weights(files.counts, [1.5]),
            seed=0,
            device=torch.device("cpu"),
            precision="fp32",
        )
        results.append(model.state_dict())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_fewer_names_than_rows_are_one_line(tmp_path):
    path = tmp_path / "a.h5"
    write_features(path, 12)
    with h5py.File(path, "r+") as file:
        del file["sample_id"]
        file.create_dataset("sample_id", data=["a"], dtype=h5py.string_dtype())
    with pytest.raises(UserError, match=r"a\.h5: is damaged .*; delete it and run") as line:
        read_features(path, "train")
    assert "\n" not in str(line.value)


def test_files_that_do_not_belong_together_are_one_line(folder):
    with h5py.File(folder / "b.h5", "r+") as file:
        draws = file["draws"][:, :2]
        del file["draws"]
        file["draws"] = draws
    with pytest.raises(UserError, match=r"b\.h5: draws: its shape is not that of .*a\.h5") as line:
        FeatureFiles([folder / "a.h5", folder / "b.h5"], "train")
    assert "\n" not in str(line.value)
    with pytest.raises(UserError, match=r"c\.h5: no such file; run extract_features@c"):
        FeatureFiles([folder / "a.h5", folder / "c.h5"], "train")


def test_chunked_arrays_are_read_as_well(folder):
    shutil.copy(folder / "a.h5", folder / "chunked.h5")
    with h5py.File(folder / "chunked.h5", "r+") as file:
        centre = file["centre"][:]
        del file["centre"]
        file.create_dataset("centre", data=centre, chunks=(1, *centre.shape[1:]))
    one, other = (read_features(folder / f"{name}.h5", "val") for name in ("a", "chunked"))
    assert dataclasses.asdict(one).keys() == dataclasses.asdict(other).keys()
    assert torch.equal(one.centre, other.centre)


def test_rows_of_files_can_be_restricted_and_are_let_go_while_they_are_read(folder, monkeypatch):
    files = FeatureFiles([folder / "b.h5", folder / "a.h5"], "train", copies=False)
    whole = files.select(range(len(files)))
    let_go = []
    monkeypatch.setattr(features, "_MAPPED", 2**17)
    monkeypatch.setattr(features._MappedFile, "let_go", lambda part: let_go.append(part))
    part = files.restricted([0, 3, 9, 10, 13])
    assert part.counts == [3, 2] and part.sample_id == whole.select([0, 3, 9, 10, 13]).sample_id
    for name in ARRAYS:
        assert torch.equal(part.read(name), getattr(whole, name)[[0, 3, 9, 10, 13]]), name
    assert let_go, "what is mapped is bounded"
    monkeypatch.undo()
    part._parts[0].let_go()
    assert torch.equal(part.select([4, 0]).draws, whole.draws[[13, 0]])
