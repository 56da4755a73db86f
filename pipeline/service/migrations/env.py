"""Run by Alembic: applies the versions on the connection of :mod:`pipeline.service.schema`."""

from alembic import context

from pipeline.service.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata,
    render_as_batch=True, transaction_per_migration=False,
)  # fmt: skip
context.run_migrations()
