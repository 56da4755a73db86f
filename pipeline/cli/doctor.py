"""``fxpipe doctor``: checks what works on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from .. import logging_setup
from ..diagnosis import Finding, Plan, ServicePlan, Verdict, examine
from ..errors import StartError
from ._paths import PathOption

_FOLDER = PathOption()
_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAULT: "red"}
_CANNOT_START = StartError.exit_code


@click.command(name="doctor")
@click.option(
    "--weights", type=_FOLDER, envvar="FXPIPE_WEIGHTS",
    help="Weights to check.  [env: FXPIPE_WEIGHTS; default: ./weights]",
)  # fmt: skip
@click.option(
    "--output", type=_FOLDER, default=Path("results"), show_default=True,
    help="Folder for results to check; it is not created.",
)  # fmt: skip
@click.option("--data", type=_FOLDER, help="Check the service of this data folder too.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Its address.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.option("--database", metavar="URL", help="Its database, if not SQLite.")
@click.option("--tls-certificate", type=_FOLDER, help="Its certificate, a PEM file.")
@click.option("--tls-key", type=_FOLDER, help="PEM file of the private key.")
@click.option("--ae-title", default="FXPIPE", show_default=True, help="Its AE title.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@click.pass_context
def command(
    ctx: click.Context, /, weights: Path | None, output: Path, data: Path | None, host: str,
    port: int, database: str | None, tls_certificate: Path | None, tls_key: Path | None,
    ae_title: str, as_json: bool,
) -> None:  # fmt: skip
    """Check what works on this machine: versions, devices, weights, free space, decoders.

    Every line is ok, a warning or a fault, with advice. With --data, `fxpipe serve` is checked too:
    port, disk, database, certificate, and DICOM peers, which get a C-ECHO. Exit code: 0 if it can
    start, possibly with warnings; 3 if it cannot. The command writes nothing, and the output does
    not name patients or users.
    """
    logging_setup.configure()
    weights_name = "weights" if weights is None else str(weights)
    service = None
    if data is not None:
        service = ServicePlan(data, host, port, database, tls_certificate, tls_key, ae_title)
    findings = examine(Plan(weights or _default(), weights_name, output, service))
    worst = max(findings, key=lambda finding: list(Verdict).index(finding.verdict)).verdict
    if as_json:
        report = {"verdict": worst, "findings": [asdict(finding) for finding in findings]}
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(findings)
        can = "cannot" if worst is Verdict.FAULT else "can"
        name = "run" if service is None else "serve"
        click.echo(f"`fxpipe {name}` {can} start here")
    ctx.exit(_CANNOT_START if worst is Verdict.FAULT else 0)


def _print(findings: list[Finding]) -> None:
    """Print a table with the advice below each finding."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from ._console import stdout_console

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "check", "result"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        verdict = Text(finding.verdict, style=_COLOURS[finding.verdict])
        advice = f"\n→ {finding.advice}" if finding.advice else ""
        table.add_row(verdict, Text(finding.topic), Text(finding.found + advice))
    stdout_console().print(table)


def _default() -> Path:
    try:
        from ._weights_folder import default_weights
    except ImportError:  # the checks report it
        return Path("weights")
    return default_weights()
