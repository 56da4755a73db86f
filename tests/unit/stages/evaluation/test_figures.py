"""Figures of an evaluation, from tables small enough to count by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bundles import spec
from prediction_tables import row, table
from tables import sample
from tiny_networks import write_bundles

from pipeline.bundle import Estimate, Kind
from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.runtime.session import load_bundles
from stages.evaluation.baselines import look_up, majority
from stages.evaluation.evaluate import EvaluationRequest, all_figures, chosen_rows, seen_before
from stages.evaluation.figures import (
    POOLED,
    Settings,
    case_set,
    cross_region_figures,
    fracture_figures,
    plain_figures,
    risk_cases,
    risk_curve,
    risk_figures,
    subgroup_figures,
)
from stages.evaluation.headlines import bounds, figure_name, headlines, number, words
from stages.evaluation.plots import draw_all
from stages.evaluation.predictions import read_predictions, write_predictions
from stages.evaluation.routing import confusion, end_to_end_figures, region_figures
from stages.evaluation.tables import write_tables
from stages.samples import Index
from stages.statistics.metrics import Cases

POSITIVE, DOUBTFUL = {"hand": 0.8}, {"hand": 0.35}


# ---------------------------------------------------------------------------- end to end


@pytest.mark.parametrize(
    ("category", "prediction"),
    [
        ("right", row(label=0)),
        ("right", row(label=1, fractures=POSITIVE)),
        ("right", row(label=0, fractures=DOUBTFUL)),  # uncertain is not positive
        ("wrong decision", row(label=1)),
        ("wrong decision", row(label=1, fractures=DOUBTFUL)),
        ("wrong decision", row(label=0, fractures=POSITIVE)),
        ("wrong route", row("none", label=1, fired=["hand"], fractures=POSITIVE)),
        ("wrong route", row("elbow", fired=["hand"])),
        ("right", row("elbow;hand", fired=["hand"])),
        ("right", row("elbow", fired=["elbow", "hand"])),
        ("right", row("elbow;hand?", fired=["hand"])),  # may be in view
        ("right", row("unknown", fired=["shoulder"])),
        ("right", row("elbow;hand", label=1, fractures={"elbow": 0.9})),  # either specialist
        ("wrong decision", row("elbow;hand", label=0, fractures={"elbow": 0.9})),
        ("unsupported", row("none", fired=[])),
        ("unsupported", row("hand", fired=[])),
        ("unsupported", row("hand", label=None, fired=[])),
        ("failed", row(status="failed", fired=[])),
        ("failed", row("none", label=None, status="failed", fired=[])),
        ("no truth", row(label=None)),
        ("wrong route", row("none", label=None, fired=["hand"])),
    ],
)
def test_category_of_each_input(category, prediction):
    assert table(prediction)["category"].tolist() == [category]


def test_categories_sum_to_all_inputs_and_divide_refused_and_uncertain():
    rows = table(
        row(), row(fractures=DOUBTFUL), row(label=1, fractures=DOUBTFUL), row(label=1),
        row("none", fired=[]), row("hand", fired=[]), row("unknown", fired=[]),
        row("elbow", fired=["hand"]), row(status="failed", fired=[]),
    )  # fmt: skip
    figures = end_to_end_figures(rows, Settings())
    whole = figures["all"]
    assert whole["counts"] == {
        "right": 2, "wrong decision": 2, "wrong route": 1, "unsupported": 3, "failed": 1,
    }  # fmt: skip
    assert sum(whole["counts"].values()) == whole["pictures"] == 9
    assert whole["refused"] == {"rightly": 1, "wrongly": 1, "undecided": 1}
    assert whole["uncertain"] == {"right": 1, "wrong decision": 1}
    assert whole["accuracy"]["network"].value == pytest.approx(3 / 9)
    assert whole["shares"]["failed"].value == pytest.approx(1 / 9)
    assert {name: part["pictures"] for name, part in figures.items()} == {
        "all": 9, "elbow": 1, "hand": 6, "none": 1, "unknown": 1,
    }  # fmt: skip


def test_no_truth_is_a_category_only_if_it_occurs():
    counts = end_to_end_figures(table(row(), row(label=None)), Settings())["all"]["counts"]
    assert counts["no truth"] == 1
    assert sum(counts.values()) == 2


def test_end_to_end_baselines():
    rows = table(
        row("none", label=1, fired=[], twin="none"),  # refused like its twin
        row("none", fired=[], twin="hand", twin_label=0.0),  # a verdict on an unsupported picture
        row("hand", label=1, twin="hand", twin_label=1.0),
        row("hand", label=1, twin="elbow", twin_label=1.0),  # by the wrong route
        row("hand", label=0, twin="hand", twin_label=1.0),
        row("hand", label=1, fired=[], status="failed"),  # no twin either
    )
    accuracy = end_to_end_figures(rows, Settings())["all"]["accuracy"]
    assert accuracy["majority"].value == pytest.approx(3 / 6)  # all positive
    assert accuracy["look_up"].value == pytest.approx(2 / 6)
    none = end_to_end_figures(rows, Settings(no_twins="no training pictures"))["all"]["accuracy"]
    assert (none["look_up"].value, none["look_up"].note) == (None, "no training pictures")


# ------------------------------------------------------------------------------- routing


def test_routing_figures():
    rows = table(
        row("hand", twin="hand"),
        row("hand", fired=["elbow"], twin="elbow"),
        row("elbow", fired=[], p_elbow=0.3, twin="elbow"),  # the most probable region, but refused
        row("elbow;hand", fired=["elbow"], twin="elbow;hand"),
        row("none", fired=[], twin="none"),
        row("none", fired=["shoulder"], twin="hand"),
        row("unknown", fired=[], twin="hand"),
        row("shoulder", status="failed", fired=[]),
    )
    figures = region_figures(rows, Settings())
    assert figures["accuracy"]["pictures"] == 3  # the failed one was not routed
    assert figures["accuracy"]["network"].value == pytest.approx(2 / 3)
    assert figures["accuracy"]["majority"].value == pytest.approx(2 / 3)
    assert figures["accuracy"]["look_up"].value == pytest.approx(2 / 3)
    assert figures["exact"]["network"].value == pytest.approx(2 / 6)
    assert figures["supported_refused"]["network"].value == pytest.approx(1 / 3)
    assert figures["unsupported_refused"]["network"].value == 0.5
    assert figures["unsupported_refused"]["look_up"].value == 0.5
    assert figures["regions"]["hand"]["network"]["sensitivity"].value == pytest.approx(1 / 3)
    counts = confusion(rows)
    assert int(counts.to_numpy().sum()) == len(rows)
    assert counts.loc["hand"].to_dict() == {
        "elbow": 1, "hand": 1, "shoulder": 0, "several": 0, "none": 0, "failed": 0,
    }  # fmt: skip
    assert counts.loc["shoulder", "failed"] == counts.loc["several", "elbow"] == 1


# ------------------------------------------------------------------------------ fractures


def fracture_table() -> pd.DataFrame:
    return table(
        row("hand", label=1, fractures={"hand": 0.9, "elbow": 0.2}, twin_label=1.0),
        row("hand", label=0, fractures={"hand": 0.6, "elbow": 0.1}, twin_label=1.0),
        row("hand", label=1, fractures={"hand": 0.3}, fired=[], twin_label=0.0),
        row("elbow;hand", label=1, fractures={"elbow": 0.7, "hand": 0.2}, flags="hardware"),
        row("elbow", label=0, fractures={"elbow": 0.1, "hand": 0.8}, fired=["hand"]),
        row("elbow;hand?", label=0, fractures={"elbow": 0.3}),
        row("none", label=1, fractures={"hand": 0.9}, fired=["hand"]),
        row("hand", label=None),
        row("hand", label=1, status="failed", fired=[]),
    )


def test_cases_of_a_specialist_in_view_single_region_and_routed():
    rows = fracture_table()
    hand = {
        name: case_set(rows, "hand", name).cases for name in ("in view", "single region", "routed")
    }
    assert hand["in view"].scores.tolist() == [0.9, 0.6, 0.3, 0.2]
    assert hand["single region"].scores.tolist() == [0.9, 0.6, 0.3]
    assert hand["routed"].scores.tolist() == [0.9, 0.6, 0.2, 0.8, 0.9]
    assert case_set(rows, "elbow", "in view").cases.scores.tolist() == [0.7, 0.1, 0.3]
    assert len(case_set(rows, POOLED, "in view").cases) == 7  # one case for each picture and region
    assert len(case_set(rows, "shoulder", "in view").cases) == 0


def test_picture_of_two_regions_counts_as_two_pairs_and_one_picture():
    both = {"elbow": 0.9, "hand": 0.2}
    rows = table(row("elbow;hand", label=1, fractures=both), row("hand", label=0))
    figures = fracture_figures(rows, Settings())
    pooled = figures[POOLED]["in view"]
    assert (pooled["pairs"], pooled["positives"]) == (3, 2)
    assert (pooled["pictures"], pooled["positive_pictures"]) == (2, 1)
    hand = figures["hand"]["in view"]
    assert (hand["pairs"], hand["pictures"], hand["positives"]) == (2, 2, 1)


def test_fracture_figures_are_compared_with_both_baselines():
    hand = fracture_figures(fracture_table(), Settings((0.1,)))["hand"]["in view"]
    assert (hand["pictures"], hand["positives"], hand["groups"], hand["looked_up"]) == (4, 3, 4, 3)
    assert hand["network"]["sensitivity"].value == pytest.approx(1 / 3)
    assert hand["network"]["auc"].value == pytest.approx(1 / 3)
    assert hand["majority"]["accuracy"].value == 0.75
    assert hand["majority"]["auc"].value == 0.5
    assert hand["majority"]["brier"].value == pytest.approx(0.75 * 0.25)
    assert hand["look_up"]["accuracy"].value == pytest.approx(1 / 3)
    assert list(hand["look_up"]) == list(hand["network"]) == list(hand["majority"])
    shoulder = fracture_figures(fracture_table(), Settings())["shoulder"]["in view"]
    assert {e.value for e in shoulder["network"].values()} == {None}


def test_look_up_without_training_pictures_states_the_reason():
    figures = fracture_figures(fracture_table(), Settings(no_twins="nothing to look up"))
    for estimate in figures["hand"]["in view"]["look_up"].values():
        assert (estimate.value, estimate.note) == (None, "nothing to look up")


def test_baselines_use_the_same_cases():
    three = Cases(
        np.array([True, False, False]), np.array([0.9, 0.1, 0.2]), np.array([True, False, False]),
        np.array(["a", "b", "c"]),
    )  # fmt: skip
    constant = majority(three)
    assert constant.scores == pytest.approx([1 / 3] * 3)
    assert not constant.calls.any()
    assert not majority(three[np.array([True, True, False])]).calls.any()  # a tie is negative
    twins = look_up(three, np.array([0.0, np.nan, 1.0]))
    assert (twins.calls.tolist(), twins.labels.tolist()) == ([False, True], [True, False])


def test_cross_region_has_every_specialist_and_every_region():
    figures = cross_region_figures(fracture_table(), Settings())
    assert figures["elbow"]["hand"]["pictures"] == figures["hand"]["hand"]["pictures"] == 3
    assert figures["elbow"]["hand"]["network"]["sensitivity"].value == 0.0
    assert figures["hand"]["elbow"]["network"]["specificity"].value == 0.0  # a false alarm
    assert figures["hand"]["none"]["network"]["sensitivity"].value == 1.0
    assert figures["hand"]["shoulder"]["network"]["auc"].note == "no cases"


def test_subgroups_use_the_largest_probability_in_view():
    rows = fracture_table()
    figures = subgroup_figures(rows, Settings())
    assert figures["hardware"]["with"]["pictures"] == 1
    assert figures["hardware"]["with"]["network"]["sensitivity"].value == 1.0  # elbow's 0.7
    assert figures["hardware"]["without"]["pictures"] == 5
    assert figures["child"]["with"]["pictures"] == figures["child"]["without"]["pictures"] == 0
    assert figures["origin"]["made"]["pictures"] == 6
    assert rows["in_view_probability"].tolist()[3] == 0.7


def test_size_groups_are_thirds_by_area():
    rows = table(*(row(label=i % 2, width_px=10 * (i + 1)) for i in range(9)))
    sizes = subgroup_figures(rows, Settings())["size"]
    assert [part["pictures"] for part in sizes.values()] == [3, 3, 3]
    assert [name.split()[0] for name in sizes] == ["up", "0.00", "over"]


def test_risk_and_coverage():
    rows = table(
        row(label=1, fractures={"hand": 0.99}),
        row(label=0, fractures={"hand": 0.9}),
        row(label=0, fractures={"hand": 0.3}),
        row(label=1, fractures={"hand": 0.41}),
    )
    selection = risk_cases(rows, "hand")
    coverage, risk = risk_curve(selection)
    assert coverage == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4])
    figures = risk_figures(rows, Settings())
    for region in ("hand", POOLED):
        assert figures[region]["network"].value == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
        assert figures[region]["error_rate"].value == 0.25
        assert figures[region]["majority"].value == 0.5
    assert figures["elbow"]["network"].value is None


# -------------------------------------------------------------------------- files and texts


def test_predictions_read_exactly_as_written(tmp_path):
    unusual = row(fractures={"hand": float(np.float32(0.1))}, group="007", error='a, "b"\nc')
    rows = table(unusual, row(label=None, status="failed", fired=[]))
    write_predictions(rows, tmp_path / "p.csv")
    reread = read_predictions(tmp_path / "p.csv")
    pd.testing.assert_frame_equal(reread, rows, check_dtype=False)
    assert reread["group"][0] == "007"
    assert not list(tmp_path.glob("*.partial"))


def test_table_of_failures_has_every_figure(tmp_path):
    rows = table(row(status="failed", fired=[]), row("none", label=None, status="failed", fired=[]))
    figures = all_figures(rows, Settings((0.2,)))
    text = json.dumps(plain_figures(figures), allow_nan=False)
    assert '"value": 0.0' in text  # shares of the categories are defined
    assert figures["end_to_end"]["all"]["counts"]["failed"] == 2
    assert figures["region"]["accuracy"]["network"].note == "no cases"
    write_tables(figures, rows, tmp_path)
    assert len(list(headlines(figures))) > 10
    for plot in draw_all(rows, tmp_path, Settings()):
        assert plot.stat().st_size > 1000


def test_formatting_of_a_figure():
    assert words(Estimate(value=0.5, low=0.25, high=0.75)) == "0.500 [0.250, 0.750]"
    assert words(Estimate(value=None, note="no cases")) == "undefined: no cases"
    assert bounds(Estimate(value=1.0, note="no interval")) == "[no interval]"
    assert (number(Estimate(value=None)), number(Estimate(value=1.0))) == ("–", "1.000")
    assert figure_name("ppv_at_0.1") == "PPV at prevalence 0.1"
    assert figure_name("balanced_accuracy") == "balanced accuracy"


# ---------------------------------------------------------------------------- selection of rows


def index(*splits: str) -> Index:
    rows = [sample(f"{i}.png", split=split) for i, split in enumerate(splits)]
    return Index(Path("index.csv"), "0" * 64, tuple(rows))


def test_rows_of_a_split():
    table = index("train", "test", "val", "excluded", "test")
    assert [s.path.name for s in chosen_rows(table, EvaluationRequest())] == ["1.png", "4.png"]
    assert len(chosen_rows(table, EvaluationRequest("all"))) == 4
    assert len(chosen_rows(table, EvaluationRequest("val", with_excluded=True))) == 2


def test_error_for_an_empty_split_lists_the_splits():
    with pytest.raises(UsageError, match=r"no rows of split test; .* has 2 train, 1 excluded"):
        chosen_rows(index("train", "train", "excluded"), EvaluationRequest(with_excluded=True))


def test_seen_before_depends_on_the_table_and_the_split(tmp_path):
    weights = load_bundles(write_bundles(tmp_path), RunConfig(device="cpu"))
    same, other = index("test"), Index(Path("other.csv"), "1" * 64, ())
    assert spec("region", Kind.REGION).provenance.index_digest == same.digest
    assert seen_before(same, weights, EvaluationRequest("test"))[0] == "no"
    assert seen_before(same, weights, EvaluationRequest("val"))[0] == "yes"
    assert seen_before(same, weights, EvaluationRequest("all"))[0] == "yes"
    assert seen_before(other, weights, EvaluationRequest("test"))[0] == "unknown"
