"""Rows for tests of the service; writes the fixture database of the newest schema version.

    PYTHONPATH=.:tests python tests/service_database.py

Run it for each new version before its release; fixtures of released versions never change.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from sqlalchemy import insert

from pipeline.service import arrivals, audit_log, job_queue, results, schema
from pipeline.service import tables as t
from pipeline.service.arrivals import Arrival
from pipeline.service.blobs import Content
from pipeline.service.database import Database, sqlite_url
from pipeline.service.results import NewResult

ENGINE = {
    "digest": "0" * 64, "weights": "weights", "digests": {}, "settings": {}, "version": "0",
    "state": "active", "card": {}, "created_ms": 0,
}  # fmt: skip
"""Columns of an active engine."""
FOLDER = Path(__file__).parent / "service/databases"


def fill(database: Database) -> None:
    """Write a judged and reviewed picture, a user, and an audit entry."""
    user = {
        "name": "Ada", "role": "admin", "password": "none", "active": True, "blind": False,
        "created_ms": 1,
    }  # fmt: skip
    result = NewResult(-1, "ok", "positive", "hand", 0.9, {"status": "ok"}, {"answer": "positive"})
    arrival = Arrival(Content("a" * 64, 1000), "hand.png", "http", "Ada")
    database.write(lambda c: c.execute(insert(t.engine).values(**ENGINE)))
    database.write(lambda c: c.execute(insert(t.user).values(**user)))
    database.write(lambda c: arrivals.receive(c, arrival, lambda _: True))
    (claim,) = database.write(lambda c: job_queue.claim(c, 1, "process", 1))
    identity = {"StudyInstanceUID": "1.2.3"}
    database.write(lambda c: results.finish(c, claim, [result], identity))
    review = {
        "result_id": 1, "reader_id": 1, "blind": False, "verdict": "fracture", "region": "hand",
        "marks": [{"x": 1, "y": 2}], "comment": "", "created_ms": 2,
    }  # fmt: skip
    database.write(lambda c: c.execute(insert(t.review).values(**review)))
    database.write(lambda c: audit_log.append(c, "Ada", "review", "result/1"))


def main() -> None:
    """Write the file of the newest version."""
    with tempfile.TemporaryDirectory() as folder:
        with closing(Database(sqlite_url(Path(folder)))) as database:
            schema.upgrade(database)
            fill(database)
        with closing(sqlite3.connect(Path(folder) / "fxpipe.sqlite")) as connection:
            lines = "\n".join(connection.iterdump())
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{schema.newest()}.sql").write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
