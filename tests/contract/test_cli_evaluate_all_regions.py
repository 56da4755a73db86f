"""``fxpipe evaluate`` with a specialist for all regions."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from bundles import for_all, standard_specs, write_png
from command_line import fxpipe
from evaluated_pictures import check_as_run, recomputed
from tables import sample
from tiny_networks import write_bundles

from pipeline.config import RunConfig
from pipeline.engine import run
from pipeline.runtime.session import load_bundles
from stages.data.index import write_index


def test_specialist_for_all_regions_is_used_for_regions_without_their_own(evaluated, tmp_path):
    trunk, router, _, hand, _ = standard_specs()
    write_bundles(tmp_path / "weights", [trunk, router, hand, for_all()[1]])
    fxpipe(
        *("evaluate", "--index", evaluated / "index.csv", "--weights", tmp_path / "weights"),
        *("--output", tmp_path / "out", "--device", "cpu", "--quiet"),
    )
    table = pd.read_csv(tmp_path / "out/predictions.csv")
    check_as_run(evaluated / "index.csv", tmp_path / "weights", table)
    assert table["fracture_elbow"].equals(table["fracture_all"])
    assert table["peak_x_shoulder"].equals(table["peak_x_all"])
    assert not table["fracture_hand"].equals(table["fracture_all"])
    assert table["verdict_elbow"].isna().all()
    evaluation = json.loads((tmp_path / "out/evaluation.json").read_text())
    ends = evaluation["end_to_end"]["all"]["counts"]
    assert sum(ends.values()) == 33
    assert (ends["failed"], ends["unsupported"], ends["wrong route"]) == (1, 4, 1)
    assert evaluation["fracture"]["elbow"]["in view"]["pictures"] == 9
    assert evaluation["region"]["accuracy"]["pictures"] > 0


def test_specialist_for_all_regions_needs_no_region_stage_and_no_regions(tmp_path):
    samples = []
    for n in range(16):
        label = n % 2
        path = write_png(tmp_path / f"{n}.png", {}, {"all": 0.35 + 0.02 * n + 0.1 * label})
        split = "test" if n < 12 else "train"
        boxes = ((0.0, 0.5, 0.25, 0.75),) if label else ()  # around the cell of all regions
        samples.append(sample(str(path), split=split, regions="unknown", label=label, boxes=boxes))
    write_index(samples, tmp_path / "index.csv")
    write_bundles(tmp_path / "weights", for_all())
    result = fxpipe(
        *("evaluate", "--index", tmp_path / "index.csv", "--weights", tmp_path / "weights"),
        *("--output", tmp_path / "out", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    assert "all: AUC" in result.stdout
    evaluation = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert evaluation["region"] is evaluation["cross_region"] is None
    assert evaluation["facts"]["no_region_stage"] == "no region stage in these weights"
    table = pd.read_csv(tmp_path / "out/predictions.csv")
    label_and_p = table["label"], table["fracture_all"]
    calls = (table["fracture_all"] >= table["threshold_all"]).astype(int)
    part = evaluation["fracture"]["all"]["in view"]
    assert (part["pictures"], part["positives"]) == (12, 6)
    for name, value in recomputed(*label_and_p, calls).items():
        if name in part["network"]:
            assert part["network"][name]["value"] == pytest.approx(value, abs=1e-12)
    ends = evaluation["end_to_end"]["all"]["counts"]
    assert ends["right"] == int((calls == table["label"]).sum())
    assert sum(ends.values()) == ends["right"] + ends["wrong decision"] == 12
    pointing = evaluation["pointing"]["all"]
    assert (pointing["pictures"], pointing["centre"]["network"]["value"]) == (6, 1.0)
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "Not measured: no region stage in these weights" in page
    assert page.count("data:image/png") == 3
    assert "None" not in page
    config = RunConfig(device="cpu")
    weights = load_bundles(tmp_path / "weights", config)
    outcomes = run([tmp_path / name for name in table["path"]], weights, config)
    for outcome, (_, row) in zip(outcomes, table.iterrows(), strict=True):
        (finding,) = outcome.findings
        assert (row["status"], row["verdict_all"]) == (outcome.status, finding.verdict)
        assert row["fracture_all"] == pytest.approx(finding.probability, abs=1e-6)
