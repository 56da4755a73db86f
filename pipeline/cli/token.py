"""``fxpipe token``: bearer tokens for programs that use the service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import logging_setup
from ..errors import InputMissingError
from ._extras import needs
from ._paths import PathOption

if TYPE_CHECKING:
    from ..service.database import Database

_FOLDER = PathOption(file_okay=False)


@click.group(name="token")
def command() -> None:
    """Create bearer tokens for programs that use `fxpipe serve`."""
    logging_setup.configure()


@command.command
@click.option("--data", type=_FOLDER, required=True, help="Data folder of the service.")
@click.option(
    "--role",
    type=click.Choice(("sender", "reader", "auditor", "admin")),
    required=True,
    help="Role of the token.",
)
@click.option(
    "--name", default="command line", show_default=True, help="Name of the token in the audit log."
)
@click.option("--database", metavar="URL", help="Database of the service, if not SQLite.")
def create(data: Path, role: str, name: str, database: str | None) -> None:
    """Print a new token on the last line; it is not stored and cannot be shown again."""
    with needs("serve"):
        from ..service.accounts import new_token
    opened = open_database(data, database)
    try:
        _, secret = opened.write(lambda c: new_token(c, name, role, "command line"))
    finally:
        opened.close()
    click.echo(secret)


def open_database(data: Path, url: str | None) -> Database:
    """The database of a data folder, which may be in use; created if the folder is new.

    Raises:
        InputMissingError: The folder cannot be made.
    """
    from ..service import schema
    from ..service.database import Database, sqlite_url

    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputMissingError(f"{data}: cannot make the folder ({error.strerror})") from error
    database = Database(url or sqlite_url(data))
    schema.upgrade(database)
    return database
