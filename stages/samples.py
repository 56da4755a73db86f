"""Types of the table of pictures: a sample is one row, an index the checked table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.domain import REGIONS, Array

Split = Literal["train", "val", "test", "excluded"]
SPLITS: tuple[Split, ...] = ("train", "val", "test", "excluded")
SplitBy = Literal["patient", "picture"]
LABEL_KINDS = ("fracture", "abnormality", "unknown", "")
NONE, UNKNOWN = "none", "unknown"

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of the table, a picture.

    Attributes:
        path: Path of the picture; in the file relative to the table's folder.
        regions: Regions in view: names joined by ``;`` (``hand?`` if it is not known whether the
            hand is in view), ``none`` of the supported regions, or ``unknown``.
        label: 1 fractured (or abnormal), 0 not, None unknown.
        label_kind: Meaning of the label: ``fracture``, ``abnormality``, or ``unknown`` if the data
            set does not specify it; empty without a label.
        group: Patient, or the most conservative substitute; never divided between splits.
        study: Pictures taken together; may be empty.
        split: ``train``, ``val``, ``test``, or ``excluded`` from all three.
        origin: The data set.
        flags: Words such as ``hardware`` or ``truncated``, joined by ``;``.
        sha256: Digest of the file.
        boxes: Corners (x0, y0, x1, y1) of the marked fractures as fractions of width and height;
            empty if none are marked. In the file ``x0 y0 x1 y1`` joined by ``;``; the column is
            optional.
        licence: Licence of the picture as its source states it; empty if unknown. The column is
            omitted if all are empty.
        types: Fracture types: names joined by ``;``, or empty if unknown. The column is optional.
        known_regions: The regions that fxpipe supported when the row was made, joined by ``;``;
            ``regions`` is unknown for any other. The column is omitted if it always holds the first
            three.
    """

    path: Path
    regions: str
    label: int | None
    label_kind: str
    group: str
    study: str
    split: Split
    origin: str
    flags: str
    sha256: str
    boxes: tuple[Box, ...] = ()
    licence: str = ""
    types: str = ""
    known_regions: str = ";".join(REGIONS)

    @property
    def type_names(self) -> tuple[str, ...]:
        """Types of the fracture; empty if unknown."""
        return tuple(filter(None, self.types.split(";")))

    def region_vector(self) -> Array:
        """(R,) float32 in the order of ``REGIONS``: 1 in view, 0 not, NaN unknown."""
        names = self.regions.split(";")
        known = [] if self.regions == UNKNOWN else self.known_regions.split(";")
        return np.array(
            [1.0 if r in names else 0.0 if r in known and f"{r}?" not in names else np.nan
             for r in REGIONS], np.float32,
        )  # fmt: skip

    @property
    def single_region(self) -> str | None:
        """The region, if exactly one supported region is certainly in view."""
        return self.regions if self.regions in REGIONS else None

    def shows(self, region: str) -> bool:
        """Whether the region is certainly in view."""
        return region in self.regions.split(";")


@dataclass(frozen=True, slots=True)
class Index:
    """A checked table.

    Attributes:
        source: File of the table.
        digest: SHA-256 of the file.
        samples: Rows of the table.
    """

    source: Path
    digest: str
    samples: tuple[Sample, ...]

    def of(self, split: Split) -> tuple[Sample, ...]:
        """The rows of one split."""
        return tuple(sample for sample in self.samples if sample.split == split)
