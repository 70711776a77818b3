"""What is known against the pins of requirements.lock, into docs/audit.json: `make audit`.

pip-audit asks its own service, or, where a git checkout of the Python advisory database is given,
a server in here that answers OSV queries from the checkout's last commit.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from sbom import ROOT, pins

from hmdiff.errors import UserError

AUDIT = ROOT / "docs" / "audit.json"
HERE = "127.0.0.1"
# In this order where two are at one version: fixed is before it, last_affected is after it.
KINDS = ("fixed", "introduced", "last_affected")


def digest(pinned: Iterable[tuple[str, str]]) -> dict:
    """Tells whether a lock pins the same: the number of its pins and their SHA-256."""
    lines = sorted(f"{name}=={version}\n" for name, version in pinned)
    return {"pins": len(lines), "sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}


def version_of(text: str) -> Version | None:
    """None for what PEP 440 does not know, as some old releases and some bounds are."""
    try:
        return Version(text)
    except InvalidVersion:
        return None


def within(version: Version, events: list[dict]) -> bool:
    """Whether OSV's events leave ``version`` affected; an unreadable bound does not end a range."""
    bounds = []
    for kind, text in (item for event in events for item in event.items() if item[0] in KINDS):
        at = version_of(text)
        if kind == "introduced" and (text == "0" or at is None):
            at = Version("0.dev0")  # "0" is before all versions, pre-releases too
        if at is not None:
            bounds.append((at, KINDS.index(kind)))
    affected = False
    for at, kind in sorted(bounds):
        if version > at or (version == at and KINDS[kind] != "last_affected"):
            affected = KINDS[kind] == "introduced"
    return affected


def about(item: dict, names: set[str]) -> list[dict]:
    """The parts of an advisory that are about one of these packages of PyPI."""
    named = [part for part in item.get("affected", []) if "package" in part]
    return [
        part
        for part in named
        if part["package"]["ecosystem"] == "PyPI"
        and canonicalize_name(part["package"]["name"]) in names
    ]


def answer(advisories: list[dict], name: str, version: str) -> list[dict]:
    """Advisories that hit a version, with what pip-audit reads of them."""
    wanted, package, hits = Version(version), canonicalize_name(name), []
    for item in advisories:
        parts = about(item, {package})
        ranges = [r for part in parts for r in part.get("ranges", []) if r["type"] == "ECOSYSTEM"]
        listed = (version_of(text) for part in parts for text in part.get("versions", []))
        hit = wanted in listed or any(within(wanted, span["events"]) for span in ranges)
        if hit and "withdrawn" not in item:
            fixed = (event.get("fixed") for span in ranges for event in span["events"])
            # One range: pip-audit looks for the fixed versions in no other.
            events = [{"fixed": text} for text in fixed if text and version_of(text)]
            part = {"package": {"name": package, "ecosystem": "PyPI"}}
            part["ranges"] = [{"type": "ECOSYSTEM", "events": events}]
            kept = {
                key: item[key] for key in ("id", "aliases", "summary", "details") if key in item
            }
            hits.append(kept | {"affected": [part]})
    return hits


def read(checkout: Path, names: set[str]) -> tuple[dict, list[dict]]:
    """The source and its advisories about these packages, of a checkout's last commit."""
    git, found = ["git", "-C", str(checkout)], []
    try:
        last = subprocess.run([*git, "log", "-1", "--format=%H %cs"], capture_output=True)
        tree = subprocess.run([*git, "archive", "HEAD:vulns"], capture_output=True, check=True)
        commit, date = last.stdout.decode().split()
        with tarfile.open(fileobj=io.BytesIO(tree.stdout)) as archive:
            for file in (member for member in archive if member.name.endswith(".yaml")):
                # Strings only: 1.10 is a version, not a number.
                found.append(YAML(typ="base").load(archive.extractfile(file).read()))
    except (subprocess.CalledProcessError, ValueError):
        pass
    except YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{checkout}: vulns/{file.name}: {reason}; take another commit") from None
    if not found:
        raise UserError(
            f"{checkout}: no advisories in vulns/ of its last commit; "
            "give a git checkout of pypa/advisory-database"
        )
    ours = [item for item in found if about(item, names)]
    counts = {"advisories": len(found), "about_pinned_packages": len(ours)}
    return {"name": "pypa/advisory-database", "commit": commit, "date": date} | counts, ours


