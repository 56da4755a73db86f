"""Studies as cases: thresholds for studies, and figures of studies compared with pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prediction_tables import row, table

from pipeline.bundle import Estimate
from stages.evaluation.evaluate import all_figures
from stages.evaluation.figures import Settings
from stages.evaluation.headlines import study_lines, study_note
from stages.evaluation.studies import NO_POINT, specificity_cost, study_cases, study_figures
from stages.evaluation.tables import write_tables
from stages.statistics.calibration import operating_points
from stages.statistics.metrics import Cases
from stages.statistics.study_thresholds import NO_STUDIES, fit_study_points, join
from stages.training.assessment import view_keys
from stages.training.finished_run import ValidationTable, recalibrated

pytestmark = pytest.mark.slow

# ------------------------------------------------------------------------------------ joining

pictures = st.lists(
    st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 1)), min_size=1, max_size=9
)


def columns(rows):
    keys, labels, scores = zip(*rows, strict=True)
    return np.array(keys), np.array(labels), np.array(scores)


@given(pictures, st.randoms())
def test_study_has_the_highest_score_of_its_pictures_in_any_order(rows, random):
    joined = join(*columns(rows))
    other = join(*columns(random.sample(rows, len(rows))))
    assert joined.scores.tolist() == other.scores.tolist()
    assert joined.labels.tolist() == other.labels.tolist()
    for key, label, score, size in zip(
        sorted({k for k, _, _ in rows}), joined.labels, joined.scores, joined.pictures, strict=True
    ):
        members = [r for r in rows if r[0] == key]
        assert label == any(r[1] for r in members)
        assert (score, size) == (max(r[2] for r in members), len(members))


def test_studies_of_one_picture_equal_the_pictures():
    labels, scores = np.array([True, False, True]), np.array([0.3, 0.2, 0.1])
    joined = join(np.array(["x", "a", "m"]), labels, scores)
    assert (joined.labels[np.argsort(joined.first)] == labels).all()
    assert (joined.scores[np.argsort(joined.first)] == scores).all()


# ------------------------------------------------------------------------------------ points


def drawn(positive=30, negative=30, each=3, seed=0):
    """Studies of ``each`` pictures; in a positive study, the first picture is positive."""
    random = np.random.default_rng(seed)
    keys, labels, scores = [], [], []
    for n in range(positive + negative):
        for k in range(each):
            label = float(n < positive and k == 0)
            keys.append(f"s{n}")
            labels.append(label)
            scores.append(1 / (1 + np.exp(-random.normal(2.5 * label - 1, 1))))
    return np.array(keys), np.array(labels, np.float32), np.array(scores, np.float32)


def test_points_for_studies_account_for_the_maximum_of_several_pictures():
    keys, labels, scores = drawn(200, 200)
    of_pictures = operating_points(labels, scores)
    fitted = fit_study_points(keys, labels, scores, source="split val of x.csv")
    of_studies = fitted.points
    assert fitted.reason == ""
    assert of_studies.keys() == of_pictures.keys()
    assert of_studies["specific"].threshold > of_pictures["specific"].threshold
    assert of_studies["specific"].specificity.value >= 0.95
    assert of_studies["sensitive"].sensitivity.value >= 0.95
    joined = join(keys, labels == 1, scores)
    at_pictures = joined.scores[~joined.labels] < of_pictures["specific"].threshold
    assert at_pictures.mean() < 0.93
    rule = of_studies["specific"].rule
    assert "specificity 0.95 for a new study, from split val of x.csv" in rule
    assert "the highest probability in each of 400 studies, 400 of them with several" in rule
    assert of_studies["balanced"].aggregation == "max"
    assert of_studies["balanced"].doubt_below == of_studies["sensitive"].threshold


def test_rule_names_groups_used_as_studies():
    keys, labels, scores = drawn()
    points = fit_study_points(keys, labels, scores, by="group").points
    assert "60 groups used as studies" in points["sensitive"].rule


def test_targets_apply_to_studies():
    keys, labels, scores = drawn(200, 200)
    strict = fit_study_points(keys, labels, scores, sensitivity_target=0.99).points["sensitive"]
    assert strict.threshold < fit_study_points(keys, labels, scores).points["sensitive"].threshold
    assert "sensitivity 0.99 for a new study" in strict.rule


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ((9, 30, 2), "9 positive and 30 other studies, 39 of all with several pictures"),
        ((30, 9, 2), "30 positive and 9 other studies"),
        ((30, 30, 1), "30 positive and 30 other studies, 0 of all with several pictures"),
    ],
)
def test_too_few_studies_give_no_points_and_the_reason(counts, reason):
    fitted = fit_study_points(*drawn(*counts))
    assert fitted.points == {}
    assert fitted.reason.startswith(reason)
    assert fitted.reason.endswith("10 of each are needed")


def test_random_views_do_not_count_as_studies_or_pictures():
    keys, labels, scores = drawn(30, 30, 1)
    views = np.repeat([0, 1, 2], len(keys))
    thrice = view_keys(np.tile(keys, 3), views), np.tile(labels, 3), np.tile(scores, 3)
    fitted = fit_study_points(*thrice, plain=views == 0)
    assert fitted.reason.startswith("30 positive and 30 other studies, 0 of all with several")
    keys, labels, scores = drawn(30, 30, 2)
    views = np.repeat([0, 1, 2], len(keys))
    thrice = view_keys(np.tile(keys, 3), views), np.tile(labels, 3), np.tile(scores, 3)
    once, with_views = (
        fit_study_points(keys, labels, scores),
        fit_study_points(*thrice, plain=views == 0),
    )
    assert with_views.points["balanced"] == once.points["balanced"]
    assert with_views.points["sensitive"].rule == once.points["sensitive"].rule


def test_pictures_without_a_study_are_ignored():
    keys, labels, scores = drawn()
    more = np.concatenate([keys, [""] * 50])
    extra = np.ones(50, np.float32)
    fitted = fit_study_points(more, np.append(labels, extra), np.append(scores, extra * 0.01))
    assert fitted == fit_study_points(keys, labels, scores)
    assert fit_study_points(np.array([""] * 4), labels[:4], scores[:4]).reason == NO_STUDIES


def test_recalibration_fits_the_points_to_the_new_probabilities():
    keys, labels, scores = drawn()
    logits = np.log(scores / (1 - scores))
    old = {"study_points": {"balanced": "stale"}, "best_epoch": 3}
    plain = np.ones(len(keys), bool)
    result = recalibrated(old, ValidationTable(keys, plain, labels, logits, logits), 2.0, 0.0)
    p = 1 / (1 + np.exp(-logits / 2))
    expected = fit_study_points(keys, labels, p.astype(np.float32)).points["balanced"].threshold
    assert result["study_points"]["balanced"]["threshold"] == pytest.approx(expected, abs=1e-6)
    none = recalibrated(
        old, ValidationTable(np.array([""] * len(keys)), plain, labels, logits, logits), 2.0, 0.0
    )
    assert (none["study_points"], none["no_study_points"]) == ({}, NO_STUDIES)


# ----------------------------------------------------------------------------------- figures


def study_table():
    """Predictions with threshold 0.4 for pictures and 0.7 for studies (hand only)."""
    rows = [
        row("hand", label=1, study="a", group="p", fractures={"hand": 0.8}),
        row("hand", label=0, study="a", group="p", fractures={"hand": 0.2}),
        row("hand", label=0, study="b", group="q", fractures={"hand": 0.5}),
        row("hand", label=0, study="b", group="q", fractures={"hand": 0.1}),
        row("hand", label=0, study="c", group="q", fractures={"hand": 0.3}),
        row("elbow;hand", label=0, study="a", group="p", fractures={"elbow": 0.9, "hand": 0.1}),
        row("hand", label=0, study="", group="r", fractures={"hand": 0.9}),
        row("hand", label=None, study="c", group="q", fractures={"hand": 0.9}),
        row("hand", label=1, study="c", group="q", status="failed", fired=[]),
        row("elbow", label=1, study="d", group="s", fired=["hand"], fractures={"hand": 0.6}),
    ]
    return table(*rows).assign(study_threshold_hand=0.7)


def value(estimate: Estimate) -> float | None:
    return estimate.value


def test_study_figures():
    figures = study_figures(study_table(), Settings())
    hand = figures["hand"]["in view"]
    counts = ("studies", "positives", "several", "pictures", "positive_pictures", "groups")
    assert [hand[name] for name in counts] == [3, 1, 2, 6, 1, 2]
    assert value(hand["auc"]["pictures"]) == value(hand["auc"]["studies"]) == 1.0
    at = hand["at"]["picture threshold"]
    assert value(at["pictures"]["specificity"]) == pytest.approx(4 / 5)
    assert value(at["studies"]["specificity"]) == pytest.approx(1 / 2)
    assert value(at["specificity_cost"]) == pytest.approx(4 / 5 - 1 / 2)
    at_study = hand["at"]["study threshold"]
    assert (
        value(at_study["studies"]["specificity"])
        == value(at_study["pictures"]["specificity"])
        == 1.0
    )
    assert value(at_study["specificity_cost"]) == 0.0
    assert "every draw" in at_study["specificity_cost"].note
    routed = figures["hand"]["routed"]
    assert (routed["studies"], routed["pictures"]) == (4, 7)
    elbow = figures["elbow"]["in view"]
    assert value(elbow["at"]["picture threshold"]["specificity_cost"]) == 0.0  # one each, negative
    assert elbow["at"]["study threshold"]["specificity_cost"].note == NO_POINT
    assert elbow["at"]["study threshold"]["studies"]["sensitivity"].value is None
    pooled = figures["pooled"]["in view"]
    assert pooled["studies"] == 3 + 2  # a study counts once for each region
    assert pooled["at"]["study threshold"]["specificity_cost"].note == NO_POINT
    assert figures["shoulder"]["in view"]["auc"]["studies"].note == "no cases"


def test_groups_are_used_as_studies_only_by_option():
    rows = study_table().assign(study="")
    assert study_figures(rows, Settings()) is None
    hand = study_figures(rows, Settings(study_by="group"))["hand"]["in view"]
    assert (hand["studies"], hand["pictures"], hand["groups"]) == (3, 7, 3)


def test_specificity_cost_of_studies_of_one_picture_is_zero():
    rows = study_table().assign(study=[str(n) for n in range(10)])
    cases = study_cases(rows, "hand", "in view", "threshold", "study")
    assert specificity_cost(cases.pictures, cases.studies, 0).value == 0.0
    assert cases.sizes.tolist() == [1] * 7


def test_interval_of_the_cost_is_paired():
    """The cost is half the share of groups with a call; an unpaired interval is twice as wide."""
    groups = np.array([f"g{n}" for n in range(40) for _ in range(2)])
    calls = np.array([n % 2 == 0 for n in range(40) for _ in range(2)])
    calls[1::2] = False  # every second group has one call in two pictures
    no = np.zeros(80, bool)
    pictures = Cases(no, np.zeros(80), calls, groups)
    studies = Cases(no[:40], np.zeros(40), calls[::2], groups[::2])
    cost = specificity_cost(pictures, studies, 0)
    spread = np.std([np.mean(np.random.default_rng(k).random(40) < 0.5) for k in range(200)])
    assert cost.value == pytest.approx(0.25)
    assert cost.high - cost.low == pytest.approx(4 * spread / 2, rel=0.3)
    assert specificity_cost(Cases(~no, no * 1.0, no, groups), studies, 0).note == (
        "no negative picture"
    )


def test_lines_tables_and_notes(tmp_path):
    rows = study_table()
    figures = all_figures(rows, Settings())
    names = [line.name for line in study_lines(figures)]
    assert names[:4] == [
        "elbow: AUC", "elbow: sensitivity", "elbow: specificity", "elbow: specificity cost",
    ]  # fmt: skip
    assert "hand: specificity, own" in names
    assert not [name for name in names if name.startswith("shoulder")]
    assert not [name for name in names if "own" in name and "hand" not in name]
    write_tables(figures, rows, tmp_path)
    assert (
        "hand,in view,study threshold,studies,specificity,1.0"
        in (tmp_path / "studies.csv").read_text()
    )
    write_tables(figures | {"studies": None}, rows, tmp_path)
    assert not (tmp_path / "studies.csv").exists()
    assert list(study_lines({"studies": None})) == []
    facts = {"no_studies": NO_STUDIES, "study_by": "study"}
    assert "not measured, the table has no studies; --study-by group" in study_note(facts)
    assert "groups used as studies" in study_note({"no_studies": "", "study_by": "group"})
