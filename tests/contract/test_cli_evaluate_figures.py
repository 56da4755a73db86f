"""Rows and figures of ``fxpipe evaluate``, compared with scikit-learn and ``fxpipe run``."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from bundles import GATE
from evaluated_pictures import check_as_run, check_figures
from sklearn import metrics

from pipeline.domain import REGIONS


def test_every_row_of_the_split_is_counted_once(predictions, evaluation):
    assert len(predictions) == predictions["path"].nunique() == 33
    ends = evaluation["end_to_end"]["all"]["counts"]
    assert ends == predictions["category"].value_counts().reindex(list(ends)).to_dict()
    assert sum(ends.values()) == 33
    named = predictions.set_index("path")["category"]
    for name, end in (
        ("broken", "failed"), ("knee", "unsupported"), ("astray", "wrong route"),
        ("refused", "unsupported"), ("unknown", "no truth"), ("both", "right"),
        ("doubt", "wrong decision"), ("foot", "unsupported"), ("odd", "unsupported"),
    ):  # fmt: skip
        assert named[f"pictures/{name}.png"] == end
    assert evaluation["end_to_end"]["all"]["uncertain"]["wrong decision"] >= 1
    lost = predictions.set_index("path").loc["pictures/broken.png"]
    assert "cannot decode" in lost["error"]
    assert lost[["p_hand", "fracture_hand", "twin"]].isna().all()


def test_refusals_by_gate_and_router_are_counted_separately(evaluated, evaluation):
    refused = evaluation["gate"]["refused"]
    # The gate refuses a foot and an unusual hand, the router a knee and a hand.
    assert refused["supported"]["pictures"] == 28
    assert refused["supported"]["counts"] == {"gate": 1, "router": 1, "both": 0, "either": 2}
    assert refused["unsupported"]["pictures"] == 3
    assert refused["unsupported"]["counts"] == {"gate": 1, "router": 1, "both": 0, "either": 2}
    assert set(evaluation["gate"]["auc"]) == {"router", "density", "both"}
    assert evaluation["facts"]["gate"]["threshold"] == GATE.threshold
    table = pd.read_csv(evaluated / "out/gate.csv").set_index(["figure", "by"])
    assert table.loc[("unsupported refused", "either"), "count"] == 2
    auc = evaluation["gate"]["auc"]["density"]["value"]
    assert table.loc[("auc", "density"), "value"] == pytest.approx(auc)
    page = (evaluated / "out/index.html").read_text(encoding="utf-8")
    assert "by the density gate (regardless of the router)" in page


def test_end_to_end_outcomes_are_those_of_fxpipe_run(evaluated, predictions):
    check_as_run(evaluated / "index.csv", evaluated / "weights", predictions)


def test_fracture_figures_match_scikit_learn(predictions, evaluation):
    judged = predictions[predictions["label"].notna() & (predictions["status"] != "failed")]
    in_view: dict[str, tuple[pd.Series, ...]] = {}
    routed: dict[str, tuple[pd.Series, ...]] = {}
    for region in REGIONS:
        has = judged["regions"].str.split(";").map(lambda names, r=region: r in names)
        fired = judged["fired"].fillna("").str.split(";").map(lambda names, r=region: r in names)
        for rows, store, name in ((has, in_view, "in view"), (fired, routed, "routed")):
            part = judged[rows]
            columns = part["label"].astype(int), part[f"fracture_{region}"]
            store[region] = (*columns, (columns[1] >= part[f"threshold_{region}"]).astype(int))
            check_figures(evaluation["fracture"][region][name], *store[region])
    for store, name in ((in_view, "in view"), (routed, "routed")):
        pooled = [pd.concat(parts) for parts in zip(*store.values(), strict=True)]
        check_figures(evaluation["fracture"]["pooled"][name], *pooled)


def test_routing_risk_and_subgroup_figures_match_scikit_learn(predictions, evaluation):
    readable = predictions[predictions["p_hand"].notna()]
    single = readable[readable["regions"].isin(REGIONS)]
    best = single[[f"p_{region}" for region in REGIONS]].idxmax(axis=1).str.removeprefix("p_")
    accuracy = metrics.accuracy_score(single["regions"], best)
    assert evaluation["region"]["accuracy"]["network"]["value"] == pytest.approx(accuracy)
    known = readable[readable["view_elbow"].notna()]
    auc = metrics.roc_auc_score(known["view_elbow"], known["p_elbow"])
    assert evaluation["region"]["regions"]["elbow"]["network"]["auc"]["value"] == pytest.approx(auc)

    judged = predictions[predictions["label"].notna() & predictions["in_view_probability"].notna()]
    judged = judged[judged["status"] != "failed"]
    hardware = judged[judged["flags"] == "hardware"]
    figures = evaluation["subgroups"]["hardware"]["with"]
    check_figures(
        figures, hardware["label"].astype(int), hardware["in_view_probability"],
        hardware["in_view_call"].astype(int),
    )  # fmt: skip
    order = np.argsort(-judged["in_view_margin"].abs().to_numpy(), kind="stable")
    wrong = (judged["in_view_call"] != judged["label"]).to_numpy()[order]
    aurc = (np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean()
    risk = evaluation["risk_coverage"]["pooled"]["network"]["value"]
    assert risk == pytest.approx(aurc, abs=0.02)  # cases with the same margin are combined

    twin = judged[judged["regions"].str.contains("hand") & judged["twin_label"].notna()]
    looked_up = metrics.accuracy_score(twin["label"], twin["twin_label"])
    assert evaluation["fracture"]["hand"]["in view"]["look_up"]["accuracy"][
        "value"
    ] == pytest.approx(looked_up)
    hits = predictions["pointing_hit"].dropna()
    pointing = evaluation["pointing"]["pooled"]
    assert (pointing["pictures"], pointing["centre"]["network"]["value"]) == (
        len(hits), pytest.approx(hits.mean()),
    )  # fmt: skip
