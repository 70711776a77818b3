"""Model files come in as pickles: arrays get out of them, and nothing else happens."""

import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from hmdiff.bodies.unpickle import as_array, read_pickle
from hmdiff.errors import UserError


@pytest.fixture
def chumpy(monkeypatch):
    """Classes that pickle as chumpy's do, while chumpy itself stays uninstalled."""

    def module(name: str, cls: type) -> type:
        cls.__module__, cls.__qualname__ = name, cls.__name__
        fake = types.ModuleType(name)
        setattr(fake, cls.__name__, cls)
        monkeypatch.setitem(sys.modules, name, fake)
        return cls

    class Ch:
        def __init__(self, **state):
            self.__dict__.update(state, _dirty_vars=set(), _parents={})

    class Select(Ch):
        pass

    class Add(Ch):
        pass

    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    return types.SimpleNamespace(
        Ch=module("chumpy.ch", Ch),
        Select=module("chumpy.reordering", Select),
        Add=module("chumpy.ch_ops", Add),
    )


def write(path: Path, value: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_chumpy_values_become_arrays_without_chumpy(tmp_path, monkeypatch, chumpy, protocol):
    values = np.random.default_rng(0).normal(size=(5, 3, 4))
    first_two = np.arange(values.size).reshape(values.shape)[:, :, :2]
    shapedirs = chumpy.Select(
        a=chumpy.Ch(x=values), idxs=first_two.ravel(), preferred_shape=(5, 3, 2)
    )
    path = write(tmp_path / "m.pkl", {"v": chumpy.Ch(x=values), "s": shapedirs}, protocol)
    for name in [name for name in sys.modules if name.startswith("chumpy")]:
        monkeypatch.delitem(sys.modules, name)
    content = read_pickle(path)
    assert np.array_equal(as_array(content["v"]), values)
    assert np.array_equal(as_array(content["s"]), values[:, :, :2])


def test_a_chumpy_formula_is_not_taken_for_a_value(tmp_path, chumpy):
    path = write(tmp_path / "m.pkl", {"v": chumpy.Add(a=np.ones(3), b=np.ones(3))})
    with pytest.raises(ValueError, match="chumpy formula"):
        as_array(read_pickle(path)["v"])


@pytest.mark.parametrize("layout", [sp.csc_matrix, sp.csr_matrix])
@pytest.mark.parametrize("old_path", [False, True])
def test_sparse_matrices_of_old_and_new_scipy_are_read(tmp_path, layout, old_path):
    matrix = layout(sp.random(7, 9, 0.4, random_state=1))
    data = pickle.dumps({"J_regressor": matrix}, protocol=2)
    if old_path:  # before SciPy 1.8 the modules had no underscore
        name = layout.__name__[:3].encode()
        data = data.replace(b"scipy.sparse._" + name, b"scipy.sparse." + name)
    (tmp_path / "m.pkl").write_bytes(data)
    read = as_array(read_pickle(tmp_path / "m.pkl")["J_regressor"])
    assert np.array_equal(read.toarray(), matrix.toarray())


def test_a_sparse_matrix_with_indices_out_of_range_is_refused(tmp_path):
    matrix = sp.csc_matrix(np.eye(3))
    matrix.indices[0] = 77
    path = write(tmp_path / "m.pkl", {"J_regressor": matrix})
    with pytest.raises(ValueError):
        as_array(read_pickle(path)["J_regressor"])


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2, 2)])
def test_empty_arrays_are_read(tmp_path, shape):
    path = write(tmp_path / "m.pkl", {"v": np.zeros(shape)})
    assert as_array(read_pickle(path)["v"]).shape == shape


def test_a_python_2_pickle_with_numpys_old_path_is_read(tmp_path):
    values = np.arange(12.0).reshape(4, 3)
    data = pickle.dumps({"v": values, "bs_type": "lrotmin"}, protocol=2)
    (tmp_path / "m.pkl").write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    content = read_pickle(tmp_path / "m.pkl")
    assert np.array_equal(as_array(content["v"]), values)
    assert as_array(content["bs_type"]) == "lrotmin"


class _Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "named"), [(os.system, "system"), (eval, "eval"), (os.mkdir, "mkdir")]
)
def test_a_hostile_pickle_is_refused_by_name_and_does_not_run(
    tmp_path, function, named, protocol, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    argument = {"system": "touch ran", "eval": "open('ran', 'w')", "mkdir": "ran"}[named]
    path = write(tmp_path / "m.pkl", {"v_template": _Calls(function, argument)}, protocol)
    with pytest.raises(UserError, match=named) as caught:
        read_pickle(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    ["builtins.getattr", "builtins.__import__", "copyreg.__newobj_ex__", "numpy.load",
     "numpy._core.multiarray.fromfile", "operator.attrgetter", "hmdiff.bodies.unpickle.os"],
)  # fmt: skip
def test_only_listed_names_are_found(tmp_path, name):
    module, _, attribute = name.rpartition(".")
    (tmp_path / "m.pkl").write_bytes(f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(UserError, match="refused"):
        read_pickle(tmp_path / "m.pkl")


def test_what_a_pickle_reaches_cannot_be_altered_by_it(tmp_path):
    # BUILD would set attributes on a plain function.
    program = b"ccopyreg\n_reconstructor\n(dS'mark'\nI1\nsb."
    (tmp_path / "m.pkl").write_bytes(program)
    with pytest.raises(UserError, match="not a readable pickle"):
        read_pickle(tmp_path / "m.pkl")


def test_a_file_cut_anywhere_is_one_clear_line(tmp_path):
    whole = pickle.dumps({"v": np.ones(3), "J": sp.csc_matrix(np.eye(2))}, protocol=2)
    path = tmp_path / "m.pkl"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"m\.pkl: not a readable pickle"):
            read_pickle(path)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_dictionary_or_a_user_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    path.write_bytes(data)
    try:
        assert isinstance(read_pickle(path), dict)
    except UserError as error:
        assert "any.pkl" in str(error)


def test_a_pickle_of_something_else_is_named(tmp_path):
    with pytest.raises(UserError, match="holds a list"):
        read_pickle(write(tmp_path / "m.pkl", [1, 2]))


def test_a_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_pickle(tmp_path / "none.pkl")
