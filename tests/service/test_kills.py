"""A killed service loses and duplicates no picture, and a kill fails no picture."""

from __future__ import annotations

import random

import numpy as np
import pytest
import service_kills
from bundles import paint
from tiny_networks import write_bundles

NEEDS = {"dicom": "storescu", "sending": "Orthanc"}


@pytest.mark.parametrize(
    "under",
    [
        pytest.param(name, marks=pytest.mark.needs_tool(NEEDS[name]) if name in NEEDS else ())
        for name in service_kills.SCENARIOS
    ],
)
def test_acknowledged_pictures_have_exactly_one_result(under, tmp_path):
    weights = write_bundles(tmp_path / "weights")
    pixels = paint({"hand": 0.9}, {"hand": 0.9}, 64).astype(np.uint16) * 16
    task = service_kills.Task(
        tmp_path / "data", weights, 3, random.Random(), pixels, ends_leases=True
    )
    counts = service_kills.SCENARIOS[under](task)
    assert counts["kills"] == 3
    assert counts["acknowledged"] > 0
    wrong = {name: counts[name] for name in service_kills.WRONG if counts[name]}
    assert wrong == {}
    assert under != "sending" or counts["objects"] > 0
