"""Reviews as labels: a ZIP archive with a table for ``fxpipe index --layout table``.

A picture has a label if all its readers agree that there is a fracture or none. Files with several
pictures, and verdicts without a label, are listed in ``left-out.csv``. No network was trained on
these pictures, so ``fxpipe calibrate --split train`` may use the largest part of them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import Connection, Row, select

from ..errors import ImageError
from ..io import decode
from ..io.sniff import Kind, sniff
from ..outcome import Status
from ..studies import pseudonym
from . import tables as t
from . import verdicts
from .blobs import Blobs
from .database import Database
from .exports import LEFT_OUT, LEFT_OUT_COLUMNS, Selection, arrivals, table
from .zip_stream import ZipStream

TABLE = "labels.csv"
COLUMNS = ("path", "label", "label_kind", "group", "study", "regions")
_LABELS = {verdicts.FRACTURE: 1, verdicts.NONE: 0}


def as_labels(database: Database, selection: Selection, blobs: Blobs) -> Iterator[bytes]:
    """The archive: ``labels.csv``, ``left-out.csv`` and a copy of each labelled picture.

    Without identifiers, DICOM files become 16-bit PNG files.
    """
    archive = ZipStream()
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    done: set[str] = set()
    for chunk in arrivals(database, selection):
        chunk = [row for row in chunk if row.review is not None and row.sha256 not in done]
        done.update(row.sha256 for row in chunk)
        with database.read() as connection:
            labelled = list(_labelled(connection, chunk))
        for arrival, content in labelled:
            reason = content if isinstance(content, str) else ""
            if not reason and isinstance(content, dict):
                try:
                    name, file = _file(arrival, blobs, selection.identifiers)
                except (ImageError, OSError) as error:
                    reason = f"cannot be read ({type(error).__name__})"
                else:
                    yield from archive.add(name, file)
                    rows.append({"path": name, **content})
            if reason:
                left_out.append({"picture": arrival.id, "reason": reason})
    yield from archive.add(TABLE, table(COLUMNS, rows))
    yield from archive.add(LEFT_OUT, table(LEFT_OUT_COLUMNS, left_out))
    yield archive.close()


def _labelled(
    connection: Connection, chunk: Sequence[Row[Any]]
) -> Iterator[tuple[Row[Any], dict[str, Any] | str]]:
    """Each reviewed arrival with its table cells, or the reason of its exclusion."""
    hashes = [row.sha256 for row in chunk]
    reviews: dict[str, list[Row[Any]]] = {}
    for review in verdicts.latest(connection, hashes):
        reviews.setdefault(review.sha256, []).append(review)
    details = connection.execute(
        select(t.result.c.sha256, t.result.c.engine_id, t.detail.c.outcome)
        .join(t.detail, t.detail.c.result_id == t.result.c.id)
        .where(t.result.c.sha256.in_(hashes), t.result.c.status != Status.FAILED)
    )
    outcomes = {(row.sha256, row.engine_id): row.outcome for row in details}
    for row in chunk:
        outcome = outcomes.get((row.sha256, row.engine_id))
        own = [one for one in reviews.get(row.sha256, []) if one.verdict != verdicts.WITHDRAWN]
        verdict = verdicts.combine(one.verdict for one in own)
        if outcome is None:
            yield row, "could not be read"
        elif outcome["frame"] is not None:
            yield row, "a file with several pictures"
        elif verdict not in _LABELS:
            yield row, f"verdict: {verdict}"
        else:
            identity = outcome["identity"] or {}
            patient = identity.get("PatientID")
            study = outcome["study"] or ""
            yield row, {
                "label": _LABELS[verdict], "label_kind": "fracture",
                "group": pseudonym(patient) if patient else study or row.sha256[:16],
                "study": study, "regions": _regions(row, own),
            }  # fmt: skip


def _regions(arrival: Row[Any], reviews: Sequence[Row[Any]]) -> str:
    """The region given by the readers, otherwise the region detected by fxpipe."""
    named = {review.region for review in reviews if review.region}
    region = named.pop() if len(named) == 1 else arrival.region
    return "none" if region == "other" else str(region or "unknown")


def _file(arrival: Row[Any], blobs: Blobs, identifiers: bool) -> tuple[str, Path | bytes]:
    """File name in the archive, and content."""
    path = blobs.path(arrival.sha256)
    stem = f"pictures/{arrival.sha256[:16]}"
    with path.open("rb") as file:
        is_dicom = sniff(file.read(2**12)) is Kind.DICOM
    if is_dicom and not identifiers:
        return f"{stem}.png", _png16(path, arrival.sha256)
    suffix = re.search(r"\.[A-Za-z0-9]{1,5}$", arrival.name)
    return f"{stem}{suffix[0].lower() if suffix else ''}", path


def _png16(path: Path, sha256: str) -> bytes:
    with closing(decode(path.read_bytes(), path, sha256)) as pictures:
        pixels = next(pictures).pixels
    file = io.BytesIO()
    deep = np.rint(pixels * np.float32(65535)).astype(np.uint16)
    Image.fromarray(deep).save(file, "PNG", compress_level=1)
    return file.getvalue()
