"""The density gate in ``fxpipe run``: refused pictures, messages, and how to turn it off."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from bundles import GATE, spec, standard_specs, write_png
from click.testing import Result
from command_line import break_off, fxpipe
from tiny_networks import write_bundles

from pipeline.bundle import Kind

WHY = "unlike anything that the networks were trained on: similarity 0.098, expected 0.250 or more"
OFF = "The density gate is off: a picture that is unlike anything"


def ungated_specs():
    """The painted bundles without a density gate."""
    trunk, _, *fracture = standard_specs()
    return [trunk, spec("region", Kind.REGION, density=None), *fracture]


@pytest.fixture
def place(place) -> Path:
    """A working folder with weights, a typical hand, and one far from all training pictures."""
    write_bundles(place / "older", ungated_specs())
    write_png(place / "in/near.png", {"hand": 0.9}, {"hand": 0.9})
    write_png(place / "in/strange.png", {"hand": 0.9}, {"hand": 0.9}, strange=0.9)
    return place


def run(*words: object) -> Result:
    return fxpipe("run", "--input", "in", "--device", "cpu", *words)


def rows() -> dict[str, dict[str, str]]:
    with Path("results/results.csv").open(encoding="utf-8", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_gate_refuses_a_picture_that_the_router_accepts(place):
    result = run("--report")
    assert result.exit_code == 0, result.output
    near, strange = rows()["near.png"], rows()["strange.png"]
    assert (near["status"], near["regions"], near["verdict"]) == ("ok", "hand", "positive")
    assert (strange["status"], strange["regions"], strange["verdict"]) == ("unsupported", "", "")
    assert strange["error"] == WHY
    assert float(strange["p_hand"]) == float(near["p_hand"]) > 0.99
    assert float(strange["density"]) == pytest.approx(1 - 230 / 255, abs=1e-4)
    assert float(near["density"]) == pytest.approx(0.9, abs=0.01)
    assert {float(row["density_threshold"]) for row in (near, strange)} == {GATE.threshold}
    assert set(json.loads(strange["bundle_digests"])) == {"trunk", "region"}
    line = json.loads(Path("results/results.jsonl").read_text().splitlines()[1])
    assert (line["density"], line["error"]) == (float(strange["density"]), WHY)
    assert OFF not in result.output
    page = Path("results/report.html").read_text(encoding="utf-8")
    assert "A picture with a similarity to the nearest training pictures below" in page


def test_gate_can_be_turned_off_with_a_warning(place):
    result = run("--set", "gate=off", "--report")
    assert result.exit_code == 0, result.output
    strange = rows()["strange.png"]
    assert (strange["status"], strange["verdict"]) == ("ok", "positive")
    assert strange["density_threshold"] == ""
    assert float(strange["density"]) < GATE.threshold
    assert OFF in result.stdout  # the summary
    assert f"warning: {OFF}" in result.stderr
    page = Path("results/report.html").read_text(encoding="utf-8")
    assert OFF in page
    assert "<dt><code>gate</code></dt><dd>off</dd>" in page


def test_weights_without_a_gate_are_refused(place):
    result = run("--weights", "older")
    assert result.exit_code == 3, result.output
    assert "bundle region has no density gate" in result.stderr
    assert "export the region stage again" in result.stderr
    assert not Path("results/results.csv").exists()


def test_weights_without_a_gate_run_with_the_gate_off(place):
    assert run("--weights", "older", "--set", "gate=off").exit_code == 0
    assert rows()["strange.png"]["status"] == "ok"
    assert {row["density"] for row in rows().values()} == {""}


def test_weights_of_schema_1_run_without_a_gate_and_with_a_warning(place):
    region = spec("region", Kind.REGION, density=None, schema_version=1)
    others = [contract for contract in standard_specs() if contract.name != "region"]
    write_bundles(place / "first", [region, *others])
    result = run("--weights", "first")
    assert result.exit_code == 0, result.output
    assert rows()["strange.png"]["status"] == "ok"
    assert f"warning: {OFF}" in result.stderr
    assert OFF in result.stdout


def test_other_values_for_the_gate_are_refused(place):
    result = run("--set", "gate=perhaps")
    assert result.exit_code == 2
    assert "gate" in result.stderr


def test_run_is_not_resumed_with_another_gate(place):
    write_png(place / "in/third.png", {"hand": 0.9})
    break_off(3, run)
    result = run("--set", "gate=off")
    assert result.exit_code == 2
    assert re.findall(r"^  - (\w+): was (\w+), now (\w+)$", result.stderr, re.MULTILINE) == [
        ("gate", "on", "off")
    ]


def test_picture_far_from_training_needs_a_higher_probability(place):
    write_png(Path("in/near.png"), {"hand": 0.9}, {"hand": 0.55})
    write_png(Path("in/far.png"), {"hand": 0.9}, {"hand": 0.55}, strange=0.72)
    write_png(Path("in/plain.png"), {"hand": 0.9}, {"hand": 0.95}, strange=0.72)
    write_png(Path("in/whole.png"), {"hand": 0.9}, {"hand": 0.1}, strange=0.72)
    result = run("--report", "--fhir")
    assert result.exit_code == 0, result.output
    by_path = rows()
    assert {name: row["verdict"] for name, row in by_path.items() if row["verdict"]} == {
        "near.png": "positive",
        "far.png": "uncertain",
        "plain.png": "positive",
        "whole.png": "negative",
    }
    assert by_path["near.png"]["probability"] == by_path["far.png"]["probability"]
    assert float(by_path["near.png"]["threshold"]) == 0.5
    assert {float(by_path[f"{name}.png"]["threshold"]) for name in ("far", "plain", "whole")} == {
        0.95
    }
    assert "far-from-training" not in by_path["near.png"]["flags"]
    assert all(
        "far-from-training" in by_path[f"{n}.png"]["flags"] for n in ("far", "plain", "whole")
    )
    assert "far-from-training" not in by_path["strange.png"]["flags"]  # refused, so not flagged
    assert "positive only from the highest" in Path("results/report.html").read_text(
        encoding="utf-8"
    )
    result = run("--set", "far=ignore", "--restart")
    assert result.exit_code == 0, result.output
    assert rows()["far.png"]["verdict"] == "positive"
    assert "far-from-training" not in rows()["far.png"]["flags"]
