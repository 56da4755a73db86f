"""``fxpipe evaluate`` on pictures with headers: figures with and without their header."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from bundles import paint, write_png
from command_line import fxpipe
from factories import dicom, dicom_file
from tables import sample
from tiny_networks import write_bundles

from pipeline.config import RunConfig
from pipeline.engine import run
from pipeline.runtime.session import load_bundles
from stages.data.index import write_index

# Name, body part in the header, regions that the router detects, regions in view.
PICTURES: tuple[tuple[str, str, dict[str, float], str], ...] = (
    ("chest", "CHEST", {"shoulder": 0.9}, "none"),
    ("hand", "HAND", {"hand": 0.48}, "hand"),
    ("elbow", "ELBOW", {"elbow": 0.9}, "elbow"),
    ("forearm", "FOREARM", {"elbow": 0.48}, "elbow"),
    ("knee", "KNEE", {}, "none"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("headers")
    rows = []
    for name, part, painted, regions in PICTURES:
        path = home / f"{name}.dcm"
        pixels = paint(painted, {"hand": 0.6})
        path.write_bytes(dicom_file(dicom(pixels, bits=8, BodyPartExamined=part)))
        rows.append(sample(str(path), split="test", regions=regions, label=0))
    path = write_png(home / "plain.png", {"hand": 0.48}, {})
    rows.append(sample(str(path), split="test", regions="hand", label=0))
    path = write_png(home / "train.png", {"hand": 0.9}, {})
    rows.append(sample(str(path), split="train", regions="hand", label=1))
    write_index(rows, home / "index.csv")
    write_bundles(home / "weights")
    return home


def evaluate(place: Path, output: Path, *words: str) -> tuple[str, dict, pd.DataFrame]:
    result = fxpipe(
        *("evaluate", "--index", place / "index.csv", "--weights", place / "weights"),
        *("--output", output, "--device", "cpu", *words),
    )
    assert result.exit_code == 0, result.output
    figures = json.loads((output / "evaluation.json").read_text())
    table = pd.read_csv(output / "predictions.csv", keep_default_na=False)
    return result.stdout, figures, table.set_index("path")


def test_figures_with_and_without_header_are_compared(place, tmp_path):
    printed, figures, table = evaluate(place, tmp_path)
    assert table["header_effect"].to_dict() == {
        "chest.dcm": "vetoed", "hand.dcm": "helped", "elbow.dcm": "agreed",
        "forearm.dcm": "nothing", "knee.dcm": "agreed", "plain.png": "nothing",
    }  # fmt: skip
    assert table["header_says"]["plain.png"] == ""
    assert (table["fired_alone"]["chest.dcm"], table["fired"]["chest.dcm"]) == ("shoulder", "")
    header = figures["header"]
    assert header["pictures"] == 5
    refused = header["unsupported_refused"]
    assert (refused["pixels alone"]["value"], refused["with header"]["value"]) == (0.5, 1.0)
    assert "pictures with a header " in printed
    assert "too optimistic" in printed
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<th>pictures with a header</th>" in page
    assert "None" not in page


@pytest.mark.parametrize("how", ["combine", "ignore"])
def test_every_row_matches_fxpipe_run(place, tmp_path, how):
    config = RunConfig(device="cpu", header=how)
    _, figures, table = evaluate(place, tmp_path, "--set", f"header={how}", "--quiet")
    outcomes = run([place / name for name in table.index], load_bundles(place / "weights", config),
                   config)  # fmt: skip
    for outcome, (_, row) in zip(outcomes, table.iterrows(), strict=True):
        assert outcome.region is not None
        assert row["fired"] == ";".join(outcome.region.fired)
        assert row["header_effect"] == outcome.region.header_effect
        assert (row["status"], row["error"]) == (outcome.status, outcome.error or "")
    assert (figures["header"] is None) == (how == "ignore")
    assert figures["facts"]["header"] == how
