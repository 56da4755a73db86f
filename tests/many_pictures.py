"""Fills a database of the service with judged pictures, without files, in seconds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from service_database import ENGINE
from sqlalchemy import insert

from pipeline.report.page_row import URGENCY
from pipeline.service import schema
from pipeline.service import tables as t
from pipeline.service.database import DATABASE, Database, sqlite_url

RARE = 5000
"""One picture in this number is of the region ``elbow``, and one has a review."""
A_STUDY = 3
"""Pictures of a study."""

# Of 100 pictures, 10 are positive, 5 uncertain, 65 negative, 15 unsupported, 5 failed.
_RANK = """CASE WHEN chance < 10 THEN 0 WHEN chance < 15 THEN 1 WHEN chance < 80 THEN 2
    WHEN chance < 95 THEN 3 ELSE 4 END"""
_ANSWER = "CASE rank " + " ".join(f"WHEN {i} THEN '{a}'" for i, a in enumerate(URGENCY)) + " END"
_STATE = "CASE WHEN rank < 3 THEN 'answered' ELSE answer END"
_REGION = f"""CASE WHEN rank > 2 THEN NULL WHEN n % {RARE} = 13 THEN 'elbow'
    WHEN n % 2 THEN 'hand' ELSE 'shoulder' END"""


def fill(folder: Path, count: int) -> None:
    """Add ``count`` judged pictures of the first engine to the database of a data folder.

    The database has no pictures yet; it is made if it is missing. The digests are random, as those
    of files, so that no index is filled in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with closing(Database(sqlite_url(folder))) as database:
        if schema.upgrade(database):
            database.write(lambda c: c.execute(insert(t.engine).values(**ENGINE)))
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-400000")
        for line in _LINES:
            connection.execute(line, {"count": count} if ":count" in line else {})
        connection.commit()


_LINES = (
    """CREATE TEMP TABLE number AS
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
    SELECT n, lower(hex(randomblob(32))) AS sha256, abs(random()) % 100 AS chance,
    1700000000000 + n * 30000 AS at_ms FROM numbers""",
    f"""CREATE TEMP TABLE new AS
    WITH ranked AS (SELECT n, sha256, at_ms, {_RANK} AS rank FROM number)
    SELECT *, {_ANSWER} AS answer, {_REGION} AS region FROM ranked""",
    "INSERT INTO blob(sha256, size, created_ms, held) SELECT sha256, 9000000, at_ms, 0 FROM new",
    f"""INSERT INTO study(id, key, uid, last_seen_ms, stable_ms, pictures, rank)
    SELECT n / {A_STUDY} + 1, lower(hex(randomblob(32))), '1.2.' || n, max(at_ms), max(at_ms),
    count(*), min(rank) FROM new GROUP BY n / {A_STUDY}""",
    f"""INSERT INTO arrival(id, sha256, name, source, sender, key, received_ms, study_id,
    engine_id, state, rank, answer, region, probability, review)
    SELECT n, sha256, 'picture-' || n || '.dcm', 'dicom', 'modality', sha256, at_ms,
    n / {A_STUDY} + 1, 1, {_STATE}, rank, answer, region, 0.5,
    CASE WHEN n % {RARE} = 17 THEN 'fracture' END FROM new""",
    """INSERT INTO job(id, sha256, engine_id, name, state, priority, attempt, blame, created_ms,
    finished_ms) SELECT n, sha256, 1, 'picture-' || n || '.dcm', 'done', 1, 1, 0, at_ms, at_ms
    FROM new""",
    """INSERT INTO result(id, job_id, sha256, engine_id, frame, status, answer, region,
    probability, rank, created_ms) SELECT n, n, sha256, 1, -1,
    CASE WHEN rank < 3 THEN 'ok' ELSE answer END, answer, region, 0.5, rank, at_ms FROM new""",
    """INSERT INTO detail(result_id, outcome, row) SELECT n, '{}',
    '{"record": {}, "findings": [], "flags": []}' FROM new""",
    "INSERT INTO event(kind, subject, data, at_ms) SELECT 'judged', n, '{}', at_ms FROM new",
    """INSERT INTO audit(at_ms, actor, action, subject, detail, previous, hash) SELECT at_ms,
    'modality', 'receive', 'picture/' || n, '{}', sha256, sha256 FROM new""",
    "DROP TABLE new",
    "DROP TABLE number",
)
