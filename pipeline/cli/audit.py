"""``fxpipe audit``: does the training split of a table know what it is tested on?"""

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
    """Look for leaks between the splits of a table.

    Finds equal files, the same picture turned, mirrored, rescaled or recompressed, groups and
    studies that are divided, contradictory labels of one picture, and files that cannot be read.
    Exit code 1 when there is a leak, a contradiction or an unreadable picture outside the split
    `excluded`.
    """
    logging_setup.configure()
    with needs("evaluate"):
        from stages.data.audit import audit
        from stages.data.audit_page import PAGE, TABLE, describe_audit, write_audit
        from stages.data.index import read_table
    index = read_table(source)
    with on_stderr(len(index.samples), quiet, "pictures") as progress:
        found = audit(index, progress)
    write_audit(found, output)
    click.echo(describe_audit(found))
    click.echo(f"look at {output / PAGE}")
    if found.ungrouped:
        click.echo(
            f"keep the twins together: `fxpipe index … --groups-from {output / TABLE}`; strike out "
            "of that file what is no twin"
        )
    if found.failures:
        ctx.exit(1)
