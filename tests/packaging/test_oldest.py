"""The wheel in a separate environment, with the oldest version of each base dependency."""

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
    requirements = [Requirement(text) for text in project["dependencies"]]
    applicable = [one for one in requirements if one.marker is None or one.marker.evaluate()]
    pins = []
    for one in applicable:
        (bound,) = one.specifier
        assert bound.operator == ">=", one
        pins.append(f"{one.name}=={bound.version}")
    return pins


def output_of(*command: object, code: int = 0) -> str:
    arguments = [str(argument) for argument in command]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return [{**row, "elapsed_ms": ""} for row in csv.DictReader(file)]


def test_oldest_and_newest_versions_give_the_same_rows(wheel_file, tmp_path):
    home = tmp_path / "old"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    installed = subprocess.run(
        [*map(str, pip), *oldest()], capture_output=True, text=True, check=False
    )
    if "No matching distribution" in installed.stderr and "from versions: none" in installed.stderr:
        pytest.skip("no package registry can be reached")
    assert installed.returncode == 0, installed.stderr
    output_of(*pip, "--no-deps", wheel_file)

    command = ("run", "--input", ROOT / "samples", "--weights", ROOT / "weights")
    options = ("--device", "cpu", "--report", "--fhir", "--quiet", "--output")
    output_of(home / "bin" / "fxpipe", *command, *options, tmp_path / "oldest", code=1)
    output_of(
        Path(sys.executable).with_name("fxpipe"), *command, *options, tmp_path / "newest", code=1
    )
    assert len(rows(tmp_path / "oldest")) == len(list((ROOT / "samples").iterdir()))
    assert rows(tmp_path / "oldest") == rows(tmp_path / "newest")
