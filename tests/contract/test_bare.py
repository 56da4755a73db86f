"""Every command without the optional extras: it works, or names the extra that it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest
from bundles import write_png
from command_line import run_python
from layouts import draw
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tables import sample
from tiny_networks import write_bundles

from pipeline.cli import main
from stages.data.index import write_index

ROOT = Path(__file__).parents[2]
HIDE = """
import sys
from importlib.machinery import PathFinder

HIDDEN = frozenset({hidden!r})

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            return None
        return PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""
RUN_ALL = """
import json, sys
from click.testing import CliRunner
from pipeline.cli import main

if __name__ == "__main__":
    rows = []
    for words in json.load(sys.stdin):
        result = CliRunner().invoke(main, words)
        broken = result.exception is not None and not isinstance(result.exception, SystemExit)
        rows.append([result.exit_code, result.output, repr(result.exception) if broken else ""])
    print(json.dumps(rows))
"""
TABLE, WEIGHTS = ("--index", "index.csv"), ("--weights", "weights")
COMMAND_LINES = {
    ("run", "--input", "in", "--device", "cpu"): "",
    ("run", "--input", "in", "--device", "cpu", "--dicom-out", "objects"): "dicom",
    ("run", "--input", "in", "--device", "cpu", "--parquet"): "parquet",
    ("run", "--input", "s3://bucket/in", "--device", "cpu"): "remote",
    ("plan", "--input", "in"): "",
    ("run", "--plan", "plan.sqlite", "--device", "cpu", "--output", "chunks"): "",
    ("run", "--plan", "plan.sqlite", "--device", "cpu", "--engine", "ray"): "cluster",
    ("merge", "--plan", "plan.sqlite", "--output", "chunks"): "",
    ("merge", "--plan", "plan.sqlite", "--output", "chunks", "--parquet"): "parquet",
    ("index", "--input", "classes", "--parts", "3", "--output", "made.csv"): "evaluate",
    ("audit", *TABLE): "evaluate",
    ("train-stage", "region", *TABLE): "train",
    ("train-stage", "fracture", "--region", "hand", *TABLE): "train",
    ("augment", *TABLE, "--show", "sheet.png"): "train",
    ("crossval", "region", *TABLE): "train",
    ("crossval", "fracture", "--region", "hand", *TABLE): "train",
    ("calibrate", "--input", "index.csv", "--output", "new"): "evaluate",
    ("export", *TABLE): "train",
    ("export", "--fused", "--input", "in"): "evaluate",
    ("ensemble", "--region", "hand", "--member", "weights", "--member", "weights"): "evaluate",
    ("evaluate", *TABLE): "evaluate",
    ("compare", "--weights", "weights", *TABLE): "train",
    ("bench", "--input", "in", "--device", "cpu", "--rounds", "1", "--only", "torch"): "train",
    ("cards", *WEIGHTS): "evaluate",
    ("weights", "list"): "",
    ("weights", "verify"): "",
    ("weights", "pack", "--output", "w.zip"): "",
    ("weights", "pack", "--output", "w.zip", "--sign", "key.pem"): "sign",
    ("weights", "install", "w.zip", "--to", "other", "--trust", "key.pem"): "sign",
    ("doctor",): "",
    ("serve", "--data", "data", "--no-browser", "--port", "0"): "serve",
    ("token", "create", "--data", "data", "--role", "reader"): "serve",
    ("backup", "--data", "data", "--to", "backup"): "serve",
    ("restore", "--from", "backup", "--check"): "serve",
    ("audit-log", "verify", "--data", "data"): "serve",
    ("service", "print", "--data", "data"): "",
    ("schema",): "",
}
"""The extra that each command needs; empty if it works without extras."""


def modules_of(extras: tuple[str, ...]) -> list[str]:
    """Importable top-level modules of the packages of some extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {
        canonicalize_name(Requirement(text).name)
        for extra in extras
        for text in project["optional-dependencies"][extra]
        if Requirement(text).name != project["name"]  # an extra that includes another one
    }
    return sorted(
        module
        for module, packages in packages_distributions().items()
        if required & {canonicalize_name(package) for package in packages}
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[tuple[str, ...], tuple[int, str, str]]:
    """Exit code, output and unexpected exception of every command line."""
    home = tmp_path_factory.mktemp("bare")
    hidden = modules_of(
        (
            "train",
            "evaluate",
            "dicom",
            "parquet",
            "sign",
            "serve",
            "postgresql",
            "cluster",
            "remote",
        )
    )
    assert {
        "torch",
        "sklearn",
        "onnx",
        "highdicom",
        "pyarrow",
        "cryptography",
        "sqlalchemy",
    } <= set(hidden)
    (home / "path").mkdir()
    (home / "path/sitecustomize.py").write_text(HIDE.format(hidden=hidden))
    (home / "run_all.py").write_text(RUN_ALL)
    (home / "key.pem").write_text("no key")
    write_bundles(home / "weights")
    picture = write_png(home / "in/a.png", {"hand": 0.9}, {"hand": 0.9})
    write_index([sample(str(picture), label=1)], home / "index.csv")
    for n in range(6):
        draw(home / "classes" / ("fractured" if n % 2 else "normal") / f"{n}.png", n)
    path = os.pathsep.join((str(home / "path"), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "run_all.py"], input=json.dumps(list(COMMAND_LINES)), cwd=home,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    return {words: tuple(row) for words, row in zip(COMMAND_LINES, rows, strict=True)}


def test_extra_evaluate_does_not_need_extra_train():
    modules = [
        "stages.bundles.model_cards", "stages.data.adapters.layouts", "stages.data.audit_page",
        "stages.evaluation.evaluate", "stages.evaluation.shift_sheet", "stages.export.ensemble",
        "stages.export.fused", "stages.export.recalibrate",
    ]  # fmt: skip
    hidden = modules_of(("train",))
    assert {"torch", "timm", "lightning"} <= set(hidden)
    code = "\n".join([HIDE.format(hidden=hidden), *(f"import {module}" for module in modules)])
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_every_command_is_run():
    assert {words[0] for words in COMMAND_LINES} == set(main.list_commands(click.Context(main)))


@pytest.mark.parametrize(
    ("words", "extra"), COMMAND_LINES.items(), ids=lambda x: " ".join(x[:2]) or "-"
)
def test_command_works_or_names_the_extra(results, words, extra):
    code, output, broken = results[words]
    assert not broken, output
    if extra:
        assert code == 3, output
        assert "is not installed" in output
        assert f'pip install "fxpipe[{extra}]"' in output
    else:
        assert "is not installed" not in output
        assert code in (0, 1), output
