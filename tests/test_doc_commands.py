"""The commands of the documentation, run as they are written in a project that is finished."""

from __future__ import annotations

import pytest
from doc_runs import commands, failures
from engines import smoke_project, snakemake

pytestmark = pytest.mark.documentation


def test_every_command_runs_in_a_finished_project(tmp_path):
    """But for those that doc_runs.ELSEWHERE names, with what runs them instead."""
    project = smoke_project(tmp_path / "project")
    snakemake(project, "all")
    assert len(commands()) > 50
    assert failures(project) == []
