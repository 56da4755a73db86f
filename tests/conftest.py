"""Fixtures that several kinds of test share."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from signal_handling import as_in_the_foreground
from tables import fracatlas_folder
from tools import need

settings.register_profile(
    "long", max_examples=20_000, database=None, suppress_health_check=list(HealthCheck)
)

TESTS = Path(__file__).parent
EXPORTING = ("contract", "notebooks", "parity", "training")
"""Folders of tests that export networks."""
FAST = ("architecture", "unit")
"""Folders of tests that `make check` runs; tests of the others have the marker slow."""
TINY = (
    "preprocess.height_px=64",
    "preprocess.width_px=64",
    "train.trainable_from=stem",
    "train.device=cpu",
    "train.precision=32-true",
    "data.workers=0",
    "optim.batch_size=8",
    "optim.ema_decay=0.9",
    "augment.draw=flip",  # so short a training learns nothing from pictures that all differ
)
"""Settings with which a ResNet50 trains in seconds on one core."""


@pytest.fixture(autouse=True)
def _third_party_warnings():
    """Warnings of libraries about themselves, which no code of this project can mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        yield


@pytest.fixture(scope="session", autouse=True)
def _foreground():
    """Signals are those of a suite that a user started, also where a script put it back."""
    with as_in_the_foreground():
        yield


def pytest_collection_modifyitems(items):
    """Mark whole folders: what exports networks rounds them quickly, and what is slow."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in EXPORTING:
            item.add_marker(pytest.mark.usefixtures("few_patches"))
        if folder not in FAST:
            item.add_marker(pytest.mark.slow)


def pytest_runtest_setup(item):
    """Skip a test whose programs are missing; in CI it fails."""
    for marker in item.iter_markers("needs_tool"):
        for program in marker.args:
            need(program)


@pytest.fixture(scope="session")
def few_patches():
    """int8 weights rounded on a twentieth of the patches: tests export dozens of networks.

    ``unit/stages/export/test_rounding.py`` measures what the rounding gains.
    """
    from stages.export import int8

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "PATCH_VALUES", int8.PATCH_VALUES // 20)
        yield


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A small FracAtlas folder with pictures that can be learned."""
    return fracatlas_folder(tmp_path_factory.mktemp("data") / "fracatlas")


@pytest.fixture(scope="session")
def project(data, few_patches, tmp_path_factory):
    """A folder in which every stage was trained for an epoch or two and exported."""
    from click.testing import CliRunner

    from pipeline.cli import main

    home = tmp_path_factory.mktemp("project")
    runner = CliRunner()

    def fxpipe(*words: str) -> str:
        result = runner.invoke(main, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    index = str(home / "index.csv")
    fxpipe("index", "--input", str(data), "--output", index)
    tiny = [word for setting in TINY for word in ("--set", setting)]
    shared = [w for s in TINY if "preprocess" not in s and "from" not in s for w in ("--set", s)]
    fxpipe(
        *("train-stage", "region", "--index", index, "--output", str(home / "runs/region")),
        *("--init", "none", "--quiet", "--set", "optim.epochs=2", *tiny),
    )
    for region in ("elbow", "hand", "shoulder"):
        fxpipe(
            *("train-stage", "fracture", "--region", region, "--index", index, "--quiet"),
            *("--from", str(home / "runs/region"), "--output", str(home / f"runs/{region}")),
            *("--set", "optim.epochs=1", *shared),
        )
    fxpipe(
        *("export", "--run", str(home / "runs"), "--index", index),
        *("--weights", str(home / "weights"), "--set", "pictures=12"),
        *("--precision", "int8", "--precision", "fp16", "--precision", "fp32"),
        *("--set", "calibration_pictures=16"),
    )
    return home
