"""docs/audit.json is about the lock as it is now; advisories hit the versions that they name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import audit
import pytest
from audit import AUDIT, answer, digest, read, within
from packaging.version import Version
from sbom import ROOT, pins

EVENTS = [{"introduced": "1.0"}, {"fixed": "1.2"}, {"introduced": "2.0"}, {"last_affected": "2.1"}]
ADVISORY = """\
id: PYSEC-2024-1
details: "Reads\\n  outside its folder. {padding}"
aliases: [CVE-2024-2, CVE-2024-1]
affected:
- package: {{name: Some_Package, ecosystem: PyPI}}
  ranges:
  - {{type: GIT, events: [{{introduced: "0"}}, {{fixed: 0123abc}}]}}
  - {{type: ECOSYSTEM, events: [{{introduced: "0"}}, {{fixed: 1.10}}]}}
  versions: [2004b, 3.0.0]
"""
# It asks as pip-audit does, of what the option --osv-url names, and says what pip-audit says.
FAKE_UV = """\
#!{python}
import json, pathlib, sys, tomllib, urllib.request
url = sys.argv[sys.argv.index("--osv-url") + 1]
lock = pathlib.Path(sys.argv[-1], "pylock.toml").read_text()
said = []
for package in tomllib.loads(lock)["packages"]:
    query = dict(package=dict(name=package["name"], ecosystem="PyPI"), version=package["version"])
    hits = json.load(urllib.request.urlopen(url, json.dumps(query).encode())).get("vulns", [])
    fixed = lambda hit: [e["fixed"] for e in hit["affected"][0]["ranges"][0]["events"]]
    vulns = [dict(id=h["id"], aliases=h["aliases"], fix_versions=fixed(h), description=h["details"])
        for h in hits]
    said.append(package | dict(vulns=vulns))
