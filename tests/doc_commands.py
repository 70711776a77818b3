"""The shell commands of the README and of docs/: found, and held against the programs' parsers."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
RUN = "<!-- run -->"
SHELL = {"cd", "cp", "git", "mkdir", "."}  # not ours
BLOCK = re.compile(
    rf"^(?P<run>{RUN}\n)?(?P<indent> *)```(?P<language>\w+)\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code: its page, language, text without indentation, and whether a test runs it."""

    page: str
    language: str
    text: str
    run: bool

    @property
    def commands(self) -> list[str]:
        """One command a line; comments and continuations are resolved."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def blocks(language: str) -> list[Block]:
    """All blocks of one language, in order."""
    found = []
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
            if match["language"] == language:
                text = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
                found.append(Block(page.name, language, text, bool(match["run"])))
    return found


def check(command: str) -> str | None:
    """Why a command would not run as it is written; None if it would."""
    words = shlex.split(command)
    program, arguments = words[0], words[1:]
    if program in SHELL:
        return None
    if program not in PROGRAMS:
        return f"no program {program!r} is known here"
    try:
        return PROGRAMS[program](arguments)
    except SystemExit:
        return "its options are wrong"


def _hmdiff(arguments: list[str]) -> str | None:
    import typer
    from typer.exceptions import TyperException

    from hmdiff.cli import app

    command, name = typer.main.get_command(app), "hmdiff"
    try:
        while hasattr(command, "resolve_command"):
            context = command.make_context(name, arguments)
            rest = [*context._protected_args, *context.args]
            name, command, arguments = command.resolve_command(context, rest)
        command.make_context(name, arguments)
    except TyperException as error:
        return error.format_message()
    return None


def _dvc(arguments: list[str]) -> str | None:
    from dvc.cli.parser import DvcParserError, get_main_parser

    try:
        parsed = get_main_parser().parse_args(arguments)
    except DvcParserError:
        return "dvc does not take these options"
    for changed in getattr(parsed, "set_param", None) or ():
        if not is_parameter(changed.partition("=")[0]):
            return f"params.yaml has no {changed!r}"
    if arguments[0] not in ("repro", "exp"):
        return None
    return _targets(getattr(parsed, "targets", None) or (), stages())


def _snakemake(arguments: list[str]) -> str | None:
    from snakemake.cli import get_argument_parser

    parsed = get_argument_parser(profiles=None).parse_args(arguments)
    for profile in (parsed.workflow_profile, parsed.profile):
        if profile and not (ROOT / profile / "config.yaml").is_file():
            return f"no profile {profile}"
    groups = {re.sub(r"@.*|\d+$", "", name) for name in stages()}
    return _targets(parsed.targets, stages() | groups | {"all"})


def _torchrun(arguments: list[str]) -> str | None:
    from torch.distributed.run import get_args_parser

    parsed = get_args_parser().parse_args(arguments)
    if (parsed.no_python, parsed.training_script) != (True, "hmdiff"):
        return "torchrun has to be told --no-python hmdiff"
    return _hmdiff(parsed.training_script_args)


def _make(arguments: list[str]) -> str | None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return _targets(
        arguments, set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    )


def _python(arguments: list[str]) -> str | None:
    module = arguments[1].replace(".", "/") + ".py" if arguments[0] == "-m" else arguments[0]
    return None if (ROOT / module).is_file() else f"no {module}"


def _targets(names, known: set[str]) -> str | None:
    unknown = [name for name in names if name not in known]
    return f"no target {unknown[0]!r}" if unknown else None


PROGRAMS = {
    "hmdiff": _hmdiff, "dvc": _dvc, "snakemake": _snakemake, "make": _make, "python": _python,
    "torchrun": _torchrun,
}  # fmt: skip


@cache
def params() -> dict:
    return YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def is_parameter(name: str) -> bool:
    """Whether params.yaml, with what the documentation adds, has the key; ``*`` is any key."""
    found = [params()]
    for part in name.split("."):
        found = [
            value
            for tree in found
            if isinstance(tree, dict)
            for key, value in tree.items()
            if part in ("*", str(key))
        ]
    return bool(found)


@cache
def stages() -> set[str]:
    """Every stage by the name with which it is called, those of the examples among them."""
    named = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    found = set()
    for name, stage in named.items():
        items = stage.get("foreach")
        if isinstance(items, str):
            section = items.removeprefix("${").removesuffix("}")
            items = [*params()[section], *added().get(section, ())]
        found |= {name} if items is None else {f"{name}@{item}" for item in items}
    return found


@cache
def added() -> dict[str, dict]:
    """Section of params.yaml -> entries that examples in the documentation add to it."""
    found: dict[str, dict] = {}
    for block in blocks("yaml"):
        for section, entries in YAML(typ="safe").load(block.text).items():
            if section in params():
                found.setdefault(section, {}).update(entries)
    return found
