"""``fxpipe audit``: finds leaks between the splits of a table."""

from __future__ import annotations

from pathlib import Path

import click

from .. import logging_setup
from ..progress import on_stderr
from ._extras import needs
from ._paths import PathOption


@click.command(name="audit")
@click.option(
    "--index",
    "source",
    type=PathOption(dir_okay=False),
    default=Path("index.csv"),
    show_default=True,
    help="Table of training pictures.",
)
@click.option(
    "--output",
    type=PathOption(file_okay=False),
    default=Path("audit"),
    show_default=True,
    help="Folder for audit.html, pairs.csv and audit.json.",
)
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def command(ctx: click.Context, source: Path, output: Path, quiet: bool) -> None:
    """Find leaks between the splits of a table.

    Finds identical files, the same picture rotated, mirrored, rescaled or recompressed, groups and
    studies in more than one split, contradictory labels of one picture, and unreadable files. The
    exit code is 1 if there is a leak, a contradiction or an unreadable picture outside the split
    `excluded`.
    """
    logging_setup.configure()
    with needs("evaluate"):
        from stages.data.audit import audit
        from stages.data.audit_page import PAGE, TABLE, describe_audit, write_audit
        from stages.data.index import read_table
    index = read_table(source)
    with on_stderr(len(index.samples), quiet, "pictures") as progress:
        result = audit(index, progress)
    write_audit(result, output)
    click.echo(describe_audit(result))
    click.echo(f"see {output / PAGE}")
    if result.ungrouped:
        click.echo(
            f"to keep duplicates in one split, delete wrong pairs from {output / TABLE} and run "
            f"`fxpipe index … --groups-from {output / TABLE}`"
        )
    if result.failures:
        ctx.exit(1)