print(json.dumps(dict(dependencies=said)))
sys.exit(1)
"""


def pinned() -> set[tuple[str, str]]:
    return pins((ROOT / "requirements.lock").read_text(encoding="utf-8"))


def checkout(folder: Path, text: str, name: str = "vulns/some-package/PYSEC-2024-1.yaml") -> Path:
    """A git checkout of an advisory database of one file, committed on a day."""
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(text, encoding="utf-8")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    environment = {"GIT_COMMITTER_DATE": "2024-10-10T12:00:00Z", "PATH": os.environ["PATH"]}
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", *words], cwd=folder, check=True, env=environment)
    return folder


def uv(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put this program in the place of uv, which would ask a package index for pip-audit."""
    folder.mkdir()
    (folder / "uv").write_text(text, encoding="utf-8")
    (folder / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_the_audit_is_of_what_the_lock_pins_now():
    said = json.loads(AUDIT.read_text(encoding="utf-8"))
    assert said["lock"] == digest(pinned()), "the lock has changed: run make audit"
    assert said["skipped"] == []
    assert {(hit["package"], hit["version"]) for hit in said["advisories"]} <= pinned()


def test_the_digest_is_of_every_pin():
    name, version = min(pinned())
    changed = pinned() - {(name, version)}
    assert len({digest(p)["sha256"] for p in (pinned(), changed, changed | {(name, "0.1")})}) == 3


def test_the_audit_tells_a_day_and_no_time_or_place():
    said = json.loads(AUDIT.read_text(encoding="utf-8"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", said["source"]["date"])
    ours = [{key: hit[key] for key in hit if key != "summary"} for hit in said["advisories"]]
    text = json.dumps(said | {"advisories": ours})
    assert not re.search(r"\d\d:\d\d|://|127\.0\.0\.1|localhost", text)
    assert str(ROOT) not in text


def test_a_range_holds_from_its_introduction_to_the_fix_or_the_last():
    affected = ("1.0", "1.2rc1", "2.0", "2.1")
    for version in (*affected, "0.9", "1.2", "1.10", "2.0a1", "2.1.post1", "3"):
        assert within(Version(version), EVENTS) == (version in affected), version
        assert within(Version(version), EVENTS[::-1]) == (version in affected), version


def test_the_edges_of_ranges():
    open_ended = [{"introduced": "0"}]
    assert within(Version("0.0a1.dev1"), open_ended) and within(Version("99"), open_ended)
    one = [{"introduced": "1"}, {"last_affected": "1"}]
    assert within(Version("1.0"), one) and not within(Version("1.0.1"), one)
    again = [{"introduced": "1"}, {"fixed": "2"}, {"introduced": "2"}]
    assert within(Version("2"), again)
    unreadable = [{"introduced": "1"}, {"fixed": "2019-09-12"}]
    assert within(Version("99"), unreadable) and not within(Version("0.9"), unreadable)


def test_versions_are_hit_by_range_or_list_under_any_spelling_of_the_name(tmp_path):
    source, found = read(checkout(tmp_path, ADVISORY.format(padding="")), {"some-package"})
    assert source["date"] == "2024-10-10" and source["about_pinned_packages"] == 1
    for name in ("some-package", "Some.Package", "some_package"):
        hits = {v: len(answer(found, name, v)) for v in ("1.9", "1.10", "1.1", "3.0", "3.0.1")}
        assert hits == {"1.9": 1, "1.10": 0, "1.1": 1, "3.0": 1, "3.0.1": 0}
    assert answer(found, "some-package-2", "1.9") == []
    withdrawn = [found[0] | {"withdrawn": "2024-01-01T00:00:00Z"}]
    assert answer(withdrawn, "some-package", "1.9") == []


def test_a_hit_is_written_and_fails(tmp_path, monkeypatch, capsys):
    database = checkout(tmp_path / "database", ADVISORY.format(padding="word " * 99))
    (tmp_path / "requirements.lock").write_text("some-package==1.9 ; python_version < '3'\nb==1\n")
    monkeypatch.setattr(audit, "ROOT", tmp_path)
    monkeypatch.setattr(audit, "AUDIT", tmp_path / "audit.json")
    uv(tmp_path / "bin", FAKE_UV.format(python=sys.executable), monkeypatch)
    assert audit.main(["pip-audit==1", "--advisories", str(database)]) == 1
    assert capsys.readouterr().out == "some-package 1.9: PYSEC-2024-1, fixed in 1.10\n"
    said = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert said["lock"] == digest({("some-package", "1.9"), ("b", "1")})
    (hit,) = said["advisories"]
    assert hit["aliases"] == ["CVE-2024-1", "CVE-2024-2"] and hit["fixed"] == ["1.10"]
    assert hit["summary"].startswith("Reads outside its folder. word") and len(hit["summary"]) < 161


@pytest.mark.parametrize(
    ("answered", "reason"),
    [
        ("echo 'no route' >&2; exit 1", "no route"),
        ("exit 1", "it said nothing"),
        ("""echo '{"dependencies": []}'""", "it told of 0 of 1 pins"),
        ("""echo '{"dependencies": [{"name": "b", "skip_reason": "no b"}]}'""", "no b"),
    ],
)
def test_no_answer_is_no_audit(tmp_path, monkeypatch, capsys, answered, reason):
    (tmp_path / "requirements.lock").write_text("b==1\n")
    monkeypatch.setattr(audit, "ROOT", tmp_path)
    monkeypatch.setattr(audit, "AUDIT", tmp_path / "audit.json")
    uv(tmp_path / "bin", f"#!/bin/sh\n{answered}\n", monkeypatch)
    assert audit.main(["pip-audit==1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"({reason})" in line and "make audit ADVISORIES=" in line
    assert not (tmp_path / "audit.json").exists()


def test_what_is_no_advisory_database_is_refused(tmp_path, capsys):
    other = checkout(tmp_path / "other", "", "README.md")
    broken = checkout(tmp_path / "broken", "id: [\n", "vulns/b/PYSEC-2024-3.yaml")
    for folder, said in (
        (other, "give a git checkout"),
        (tmp_path / "none", "give a git checkout"),
    ):
        assert audit.main(["pip-audit==1", "--advisories", str(folder)]) == 2
        assert said in capsys.readouterr().err
    assert audit.main(["pip-audit==1", "--advisories", str(broken)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "PYSEC-2024-3.yaml" in line and "take another commit" in line
