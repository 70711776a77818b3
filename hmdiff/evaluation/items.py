"""Entries of params.yaml that name one another: methods and evaluations, looked up and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hmdiff.errors import UserError
from hmdiff.files import read_json
from hmdiff.params import Params
from hmdiff.params.runs import EvaluationItem, MethodParams

if TYPE_CHECKING:
    from hmdiff.evaluation.protocols import Protocol

Entry = TypeVar("Entry")


def find_method(name: str, params: Params) -> MethodParams:
    """``methods.NAME`` of params.yaml.

    Raises:
        UserError: there is none, or it disagrees with its experiment or its data set.
    """
    method = _entry(params.methods, "methods", name)
    experiment = _entry(params.trained, "experiments", method.experiment)
    _agree(f"methods.{name}.kind", method.kind, "its experiment has", experiment.kind)
    _check_dataset(f"methods.{name}", method, params)
    return method


def find_evaluation(name: str, params: Params) -> EvaluationItem:
    """``evaluations.NAME`` of params.yaml.

    Its data set and guidance may differ from the method's: the method is what is trained and how
    many steps it takes, the evaluation is how these steps are run, and on what.

    Raises:
        UserError: there is none, or it disagrees with its method or its data set.
    """
    item = _entry(params.evaluations, "evaluations", name)
    method = find_method(item.method, params)
    for field in ("experiment", "kind"):
        here, there = getattr(item, field), getattr(method, field)
        _agree(f"evaluations.{name}.{field}", here, f"method {item.method} has", there)
    _check_dataset(f"evaluations.{name}", item, params)
    return item


def protocol_of(label: str, entry: MethodParams | EvaluationItem) -> Protocol:
    """The protocol that an entry of params.yaml names, or its data set's own.

    Raises:
        UserError: it is for the other kind; ``label`` names the entry.
    """
    # Imported here: its libraries take a second, and not everybody who looks up an entry scores.
    from hmdiff.evaluation.protocols import load_protocol

    protocol = load_protocol(entry.protocol or entry.dataset)
    if protocol.kind != entry.kind:
        raise UserError(
            f"params.yaml: {label}.protocol: {protocol.name!r} is for a {protocol.kind}, but the "
            f"entry's kind is {entry.kind!r}; take another protocol"
        )
    return protocol


def read_trained(model: Path, experiment: str) -> dict[str, Any]:
    """The record in the folder ``model``: what its weights were trained on, and how.

    Raises:
        UserError: the record is missing, damaged, or of another experiment.
    """
    path = model / "model.json"
    record = read_json(path)
    found = record.get("name") if isinstance(record, dict) else None
    if found != experiment:
        raise UserError(f"{path}: name: {found!r}, not {experiment!r}; run train@{experiment}")
    return record


def _entry(section: Mapping[str, Entry], label: str, name: str) -> Entry:
    if name not in section:
        raise UserError(f"params.yaml: {label}: has no {name!r}; take one of {', '.join(section)}")
    return section[name]


def _check_dataset(label: str, entry: MethodParams | EvaluationItem, params: Params) -> None:
    kind = _entry(params.datasets, "datasets", entry.dataset).kind
    _agree(f"{label}.kind", entry.kind, f"data set {entry.dataset} has", kind)


def _agree(field: str, found: str, owner: str, wanted: str) -> None:
    if found != wanted:
        raise UserError(f"params.yaml: {field}: {found!r}, but {owner} {wanted!r}; make them agree")
