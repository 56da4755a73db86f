"""Counts of maps that peak off the limb; evidence off the limb is not displayed."""

from __future__ import annotations

import numpy as np
import pytest
from prediction_tables import row, table

from pipeline.preprocess import PreprocessSpec, preprocess
from stages.evaluation.evaluate import all_figures
from stages.evaluation.figures import POOLED, Settings
from stages.evaluation.limb import limb_figures, limb_note
from stages.evaluation.predictions import map_row

SPEC = PreprocessSpec(height_px=64, width_px=64)


def mapped(region: str, off_limb: float, hidden: float, p: float = 0.9, **changes):
    values = {f"off_limb_{region}": off_limb, f"hidden_{region}": hidden}
    return row(region, label=1, fractures={region: p}, **values, **changes)


def test_displayed_maps_are_counted_by_specialist_and_in_total():
    rows = table(
        mapped("hand", 1, 0.8),
        mapped("hand", 0, 0.1),
        mapped("hand", 0, 0.0, p=0.35),  # uncertain
        mapped("hand", 1, 1.0, p=0.1),  # negative: not drawn
        mapped("hand", np.nan, 0.0),  # no positive evidence
        mapped("hand", 1, 1.0, fired=[]),  # the router refused it
        mapped("elbow", 0, 0.2),
    )
    figures = limb_figures(rows, Settings())
    assert {name: part["maps"] for name, part in figures.items()} == {
        "elbow": 1, "hand": 3, "shoulder": 0, POOLED: 4,
    }  # fmt: skip
    assert figures["hand"]["off_limb"].value == pytest.approx(1 / 3)
    assert figures["hand"]["hidden"].value == pytest.approx(0.3)
    assert figures[POOLED]["off_limb"].value == pytest.approx(1 / 4)
    assert figures["shoulder"]["off_limb"].note == "no cases"
    assert limb_note(figures) == (
        "Maps off the limb: 1 of 4 maps of positive and uncertain findings peak off the limb; "
        "27.5% of all evidence is off the limb and not drawn."
    )
    assert all_figures(rows, Settings())["limb"]["hand"]["maps"] == 3


def test_note_states_that_no_map_was_drawn():
    assert "no map was drawn" in limb_note(limb_figures(table(row()), Settings()))


def test_peak_is_that_of_the_displayed_evidence():
    _, placement = preprocess(np.zeros((64, 64), np.float32), SPEC)
    limb = np.zeros((64, 64), np.bool_)
    limb[:, :32] = True
    evidence = np.full((4, 4), -1.0, np.float32)
    evidence[1, 3], evidence[2, 0] = 3.0, 1.0
    values = map_row(evidence, SPEC, placement, limb)
    assert (values["off_limb"], values["hidden"]) == (1.0, 0.75)
    assert (values["peak_x"], values["peak_y"]) == (0.125, 0.625)
    values = map_row(evidence, SPEC, placement, None)
    assert (values["off_limb"], values["hidden"], values["peak_x"]) == (0.0, 0.0, 0.875)
    evidence[2, 0] = -1.0  # nothing is displayed; the peak off the limb counts
    values = map_row(evidence, SPEC, placement, limb)
    assert (values["hidden"], values["peak_x"]) == (1.0, 0.875)
    evidence[1, 3] = -1.0
    assert np.isnan(map_row(evidence, SPEC, placement, limb)["off_limb"])
