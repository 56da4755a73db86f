"""``fxpipe audit-log``: the log of user actions."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from .. import logging_setup
from ..errors import FxpipeError
from ._extras import needs
from ._paths import PathOption

_FOLDER = PathOption(file_okay=False)


@click.group(name="audit-log")
def command() -> None:
    """Check the audit log of `fxpipe serve`."""
    logging_setup.configure()


@command.command
@click.option("--data", type=_FOLDER, required=True, help="Data folder of the service.")
@click.option("--database", metavar="URL", help="Database of the service, if not SQLite.")
def verify(data: Path, database: str | None) -> None:
    """Check the hash chain of all entries; the service may run.

    Prints the number of entries and the last hash: store both elsewhere, because the chain stays
    valid if entries are removed from its end. Exit code 1: an entry was changed, inserted or
    removed; the first one is printed.
    """
    with needs("serve"):
        from ..service import audit_log
        from ..service.database import DATABASE, Database, read_only
    if database is None:
        with read_only(data / DATABASE) as connection:
            fault, (count, last) = (
                audit_log.first_fault(connection),
                audit_log.last_entry(connection),
            )
    else:
        with closing(Database(database)) as opened, opened.read() as connection:
            fault, (count, last) = (
                audit_log.first_fault(connection),
                audit_log.last_entry(connection),
            )
    if fault is not None:
        raise ChainError(f"audit log: {fault}", "compare it with a backup")
    click.echo(f"{count} entries, the last one is {last}")


class ChainError(FxpipeError):
    """The audit log was changed."""

    exit_code = 1
