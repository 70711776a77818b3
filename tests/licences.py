"""Licences of the installed packages that requirements.lock pins; run as a script, lists them."""

from __future__ import annotations

import re
from collections import defaultdict
from importlib import metadata
from pathlib import Path

from hmdiff.doctor.installation import pinned

ROOT = Path(__file__).resolve().parent.parent
# Permissive: a notice at most. Whatever else a package needs is said about it in NOTICE.
ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD", "BSD-2-Clause", "BSD-3-Clause",
    "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "ZPL",
    "Zlib",
}  # fmt: skip
# What classifiers and old free text call them.
NAMES = {
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
    "Zope Public License": "ZPL",
}
# First words by which a licence file is known, where the metadata say nothing.
TEXTS = {
    "MIT": "Permission is hereby granted, free of charge",
    "Apache-2.0": "licensed under the Apache License",
}


def licences() -> dict[str, set[str]]:
    """Package -> its licences, of all that the lock pins for this platform and is installed."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    found = {}
    for name in pinned(lock):
        try:
            found[name] = licences_of(metadata.distribution(name))
        except metadata.PackageNotFoundError:
            continue  # `hmdiff doctor` says so
    return found


def licences_of(package: metadata.Distribution) -> set[str]:
    """All that a package's metadata name, whether joined by AND or by OR; ``?`` if nothing."""
    about = package.metadata
    classified = [
        entry.rpartition(" :: ")[2]
        for entry in about.get_all("Classifier", [])
        if entry.startswith("License :: ") and not entry.endswith("OSI Approved")
    ]
    expression = (about.get("License-Expression") or "").replace("(", "").replace(")", "")
    text = expression or "; ".join(classified) or about.get("License") or ""
    if text in ("", "UNKNOWN"):
        text = _from_file(package)
    return {NAMES.get(part, part) for part in re.split(r" AND | OR |; ", text)}


def _from_file(package: metadata.Distribution) -> str:
    for file in package.files or ():
        if re.search(r"dist-info/.*licen[cs]e", str(file), re.IGNORECASE):
            text = file.read_text(encoding="utf-8")
            for name, words in TEXTS.items():
                if words in text:
                    return name
    return "?"


if __name__ == "__main__":
    by_licence = defaultdict(list)
    for package, names in licences().items():
        by_licence[" / ".join(sorted(names))].append(package)
    for names, packages in sorted(by_licence.items()):
        print(f"{names}: {', '.join(packages)}")