@contextmanager
def served(advisories: list[dict]) -> Iterator[str]:
    """The address, on this machine, of a server of OSV's query."""

    class Query(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            vulns = answer(advisories, query["package"]["name"], query["version"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"vulns": vulns} if vulns else {}).encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer((HERE, 0), Query) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{HERE}:{server.server_port}/v1/query"
        finally:
            server.shutdown()


def ask(tool: str, pinned: set[tuple[str, str]], *options: str) -> list[dict]:
    """What pip-audit says of every pin.

    It gets them as a pylock.toml: of requirements.lock it would read only the lines whose marker
    holds on this machine.
    """
    packages = (f'[[packages]]\nname = "{n}"\nversion = "{v}"\n' for n, v in sorted(pinned))
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or HERE
    environment = os.environ | dict.fromkeys(("no_proxy", "NO_PROXY"), f"{direct},{HERE}")
    with tempfile.TemporaryDirectory() as folder:
        lock = 'lock-version = "1.0"\ncreated-by = "make audit"\n' + "".join(packages)
        (Path(folder) / "pylock.toml").write_text(lock, encoding="utf-8")
        command = ["uv", "tool", "run", "--quiet", "--from", tool, "pip-audit", "--format", "json"]
        command += ["--progress-spinner", "off", "--cache-dir", f"{folder}/cache", *options]
        command += ["--locked", folder]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    # It ends with 1 where it has found something, and where it could not ask.
    try:
        said = json.loads(done.stdout)["dependencies"]
        reason = f"it told of {len(said)} of {len(pinned)} pins"
    except ValueError:
        said, reason = [], (done.stderr.strip().splitlines() or ["it said nothing"])[-1].strip()
    # A mirror of the index without advisories knows no pin, and pip-audit calls that no finding.
    skipped = [item["skip_reason"] for item in said if "skip_reason" in item]
    if len(said) == len(pinned) > len(skipped):
        return said
    raise UserError(
        f"{tool}: no answer ({skipped[0] if skipped else reason}); without internet, clone "
        "pypa/advisory-database elsewhere and run make audit ADVISORIES=<the clone>"
    )


def record(tool: str, source: dict, pinned: set[tuple[str, str]], said: list[dict]) -> dict:
    """What docs/audit.json holds; nothing of the machine or the time of day."""
    hits = [
        {
            "package": item["name"],
            "version": item["version"],
            "id": vuln["id"],
            "aliases": sorted(vuln["aliases"]),
            "fixed": vuln["fix_versions"],
            "summary": textwrap.shorten(vuln["description"], 160, placeholder=" ..."),
        }
        for item in said
        for vuln in item.get("vulns", [])
    ]
    return {
        "tool": tool,
        "source": source,
        "lock": digest(pinned),
        "advisories": sorted(hits, key=lambda hit: (hit["package"], hit["version"], hit["id"])),
        "skipped": sorted(item["skip_reason"] for item in said if "skip_reason" in item),
    }


def main(arguments: list[str] | None = None) -> int:
    """0: nothing is known against the pins; 1: something is, or a pin was skipped; 2: no answer."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tool", help="pip-audit, as uv is to take it: pip-audit==VERSION")
    parser.add_argument("--advisories", type=Path, help="git checkout of pypa/advisory-database")
    options = parser.parse_args(arguments)
    pinned = pins((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    try:
        if options.advisories:
            names = {canonicalize_name(name) for name, _ in pinned}
            source, advisories = read(options.advisories, names)
            with served(advisories) as url:
                said = ask(options.tool, pinned, "--vulnerability-service", "osv", "--osv-url", url)
        else:
            source = {"name": "PyPI", "date": datetime.now(UTC).date().isoformat()}
            said = ask(options.tool, pinned)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    found = record(options.tool, source, pinned, said)
    AUDIT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for hit in found["advisories"]:
        fixed = ", ".join(hit["fixed"]) or "no version"
        print(f"{hit['package']} {hit['version']}: {hit['id']}, fixed in {fixed}")
    for reason in found["skipped"]:
        print(reason)
    return 1 if found["advisories"] or found["skipped"] else 0


if __name__ == "__main__":
    sys.exit(main())
