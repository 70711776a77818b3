"""From the paper's equations and algorithm lines to the functions whose code names them.

``python tests/paper_map.py`` writes the table in docs/paper_map.md anew.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/paper_map.md"
BEGIN, END = "<!-- table: python tests/paper_map.py -->\n", "<!-- end of table -->\n"

# What the paper has there, in words.
PRINTED = {
    "Eq. 3": "q(h_k given h_0), the distribution of the noisy mesh",
    "Eq. 4": "h_k as a sum of h_0 and noise",
    "Eq. 6": "one reverse step (DDIM)",
    "Eq. 7": "h^_0, the early estimate, from h_k and g",
    "Eq. 9": "gradient of log p(U given h_k) as that of -D_k",
    "Eq. 10": "D_k, the gap between the draws of U and f(h^_0)",
    "Alg. 1 line 1": "sample h_K",
    "Alg. 1 line 3": "for k = K to 1",
    "Alg. 1 line 4": "s, the score, from g(h_k, k)",
    "Alg. 1 line 5": "h^_0 from s",
    "Alg. 1 line 6": "measure the gap D_k",
    "Alg. 1 line 7": "the relative gap R_k = D_k / D_K",
    "Alg. 1 line 8": "R_k >= r and act: with DAT",
    "Alg. 1 line 9": "the step with - gamma grad D_k",
    "Alg. 1 line 11": "act = False, and the step without DAT",
}
MARKS = re.compile(
    r"(?P<kind>Eq\.|Alg\. 1,? lines?|Algorithm 1,? lines?) "
    r"(?P<first>\d+)(?:(?P<join>-| and )(?P<last>\d+))?"
)


def marks(text: str) -> list[str]:
    """The marks in one line of code; those of other papers ("Song et al. 2021, Eq. 16") are none.

    >>> marks("# Alg. 1 lines 4-5, Eq. 7")
    ['Alg. 1 line 4', 'Alg. 1 line 5', 'Eq. 7']
    """
    found = []
    for match in MARKS.finditer(text):
        if re.search(r"et al\.[^;]*$", text[: match.start()]):
            continue
        name = "Eq." if match["kind"] == "Eq." else "Alg. 1 line"
        first, last = int(match["first"]), int(match["last"] or match["first"])
        numbers = range(first, last + 1) if match["join"] == "-" else dict.fromkeys((first, last))
        found += [f"{name} {number}" for number in numbers]
    return found


def where(path: Path) -> list[tuple[str, str]]:
    """(mark, innermost class and function) of every mark in a module; the module's own: ""."""
    source = path.read_text(encoding="utf-8")
    spans = []

    def walk(node: ast.AST, outer: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = outer
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                name = f"{outer}.{child.name}".lstrip(".")
                spans.append((child.lineno, child.end_lineno, name))
            walk(child, name)

    walk(ast.parse(source), "")
    found = []
    for number, line in enumerate(source.splitlines(), 1):
        inside = [name for first, last, name in spans if first <= number <= last]
        found += [(mark, inside[-1] if inside else "") for mark in marks(line)]
    return found


def places() -> dict[str, list[str]]:
    """Mark -> ``file: function`` for every place, in the paper's and the files' order."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for path in sorted((ROOT / "hmdiff").rglob("*.py")):
        for mark, name in where(path):
            if name:  # a module's own docstring only says what it is about
                found[mark][f"`{path.relative_to(ROOT)}`: `{name}`"] = None
    return {mark: list(found[mark]) for mark in sorted(found, key=_order)}


def _order(mark: str) -> tuple[bool, int]:
    return mark.startswith("Alg."), int(mark.split()[-1])


def table() -> str:
    """The table of docs/paper_map.md; a mark that PRINTED does not explain is a KeyError."""
    lines = ["| paper | there | here |", "|---|---|---|"]
    for mark, found in places().items():
        lines.append(f"| {mark} | {PRINTED[mark]} | {'<br>'.join(found)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + "\n" + table() + "\n" + END + after, encoding="utf-8")
