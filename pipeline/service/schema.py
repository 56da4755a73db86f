"""Creation and upgrade of the database schema; newer versions are refused."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from ..atomic import replacing
from ..errors import StartError
from .database import Database, copy_database, serialise

_FOLDER = Path(__file__).with_name("migrations")


def version_of(connection: Connection) -> str | None:
    """Version of the schema; None for an empty database."""
    return MigrationContext.configure(connection).get_current_revision()


def newest() -> str:
    """Schema version of this program."""
    return str(ScriptDirectory(str(_FOLDER)).get_current_head())


def refuse_newer(connection: Connection) -> str | None:
    """Return the version of the schema, if it is not newer than this program.

    Raises:
        StartError: The database is from a newer program.
    """
    version = version_of(connection)
    known = {script.revision for script in ScriptDirectory(str(_FOLDER)).walk_revisions()}
    if version is not None and version not in known:
        raise StartError(
            f"the database has version {version}, expected at most {newest()}",
            "use the newer program, or restore a backup",
        )
    return version


def upgrade(database: Database) -> bool:
    """Create or upgrade the schema in one transaction.

    An SQLite database is copied to ``fxpipe.sqlite.VERSION`` before it is upgraded.

    Returns:
        Whether it was changed.

    Raises:
        StartError: The database is from a newer program.
        OSError: The copy cannot be written.
    """
    with database.read() as connection:
        version = refuse_newer(connection)
    if version == newest():
        return False
    if version is not None and database.path is not None:
        copy = database.path.with_name(f"{database.path.name}.{version}")
        with replacing(copy) as partial:
            copy_database(database.path, partial)

    def run(connection: Connection) -> None:
        serialise(connection)  # several processes may start at the same time
        config = Config()
        config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    database.write(run)
    return True
