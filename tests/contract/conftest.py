"""Fixtures of the tests of the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from command_line import fxpipe
from evaluated_pictures import painted_table
from tiny_networks import write_bundles


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder with weights in it."""
    write_bundles(tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FXPIPE_WEIGHTS", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory) -> Path:
    """A folder with the painted table, the painted bundles and their evaluation."""
    home = tmp_path_factory.mktemp("evaluated")
    table = painted_table(home)
    write_bundles(home / "weights")
    result = fxpipe(
        *("evaluate", "--index", table, "--weights", home / "weights", "--output", home / "out"),
        *("--device", "cpu", "--batch-size", 5, "--prevalence", 0.1, "--prevalence", 0.3),
    )
    assert result.exit_code == 1, result.output  # one picture is broken
    (home / "stdout").write_text(result.stdout)
    return home


@pytest.fixture(scope="session")
def predictions(evaluated) -> pd.DataFrame:
    """The predictions of the evaluation, read with plain pandas."""
    return pd.read_csv(evaluated / "out/predictions.csv")


@pytest.fixture(scope="session")
def evaluation(evaluated) -> dict:
    """The content of its evaluation.json."""
    return json.loads((evaluated / "out/evaluation.json").read_text())
