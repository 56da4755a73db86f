"""Figures of the evidence maps: hits by centre and by cell, chance, true positives."""

from __future__ import annotations

import numpy as np
import pytest
from prediction_tables import row, table

from stages.evaluation.figures import POOLED, Settings
from stages.evaluation.pointing import CALLED, pointing_figures
from stages.evaluation.truth import covered_share, grown, points_at, read_boxes


def test_boxes_are_parsed():
    assert read_boxes("0.1 0.2 0.3 0.4;0 0 1 1").tolist() == [[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]]


def test_overlapping_boxes_are_counted_once():
    assert covered_share(np.array([[0, 0, 0.5, 0.5]])) == pytest.approx(0.25)
    twice = np.array([[0, 0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75]])
    assert covered_share(twice) == pytest.approx(0.25 + 0.25 - 0.0625)
    assert covered_share(grown(np.array([[0.0, 0.4, 0.2, 0.6]]), 0.1, 0.1)) == pytest.approx(
        0.3 * 0.4
    )


def test_peak_hits_a_box_by_its_centre_or_by_its_cell():
    rows = table(
        row(label=1, boxes="0.4 0.4 0.6 0.6"),
        row(label=1, boxes="0.1 0.1 0.2 0.2;0.46 0.53 0.6 0.6"),  # 0.03 below: the cell touches
        row(label=1, boxes="0.0 0.0 0.1 0.1"),
        row(label=1, boxes=""),
        row(label=0, boxes="0.4 0.4 0.6 0.6"),
        row("none", label=1, boxes="0.4 0.4 0.6 0.6", fired=[]),
    )
    hits = points_at(rows[:3], "hand")
    assert hits["hit"].tolist() == [1, 0, 0]
    assert hits["cell_hit"].tolist() == [1, 1, 0]
    assert hits["chance"][[0, 2]] == pytest.approx([0.04, 0.01])
    assert hits["cell_chance"][[0, 2]] == pytest.approx([0.09, 0.0225])
    figures = pointing_figures(rows, Settings())
    for region in ("hand", POOLED):
        part = figures[region]
        assert part["pictures"] == 3
        assert part["centre"]["network"].value == pytest.approx(1 / 3)
        assert part["cell"]["network"].value == part["cell"]["middle"].value == pytest.approx(2 / 3)
        assert part["centre"]["chance"].value == pytest.approx(hits["chance"].mean())
        assert part["centre"]["margin"].value == pytest.approx(1 / 3 - hits["chance"].mean())
    assert figures["elbow"]["cell"]["network"].note == "no cases"
    assert figures[CALLED]["pictures"] == 0


def test_maps_of_true_positives_are_counted_separately():
    sure, unsure = {"hand": 0.9}, {"hand": 0.2}
    rows = table(
        row(label=1, fractures=sure, boxes="0.4 0.4 0.6 0.6"),
        row(label=1, fractures=sure, boxes="0.0 0.0 0.1 0.1"),
        row(label=1, fractures=unsure, boxes="0.4 0.4 0.6 0.6"),
        row(label=0, fractures=sure),
        # Read only by the specialist for elbows.
        row("elbow;hand", 1, sure, ["elbow"], boxes="0.4 0.4 0.6 0.6"),
    )
    figures = pointing_figures(rows, Settings())
    assert figures[POOLED]["pictures"] == 4
    assert figures[CALLED]["pictures"] == 2
    assert figures[CALLED]["centre"]["network"].value == 0.5


def test_pointing_uses_the_map_of_the_largest_probability_in_view():
    rows = table(
        row(
            "elbow;hand", label=1, fractures={"elbow": 0.3, "hand": 0.6, "shoulder": 0.9},
            boxes="0.8 0.8 1.0 1.0", peak_x_hand=0.9, peak_y_hand=0.9,
        )
    )  # fmt: skip
    assert rows["pointing_region"].tolist() == ["hand"]
    assert rows["pointing_hit"].tolist() == [1.0]
