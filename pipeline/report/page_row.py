"""The data of one outcome for the HTML page: record, findings with heatmap layers, pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..domain import Heatmap, Rendered
from ..heatmap import Contour, contours
from ..outcome import SEVERITY, FractureCall, Outcome, RegionCall, Status, Verdict, by_severity
from .columns import IDENTITY
from .record import finding_record, plain, subject, to_record

_JUDGED = [answer for answer in SEVERITY if isinstance(answer, Verdict)]
URGENCY = tuple(map(str, (*_JUDGED, Status.UNSUPPORTED, Status.FAILED)))
"""Every answer, in the order of the worklist: verdicts by severity, then pictures without one."""

VIEW_PX = 1024
"""Longest side of the opened picture, in px."""

THUMB_PX = 160
"""Longest side of the picture in the list, in px."""

# JPEG instead of WebP: twice the size, but grey values in full range (WebP has 219 levels, which
# is visible in a narrow window), and a tenth of the time on the single writing thread.
_VIEW_QUALITY = 80
_THUMB_QUALITY = 75


def to_row(outcome: Outcome, root: Path, level: float) -> dict[str, Any]:
    """Everything except the opened picture, as JSON values; None values of the record are omitted.

    Args:
        outcome: The outcome of one input.
        root: See :func:`pipeline.report.record.to_record`.
        level: Share of a heatmap's peak at which the contour is drawn, in (0, 1).
    """
    record, leading = to_record(outcome, root), outcome.leading
    row: dict[str, Any] = {
        "answer": (leading.verdict if leading else outcome.status).value,
        "probability": leading.probability if leading else None,
        "record": {key: value for key, value in record.items() if value is not None},
        "regions": [] if outcome.region is None else _regions(outcome.region),
        "unexamined": list(outcome.unexamined),
        "findings": [_finding(f, outcome.rendered, level) for f in by_severity(outcome.findings)],
        "flags": [{"name": flag.name, "reason": plain(flag.reason)} for flag in outcome.flags],
        "header": {key: plain(str(value)) for key, value in (outcome.header or {}).items()},
        "identity": {word: record[name] for name, word in IDENTITY if record[name]},
    }
    if outcome.rendered is not None:
        height, width = _extent(outcome.rendered)
        thumb = _jpeg(outcome.rendered, THUMB_PX, _THUMB_QUALITY)
        row["picture"] = {"height": height, "width": width, "thumb": thumb}
    return row


def view(rendered: Rendered) -> str:
    """The opened picture: JPEG in base64."""
    return _jpeg(rendered, VIEW_PX, _VIEW_QUALITY)


def _regions(call: RegionCall) -> list[dict[str, Any]]:
    """Probability and threshold of each region, the most probable first."""
    return [
        {"region": r, "probability": call.probabilities[r], "threshold": call.thresholds[r]}
        for r in call.ranking
    ]


def _finding(finding: FractureCall, rendered: Rendered | None, level: float) -> dict[str, Any]:
    row = finding_record(finding) | {"subject": subject(finding)}
    if finding.heatmap is not None and rendered is not None:
        row["layer"] = _layer(finding.heatmap, level)
    return row


def _layer(heatmap: Heatmap, level: float) -> dict[str, Any]:
    """A heatmap for the page: cells in base64, and their position in source px."""
    height_px, width_px = heatmap.canvas_px
    top, left = heatmap.placement.to_source(0.0, 0.0)
    bottom, right = heatmap.placement.to_source(float(height_px), float(width_px))
    rows, columns = heatmap.cells.shape
    return {
        "rows": rows,
        "columns": columns,
        "cells": _base64(np.rint(heatmap.cells * 255.0).astype(np.uint8).tobytes()),
        "left": left,
        "top": top,
        "width": right - left,
        "height": bottom - top,
        "contour": _path(contours(heatmap, level)),
        "hidden": heatmap.hidden,
    }


def _path(lines: Iterable[Contour]) -> str:
    """Closed lines as SVG path data, x before y, rounded to 0.1 source px."""
    return "".join(
        "M" + "L".join(f"{x:.1f} {y:.1f}" for y, x in line[:-1].tolist()) + "Z" for line in lines
    )


def _extent(rendered: Rendered) -> tuple[int, int]:
    """Height and width in source px; the last px of a reduced picture counts as a full one."""
    height, width = rendered.pixels.shape
    return height * rendered.reduction, width * rendered.reduction


def _jpeg(rendered: Rendered, longest_px: int, quality: int) -> str:
    image = Image.fromarray(rendered.pixels)
    image.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    file = BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return _base64(file.getvalue())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
