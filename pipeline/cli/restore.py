"""``fxpipe restore``: from a backup to a new data folder."""

from __future__ import annotations

from pathlib import Path

import click

from .. import logging_setup
from ..errors import OutputError, UsageError
from ._extras import needs
from ._paths import PathOption

_FOLDER = PathOption(file_okay=False)


@click.command(name="restore")
@click.option("--from", "source", type=_FOLDER, required=True, help="Folder of a backup.")
@click.option("--data", type=_FOLDER, help="New or empty folder.")
@click.option(
    "--check",
    is_flag=True,
    help="Hash all files and check the database first; without --data only check.",
)
def command(source: Path, data: Path | None, check: bool) -> None:
    """Restore a backup to a data folder, which `fxpipe serve` then opens.

    Exit code 1: the backup is incomplete or damaged. Backups of a newer fxpipe are refused, and so
    is a folder that is in use or has content.
    """
    logging_setup.configure()
    if data is None and not check:
        raise UsageError("found neither --data nor --check, expected one of them or both")
    with needs("serve"):
        from ..service import backup
    if check:
        report = backup.check(source)
        for fault in report.faults:
            click.echo(f"fault: {fault}")
        if report.faults:
            raise backup.BackupError(
                f"{source}: {len(report.faults)} fault(s)", "restore an earlier backup"
            )
        click.echo(f"{source}: {report.files} files are intact, {report.size / 1e6:.1f} MB")
    if data is None:
        return
    try:
        report = backup.restore(source, data)
    except OSError as error:
        raise OutputError(f"{data}: cannot be restored ({error})") from error
    click.echo(f"{data}: {report.files} files restored, {report.size / 1e6:.1f} MB")
    if report.is_postgresql:
        click.echo("restore the PostgreSQL database with pg_restore before you start the service")
