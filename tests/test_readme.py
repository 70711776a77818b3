"""The README shows what the stages wrote, and nothing else."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tables_in_the_readme_are_those_under_results():
    shown = re.findall(r"<!-- (results/table\d\.csv) -->\n\n((?:\|.*\n)+)", README)
    assert len(shown) == 4
    for path, table in shown:
        with open(ROOT / path, newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        expected = tabulate(rows, head, tablefmt="github", disable_numparse=True)
        assert table.strip() == expected, f"{path} has changed; renew its copy in the README"


def test_files_that_the_readme_links_to_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
