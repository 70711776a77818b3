"""What is here, what is missing, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hmdiff.acquisition.catalogue import DOWNLOADS, LICENSED, Archive, Entry, catalogue, find
from hmdiff.acquisition.checksums import known_wrong, verify
from hmdiff.errors import UserError
from hmdiff.kinds import KINDS
from hmdiff.params import load_params, read_yaml


@dataclass(frozen=True)
class Status:
    """One entry of the catalogue."""

    name: str
    kind: str  # dataset, model or weights
    state: str  # present, partial, missing or wrong checksum
    lacks: tuple[str, ...]  # required parts that are not there
    todo: str  # one line; empty when present

    @property
    def line(self) -> str:
        """The state in words."""
        more = f" and {len(self.lacks) - 1} more" if len(self.lacks) > 1 else ""
        lacks = f"lacks {self.lacks[0]}{more}" if self.state == "partial" else ""
        return "; ".join(filter(None, (lacks, self.todo)))


def statuses(verify_archives: bool = False) -> list[Status]:
    """The whole catalogue, in its order.

    Args:
        verify_archives: read the archives in data/downloads again, to compare their checksums.
    """
    return [status(name, verify_archives=verify_archives) for name in catalogue()]


def status(name: str, folder: Path | None = None, verify_archives: bool = False) -> Status:
    """One entry of the catalogue.

    Args:
        folder: where it lies; None: ``data/licensed/NAME``.
    """
    entry = find(name)
    home, store = folder or LICENSED / name, DOWNLOADS / name
    lacks = entry.lacking(home)
    wrong = [archive.name for archive in entry.archives if _wrong(archive, store, verify_archives)]
    if wrong:
        todo = f"delete {store / wrong[0]}, then `hmdiff data fetch {name}`"
        return Status(name, entry.kind, "wrong checksum", tuple(lacks), todo)
    if not lacks:
        return Status(name, entry.kind, "present", (), "")
    state = "missing" if set(lacks) == set(entry.required) else "partial"
    return Status(name, entry.kind, state, tuple(lacks), _todo(name, entry, home, lacks))


def missing(params: str | Path = "params.yaml") -> list[str]:
    """What ``acquire.source: real`` asks for and is not there: one line each, with the remedy.

    Empty for any other source; the rest of the file is then not even checked.
    """
    raw = read_yaml(params)
    acquire = raw.get("acquire") if isinstance(raw, dict) else None
    if not isinstance(acquire, dict) or acquire.get("source") != "real":
        return []
    settings = load_params(params)
    datasets = settings.datasets
    models = dict.fromkeys(KINDS[dataset.kind].model for dataset in datasets.values())
    needed = [status(name) for name in models]
    needed += [status(record.layout, LICENSED / name) for name, record in datasets.items()]
    lines = [
        f"{item.name}: {item.state}: {item.line}" for item in needed if item.state != "present"
    ]
    pretrained = {extractor.pretrained for extractor in settings.extractor.values()}
    files = {path for path in pretrained if isinstance(path, Path)}
    lost = sorted(path for path in files if not path.is_file())
    return lines + [f"backbone: missing: {path}; see {path.parent}/README.md" for path in lost]


def _wrong(archive: Archive, store: Path, again: bool) -> bool:
    path = store / archive.name
    if not path.is_file():
        return False
    if not again:
        return known_wrong(path)
    try:
        verify(archive, path, again=True)
    except UserError:
        return True
    return False


def _todo(name: str, entry: Entry, home: Path, lacks: list[str]) -> str:
    by_hand = f"place the files as {home}/README.md says"
    if entry.access == "account":
        return f"account at {entry.page}, then {by_hand}"
    if entry.access == "open":
        return f"download it from {entry.page} and {by_hand}"
    steps = []
    if set(lacks) - {glob for part in entry.by_hand for glob in part.globs}:
        size = sum(archive.size or 0 for archive in entry.archives) / 1e9
        accept = f" --accept-licence` once you have read {entry.licence}"
        end = accept if entry.access == "licence" else "`"
        steps.append(f"`hmdiff data fetch {name}{end} ({size:.1f} GB)")
    if set(lacks) - set(entry.from_archives):
        steps.append(by_hand)
    return ", ".join(steps)
