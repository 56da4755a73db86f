"""Databases of the service's tests."""

from __future__ import annotations

import postgresql as pg
import pytest
from service_database import ENGINE
from sqlalchemy import insert
from stored_pictures import StoredPictures

from pipeline.service import schema
from pipeline.service import tables as t
from pipeline.service.blobs import Blobs
from pipeline.service.database import Database, sqlite_url


@pytest.fixture(scope="session")
def cluster():
    """A PostgreSQL server."""
    with pg.cluster() as running:
        yield running


@pytest.fixture
def postgresql_url(cluster):
    """URL of an empty PostgreSQL database."""
    url = cluster.new_database()
    yield url
    cluster.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """A database with all tables, of each kind."""
    url = (
        sqlite_url(tmp_path)
        if request.param == "sqlite"
        else request.getfixturevalue("postgresql_url")
    )
    opened = Database(url)
    schema.upgrade(opened)
    yield opened
    opened.close()


@pytest.fixture
def blobs(tmp_path):
    """Files of an empty data folder."""
    return Blobs(tmp_path / "data", 0)


@pytest.fixture
def engine(database):
    """Number of the active engine."""
    database.write(lambda c: c.execute(insert(t.engine).values(**ENGINE)))
    return 1


@pytest.fixture
def opened(database, blobs, engine):
    """Operations on pictures, jobs and results."""
    return StoredPictures(database, blobs, engine)
