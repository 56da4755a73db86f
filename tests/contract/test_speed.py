"""Speed of fxpipe relative to the naive loop in the same run, not in absolute time."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import fxpipe

ROOT = Path(__file__).parents[2]

FASTER = 2.5
"""Minimum ratio of pictures per second to two whole networks in torch."""


def test_shipped_weights_are_faster_than_the_naive_loop(tmp_path):
    output = tmp_path / "bench.json"
    words = [
        *("bench", "--input", ROOT / "samples", "--weights", ROOT / "weights"),
        *("--pictures", 24, "--rounds", 2, "--device", "cpu", "--output", output, "--quiet"),
        *("--set", "batch_size=4"),  # enough batches for all threads
        *("--set", "looks=1"),  # like the loop
        *("--only", "fxpipe-int8-cpu", "--only", "torch-loop-cpu"),
    ]
    result = fxpipe(*words)
    assert result.exit_code == 0, result.output
    fast, loop = json.loads(output.read_text(encoding="utf-8"))["contenders"]
    assert (fast["name"], loop["name"]) == ("fxpipe-int8-cpu", "torch-loop-cpu")
    assert fast["ratio"]["median"] >= FASTER, (fast["rounds_s"], loop["rounds_s"])
    assert fast["facts"]["input_px"] == loop["facts"]["input_px"]
    assert fast["peak_mb"] is None or fast["peak_mb"] < loop["peak_mb"]
