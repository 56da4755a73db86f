"""Refusals by density gate and router, on tables small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from prediction_tables import row, table

from stages.evaluation.figures import Settings
from stages.evaluation.gate import gate_figures


def gated(regions: str, density: float, fired: bool, logit: float) -> dict[str, object]:
    """A prediction of a router that fires or not, independently of the gate."""
    prediction = row(regions, fired=["hand"] if fired else [])
    logits = {"logit_elbow": -9.0, "logit_hand": logit, "logit_shoulder": -9.0}
    return {
        **prediction,
        **logits,
        "density": density,
        "density_threshold": 0.5,
        "density_far": 0.65,
    }


@pytest.fixture(scope="module")
def predictions():
    return table(
        gated("hand", 0.9, True, 3.0),
        gated("elbow", 0.6, True, 1.0),
        gated("hand", 0.4, True, 5.0),
        gated("hand", 0.45, False, -2.0),
        gated("none", 0.1, True, 2.0),
        gated("none", 0.2, False, -3.0),
        gated("none", 0.55, False, -1.0),
        gated("unknown", 0.1, True, 2.0),
        row("hand", status="failed"),
    )


def test_counts_by_gate_router_both_and_either(predictions):
    refused = gate_figures(predictions, Settings())["refused"]
    assert refused["supported"]["pictures"] == 4
    assert refused["supported"]["counts"] == {"gate": 2, "router": 1, "both": 1, "either": 2}
    assert refused["unsupported"]["pictures"] == 3
    assert refused["unsupported"]["counts"] == {"gate": 2, "router": 2, "both": 1, "either": 3}
    assert refused["unsupported"]["shares"]["either"].value == 1.0


def test_pictures_that_pass_the_gate_may_be_far(predictions):
    far = gate_figures(predictions, Settings())["far"]
    assert (far["supported"]["count"], far["unsupported"]["count"]) == (1, 1)  # 0.6 and 0.55
    assert far["supported"]["share"].value == 0.25


def test_auc_of_each_score_and_of_both(predictions):
    auc = gate_figures(predictions, Settings())["auc"]
    # Pairs of a supported and an unsupported picture in which the former has the larger score.
    assert auc["router"].value == pytest.approx((3 + 2 + 3 + 1) / 12)
    assert auc["density"].value == pytest.approx((3 + 3 + 2 + 2) / 12)
    ranks = {"s": [6 + 7, 4 + 6, 7 + 3, 2 + 4], "u": [5 + 1, 1 + 2, 3 + 5]}
    pairs = [(s > u) + 0.5 * (s == u) for s in ranks["s"] for u in ranks["u"]]
    assert auc["both"].value == pytest.approx(np.mean(pairs))


def test_without_a_gate_there_are_no_figures(predictions):
    assert gate_figures(predictions, Settings(no_gate="off")) is None


def test_without_unsupported_pictures_the_auc_is_undefined():
    figures = gate_figures(table(gated("hand", 0.9, True, 3.0)), Settings())
    assert figures["auc"]["both"].value is None
    assert figures["refused"]["unsupported"]["pictures"] == 0
