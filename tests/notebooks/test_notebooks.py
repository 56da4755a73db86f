"""The notebooks run on a small project, display their results, and define no functions."""

from __future__ import annotations

import ast
import base64
import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from pipeline.weights.manifest import read_manifest
from stages.data.index import read_index, write_index

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TIMEOUT_S = 600
"""Limit for one cell, on the slowest machine."""


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def table(project, tmp_path_factory) -> Path:
    """The project's table with boxes at the fractures."""
    target = tmp_path_factory.mktemp("table") / "index.csv"
    gap = ((0.25, 0.35, 0.75, 0.65),)  # the gap drawn by tests.tables.picture
    samples = read_index(project / "index.csv").samples
    marked = [replace(s, boxes=gap if s.label == 1 else ()) for s in samples]
    write_index(marked, target)
    return target


@pytest.fixture
def execute(monkeypatch):
    """A function that runs a notebook in a kernel of this interpreter.

    Settings are passed as environment variables.
    """
    # Use the kernel of this environment, even if the user has another of the same name.
    monkeypatch.setenv("JUPYTER_PATH", str(Path(sys.prefix) / "share/jupyter"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MPLBACKEND", raising=False)

    def run(name: str, **settings: object) -> nbformat.NotebookNode:
        for key, value in settings.items():
            monkeypatch.setenv(f"FXPIPE_{key}", str(value))
        notebook = read(ROOT / "notebooks" / name)
        notebook.cells.append(nbformat.v4.new_code_cell("import sys\nprint(sys.executable)"))
        place = {"metadata": {"path": str(ROOT / "notebooks")}}
        client = NotebookClient(notebook, kernel_name="python3", timeout=TIMEOUT_S, resources=place)
        with warnings.catch_warnings():
            # Warnings of jupyter_client, pyzmq and tornado.
            warnings.simplefilter("ignore")
            client.execute()
        assert notebook.cells.pop().outputs[0].text.strip() == sys.executable
        return notebook

    return run


def outputs(notebook: nbformat.NotebookNode, kind: str) -> Iterator[str]:
    """Yield every output of a kind: ``stdout``, or a MIME type."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == kind:
                yield output.text
            elif kind in output.get("data", {}):
                yield output.data[kind]


def pictures(notebook: nbformat.NotebookNode) -> list[bytes]:
    """PNG files with content: an empty figure has a few hundred bytes."""
    files = [base64.b64decode(text) for text in outputs(notebook, "image/png")]
    return [file for file in files if file.startswith(b"\x89PNG") and len(file) > 3000]


def test_explore_has_counts_pictures_and_an_audit(execute, table):
    notebook = execute("explore.ipynb", INDEX=table, SIDE_PX=64)
    text = "".join(outputs(notebook, "stdout"))
    assert "113 pictures" in text
    assert "positive means: fracture" in text
    assert "no leak was found" in text
    (counts, *_) = [t for t in outputs(notebook, "text/html") if "excluded" in t and "elbow" in t]
    assert counts.count("<tr>") >= 6
    assert len(pictures(notebook)) == 5


def test_train_writes_runs_figures_and_working_bundles(execute, table, project, tmp_path):
    notebook = execute(
        "train.ipynb", INDEX=table, WORK=tmp_path / "work", INIT=project / "runs/region",
        SIDE_PX=64, EPOCHS=2, REGION="hand",
    )  # fmt: skip
    work = tmp_path / "work"
    for run in ("region", "fracture-hand"):
        assert len(json.loads((work / run / "metrics.json").read_text())) == 2
        assert (work / run / "result.json").is_file()
    names = {entry.name for entry in read_manifest(work / "weights").bundles}
    assert names == {"trunk", "region", "fracture-hand"}
    assert len(pictures(notebook)) == 5  # two for curves; calibration, thresholds, maps
    text = "".join(outputs(notebook, "stdout"))
    assert "3 of 3 comparisons passed" in text  # one of them with all looks
    assert "not a medical device" in text
    tables = list(outputs(notebook, "text/html"))
    assert any("sensitivity, test" in t and "balanced" in t for t in tables)
    answers = tables[-1]
    assert answers.count("<tr>") == 16  # the header and a row for every validation picture
    assert answers.count("<td>ok</td>") + answers.count("<td>unsupported</td>") == 16


def test_evaluation_displays_the_computed_figures(execute, table, project, tmp_path):
    notebook = execute(
        "evaluation.ipynb", INDEX=table, WEIGHTS=project / "weights", OUTPUT=tmp_path / "out"
    )
    content = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert content["facts"]["pictures"] == 16
    text = "".join(outputs(notebook, "stdout"))
    assert "it is unknown whether" in text  # the table with boxes is not the table of the training
    assert text.count("by scikit-learn") + text.count("AUC undefined") == 3
    tables = list(outputs(notebook, "text/html"))
    assert any("majority" in t and "look-up" in t and "map at fracture" in t for t in tables)
    assert any("ppv_at_0.05" in t for t in tables)
    # The saved plots, and mistakes of both kinds.
    saved = {(tmp_path / "out" / name).read_bytes() for name in
             ("confusion.png", "roc.png", "reliability.png", "risk_coverage.png")}  # fmt: skip
    assert saved <= set(pictures(notebook))
    assert len(pictures(notebook)) == len(saved) + 2


def test_names_of_the_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["evaluation", "explore", "train"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    notebook = read(path)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.metadata == {}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    # No metadata of the editor, which would cause differences in git.
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    assert notebook.metadata["language_info"] == {"name": "python"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_define_no_functions_and_use_no_private_names(path):
    trees = [ast.parse(source) for source in code(read(path))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    defined = [node for node in nodes if isinstance(node, kinds)]
    # Only lambdas, such as sort keys, are allowed; named functions belong in the package.
    assert [type(node).__name__ for node in defined if not isinstance(node, ast.Lambda)] == []
    imported = {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {"pipeline", "stages"} <= imported
    private = [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    private += [alias.name for node in nodes if isinstance(node, ast.ImportFrom)
                for alias in node.names]  # fmt: skip
    assert [name for name in private if name.startswith("_")] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_first_cells_describe_the_table_and_contain_the_settings(path):
    first, settings = read(path).cells[:2]
    assert first.cell_type == "markdown"
    assert "fxpipe index --input" in first.source
    names = ast.parse(settings.source).body[2:]  # after the imports
    assert 2 <= len(names) <= 8
    assert all(isinstance(node, ast.Assign) for node in names)
    assert 'os.environ.get("FXPIPE_INDEX", "../index.csv")' in settings.source
