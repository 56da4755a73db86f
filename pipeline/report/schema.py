"""What a line of ``results.jsonl`` promises, as a model and as a JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from ..domain import REGIONS, HeaderEffect, Status, Verdict
from .record import COLUMNS, IDENTITY, RECORD_SCHEMA

SCHEMA_ID = f"urn:fxpipe:schema:results:{RECORD_SCHEMA}"

_CLOSED = ConfigDict(extra="forbid", frozen=True)


class FindingModel(BaseModel):
    """What one specialist says of the picture."""

    model_config = _CLOSED

    region: str = Field(description="The specialist; 'all' for one that looks at every region.")
    target: Literal["fracture", "abnormality"] = Field(description="What its labels meant.")
    verdict: Verdict
    probability: float = Field(ge=0.0, le=1.0, description="Calibrated.")
    threshold: float = Field(ge=0.0, le=1.0, description="Positive from here.")
    doubt_below: float = Field(ge=0.0, le=1.0, description="Negative below; uncertain between.")
    operating_point: str
    types: dict[str, float] = Field(
        default_factory=dict,
        description="Probability of each type of fracture, given that there is one; left out where "
        "the specialist tells none, and where the verdict is negative.",
    )


def _text(description: str) -> Any:
    return str | None, Field(description=description)


def _probability(description: str) -> Any:
    return float | None, Field(ge=0.0, le=1.0, description=description)


def _similarity(description: str) -> Any:
    return float | None, Field(ge=-1.0, le=1.0, description=description)


_FIELDS: Mapping[str, Any] = {
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
    **{f"verdict_{region}": (Verdict | None, Field()) for region in REGIONS},
    **{f"probability_{region}": _probability("Of that specialist.") for region in REGIONS},
    "flags": _text("Names of doubts about the picture, joined by ';'."),
    "heatmap": _text("Files of overlays below the output folder, joined by ';'."),
    "error": _text("Why there is no verdict."),
    "elapsed_ms": (float, Field(ge=0.0, description="Time spent on this input.")),
    "bundle_digests": (dict[str, str], Field(description="Bundle that spoke to its SHA-256.")),
    **{name: _text(f"DICOM {word}; null unless asked for.") for name, word in IDENTITY},
}  # fmt: skip

_VERSION: Any = (Literal[RECORD_SCHEMA], ...)
LineModel: type[BaseModel] = create_model(
    "Line",
    __config__=_CLOSED,
    __doc__="What fxpipe knows of one input: a line of results.jsonl.",
    schema_version=_VERSION,
    **{name: _FIELDS[name] for name in COLUMNS},
    findings=(tuple[FindingModel, ...], Field(description="One for each specialist that looked.")),
    flag_reasons=(dict[str, str], Field(description="Flag to a sentence for the reader.")),
    header=(dict[str, str] | None, Field(description="DICOM values in use, no identifiers.")),
)
"""A line of ``results.jsonl``, with every column of the table."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a line, with its version in ``$id``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **LineModel.model_json_schema(),
    }
