"""docs/sbom.json lists what requirements.lock pins."""

from __future__ import annotations

import json

from sbom import ROOT, SBOM, pins


def test_the_sbom_lists_exactly_what_the_lock_pins():
    listed = json.loads(SBOM.read_text(encoding="utf-8"))["components"]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert {(item["name"], item["version"]) for item in listed} == pins(lock)
    assert all(item["purl"] == f"pkg:pypi/{item['name']}@{item['version']}" for item in listed)


def test_the_sbom_tells_no_time_and_no_place():
    text = SBOM.read_text(encoding="utf-8")
    assert "timestamp" not in text and "serialNumber" not in text
    assert "://" not in text.replace("http://cyclonedx.org/schema/", "")
