"""Content of a run folder, its log, and refused runs; with a very small network."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import TINY
from PIL import Image
from tables import fracatlas_folder, sample

from pipeline.config import load
from pipeline.errors import ConfigError, UsageError
from pipeline.progress import Silent
from stages.data.adapters.fracatlas import read_fracatlas
from stages.data.index import assign_splits, read_index, write_index
from stages.data.table_size import sample_size_warnings
from stages.network import checkpoint
from stages.settings import FractureConfig, RegionConfig
from stages.stage_spec import fracture_stage, region_stage
from stages.training.batch_sheet import SHEET, caption
from stages.training.loop import BEST, LAST
from stages.training.progress_output import LOG
from stages.training.run import RESULT, load_network, train_fracture, train_region
from stages.training.run_report import describe_result, warnings_of

SMALL = (*TINY, "model.init=none", "train.arch=cnn_gap", "optim.epochs=2")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    home = tmp_path_factory.mktemp("few")
    samples = read_fracatlas(fracatlas_folder(home / "data", per_cell=6))
    splits = assign_splits(samples, seed=0, parts=3)
    write_index(
        [replace(s, split=x) for s, x in zip(samples, splits, strict=True)], home / "index.csv"
    )
    return read_index(home / "index.csv")


def settings(*more):
    return load(RegionConfig, None, [*SMALL, *more])


class Recorder(Silent):
    """Progress that records its calls."""

    def __init__(self):
        self.expected, self.steps = [], 0

    def advance(self):
        self.steps += 1

    def expect(self, unit, total, done, each):
        self.expected.append((unit, total, done, each))


@pytest.fixture(scope="module")
def trained(index, tmp_path_factory):
    """A folder with a region run and a specialist trained from it, and the recorded progress."""
    home, progress = tmp_path_factory.mktemp("runs"), Recorder()
    train_region(home / "region", index, settings(), False, progress)
    words = [word for word in TINY if not word.startswith(("preprocess", "optim.batch_size"))]
    config = load(
        FractureConfig, None, [*words, "optim.epochs=1", "optim.batch_size=2"],
        {"region_run": home / "region", "region": "hand"},
    )  # fmt: skip
    train_fracture(home / "hand", index, config, False, Silent())
    return home, progress


def test_run_that_failed_to_start_can_be_started_again(index, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match="expected at least 5000"):
        train_region(run, index, settings("optim.batch_size=5000"), False, Silent())
    train_region(run, index, settings("optim.epochs=1"), False, Silent())
    described = json.loads((run / "config.json").read_text())
    assert described["config"]["optim"]["batch_size"] == 8
    with pytest.raises(UsageError, match="already contains a run"):
        train_region(run, index, settings("optim.epochs=1"), False, Silent())


def test_run_killed_before_its_first_checkpoint_can_be_resumed(index, tmp_path):
    class Killed(Silent):
        def advance(self):
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_region(run, index, settings("optim.epochs=1"), False, Killed())
    assert not (run / LAST).exists()
    train_region(run, index, settings("optim.epochs=1", "train.seed=8"), True, Silent())
    assert json.loads((run / "config.json").read_text())["config"]["train"]["seed"] == 8


def test_config_of_a_specialist_contains_the_inherited_settings(trained):
    home, _ = trained
    region, hand = (json.loads((home / r / "config.json").read_text()) for r in ("region", "hand"))
    assert hand["config"]["preprocess"] == region["config"]["preprocess"]
    assert hand["config"]["preprocess"]["height_px"] == 64
    assert hand["config"]["train"]["arch"] == "cnn_gap"
    assert hand["config"]["model"]["init"] == str(home / "region")


def test_log_has_the_lines_of_the_terminal(trained, index):
    home, progress = trained
    lines = (home / "region" / LOG).read_text(encoding="utf-8").splitlines()
    text = "\n".join(lines)
    learn, check = (len(index.of(split)) for split in ("train", "val"))
    assert f"{learn} training and {check} validation pictures, at most 2 epochs of" in text
    assert "cpu (" in text
    assert "{" not in text
    notes = [line.partition("INFO    ")[2] for line in lines]
    head = next(i for i, note in enumerate(notes) if note.startswith("  epoch  train"))
    for name in ("val", "elbow", "fracture", "score", "/s", "left"):
        assert name in notes[head].split()
    rows = notes[head + 1 : head + 3]
    assert [len(row) for row in rows] == [len(notes[head])] * 2 == [79] * 2
    assert [row.split()[0] for row in rows] == ["1/2", "2/2"]
    assert "*" in rows[0]
    history = json.loads((home / "region/metrics.json").read_text())
    for row, epoch in zip(rows, history, strict=True):
        assert f" {epoch['train_loss']:.3f} " in row
    assert any("WARNING" in line and "validation split shows" in line for line in lines)
    pictures = learn - learn % 8
    assert progress.steps == 2 * pictures // 8
    assert [(total, done, each) for _, total, done, each in progress.expected] == [
        (2 * pictures, 0, 8), (2 * pictures, pictures, 8),
    ]  # fmt: skip
    assert progress.expected[1][0].startswith("epoch 2 of 2, cpu (")


def test_loggers_are_restored(index, tmp_path):
    loggers = [logging.getLogger(name) for name in ("stages", "pipeline")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    with pytest.raises(ConfigError):
        train_region(tmp_path, index, settings("optim.batch_size=5000"), False, Silent())
    assert before == [(logger.level, list(logger.handlers)) for logger in loggers]


def test_contact_sheet_shows_two_batches(trained):
    home, _ = trained
    with Image.open(home / "region" / SHEET) as image:
        pixels = np.asarray(image.convert("L"))
    # Two rows of eight pictures each, separated by white.
    for axis, count in ((0, 8), (1, 4)):  # vertically also two lines of captions
        filled = (pixels < 250).any(axis=axis)
        assert np.diff(filled.astype(int), prepend=0).clip(0).sum() == count


def test_caption_contains_known_and_unknown_targets():
    outputs = ("elbow", "hand", "shoulder", "fracture")
    assert caption(np.array([0, 1, 0, 1.0]), outputs) == "hand, fracture"
    assert caption(np.array([0.3, 0.7, 0, np.nan]), outputs) == "elbow 0.3, hand 0.7, fracture?"
    assert caption(np.zeros(4, np.float32), outputs) == "nothing"


@pytest.mark.parametrize("fault", ["nan", "shape", "missing", "unknown"])
def test_error_names_broken_weights(trained, tmp_path, fault):
    run = shutil.copytree(trained[0] / "region", tmp_path / "run")
    weights, facts = checkpoint.load(run / BEST)
    words = {
        "nan": "fc.bias contains NaN or infinity",
        "shape": "fc.bias has shape 5, expected 4",
        "missing": "fc.bias is missing",
        "unknown": "fc.more is not a weight of this network",
    }
    if fault == "nan":
        weights["fc.bias"][1] = np.nan
    elif fault == "shape":
        weights["fc.bias"] = weights["fc.bias"].new_zeros(5)
    elif fault == "missing":
        del weights["fc.bias"]
    else:
        weights["fc.more"] = weights["fc.bias"].clone()
    checkpoint.save(run / BEST, weights, facts)
    with pytest.raises(ConfigError) as caught:
        load_network(run)
    assert f"{run / BEST}: the weights do not match" in str(caught.value)
    assert words[fault] in str(caught.value)


# ---------------------------------------------------------------------------------- thin data


def rows(**counts):
    """``counts`` rows by region; a region name with the suffix ``_1`` gives positive rows."""
    return [
        sample(f"{name}{n}", regions=name.removesuffix("_1"), label=int(name.endswith("_1")))
        for name, count in counts.items()
        for n in range(count)
    ]


def test_region_table_without_pictures_to_refuse_causes_a_warning():
    stage, enough = region_stage("fracture"), rows(hand=10, elbow=10, none=10)
    single = sample_size_warnings(stage, rows(hand=40), enough)
    assert "no training picture is known to be without hand" in single[0]
    assert any("another part of the body" in words for words in single)
    several = sample_size_warnings(stage, rows(hand=20, elbow=20), enough)
    assert ["another part of the body" in words for words in several] == [True]
    assert sample_size_warnings(stage, rows(hand=20, elbow=20, none=20), enough) == []


def test_few_validation_cases_cause_a_warning():
    stage, learn = region_stage("fracture"), rows(hand=20, elbow=20, none=20)
    (words,) = sample_size_warnings(stage, learn, rows(hand=10, elbow=9, none=10))
    assert "shows elbow in 9 pictures;" in words
    specialist = fracture_stage("hand", "fracture")
    (words,) = sample_size_warnings(specialist, learn, rows(hand=30, hand_1=9))
    assert "has 9 positive and 30 other pictures;" in words
    assert sample_size_warnings(specialist, learn, rows(hand=10, hand_1=10)) == []


def test_result_contains_warnings_and_its_description_thresholds(trained):
    home, _ = trained
    kept = json.loads((home / "hand" / RESULT).read_text())["warnings"]
    assert any("positive and" in words for words in kept)
    assert warnings_of(home / "hand") == [f"{home / 'hand'}: {words}" for words in kept]
    assert "thresholds: sensitive 0." in describe_result(home / "hand")
