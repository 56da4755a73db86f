"""Figures of one specialist for all regions, without and with a region stage."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from prediction_tables import row, row_for_all, table

from pipeline.domain import ANY_REGION
from stages.evaluation.evaluate import all_figures
from stages.evaluation.figures import POOLED, Settings, plain_figures
from stages.evaluation.headlines import headlines
from stages.evaluation.plots import draw_all
from stages.evaluation.predictions import read_predictions, write_predictions
from stages.evaluation.tables import write_tables
from stages.evaluation.truth import certain, possible, specialists

pytestmark = pytest.mark.slow

ALONE = Settings(no_region_stage="no region stage in these weights")


def alone() -> pd.DataFrame:
    """Pictures of unknown regions, read by one specialist without a region stage."""
    return table(
        row_for_all(label=1, p=0.9, boxes="0.4 0.4 0.6 0.6", twin_label=1.0),
        row_for_all(label=1, p=0.2, boxes="0.0 0.0 0.1 0.1", twin_label=0.0),
        row_for_all(label=0, p=0.3, flags="hardware"),
        row_for_all(label=0, p=0.6),
        row_for_all(label=None, p=0.6),
        row_for_all(label=1, status="failed"),
    )


@pytest.mark.parametrize(
    ("category", "prediction"),
    [
        ("right", row_for_all(label=1, p=0.9)),
        ("wrong decision", row_for_all(label=0, p=0.9)),
        ("right", row_for_all("none", label=0)),  # no stage refuses it
        ("no truth", row_for_all("none", label=None)),
        ("failed", row_for_all(status="failed")),
        ("right", row_for_all("elbow", label=1, p=0.9, router=True, fired=["hand"])),
        ("wrong route", row_for_all("none", label=1, p=0.9, router=True, fired=["hand"])),
    ],
)
def test_category_of_each_input(category, prediction):
    assert table(prediction)["category"].tolist() == [category]


def test_categories_sum_to_all_inputs_and_baselines_refuse_nothing():
    rows = table(*(row_for_all("none", label=i < 3, p=0.9, twin_label=1.0) for i in range(5)))
    part = all_figures(rows, ALONE)["end_to_end"]["all"]
    assert part["counts"] == {
        "right": 3, "wrong decision": 2, "wrong route": 0, "unsupported": 0, "failed": 0,
    }  # fmt: skip
    assert part["accuracy"]["majority"].value == part["accuracy"]["look_up"].value == 0.6
    whole = all_figures(alone(), ALONE)["end_to_end"]["all"]
    assert sum(whole["counts"].values()) == whole["pictures"] == 6
    assert whole["counts"]["no truth"] == whole["counts"]["failed"] == 1


def test_labelled_pictures_of_unknown_region_are_cases():
    figures = all_figures(alone(), ALONE)
    part = figures["fracture"][ANY_REGION]["in view"]
    assert (part["pictures"], part["positives"], part["looked_up"]) == (4, 2, 2)
    assert part["network"]["sensitivity"].value == part["network"]["specificity"].value == 0.5
    assert part["network"]["auc"].value == 0.5
    assert figures["fracture"][ANY_REGION]["routed"]["pictures"] == 4
    assert figures["fracture"][ANY_REGION]["single region"]["pictures"] == 0
    assert figures["fracture"][POOLED]["in view"]["pictures"] == 0
    for name in (ANY_REGION, POOLED):
        assert figures["risk_coverage"][name]["pictures"] == 4
        assert figures["risk_coverage"][name]["error_rate"].value == 0.5
        assert figures["pointing"][name]["pictures"] == 2
        assert figures["pointing"][name]["centre"]["network"].value == 0.5
    assert figures["subgroups"]["hardware"]["with"]["pictures"] == 1


def test_routing_sections_are_null_without_a_region_stage(tmp_path):
    for name in ("region", "region_confusion", "cross_region"):
        (tmp_path / f"{name}.csv").write_text("from an earlier evaluation\n")
    (tmp_path / "confusion.png").write_bytes(b"old")
    rows = alone()
    figures = all_figures(rows, ALONE)
    assert figures["region"] is figures["cross_region"] is None
    json.dumps(plain_figures(figures), allow_nan=False)
    names = [line.name for line in headlines(figures)]
    assert "all: AUC" in names
    assert not any("region" in name or "hand" in name or "refused" in name for name in names)
    write_tables(figures, rows, tmp_path)
    plots = draw_all(rows, tmp_path, ALONE)
    assert {plot.name for plot in plots} == {"roc.png", "reliability.png", "risk_coverage.png"}
    assert {path.name for path in tmp_path.iterdir()} == {
        *("fracture.csv", "subgroups.csv", "end_to_end.csv", "pointing.csv", "risk_coverage.csv"),
        *("roc.png", "reliability.png", "risk_coverage.png"),
    }


def test_known_regions_have_figures_of_the_specialist_for_all_regions():
    rows = table(
        row_for_all("hand", label=1, p=0.9),
        row_for_all("hand", label=0, p=0.6),
        row_for_all("elbow", label=0, p=0.1),
        row_for_all("none", label=1, p=0.8),
    )
    fracture = all_figures(rows, ALONE)["fracture"]
    assert [fracture[r]["in view"]["pictures"] for r in ("hand", "elbow", "shoulder")] == [2, 1, 0]
    assert fracture["hand"]["in view"]["network"]["specificity"].value == 0.0
    assert fracture[POOLED]["in view"]["pictures"] == 3
    assert fracture[ANY_REGION]["in view"]["pictures"] == 4
    assert fracture[ANY_REGION]["single region"]["pictures"] == 3


def test_with_a_region_stage_cases_depend_on_the_regions_of_a_picture():
    hand = row("hand", label=1, fractures={"hand": 0.9})
    hand |= {name: hand[name.replace("all", "hand")] for name in row_for_all() if "_all" in name}
    hand |= {"verdict_all": "", "fracture_all": 0.2}
    rows = table(
        hand,  # read by the specialist for hands, not by the one for all regions
        row_for_all("elbow", label=0, p=0.6, router=True, fired=["elbow"]),
        row_for_all("unknown", label=0, p=0.7, router=True, fired=["elbow"]),
    )
    assert specialists(rows) == ("elbow", "hand", "shoulder", "all")
    assert certain(rows)[:, 3].tolist() == [False] * 3
    assert possible(rows)[:, 3].tolist() == [True] * 3
    assert rows["in_view_probability"][:2].tolist() == [0.9, 0.6]
    assert np.isnan(rows["in_view_probability"][2])
    figures = all_figures(rows, Settings())
    assert figures["region"]["accuracy"]["pictures"] == 2
    assert list(figures["cross_region"]) == ["elbow", "hand", "shoulder", "all"]
    part = figures["fracture"][ANY_REGION]
    assert (part["in view"]["pictures"], part["routed"]["pictures"]) == (3, 2)
    assert figures["fracture"]["hand"]["in view"]["network"]["sensitivity"].value == 1.0


def test_predictions_read_as_written(tmp_path):
    rows = alone()
    write_predictions(rows, tmp_path / "p.csv")
    reread = read_predictions(tmp_path / "p.csv")
    pd.testing.assert_frame_equal(reread, rows, check_dtype=False)
    assert reread["verdict_all"].tolist()[-1] == ""


def test_figures_without_this_specialist_have_no_entry_for_it():
    figures = all_figures(table(row(), row(label=1)), Settings())
    for chapter in ("fracture", "cross_region", "risk_coverage", "pointing"):
        assert ANY_REGION not in figures[chapter]
