"""Outcomes from the database, as a run on the same file would give them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..domain import Heatmap, Placement
from ..errors import UnreadableImageError
from ..io import decode
from ..outcome import Outcome, Verdict
from ..outcome_json import from_json
from ..render import render
from ..source import NamedBytes


def restored(values: Mapping[str, Any], judged_as: str, name: str, *, identity: bool) -> Outcome:
    """The outcome of a picture under the name of an arrival, without heatmaps.

    Args:
        values: By :func:`pipeline.outcome_json.to_json`.
        judged_as: Name of the job: messages begin with it.
        name: Of the arrival.
        identity: Whether to keep identifiers.
    """
    outcome = from_json(values, NamedBytes(name, b""))
    error = None if outcome.error is None else renamed(outcome.error, judged_as, name)
    return replace(outcome, error=error, identity=outcome.identity if identity else None)


def renamed(message: str, before: str, after: str) -> str:
    """A message about a file under another name, if it begins with the name."""
    return after + message[len(before) :] if message.startswith(f"{before}:") else message


def with_picture(outcome: Outcome, row: Mapping[str, Any], path: Path) -> Outcome:
    """The outcome with its file, its picture, and heatmaps of 256 levels of its findings.

    Negative findings get no heatmap, as in a run with ``--dicom-out``.

    Args:
        outcome: By :func:`restored`.
        row: By :func:`pipeline.report.page_row.to_row`.
        path: The file.

    Raises:
        ImageError: The picture cannot be read.
        OSError: The file cannot be read.
    """
    frame = outcome.image.frame or 0
    image = replace(outcome.image, path=path)
    with closing(decode(path.read_bytes(), path, str(image.sha256))) as pictures:
        picture = next(islice(pictures, frame, None), None)
    if picture is None:
        raise UnreadableImageError(f"{image.name}: found fewer than {frame + 1} frames")
    shape = picture.pixels.shape
    layers = {
        one["region"]: one.get("layer")
        for one in row["findings"]
        if one["verdict"] != Verdict.NEGATIVE
    }
    findings = tuple(
        replace(finding, heatmap=_heatmap(layers.get(finding.region), (shape[0], shape[1])))
        for finding in outcome.findings
    )
    return replace(outcome, image=image, findings=findings, rendered=render(picture.pixels))


def _heatmap(layer: Mapping[str, Any] | None, shape: tuple[int, int]) -> Heatmap | None:
    """A heatmap from its layer on the page, on a canvas with one px for each cell."""
    if layer is None:
        return None
    rows, columns = layer["rows"], layer["columns"]
    cells = np.frombuffer(base64.b64decode(layer["cells"]), np.uint8).reshape(rows, columns)
    scale_y, scale_x = rows / layer["height"], columns / layer["width"]
    placement = Placement(
        scale_y, scale_x, -layer["top"] * scale_y, -layer["left"] * scale_x, shape
    )
    values = cells.astype(np.float32) / np.float32(255)
    return Heatmap(values, (rows, columns), placement, layer["hidden"])
