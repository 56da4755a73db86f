"""The version of the database schema: created, upgraded, or refused if it is newer."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from ..errors import StartError
from .database import Database, serialise

_FOLDER = Path(__file__).with_name("migrations")


def version_of(connection: Connection) -> str | None:
    """Version of the schema; None for an empty database."""
    return MigrationContext.configure(connection).get_current_revision()


def newest() -> str:
    """Version that this program writes."""
    return str(ScriptDirectory(str(_FOLDER)).get_current_head())


def upgrade(database: Database) -> bool:
    """Create or upgrade the schema in one transaction.

    Returns:
        Whether it was changed.

    Raises:
        StartError: A newer program has written the database.
    """
    with database.read() as connection:
        found = version_of(connection)
    if found == newest():
        return False
    known = {script.revision for script in ScriptDirectory(str(_FOLDER)).walk_revisions()}
    if found is not None and found not in known:
        raise StartError(
            f"the database has version {found}, expected at most {newest()}",
            "use the program that has written it, or restore a backup",
        )

    def run(connection: Connection) -> None:
        serialise(connection)  # several machines may start at once
        config = Config()
        config.set_main_option("script_location", str(_FOLDER))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    database.write(run)
    return True
