"""fxpipe is fast: measured against the naive loop in the same run, never against a clock."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from pipeline.cli import main

ROOT = Path(__file__).parents[2]

FASTER = 2.5
"""Times as many pictures a second as two whole networks in torch, at the least."""


def test_the_shipped_weights_beat_the_naive_loop(tmp_path):
    output = tmp_path / "bench.json"
    words = [
        *("bench", "--input", ROOT / "samples", "--weights", ROOT / "weights"),
        *("--pictures", 24, "--rounds", 2, "--device", "cpu", "--output", output, "--quiet"),
        *("--set", "batch_size=4"),  # so that every lane has something to do
        *("--set", "looks=1"),  # as often as the loop looks
        *("--only", "fxpipe-int8-cpu", "--only", "torch-loop-cpu"),
    ]
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    own, loop = json.loads(output.read_text(encoding="utf-8"))["contenders"]
    assert (own["name"], loop["name"]) == ("fxpipe-int8-cpu", "torch-loop-cpu")
    assert own["ratio"]["median"] >= FASTER, (own["rounds_s"], loop["rounds_s"])
    assert own["facts"]["input_px"] == loop["facts"]["input_px"]
    assert own["peak_mb"] is None or own["peak_mb"] < loop["peak_mb"]
