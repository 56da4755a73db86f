"""Content of the wheel, location of tool settings, files at the top level."""

from __future__ import annotations

import configparser
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(wheel_file) -> zipfile.ZipFile:
    return zipfile.ZipFile(wheel_file)


def test_wheel_contains_exactly_two_packages(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert packages == {"pipeline", "stages"}


def test_wheel_contains_every_module(wheel):
    for package in ("pipeline", "stages"):
        expected = {p.relative_to(ROOT).as_posix() for p in (ROOT / package).rglob("*.py")}
        assert expected <= set(wheel.namelist())


def test_wheel_contains_every_template(wheel):
    expected = {p.relative_to(ROOT).as_posix() for p in (ROOT / "stages").rglob("*.html")}
    expected |= {p.relative_to(ROOT).as_posix() for p in (ROOT / "stages").rglob("*.j2")}
    expected |= {p.relative_to(ROOT).as_posix() for p in (ROOT / "stages").rglob("*.csv")}
    expected |= {p.relative_to(ROOT).as_posix() for p in (ROOT / "pipeline/report/page").iterdir()}
    assert len(expected) >= 13
    assert expected <= set(wheel.namelist())


def test_wheel_has_one_command_and_does_not_require_torch(wheel):
    (metadata,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    lines = wheel.read(metadata).decode().splitlines()
    base = [
        line.split()[1].split(">")[0].lower()
        for line in lines
        if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    assert "onnxruntime-gpu" in base
    assert not {"torch", "torchvision", "timm", "scikit-learn", "lightning"} & set(base)
    (points,) = (n for n in wheel.namelist() if n.endswith("entry_points.txt"))
    assert wheel.read(points).decode().split() == [
        *("[console_scripts]", "fxpipe", "=", "pipeline.cli:main")
    ]


def test_each_tool_has_settings_in_one_file():
    in_pyproject = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"])
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    in_setup = {name.split("-")[0].split(":")[0] for name in setup.sections()}
    assert in_setup == {"mypy", "coverage"}
    assert not in_pyproject & in_setup


def test_files_at_the_top_level():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    tops = {name.split("/")[0] for name in listed if name}
    assert tops == {
        *("pipeline", "stages", "weights", "configs", "tests", "samples", ".ci", ".gitignore"),
        *(
            "setup.cfg",
            "pyproject.toml",
            "README.md",
            "Makefile",
            "Containerfile",
            "LICENSE",
            "CHANGELOG.md",
        ),
        *("notebooks", "docs"),
    }


def test_no_tracked_file_contains_a_path_of_one_machine():
    lines = subprocess.run(
        ["git", "grep", "-nIE", r"(^|[^a-zA-Z0-9_.])/(work|root|home)/", "--", "."],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.splitlines()  # fmt: skip
    assert [line for line in lines if "test_packaging.py" not in line] == []
