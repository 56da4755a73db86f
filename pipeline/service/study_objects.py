"""DICOM objects about judged pictures, made from the stored results."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, select

from .. import version
from ..config import RunConfig
from ..domain import Heatmap, Placement, XrayImage
from ..errors import UnreadableImageError
from ..io import decode
from ..outcome import FractureCall, Outcome, Status, Verdict
from ..outcome_json import from_json
from ..render import render
from ..report.dicom.object_provenance import Run
from ..report.dicom.objects import Made, Maker
from . import store
from . import tables as t
from .blobs import Blobs

Json = dict[str, Any]


def engine_run(engine: Row[Any], config: RunConfig) -> Run:
    """What the results of an engine come from.

    Args:
        engine: Row of table ``engine``.
        config: Settings of the service, for what does not change a verdict.
    """
    values = {**config.model_dump(), **engine.settings, "identifiers": "keep"}
    return Run(version(), dict(engine.digests), RunConfig.model_validate(values))


@dataclass(frozen=True, slots=True)
class Judged:
    """A stored result with a verdict.

    Attributes:
        sha256: Digest of the file.
        outcome: Column ``outcome`` of table ``detail``.
        row: Column ``row`` of table ``detail``.
    """

    sha256: str
    outcome: Json
    row: Json


def judged(connection: Connection, study: int) -> list[Judged]:
    """The judged pictures of a study by the active engine, in a fixed order."""
    engine = store.active_engine(connection)
    rows = connection.execute(
        select(t.result.c.sha256, t.detail.c.outcome, t.detail.c.row)
        .join(t.detail, t.detail.c.result_id == t.result.c.id)
        .where(
            t.result.c.engine_id == (engine.id if engine else 0), t.result.c.status == Status.OK,
            t.result.c.sha256.in_(
                select(t.arrival.c.sha256).where(
                    t.arrival.c.study_id == study, t.arrival.c.deleted_ms.is_(None)
                )
            ),
        )
        .order_by(t.result.c.job_id, t.result.c.frame)
    ).all()  # fmt: skip
    return [Judged(row.sha256, row.outcome, row.row) for row in rows]


def objects(result: Judged, maker: Maker, run: Run, blobs: Blobs) -> list[Made]:
    """SR, SC and GSPS of a picture from a DICOM file; none of another one.

    Args:
        result: The picture.
        maker: Made of ``run``; it numbers the objects of a study, so use it for all its pictures.
        run: By :func:`engine_run`.
        blobs: Contents.

    Raises:
        ImageError: The picture cannot be decoded any more, or no object can refer to it.
        OSError: Its content is gone.
    """
    if result.outcome["header"] is None:
        return []
    path = blobs.path(result.sha256)
    return maker.objects(restored(path, result.outcome, result.row, run.config))


def restored(path: Path, stored: Mapping[str, Any], row: Json, config: RunConfig) -> Outcome:
    """An outcome with its heatmaps and its picture.

    Heatmaps have 256 levels, as on the page.

    Args:
        path: Content of the picture.
        stored: Column ``outcome`` of table ``detail``.
        row: Column ``row`` of table ``detail``.
        config: Settings; ``heatmaps`` says which findings get one (None: not the negative ones).

    Raises:
        ImageError: The picture cannot be decoded.
    """
    outcome = from_json(stored, path)
    layers = {(f["region"], f["target"]): f.get("layer") for f in row["findings"]}
    shown = {f: layers.get((f.region, f.target)) for f in outcome.findings if _shown(f, config)}
    if not any(shown.values()):
        return outcome
    picture = _picture(path, outcome)
    findings = tuple(
        replace(f, heatmap=_heatmap(layer, picture.pixels.shape)) if (layer := shown.get(f)) else f
        for f in outcome.findings
    )
    return replace(outcome, findings=findings, rendered=render(picture.pixels))


def _picture(path: Path, outcome: Outcome) -> XrayImage:
    with closing(decode(path.read_bytes(), path, str(outcome.image.sha256))) as pictures:
        for picture in pictures:
            if picture.source.frame == outcome.image.frame:
                return picture
    raise UnreadableImageError(f"{path.name}: found fewer frames than were judged")


def _shown(finding: FractureCall, config: RunConfig) -> bool:
    how = config.heatmaps or "positive"
    return how == "all" or (how == "positive" and finding.verdict is not Verdict.NEGATIVE)


def _heatmap(layer: Json, source_shape: tuple[int, ...]) -> Heatmap:
    """The heatmap of a layer of the page, on a canvas of its own with a cell a px."""
    shape = int(layer["rows"]), int(layer["columns"])
    cells = np.frombuffer(base64.b64decode(layer["cells"]), np.uint8).reshape(shape)
    scale_y, scale_x = shape[0] / layer["height"], shape[1] / layer["width"]
    placement = Placement(
        scale_y, scale_x, -layer["top"] * scale_y, -layer["left"] * scale_x,
        (source_shape[0], source_shape[1]),
    )  # fmt: skip
    return Heatmap(cells.astype(np.float32) / np.float32(255), shape, placement, layer["hidden"])
