"""The command that says what will work on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from hmdiff.cli.app import PARAMS, ParamsFile, app, option


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    full: Annotated[bool, option("Also ask DVC which stages are stale (seconds).")] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Say what will work here and what will not, each with its remedy; exit code 1 on a problem."""
    import json
    from dataclasses import asdict

    from hmdiff.doctor.findings import Context, examine

    findings = []
    for label, finding in examine(Context(params, full)):
        findings.append({"check": label, **asdict(finding)})
        if not as_json:
            remedy = f"\n{'':20}-> {finding.remedy}" if finding.remedy else ""
            typer.echo(f"{finding.state:8} {label:10} {finding.found}{remedy}")
    if as_json:
        typer.echo(json.dumps(findings, indent=1))
    if any(finding["state"] == "problem" for finding in findings):
        raise typer.Exit(1)
