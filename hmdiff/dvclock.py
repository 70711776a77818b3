"""What dvc.lock says of the files that stages wrote."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

LOCK = Path("dvc.lock")


def recorded_hashes(lock: Path = LOCK) -> dict[str, str]:
    """Output -> DVC's hash of its content (MD5, of a folder with ``.dir`` behind it).

    Empty where there is no lock, or where another process is just writing it.
    """
    try:
        stages = YAML(typ="safe").load(lock.read_text(encoding="utf-8"))["stages"].values()
        return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}
    except (OSError, YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
