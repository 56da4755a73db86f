"""Studies whose results are sent again, because a promotion has changed their verdicts.

The objects have other UIDs then, since these depend on the engine and the findings. Both functions
take a connection inside a write operation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Connection, select, update

from . import tables as t


def changed(connection: Connection, arrivals: Iterable[Any], engine: int) -> set[int]:
    """Numbers of the studies that were queued for a peer, and get other verdicts.

    Args:
        connection: Before the arrivals show the results of the engine.
        arrivals: Rows with ``sha256``, ``study_id`` and ``engine_id``, whose results are shown now.
        engine: The promoted engine, which has judged them.
    """
    rows = [row for row in arrivals if row.study_id is not None and row.engine_id != engine]
    queued = _queued(connection, {row.study_id for row in rows})
    found: set[int] = set()
    for row in rows:
        if row.study_id not in queued - found:
            continue
        before, after = (_verdicts(connection, row.sha256, n) for n in (row.engine_id, engine))
        if before != after:
            found.add(row.study_id)
    return found


def make_due(connection: Connection, studies: Collection[int]) -> None:
    """Have the objects of studies made and queued as soon as possible."""
    connection.execute(
        update(t.study).where(t.study.c.id.in_(list(studies))).values(stable_ms=None)
    )


def _queued(connection: Connection, studies: Collection[int]) -> set[int]:
    """Those of the studies that have objects in the outbox."""
    outbox = t.outbox.c
    query = select(outbox.study_id).where(
        outbox.peer_id.in_(select(t.peer.c.id)),  # for the index
        outbox.study_id.in_(list(studies)),
    )
    return set(connection.scalars(query.distinct()))


def _verdicts(connection: Connection, sha256: str, engine: int | None) -> dict[int, Any]:
    """Status and the verdicts of all findings, by frame."""
    result = t.result.c
    rows = connection.execute(
        select(result.frame, result.status, t.detail.c.row)
        .join(t.detail, t.detail.c.result_id == result.id)
        .where(result.sha256 == sha256, result.engine_id == engine)
    )
    return {
        one.frame: (
            one.status,
            {(f["region"], f["target"]): f["verdict"] for f in one.row["findings"]},
        )
        for one in rows
    }
