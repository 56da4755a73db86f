"""Regions, groups and flags that this project added to FracAtlas: ``fracatlas_regions.csv``.

For 2,017 of the 4,083 pictures: the region in view, labelled by visual inspection (not by a
clinician); a group of near-identical pictures and views of probably the same patient; whether the
file is truncated; whether its label contradicts a duplicate or the authors' table.

Derived from FracAtlas by Abedeen et al., Scientific Data 10:521 (2023), doi
10.1038/s41597-023-02432-4, figshare 10.6084/m9.figshare.22363012, under CC BY 4.0
(https://creativecommons.org/licenses/by/4.0/); regions, groups and flags were added here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pipeline.domain import REGIONS

from ...samples import UNKNOWN
from .columns import read_csv, rows_of
from .label_words import regions_of

FILE = Path(__file__).with_name("fracatlas_regions.csv")

# other: none of the preceding regions.
_WORDS = (*REGIONS, "elbow+hand", "arm+trunk", "forearm", "other", "leg", "hip", "leg+hip")

REGIONS_IN_VIEW = {word: regions_of(word, "fracatlas") or UNKNOWN for word in _WORDS}
"""Regions in view, in the notation of the index, by label."""


class Known(NamedTuple):
    """One picture.

    Attributes:
        region: One of ``REGIONS_IN_VIEW``.
        group: Substitute for the patient.
        truncated: Whether the file is incomplete.
        label_conflict: Whether its label contradicts another source.
    """

    region: str
    group: str
    truncated: bool
    label_conflict: bool


@cache
def known_pictures() -> Mapping[str, Known]:
    """Every inspected picture by its file name."""
    return {
        row["image_id"]: Known(
            row["region"], row["group"], row["truncated"] == "1", row["label_conflict"] == "1"
        )
        for _, row in rows_of(read_csv(FILE))
    }
