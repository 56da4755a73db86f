"""The columns of results.csv and of every other output with a row for each input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from ..domain import REGIONS
from ..outcome import HeaderEffect, Status, Verdict

RECORD_SCHEMA = 3
"""Raised when a column changes its name, place or meaning."""

IDENTITY = (
    ("patient_id", "PatientID"),
    ("patient_name", "PatientName"),
    ("accession_number", "AccessionNumber"),
    ("study_instance_uid", "StudyInstanceUID"),
    ("series_instance_uid", "SeriesInstanceUID"),
    ("sop_instance_uid", "SOPInstanceUID"),
)
"""Columns of identifiers, and their DICOM keywords: empty unless identifiers are kept."""


def _text(description: str) -> Any:
    return str | None, Field(description=description)


def _probability(description: str) -> Any:
    return float | None, Field(ge=0.0, le=1.0, description=description)


def _similarity(description: str) -> Any:
    return float | None, Field(ge=-1.0, le=1.0, description=description)


FIELDS: Mapping[str, Any] = {
    "path": (str, Field(description="Below the input folder, with forward slashes; or a name.")),
    "frame": (int | None, Field(ge=0, description="Of a file with several pictures.")),
    "sha256": (str | None, Field(pattern="^[0-9a-f]{64}$", description="Of the whole file.")),
    "study": _text("What the pictures of one study have in common; no identifier."),
    "status": (Status, Field(description="unsupported and failed have an error text instead.")),
    "regions": _text("Regions that fired, joined by ';'."),
    **{f"p_{region}": _probability(f"That it shows this: {region}.") for region in REGIONS},
    "density": _similarity("To the nearest training pictures."),
    "density_threshold": _similarity("Below it no region fires; null where nothing is refused so."),
    "header_effect": (
        HeaderEffect | None, Field(description="What the header did to the regions that fired."),
    ),
    "unexamined": _text("Regions that fired and have no specialist."),
    "region": _text("Of the gravest finding."),
    "target": _text("What the labels of the gravest finding meant."),
    "verdict": (Verdict | None, Field(description="The gravest.")),
    "probability": _probability("Of the gravest finding."),
    "threshold": _probability("Of the gravest finding: positive from here."),
    "operating_point": _text("Of the gravest finding."),
    **{
        f"{name}_{region}": field
        for region in REGIONS
        for name, field in (
            ("verdict", (Verdict | None, Field())),
            ("probability", _probability("Of that specialist.")),
        )
    },
    "flags": _text("Names of doubts about the picture, joined by ';'."),
    "heatmap": _text("Files of overlays below the output folder, joined by ';'."),
    "error": _text("Why there is no verdict."),
    "elapsed_ms": (float, Field(ge=0.0, description="Time spent on this input.")),
    "bundle_digests": (dict[str, str], Field(description="Bundle that spoke to its SHA-256.")),
    **{name: _text(f"DICOM {word}; null unless asked for.") for name, word in IDENTITY},
}  # fmt: skip
"""Type and description of each column, in order; a column that may be empty has a type with None.
:data:`TYPES` follows in tables of weights that tell types.

``regions`` are those that fired, ``header_effect`` is what the header did to that (nothing, agreed,
vetoed, helped, ignored), and ``unexamined`` are those that fired and no specialist looked at;
below ``density_threshold`` none fires;
``region`` to ``operating_point`` belong to the gravest finding; ``region`` is ``all`` for that of
a specialist for every region, which has no columns of its own among those by region. ``target``
says what its labels meant, so an abnormality is never reported as a fracture. ``flags`` are names
of doubts, ``heatmap`` the files of overlays below the output folder.
"""

COLUMNS = tuple(FIELDS)
"""The names of the columns, in order."""

TYPES = "fracture_types"
"""Column of the gravest finding's types of fracture, in tables of weights that tell any."""


def fields_of(types: bool) -> Mapping[str, Any]:
    """The columns of a table: :data:`FIELDS`, and :data:`TYPES` at the end.

    Args:
        types: Whether the weights tell types of fracture; without them there is no such column.
    """
    if not types:
        return FIELDS
    return {**FIELDS, TYPES: _text("Types of fracture of the gravest finding, joined by ';'.")}
