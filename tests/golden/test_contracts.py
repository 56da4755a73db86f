"""Contracts that lie in weights folders in the world stay readable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.bundle import METADATA_KEY, FractureSpec, RegionSpec, TrunkSpec, read_contract

OLD = json.loads((Path(__file__).parent / "contracts-of-schema-1.json").read_text())
"""Those of the int8 files that fxpipe was first shipped with."""


@pytest.mark.parametrize(
    ("name", "kind"),
    [("trunk", TrunkSpec), ("region", RegionSpec), ("fracture-hand", FractureSpec)],
)
def test_a_contract_of_schema_1_is_read_with_every_value(name, kind):
    spec = read_contract({METADATA_KEY: json.dumps(OLD[name])}, "x.onnx")
    assert type(spec) is kind
    found = spec.model_dump(mode="json")
    for field, value in OLD[name].items():
        if field in found and field not in ("preprocess", "provenance"):
            assert found[field] == value, field
        elif field not in found:
            # It said nothing of this kind; a trunk had to say that it has a heatmap.
            assert value in (None, [], {}, True), field
    for section in ("preprocess", "provenance"):
        assert OLD[name][section].items() <= found[section].items()


def test_a_specialist_of_schema_1_decides_as_it_did():
    spec = read_contract({METADATA_KEY: json.dumps(OLD["fracture-hand"])}, "x.onnx")
    stored = OLD["fracture-hand"]["operating_points"]
    for name, point in stored.items():
        found = spec.operating_point(name)
        assert (found.threshold, found.doubt_below) == (point["threshold"], point["doubt_below"])
    assert spec.operating_point(None).name == OLD["fracture-hand"]["default_point"]
    assert (spec.closer, spec.types, spec.features_of) == (None, None, spec.trunk)
