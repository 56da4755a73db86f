"""Run by Alembic: applies the versions on the connection of :mod:`pipeline.service.schema`.

Alembic loads this file outside its package. To generate a new version, pass the tables as the
attribute ``metadata``.
"""

from alembic import context

attributes = context.config.attributes
context.configure(
    connection=attributes["connection"], target_metadata=attributes.get("metadata"),
    render_as_batch=True, transaction_per_migration=False,
)  # fmt: skip
context.run_migrations()
