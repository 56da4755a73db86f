"""The format of a line of ``results.jsonl``, as a model and as a JSON Schema."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from ..outcome import Verdict
from .columns import FIELDS, RECORD_SCHEMA

SCHEMA_ID = f"urn:fxpipe:schema:results:{RECORD_SCHEMA}"

_CLOSED = ConfigDict(extra="forbid", frozen=True)


class FindingModel(BaseModel):
    """The finding of one specialist."""

    model_config = _CLOSED

    region: str = Field(description="Region of the specialist; 'all' for one for every region.")
    target: Literal["fracture", "abnormality"] = Field(
        description="Meaning of the training labels."
    )
    verdict: Verdict
    probability: float = Field(ge=0.0, le=1.0, description="Calibrated probability.")
    threshold: float = Field(ge=0.0, le=1.0, description="Positive from this probability.")
    doubt_below: float = Field(
        ge=0.0, le=1.0, description="Negative below; uncertain from here up to the threshold."
    )
    operating_point: str
    types: dict[str, float] = Field(
        default_factory=dict,
        description="Probability of each type of fracture, given that there is a fracture; absent "
        "if the specialist predicts no types, or if the verdict is negative.",
    )


_VERSION: Any = (Literal[RECORD_SCHEMA], ...)
LineModel: type[BaseModel] = create_model(
    "Line",
    __config__=_CLOSED,
    __doc__="The result of one input: a line of results.jsonl.",
    schema_version=_VERSION,
    **FIELDS,
    findings=(
        tuple[FindingModel, ...],
        Field(description="One for each specialist that examined the picture."),
    ),
    flag_reasons=(dict[str, str], Field(description="A sentence for each flag, by its name.")),
    header=(
        dict[str, str] | None,
        Field(description="DICOM header values that fxpipe uses, without identifiers."),
    ),
)
"""A line of ``results.jsonl``, with every column of the table."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a line, with its version in ``$id``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **LineModel.model_json_schema(),
    }
