"""``fxpipe backup``: a backup of a data folder while its service runs."""

from __future__ import annotations

from pathlib import Path

import click

from .. import logging_setup
from ..errors import OutputError
from ._extras import needs
from ._paths import PathOption

_FOLDER = PathOption(file_okay=False)


@click.command(name="backup")
@click.option("--data", type=_FOLDER, required=True, help="Data folder of `fxpipe serve`.")
@click.option("--to", "target", type=_FOLDER, required=True, help="New folder for the backup.")
@click.option("--database", metavar="URL", help="Database of the service, if not SQLite.")
def command(data: Path, target: Path, database: str | None) -> None:
    """Back up the database and all stored files; the service may run.

    Files become hard links on the same file system, else copies. A PostgreSQL database is not
    included: back it up with pg_dump. Exit code 1: a stored file is missing.
    """
    logging_setup.configure()
    with needs("serve"):
        from ..service.backup import back_up
    try:
        report = back_up(data, target, database)
    except OSError as error:
        raise OutputError(f"{target}: cannot write the backup ({error})") from error
    click.echo(f"{target}: {report.files} files, {report.size / 1e6:.1f} MB")
