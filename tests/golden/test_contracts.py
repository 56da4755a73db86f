"""Contracts of earlier releases remain readable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.bundle import METADATA_KEY, FractureSpec, RegionSpec, TrunkSpec, read_contract

OLD = json.loads((Path(__file__).parent / "contracts-of-schema-1.json").read_text())
"""Contracts of the int8 files in the first release of fxpipe."""


@pytest.mark.parametrize(
    ("name", "kind"),
    [("trunk", TrunkSpec), ("region", RegionSpec), ("fracture-hand", FractureSpec)],
)
def test_contract_of_schema_1_keeps_every_value(name, kind):
    spec = read_contract({METADATA_KEY: json.dumps(OLD[name])}, "x.onnx")
    assert type(spec) is kind
    values = spec.model_dump(mode="json")
    for field, value in OLD[name].items():
        if field in values and field not in ("preprocess", "provenance"):
            assert values[field] == value, field
        elif field not in values:
            # Fields of other kinds were empty, except that a trunk had heatmap = True.
            assert value in (None, [], {}, True), field
    for section in ("preprocess", "provenance"):
        assert OLD[name][section].items() <= values[section].items()


def test_specialist_of_schema_1_keeps_its_operating_points():
    spec = read_contract({METADATA_KEY: json.dumps(OLD["fracture-hand"])}, "x.onnx")
    stored = OLD["fracture-hand"]["operating_points"]
    for name, point in stored.items():
        actual = spec.operating_point(name)
        assert (actual.threshold, actual.doubt_below) == (point["threshold"], point["doubt_below"])
    assert spec.operating_point(None).name == OLD["fracture-hand"]["default_point"]
    assert (spec.closer, spec.types, spec.features_of) == (None, None, spec.trunk)
