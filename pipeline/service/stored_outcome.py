"""Outcomes restored from the database, equal to those of a run on the same file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import RunConfig
from ..domain import Heatmap, Placement, XrayImage
from ..errors import UnreadableImageError
from ..io import decode
from ..outcome import FractureCall, Outcome, Verdict
from ..outcome_json import from_json
from ..render import render
from ..source import NamedBytes


def restored(values: Mapping[str, Any], judged_as: str, name: str, *, identity: bool) -> Outcome:
    """The outcome of a picture under the name of an arrival, without heatmaps.

    Args:
        values: By :func:`pipeline.outcome_json.to_json`.
        judged_as: Name of the job, with which messages begin.
        name: Name of the arrival.
        identity: Whether to keep identifiers.
    """
    outcome = from_json(values, NamedBytes(name, b""))
    error = None if outcome.error is None else renamed(outcome.error, judged_as, name)
    return replace(outcome, error=error, identity=outcome.identity if identity else None)


def renamed(message: str, before: str, after: str) -> str:
    """Replace the file name at the start of a message."""
    return after + message[len(before) :] if message.startswith(f"{before}:") else message


def with_picture(
    outcome: Outcome, row: Mapping[str, Any], path: Path, config: RunConfig
) -> Outcome:
    """The outcome with its file; with picture and heatmaps if findings have one.

    Heatmaps have 256 levels, as on the page.

    Args:
        outcome: Outcome of the picture.
        row: By :func:`pipeline.report.page_row.to_row`.
        path: The file.
        config: Settings; ``heatmaps`` selects the findings with a heatmap (None: all but negative).

    Raises:
        ImageError: The picture cannot be decoded.
        OSError: The file cannot be read.
    """
    outcome = replace(outcome, image=replace(outcome.image, path=path))
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
    raise UnreadableImageError(f"{path.name}: found fewer frames than judged")


def _shown(finding: FractureCall, config: RunConfig) -> bool:
    how = config.heatmaps or "positive"
    return how == "all" or (how == "positive" and finding.verdict is not Verdict.NEGATIVE)


def _heatmap(layer: Mapping[str, Any], source_shape: tuple[int, ...]) -> Heatmap:
    """A heatmap from its layer on the page, with one px per cell."""
    shape = int(layer["rows"]), int(layer["columns"])
    cells = np.frombuffer(base64.b64decode(layer["cells"]), np.uint8).reshape(shape)
    scale_y, scale_x = shape[0] / layer["height"], shape[1] / layer["width"]
    placement = Placement(
        scale_y, scale_x, -layer["top"] * scale_y, -layer["left"] * scale_x,
        (source_shape[0], source_shape[1]),
    )  # fmt: skip
    return Heatmap(cells.astype(np.float32) / np.float32(255), shape, placement, layer["hidden"])
