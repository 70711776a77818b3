"""Nothing in the default install has a licence that is neither permissive nor told in NOTICE."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from licences import ALLOWED, licences, licences_of
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
NOTICE = (ROOT / "NOTICE").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def told(package: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(package)}(?![\w-])", NOTICE) is not None


def test_every_licence_is_permissive_or_told_in_the_notice():
    found = licences()
    assert len(found) > 100
    asking = {
        package: names - ALLOWED
        for package, names in found.items()
        if names - ALLOWED and not (told(package) or package.startswith("nvidia-"))
    }
    assert asking == {}, "name these packages in NOTICE, with what follows from their licence"
    assert "NVIDIA's CUDA libraries" in NOTICE


def test_a_licence_that_is_not_permissive_is_seen():
    assert "MPL-2.0" in {name for names in licences().values() for name in names}
    assert licences_of(metadata.distribution("smplx")) == {"?"}


@pytest.mark.parametrize("package", PROJECT["dependencies"])
def test_a_direct_dependency_s_licence_is_known(package):
    name = re.match(r"[\w.-]+", package)[0]
    assert told(name) or "?" not in licences_of(metadata.distribution(name))


def test_the_project_s_own_licence_is_apache_2_everywhere():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache-2.0" in NOTICE.split("\n\n")[0]
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == "Apache-2.0"
    assert citation["version"] == PROJECT["version"]


def test_the_citation_names_the_paper_and_how_to_cite_the_project():
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    (paper,) = citation["references"]
    assert paper["title"] == "Distribution-Aligned Diffusion for Human Mesh Recovery"
    assert [author["family-names"] for author in paper["authors"]] == [
        "Foo", "Gong", "Rahmani", "Liu",
    ]  # fmt: skip
    assert (paper["year"], paper["collection-title"][-4:]) == (2023, "ICCV")
