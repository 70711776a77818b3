"""What requirements.lock pins as CycloneDX; as a script, shortens what cyclonedx-py writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
SBOM = ROOT / "docs" / "sbom.json"
KEPT = ("bom-ref", "name", "version", "type", "purl")


def pins(lock: str) -> set[tuple[str, str]]:
    """Name and version of every line of the lock, whatever its marker."""
    lines = (line for line in lock.splitlines() if "==" in line and line[0] not in "# ")
    wanted = (Requirement(line.removesuffix("\\")) for line in lines)
    return {(item.name, pin.version) for item in wanted for pin in item.specifier}


def shortened(bom: dict) -> dict:
    """Without hashes, which the lock has, and without where the packages were looked for."""
    components = [{key: item[key] for key in KEPT if key in item} for item in bom["components"]]
    for item in components:
        item["bom-ref"] = item["purl"]
    kept = ("$schema", "bomFormat", "specVersion", "version")
    return {key: bom[key] for key in kept} | {
        "metadata": {"component": {"bom-ref": "hmdiff", "name": "hmdiff", "type": "application"}},
        "components": sorted(components, key=lambda item: item["purl"]),
    }


if __name__ == "__main__":
    SBOM.write_text(json.dumps(shortened(json.load(sys.stdin)), indent=1) + "\n", encoding="utf-8")
