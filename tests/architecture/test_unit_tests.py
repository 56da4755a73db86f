"""The unit tests of ``pipeline/`` need only the packages that ``fxpipe run`` needs.

They must run in an environment without the extra ``train``.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
BLOCKED = {"torch", "torchvision", "timm", "onnx", "sklearn", "lightning"}
COLLECT = (
    "import sys\n"
    f"for name in {sorted(BLOCKED)}: sys.modules[name] = None\n"
    "import pytest\n"
    "sys.exit(pytest.main(sys.argv[1:]))"
)


def modules(text: str) -> set[str]:
    """Names of the modules that a source file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def forbidden(text: str) -> set[str]:
    """The imports that unit tests of ``pipeline/`` and their helpers may not have."""
    return {name for name in modules(text) if name.split(".")[0] in BLOCKED | {"stages"}}


def helpers(file: Path) -> Iterator[Path]:
    """The modules in ``tests/`` that a test file imports."""
    for name in modules(file.read_text(encoding="utf-8")):
        helper = TESTS / f"{name}.py"
        if helper.is_file():
            yield helper


def sources() -> list[Path]:
    """The unit tests of ``pipeline/`` and all helpers that they import, also indirectly."""
    found: set[Path] = set()
    pending = [*(TESTS / "unit/pipeline").rglob("*.py")]
    while pending:
        file = pending.pop()
        if file not in found:
            found.add(file)
            pending += helpers(file)
    return sorted(file.relative_to(ROOT) for file in found)


def test_unit_tests_and_helpers_are_checked():
    names = {file.as_posix() for file in sources()}
    assert {"tests/unit/pipeline/test_bundle.py", "tests/bundles.py"} <= names
    assert "tests/tiny_networks.py" not in names


@pytest.mark.parametrize("file", sources(), ids=str)
def test_unit_tests_of_pipeline_do_not_import_training_packages(file):
    assert forbidden((ROOT / file).read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    "text",
    ["import onnx", "from torch import nn", "def f():\n    import sklearn.metrics",
     "from stages.data.index import write_index"],
)  # fmt: skip
def test_forbidden_imports_are_detected(text):
    assert forbidden(text)


def test_unit_tests_of_pipeline_are_collected_without_training_packages():
    """This includes ``conftest.py``, in which only fixtures for training import those packages."""
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, "--collect-only", "-q", "-p", "no:cacheprovider",
         "tests/unit/pipeline"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/unit/pipeline/test_bundle.py" in done.stdout
