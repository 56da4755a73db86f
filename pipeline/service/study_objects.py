"""DICOM objects for judged pictures, created from the stored results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, select

from .. import version
from ..config import RunConfig
from ..outcome import Outcome, Status
from ..outcome_json import from_json
from ..report.dicom.object_provenance import Run
from ..report.dicom.objects import Made, Maker
from . import tables as t
from .blobs import Blobs
from .stored_outcome import with_picture

Json = dict[str, Any]


def engine_run(engine: Row[Any], config: RunConfig) -> Run:
    """The run description of an engine, for its DICOM objects.

    Args:
        engine: Row of table ``engine``.
        config: Settings of the service that do not change verdicts.
    """
    values = {**config.model_dump(), **engine.settings, "identifiers": "keep"}
    return Run(version(), dict(engine.digests), RunConfig.model_validate(values))


@dataclass(frozen=True, slots=True)
class Judged:
    """A stored result with a verdict.

    Attributes:
        sha256: Digest of the file.
        engine: Number of the engine that judged it.
        outcome: Column ``outcome`` of table ``detail``.
        row: Column ``row`` of table ``detail``.
    """

    sha256: str
    engine: int
    outcome: Json
    row: Json


def shown(connection: Connection, study: int) -> set[tuple[str, int | None]]:
    """Digest of each picture of a study, and the engine whose result is shown for it."""
    rows = connection.execute(_shown(study))
    return {(row.sha256, row.engine_id) for row in rows}


def _shown(study: int) -> Select[Any]:
    return (
        select(t.arrival.c.sha256, t.arrival.c.engine_id)
        .where(t.arrival.c.study_id == study, t.arrival.c.deleted_ms.is_(None))
        .distinct()
    )


def judged(connection: Connection, study: int) -> list[Judged]:
    """The current results of the pictures of a study, in a fixed order.

    After a promotion, they may be from several engines: pictures that the active engine has not
    judged keep their earlier results.
    """
    pictures = _shown(study).subquery()
    result = t.result.c
    rows = connection.execute(
        select(result.sha256, result.engine_id, t.detail.c.outcome, t.detail.c.row)
        .join(t.detail, t.detail.c.result_id == result.id)
        .join(
            pictures,
            and_(pictures.c.sha256 == result.sha256, pictures.c.engine_id == result.engine_id),
        )
        .where(result.status == Status.OK)
        .order_by(result.job_id, result.frame)
    ).all()
    return [Judged(row.sha256, row.engine_id, row.outcome, row.row) for row in rows]


def objects(result: Judged, maker: Maker, run: Run, blobs: Blobs) -> list[Made]:
    """SR, SC and GSPS objects of a DICOM picture; empty for other files.

    Args:
        result: The picture.
        maker: Maker for ``run``. It numbers the objects: use the same one for a whole study.
        run: :func:`engine_run` of the engine that judged the picture.
        blobs: Stored files.

    Raises:
        ImageError: The picture cannot be decoded, or lacks the UIDs for a reference.
        OSError: Its content is missing.
    """
    if result.outcome["header"] is None:
        return []
    path = blobs.path(result.sha256)
    return maker.objects(restored(path, result.outcome, result.row, run.config))


def restored(path: Path, stored: Json, row: Json, config: RunConfig) -> Outcome:
    """An outcome with its heatmaps and its picture, see :func:`with_picture`.

    Args:
        path: Content of the picture.
        stored: Column ``outcome`` of table ``detail``.
        row: Column ``row`` of table ``detail``.
        config: Settings.

    Raises:
        ImageError: The picture cannot be decoded.
        OSError: Its content is missing.
    """
    return with_picture(from_json(stored, path), row, path, config)
