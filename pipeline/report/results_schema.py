"""What a line of ``results.jsonl`` promises, as a model and as a JSON Schema."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from ..outcome import Verdict
from .columns import FIELDS, RECORD_SCHEMA

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


_VERSION: Any = (Literal[RECORD_SCHEMA], ...)
LineModel: type[BaseModel] = create_model(
    "Line",
    __config__=_CLOSED,
    __doc__="What fxpipe knows of one input: a line of results.jsonl.",
    schema_version=_VERSION,
    **FIELDS,
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
