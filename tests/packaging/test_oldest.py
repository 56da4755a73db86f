"""The wheel in an environment of its own, with the oldest version of each base dependency."""

from __future__ import annotations

import csv
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def oldest() -> list[str]:
    """Every base dependency, pinned to its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(text) for text in project["dependencies"]]
    here = [one for one in wanted if one.marker is None or one.marker.evaluate()]
    pins = []
    for one in here:
        (bound,) = one.specifier
        assert bound.operator == ">=", one
        pins.append(f"{one.name}=={bound.version}")
    return pins


def said(*command: object, code: int = 0) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return [{**row, "elapsed_ms": ""} for row in csv.DictReader(file)]


def test_the_oldest_versions_give_the_rows_of_the_newest(wheel_file, tmp_path):
    home = tmp_path / "old"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    reached = subprocess.run(
        [*map(str, pip), *oldest()], capture_output=True, text=True, check=False
    )
    if "No matching distribution" in reached.stderr and "from versions: none" in reached.stderr:
        pytest.skip("no package registry can be reached")
    assert reached.returncode == 0, reached.stderr
    said(*pip, "--no-deps", wheel_file)

    command = ("run", "--input", ROOT / "samples", "--weights", ROOT / "weights")
    options = ("--device", "cpu", "--report", "--fhir", "--quiet", "--output")
    said(home / "bin" / "fxpipe", *command, *options, tmp_path / "oldest", code=1)
    said(Path(sys.executable).with_name("fxpipe"), *command, *options, tmp_path / "newest", code=1)
    assert len(rows(tmp_path / "oldest")) == len(list((ROOT / "samples").iterdir()))
    assert rows(tmp_path / "oldest") == rows(tmp_path / "newest")
