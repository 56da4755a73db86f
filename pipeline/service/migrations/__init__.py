"""Versions of the database schema, for Alembic."""
