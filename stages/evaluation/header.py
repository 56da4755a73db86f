"""Figures of routing with and without the DICOM header. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.bundle import Estimate
from pipeline.domain import REGIONS
from pipeline.outcome import HeaderEffect

from ..statistics.bootstrap import Flags
from ..statistics.metrics import share
from .figures import Figures, Settings
from .truth import columns, fired, routed

BY = {"pixels alone": "fired_alone", "with header": "fired"}
"""Source of the routing decision, and the column with the regions that fire."""

NO_HEADER = "no picture has a header that names a body part"
IGNORED = "header=ignore"

_NAMES = {
    "exact": "the regions that fire are exactly those in view",
    "supported_refused": "single-region pictures refused (wrongly)",
    "unsupported_refused": "pictures without a supported region refused (correctly)",
}


@dataclass(frozen=True, slots=True)
class HeaderLine:
    """One figure with and without the header.

    Attributes:
        name: Display name.
        of: Number of pictures.
        alone, combined: By the pixels alone, and with the header.
    """

    name: str
    of: int
    alone: Estimate
    combined: Estimate


def header_figures(table: pd.DataFrame, settings: Settings) -> Figures | None:
    """Routing with and without the header, for pictures whose header names a body part.

    Returns:
        None if there is no region stage or no matching picture, or if headers were ignored.

        ``pictures``; ``effects``: counts by effect of the header; ``exact``,
        ``supported_refused`` and ``unsupported_refused``, as in
        :func:`.routing.region_figures`: pictures, and a share by each of :data:`BY`.
    """
    ignored = (table["header_effect"] == HeaderEffect.IGNORED).any()
    rows = routed(table) & (table["header_says"] != "").to_numpy(bool)
    if settings.no_region_stage or ignored or not rows.any():
        return None
    table = table[rows]
    view = columns(table, "view")
    single: Flags = table["regions"].isin(REGIONS).to_numpy(bool)
    none: Flags = (table["regions"] == "none").to_numpy(bool)
    certain: Flags = np.logical_not(np.any(np.isnan(view), axis=1))
    counts = table["header_effect"].value_counts()
    return {
        "pictures": len(table),
        "effects": {str(effect): int(count) for effect, count in counts.items()},
        "exact": _shares(table, certain, lambda sent: np.all(sent == view, axis=1)),
        "supported_refused": _shares(table, single, _refused),
        "unsupported_refused": _shares(table, none, _refused),
    }


def _refused(sent: Flags) -> Flags:
    refused: Flags = np.logical_not(np.any(sent, axis=1))
    return refused


def _shares(table: pd.DataFrame, rows: Flags, judge: Callable[[Flags], Flags]) -> Figures:
    groups = table["group"].to_numpy(str)[rows].tolist()
    shares = {by: share(judge(fired(table, column))[rows], groups) for by, column in BY.items()}
    return {"pictures": int(rows.sum()), **shares}


def header_lines(figures: Figures) -> Iterator[HeaderLine]:
    """One line per figure that has pictures; none without the chapter."""
    chapter = figures["header"] or {}
    for key, name in _NAMES.items():
        part = chapter.get(key, {"pictures": 0})
        if part["pictures"]:
            yield HeaderLine(name, part["pictures"], *(part[by] for by in BY))


def header_note(figures: Figures, facts: Mapping[str, Any]) -> str:
    """Explanation of the lines, or the reason why there are none."""
    chapter = figures["header"]
    if chapter is None:
        reason = facts["no_region_stage"] or (IGNORED if facts["header"] == "ignore" else NO_HEADER)
        return f"Header: not measured, {reason}."
    effects = ", ".join(f"{count} {effect}" for effect, count in chapter["effects"].items())
    return (
        f"Header: {chapter['pictures']} pictures with a header that names a body part "
        f"({effects}). If the table took the regions in view from the same headers, as fxpipe "
        "index does for DICOM files, the figures with the header are too optimistic."
    )
