"""``fxpipe crossval`` as its users meet it."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import TINY

from pipeline.cli import main


def fxpipe(*words):
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def home(data, tmp_path_factory):
    home = tmp_path_factory.mktemp("crossval")
    assert fxpipe("index", "--input", data, "--output", home / "index.csv").exit_code == 0
    return home


def crossval(home, *words):
    tiny = [w for s in (*TINY, "optim.epochs=1") if "preprocess" not in s for w in ("--set", s)]
    return fxpipe(
        *("crossval", *words, "--index", home / "index.csv", "--folds", "3", "--quiet"),
        *(*tiny, "--set", f"data.cache='{home / 'cache'}'"),
    )


def test_folds_are_trained_once_pooled_and_handed_to_the_specialist(home):
    size = [w for s in TINY if "preprocess" in s for w in ("--set", s)]
    region = ("region", "--init", "none", "--output", home / "region", *size)
    first = crossval(home, *region, "--only", "1")
    assert first.exit_code == 0, first.output
    assert "folds 1 of 3" in first.output
    assert "region accuracy" in first.output
    stamp = (home / "region/fold-1/best.safetensors").stat().st_mtime_ns
    again = crossval(home, *region, "--only", "1")
    assert again.stdout == first.stdout
    assert (home / "region/fold-1/best.safetensors").stat().st_mtime_ns == stamp
    summary = json.loads((home / "region/result.json").read_text())
    pooled = pd.read_csv(home / "region/predictions.csv")
    held = pd.read_csv(home / "index.csv").query("split == 'test'")["path"].map(lambda p: p[-14:])
    assert summary["pictures"] == len(pooled) > 0
    assert not set(pooled["path"]) & set(held)

    hand = ("fracture", "--region", "hand", "--from", home / "region", "--output", home / "hand")
    specialist = crossval(home, *hand, "--only", "1")
    assert specialist.exit_code == 0, specialist.output
    assert "hand in view" in specialist.output
    missing = crossval(home, *hand, "--only", "2")
    assert missing.exit_code == 2
    assert "fold-2: no finished region run" in missing.output


def test_a_fold_that_is_not_there_is_wrong_usage(home):
    result = crossval(home, "region", "--only", "4")
    assert result.exit_code == 2
    assert "there are 3 folds" in result.output
