"""Figures under shift, from tables small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from prediction_tables import row, table
from tables import sample

from pipeline.bundle import Estimate
from pipeline.errors import UsageError
from stages.evaluation.evaluate import all_figures
from stages.evaluation.figures import IN_VIEW, POOLED, Settings
from stages.evaluation.shifts import SHIFTS
from stages.evaluation.tables import write_tables
from stages.evaluation.under_shift import (
    FIGURES,
    MEAN,
    fixed_part,
    panels,
    select_shifts,
    shift_figures,
    shift_note,
)


def scene(**hands):
    """Predictions: six hands, a refused shoulder, an accepted leg, a refused leg, a failed hand."""
    scores = hands or {"a": 0.9, "b": 0.8, "c": 0.35, "d": 0.1, "e": 0.2, "f": 0.1}
    labels = {"a": 1, "b": 1, "c": 1, "d": 0, "e": 0, "f": 0}
    rows = [
        row("hand", label=labels[name], fractures={"hand": p}, group=name)
        for name, p in scores.items()
    ]
    return [
        *rows, row("shoulder", label=None, fired=[], group="x"),
        row("none", label=None, fired=["hand"], group="y"),
        row("none", label=None, fired=[], group="z"),
        row("hand", label=1, status="failed", fired=[], group="lost"),
    ]  # fmt: skip


def under(**scenes):
    """One table of the predictions under several shifts."""
    parts = [table(*rows).assign(shift=name) for name, rows in scenes.items()]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def section():
    turned = [r | {"status": "unsupported", "fired": "", "verdict_hand": ""} for r in scene()]
    wrong = scene(a=0.1, b=0.9, c=0.3, d=0.2, e=0.9, f=0.1)
    tables = {"none": scene(), "rotate-90": turned, "blur": wrong}
    return shift_figures(under(**tables), Settings())


def values(figures):
    return {name: estimate.value for name, estimate in figures.items()}


def test_figures_of_each_shift(section):
    home = values(section["by_shift"]["none"])
    assert home == pytest.approx(
        {
            "answered": 6 / 7, "region_accuracy": 6 / 7, "let_in": 0.5, "auc": 1.0,
            "sensitivity": 2 / 3, "specificity": 1.0,
            "sensitivity_or_uncertain": 1.0, "specificity_or_uncertain": 1.0,
            "ece": (0.1 + 0.2 + 0.65 + 0.1 + 0.1 + 0.2) / 6,
            "auc_elbow": None, "auc_hand": 1.0, "auc_shoulder": None,
        },
        nan_ok=True,
    )  # fmt: skip
    assert (section["pictures"], section["groups"]) == (10, 10)
    assert (section["cases"], section["positives"]) == (6, 3)
    turned = values(section["by_shift"]["rotate-90"])
    assert (turned["answered"], turned["let_in"], turned["auc"]) == (0.0, 0.0, 1.0)
    blurred = values(section["by_shift"]["blur"])
    assert blurred["auc"] == pytest.approx(5 / 9)
    assert blurred["sensitivity"] == pytest.approx(1 / 3)
    assert blurred["specificity_or_uncertain"] == pytest.approx(2 / 3)


def test_mean_is_over_the_shifts_without_home(section):
    mean = section[MEAN]
    assert mean["auc"].value == pytest.approx((1 + 5 / 9) / 2)
    assert mean["answered"].value == pytest.approx(3 / 7)
    assert mean["auc_elbow"] == Estimate(value=None, note="no cases")
    blurred = section["by_shift"]["blur"]["auc"]
    # Both shifts use the same draws of groups; the AUC of the other shift is 1 in each draw.
    assert mean["auc"].low == pytest.approx((1 + blurred.low) / 2)
    assert mean["auc"].high == pytest.approx((1 + blurred.high) / 2)


def test_home_row_has_the_figures_of_the_evaluation():
    rows = scene(a=0.9, b=0.2, c=0.35, d=0.1, e=0.5, f=0.1)
    settings = Settings(seed=3)
    home = table(*rows)
    figures = all_figures(home, settings, under(none=rows, blur=rows))
    shifted = figures["shifts"]["by_shift"]["none"]
    network = figures["fracture"][POOLED][IN_VIEW]["network"]
    for name in ("auc", "sensitivity", "specificity", "ece"):
        assert shifted[name] == network[name]
    assert shifted["auc_hand"] == figures["fracture"]["hand"][IN_VIEW]["network"]["auc"]
    routing = figures["region"]
    assert shifted["region_accuracy"] == routing["accuracy"]["network"]
    refused = routing["supported_refused"]["network"].value
    assert shifted["answered"].value == pytest.approx(1 - refused)
    let_in = 1 - routing["unsupported_refused"]["network"].value
    assert shifted["let_in"].value == pytest.approx(let_in)
    assert figures["shifts"][MEAN] == shifted  # with one shift and unchanged predictions


def test_mean_over_different_pictures_has_no_interval():
    fewer = [r | ({"status": "failed"} if r["group"] == "a" else {}) for r in scene()]
    section = shift_figures(under(none=scene(), blur=scene(c=0.9, d=0.1), paper=fewer), Settings())
    mean = section[MEAN]["specificity"]
    assert (mean.low, mean.value) == (None, 1.0)
    assert "not the same pictures" in mean.note


def test_region_accuracy_is_undefined_without_a_region_stage():
    section = shift_figures(
        under(none=scene(), blur=scene()), Settings(no_region_stage="no region stage")
    )
    assert section["by_shift"]["blur"]["region_accuracy"].note == "no region stage"
    assert section[MEAN]["region_accuracy"].value is None


def test_tables_show_home_first_and_the_mean_last(section, tmp_path):
    tables = list(panels(section))
    assert [head for heads, _ in tables for head in heads] == list(FIGURES.values())
    for heads, lines in tables:
        assert len(heads) == 3
        assert [name for name, _ in lines] == ["none (home)", "rotate-90", "blur", "mean of 2"]
        assert all(len(estimates) == 3 for _, estimates in lines)
    assert tables[0][1][0][1][0] == section["by_shift"]["none"]["answered"]
    figures = all_figures(table(*scene()), Settings()) | {"shifts": section}
    write_tables(figures, table(*scene()), tmp_path)
    written = pd.read_csv(tmp_path / "shifts.csv")
    assert len(written) == 4 * len(FIGURES)
    last = written[(written["shift"] == MEAN) & (written["figure"] == "auc")]
    assert last["value"].item() == pytest.approx(7 / 9)
    write_tables(figures | {"shifts": None}, table(*scene()), tmp_path)
    assert not (tmp_path / "shifts.csv").exists()


def test_note_states_pictures_and_shifts(section):
    note = shift_note(section, 25)
    assert "suite 1, without tight-crop, wide-plate" in note
    assert "10 pictures of 25 (first by SHA-256), 6 cases (3 positive)" in note
    assert "10 pictures, 6 cases" in shift_note(section, 10)


def test_selected_shifts_keep_their_order_and_unknown_names_are_refused():
    assert select_shifts((), None).names == SHIFTS
    assert select_shifts(("paper", "blur"), 7).names == ("blur", "paper")
    with pytest.raises(UsageError, match=r"unknown shift fog; choose from tight-crop"):
        select_shifts(("blur", "fog"), None)


def test_selected_pictures_depend_only_on_their_digests():
    rows = [sample(f"{n}.png", sha256=digest) for n, digest in enumerate("dbeac")]
    assert fixed_part(rows, 2).tolist() == [False, True, False, True, False]
    assert fixed_part(rows[::-1], 2).tolist() == [False, True, False, True, False]
    assert fixed_part(rows, None).all()
    assert np.array_equal(fixed_part(rows, 9), fixed_part(rows, None))
