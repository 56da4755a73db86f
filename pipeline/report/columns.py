"""The columns of results.csv and of every other output with one row per input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from ..domain import REGIONS
from ..outcome import HeaderEffect, Status, Verdict

RECORD_SCHEMA = 3
"""Raised when the name, position or meaning of a column changes."""

IDENTITY = (
    ("patient_id", "PatientID"),
    ("patient_name", "PatientName"),
    ("accession_number", "AccessionNumber"),
    ("study_instance_uid", "StudyInstanceUID"),
    ("series_instance_uid", "SeriesInstanceUID"),
    ("sop_instance_uid", "SOPInstanceUID"),
)
"""Columns of identifiers with their DICOM keywords; empty unless identifiers are kept."""


def _text(description: str) -> Any:
    return str | None, Field(description=description)


def _probability(description: str) -> Any:
    return float | None, Field(ge=0.0, le=1.0, description=description)


def _similarity(description: str) -> Any:
    return float | None, Field(ge=-1.0, le=1.0, description=description)


FIELDS: Mapping[str, Any] = {
    "path": (
        str,
        Field(
            description="Path relative to the input folder, with forward slashes; or the name of "
            "content in memory."
        ),
    ),
    "frame": (int | None, Field(ge=0, description="Frame in a file with several pictures.")),
    "sha256": (
        str | None, Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the whole file."),
    ),
    "study": _text("Key that the pictures of one study share; not an identifier."),
    "status": (
        Status, Field(description="unsupported and failed have an error text and no verdict."),
    ),
    "regions": _text("Recognised regions, joined by ';'."),
    **{
        f"p_{region}": _probability(f"Probability that the picture shows this region: {region}.")
        for region in REGIONS
    },
    "density": _similarity("Similarity to the nearest training pictures."),
    "density_threshold": _similarity(
        "Below this density no region is recognised; null without a density gate."
    ),
    "header_effect": (
        HeaderEffect | None,
        Field(description="Effect of the DICOM header on the recognised regions."),
    ),
    "unexamined": _text("Recognised regions without a specialist."),
    "region": _text("Region of the most severe finding."),
    "target": _text("Meaning of the training labels of the most severe finding."),
    "verdict": (Verdict | None, Field(description="Verdict of the most severe finding.")),
    "probability": _probability("Probability of the most severe finding."),
    "threshold": _probability("Threshold of the most severe finding: positive from here."),
    "operating_point": _text("Operating point of the most severe finding."),
    **{
        f"{name}_{region}": field
        for region in REGIONS
        for name, field in (
            ("verdict", (Verdict | None, Field())),
            ("probability", _probability("Probability from the specialist of this region.")),
        )
    },
    "flags": _text("Names of quality warnings about the picture, joined by ';'."),
    "heatmap": _text("Overlay files relative to the output folder, joined by ';'."),
    "error": _text("Reason why there is no verdict."),
    "elapsed_ms": (float, Field(ge=0.0, description="Processing time of this input.")),
    "bundle_digests": (
        dict[str, str], Field(description="SHA-256 of each bundle that took part, by name."),
    ),
    **{name: _text(f"DICOM {word}; null unless identifiers are kept.") for name, word in IDENTITY},
}  # fmt: skip
"""Type and description of each column, in order; a column that may be empty has a type with None.
:data:`TYPES` follows in tables of weights that predict types of fracture.

``regions`` are the recognised regions; below ``density_threshold`` there are none.
``header_effect`` is the effect of the header on them (nothing, agreed, vetoed, helped, ignored).
``unexamined`` are recognised regions without a specialist. ``region`` to ``operating_point`` belong
to the most severe finding; ``region`` is ``all`` for a specialist for every region, which has no
separate columns among those by region. ``target`` is the meaning of the training labels, so that an
abnormality is never reported as a fracture. ``flags`` are names of quality warnings, ``heatmap``
the overlay files relative to the output folder.
"""

COLUMNS = tuple(FIELDS)
"""The names of the columns, in order."""

TYPES = "fracture_types"
"""Column with the types of fracture of the most severe finding; only if the weights predict them.
"""


def fields_of(types: bool) -> Mapping[str, Any]:
    """The columns of a table: :data:`FIELDS`, and :data:`TYPES` at the end.

    Args:
        types: Whether the weights predict types of fracture; otherwise :data:`TYPES` is omitted.
    """
    if not types:
        return FIELDS
    return {**FIELDS, TYPES: _text("Types of fracture of the most severe finding, joined by ';'.")}
