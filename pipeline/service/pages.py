"""Pages of long tables: a query reads about as many rows as it returns.

The table's index serves the order within one rank only, so each rank is a query of its own, and
their first rows are merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, false, select, union_all


def by_urgency(
    table: Table, conditions: Sequence[ColumnElement[bool]], ranks: Iterable[int], count: int,
    last_rank: int | None = None, last: int | None = None,
) -> Select[Any]:  # fmt: skip
    """The first rows by rank, newest first among equals.

    Args:
        table: It has the columns ``rank`` and ``id``.
        conditions: Of the rows.
        ranks: All ranks that such rows can have.
        count: Number of rows.
        last_rank: Rank of the last row of the page before; None for the first page.
        last: Number of that row.
    """
    parts = [
        _newest(table, conditions, rank, count, last if rank == last_rank else None)
        for rank in ranks
        if last_rank is None or rank >= last_rank
    ]
    return _merged(table, parts, count, by_rank=True)


def by_number(
    table: Table, conditions: Sequence[ColumnElement[bool]], ranks: Iterable[int], count: int,
    last: int | None = None,
) -> Select[Any]:  # fmt: skip
    """The newest rows of all ranks, newest first.

    Args:
        table: See :func:`by_urgency`.
        conditions: See :func:`by_urgency`.
        ranks: See :func:`by_urgency`.
        count: See :func:`by_urgency`.
        last: Number of the last row of the page before; None for the first page.
    """
    parts = [_newest(table, conditions, rank, count, last) for rank in ranks]
    return _merged(table, parts, count, by_rank=False)


def _newest(
    table: Table, conditions: Sequence[ColumnElement[bool]], rank: int, count: int, last: int | None
) -> Select[Any]:
    row = table.c
    older = [] if last is None else [row.id < last]
    part = select(row.rank, row.id).where(*conditions, row.rank == rank, *older)
    return part.order_by(row.id.desc()).limit(count)


def _merged(
    table: Table, parts: Sequence[Select[Any]], count: int, *, by_rank: bool
) -> Select[Any]:
    if not parts:
        return select(table).where(false())
    page = union_all(*(select(part.subquery()) for part in parts)).subquery()
    order = [page.c.rank, page.c.id.desc()] if by_rank else [page.c.id.desc()]
    first = select(page).order_by(*order).limit(count).subquery()
    order = [table.c.rank, table.c.id.desc()] if by_rank else [table.c.id.desc()]
    return select(table).join(first, first.c.id == table.c.id).order_by(*order)
