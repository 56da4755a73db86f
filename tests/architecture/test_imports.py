"""Who may import whom: rules 1 to 4 of the design, read from the syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FORBIDDEN_IN_PIPELINE = {"stages", "torch", "torchvision", "timm", "sklearn", "lightning"}

LAYERS = (
    {"cli"},
    {"bench", "doctor"},
    {"engine", "judge", "report", "studies", "progress", "log"},
    {"runtime", "decision", "heatmap", "reading", "flags", "render"},
    {"config"},
    {"weights"},
    {"bundle", "bundle_parts", "fused", "io", "looks", "older_bundles"},
    {"preprocess"},
    {"framing"},
    {"tissue", "artificial", "outcome_json"},
    {"domain", "source", "errors", "clock", "in_order", "flow", "submissions"}
    | {"bands", "lock", "spreadsheet", "atomic"},
    {"regions"},
)
"""Top first. The design puts bundle, io, preprocess and config on one floor; the steps between
them here are those that exist, so that no circle can come in."""


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str, bool]]:
    """(line, absolute module, whether it was written relatively) of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, False
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}", bool(node.level)


def floor(module: str) -> int | None:
    """Floor of ``pipeline.<part>…``; None for the package itself and for strangers."""
    parts = module.split(".")
    if parts[0] != "pipeline" or len(parts) == 1:
        return None
    return next((i for i, layer in enumerate(LAYERS) if parts[1] in layer), None)


def faults(file: Path, text: str) -> list[str]:
    """Every broken rule of one source file, named by its path below the root."""
    module = ".".join(file.with_suffix("").parts)
    package = ".".join(file.parent.parts)
    in_cli = file.parts[:2] == ("pipeline", "cli")
    found = []
    for line, target, relative in imports(ast.parse(text), package):
        place = f"{file}:{line}"
        top = target.split(".")[0]
        if file.parts[0] == "pipeline" and top in FORBIDDEN_IN_PIPELINE:
            if not in_cli:
                found.append(f"{place}: rule 1: pipeline imports {target}")
            elif top != "stages":
                found.append(f"{place}: rule 1: the cli imports {target}, not through stages")
        if file.parts[0] == "stages" and target.startswith("pipeline.cli"):
            found.append(f"{place}: rule 2: stages imports {target}")
        here, there = floor(module), floor(target)
        same_part = module.split(".")[:2] == target.split(".")[:2]
        if here is not None and there is not None and there < here and not same_part:
            found.append(f"{place}: rule 3: {module} imports {target}, which lies above it")
        if top == file.parts[0] and not relative:
            found.append(f"{place}: rule 4: {target} is absolute inside its own package")
    if in_cli:
        found += [
            f"{file}:{node.lineno}: rule 1: stages is imported at the top, wanted lazily"
            for node in ast.parse(text).body
            for _, target, _ in imports(node, package)
            if isinstance(node, ast.Import | ast.ImportFrom) and target.startswith("stages")
        ]
    return found


def sources() -> list[Path]:
    return sorted(
        path.relative_to(ROOT)
        for half in ("pipeline", "stages")
        for path in (ROOT / half).rglob("*.py")
    )


def test_the_walk_finds_the_house():
    assert {Path("pipeline/cli/run.py"), Path("pipeline/engine.py")} <= set(sources())


@pytest.mark.parametrize("file", sources(), ids=str)
def test_imports_point_the_right_way(file):
    assert faults(file, (ROOT / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("file", sources(), ids=str)
def test_every_module_has_a_floor(file):
    if file.parts[0] == "pipeline" and file.name != "__init__.py":
        assert floor(".".join(file.with_suffix("").parts)) is not None, "add it to LAYERS"


@pytest.mark.parametrize(
    ("file", "text", "rule"),
    [
        ("pipeline/io/raster.py", "import torch", "rule 1"),
        ("pipeline/decision.py", "def f():\n    from stages.metrics import auc", "rule 1"),
        ("pipeline/cli/export.py", "from stages.export import export", "rule 1"),
        ("pipeline/cli/export.py", "def f():\n    import torch", "rule 1"),
        ("stages/train.py", "from pipeline.cli import main", "rule 2"),
        ("stages/train.py", "from pipeline import cli", "rule 2"),
        ("pipeline/domain.py", "from .config import RunConfig", "rule 3"),
        ("pipeline/domain.py", "from . import runtime", "rule 3"),
        ("pipeline/runtime/session.py", "from ..report.record import COLUMNS", "rule 3"),
        ("pipeline/report/record.py", "from ..cli import main", "rule 3"),
        ("stages/data/index.py", "from stages.spec import Spec", "rule 4"),
    ],
)
def test_planted_violations_are_caught(file, text, rule):
    assert [fault.split(": ")[1] for fault in faults(Path(file), text)][:1] == [rule]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pipeline/cli/export.py", "def f():\n    from stages.export import export"),
        ("stages/train.py", "from pipeline.preprocess import preprocess"),
        ("pipeline/engine.py", "from .runtime.session import Weights"),
        ("pipeline/io/dicom.py", "from ..domain import XrayImage\nfrom .sniff import sniff"),
    ],
)
def test_what_is_allowed_passes(file, text):
    assert faults(Path(file), text) == []


def test_the_documentation_shows_these_layers():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ \| (.+) \|$", page, re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == list(LAYERS)
