"""README and docs show what the stages wrote, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from shown_tables import PAGES, ROOT, SHOWN, renewed

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_shown_table_is_its_file_under_results(page: Path):
    text = page.read_text(encoding="utf-8")
    assert text == renewed(text), "a result has changed; run `python tests/shown_tables.py`"


def test_the_readme_shows_tables():
    assert len(SHOWN.findall(README)) >= 4


def test_files_that_the_readme_links_to_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
