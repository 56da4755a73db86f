"""Converts contracts of older schemas to the current schema.

Schemas 1 and 2 had one model for all kinds of bundles: each contract contained the fields of every
kind (empty for other kinds), and an ensemble was a fracture stage with ``members`` as input.
"""

from __future__ import annotations

from typing import Any

_ROUTING = ("route_thresholds", "density")
_JUDGING = ("region", "target", "operating_points", "default_point", "study_points", "closer")
_EMPTY_FIELDS = {
    "trunk": ("members", "labels", "temperature", "bias", *_ROUTING, *_JUDGING),
    "region": ("members", *_JUDGING),
    "fracture": ("members", *_ROUTING),
    "ensemble": ("trunk", "closer", *_ROUTING),
}
"""Fields that were required in each kind but do not apply to it."""


def upgrade_contract(contract: Any) -> Any:
    """Remove the fields of other kinds from a contract of an older schema.

    Contracts of the current schema are returned unchanged. A field with a value is kept, so that
    validation rejects it.

    Args:
        contract: JSON values, or a parsed contract.
    """
    if not isinstance(contract, dict) or contract.get("schema_version") not in (1, 2):
        return contract
    kind = contract.get("kind")
    if kind == "fracture" and contract.get("input") == "members":
        kind = "ensemble"
    empty_fields = _EMPTY_FIELDS.get(str(kind), ())
    fields = {name: value for name, value in contract.items() if value or name not in empty_fields}
    if kind == "trunk":
        fields.pop("heatmap", None)  # it was true although a trunk has no heatmap
    if kind == "region":
        fields.setdefault("density", None)  # schema 1 had none
    return {**fields, "kind": kind}
