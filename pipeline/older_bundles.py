"""Contracts of older schemas, brought into the present form.

Schemas 1 and 2 had one model for all kinds of bundles: each contract held the fields of every kind,
those of other kinds empty, and an ensemble was a fracture stage that takes members.
"""

from __future__ import annotations

from typing import Any

_ROUTING = ("route_thresholds", "density")
_JUDGING = ("region", "target", "operating_points", "default_point", "study_points", "closer")
_FOREIGN = {
    "trunk": ("members", "labels", "temperature", "bias", *_ROUTING, *_JUDGING),
    "region": ("members", *_JUDGING),
    "fracture": ("members", *_ROUTING),
    "ensemble": ("trunk", "closer", *_ROUTING),
}
"""Fields of each kind that had to be there and say nothing of it."""


def in_present_form(contract: Any) -> Any:
    """A contract of an older schema without the fields that are not its kind's; any other as it is.

    A field that holds something stays, and is then refused.

    Args:
        contract: JSON values, or a contract that was read already.
    """
    if not isinstance(contract, dict) or contract.get("schema_version") not in (1, 2):
        return contract
    kind = contract.get("kind")
    if kind == "fracture" and contract.get("input") == "members":
        kind = "ensemble"
    foreign = _FOREIGN.get(str(kind), ())
    held = {name: value for name, value in contract.items() if value or name not in foreign}
    if kind == "trunk":
        held.pop("heatmap", None)  # it said yes, of no map
    if kind == "region":
        held.setdefault("density", None)  # schema 1 had none
    return {**held, "kind": kind}
