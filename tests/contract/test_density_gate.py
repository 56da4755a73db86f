"""The density gate through ``fxpipe run``: what it refuses and says, and how it is left out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from bundles import GATE, spec, standard_specs, write_png
from click.testing import CliRunner, Result
from tiny_networks import write_bundles

from pipeline.bundle import Kind
from pipeline.cli import main
from pipeline.cli._inputs import inputs_of
from pipeline.cli._resume import about
from pipeline.config import RunConfig
from pipeline.runtime.session import load_bundles

WHY = "unlike anything that the networks were trained on: similarity 0.098, expected 0.250 or more"
OFF = "The density gate is off: a picture that is unlike anything"


def ungated_specs():
    """The tiny bundles as they were before there was a density gate."""
    trunk, _, *fracture = standard_specs()
    return [trunk, spec("region", Kind.REGION, density=None), *fracture]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder with weights, a familiar hand, and one like nothing that is known."""
    write_bundles(tmp_path / "weights")
    write_bundles(tmp_path / "older", ungated_specs())
    write_png(tmp_path / "in/near.png", {"hand": 0.9}, {"hand": 0.9})
    write_png(tmp_path / "in/strange.png", {"hand": 0.9}, {"hand": 0.9}, strange=0.9)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FXPIPE_WEIGHTS", raising=False)
    return tmp_path


def fxpipe(*words: object) -> Result:
    asked = ["run", "--input", "in", "--device", "cpu", *map(str, words)]
    return CliRunner().invoke(main, asked, catch_exceptions=False)


def rows() -> dict[str, dict[str, str]]:
    with Path("results/results.csv").open(encoding="utf-8", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_a_strange_picture_is_unsupported_whatever_the_router_says(place):
    result = fxpipe("--report")
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
    assert "similarity to the nearest training pictures is below" in page


def test_the_gate_can_be_left_out_and_the_run_says_so(place):
    result = fxpipe("--set", "gate=off", "--report")
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
    result = fxpipe("--weights", "older")
    assert result.exit_code == 3, result.output
    assert "bundle region has no density gate" in result.stderr
    assert "export the region stage again" in result.stderr
    assert not Path("results/results.csv").exists()


def test_weights_without_a_gate_run_when_it_is_left_out(place):
    assert fxpipe("--weights", "older", "--set", "gate=off").exit_code == 0
    assert rows()["strange.png"]["status"] == "ok"
    assert {row["density"] for row in rows().values()} == {""}


def test_weights_from_before_there_was_a_gate_run_and_say_so(place):
    region = spec("region", Kind.REGION, density=None, schema_version=1)
    others = [contract for contract in standard_specs() if contract.name != "region"]
    write_bundles(place / "first", [region, *others])
    result = fxpipe("--weights", "first")
    assert result.exit_code == 0, result.output
    assert rows()["strange.png"]["status"] == "ok"
    assert f"warning: {OFF}" in result.stderr
    assert OFF in result.stdout


def test_the_gate_is_on_or_off(place):
    result = fxpipe("--set", "gate=perhaps")
    assert result.exit_code == 2
    assert "gate" in result.stderr


def test_an_unfinished_run_with_the_gate_is_no_unfinished_run_without(place):
    on, off = (
        about(inputs_of([place / "in"]), load_bundles(place / "weights", config), config)
        for config in (RunConfig(device="cpu"), RunConfig(device="cpu", gate="off"))
    )
    assert {key for key in on if on[key] != off[key]} == {"gate"}


def test_a_far_picture_is_uncertain_where_a_near_one_is_positive(place):
    write_png(Path("in/near.png"), {"hand": 0.9}, {"hand": 0.55})
    write_png(Path("in/far.png"), {"hand": 0.9}, {"hand": 0.55}, strange=0.72)
    write_png(Path("in/plain.png"), {"hand": 0.9}, {"hand": 0.95}, strange=0.72)
    write_png(Path("in/whole.png"), {"hand": 0.9}, {"hand": 0.1}, strange=0.72)
    result = fxpipe("--report", "--fhir")
    assert result.exit_code == 0, result.output
    told = rows()
    assert {name: row["verdict"] for name, row in told.items() if row["verdict"]} == {
        "near.png": "positive",
        "far.png": "uncertain",
        "plain.png": "positive",
        "whole.png": "negative",
    }
    assert told["near.png"]["probability"] == told["far.png"]["probability"]
    assert float(told["near.png"]["threshold"]) == 0.5
    assert {float(told[f"{name}.png"]["threshold"]) for name in ("far", "plain", "whole")} == {0.95}
    assert "far-from-training" not in told["near.png"]["flags"]
    assert all("far-from-training" in told[f"{n}.png"]["flags"] for n in ("far", "plain", "whole"))
    assert "far-from-training" not in told["strange.png"]["flags"]  # refused, not doubted
    assert "positive only from the highest" in Path("results/report.html").read_text(
        encoding="utf-8"
    )
    result = fxpipe("--set", "far=ignore", "--restart")
    assert result.exit_code == 0, result.output
    assert rows()["far.png"]["verdict"] == "positive"
    assert "far-from-training" not in rows()["far.png"]["flags"]
