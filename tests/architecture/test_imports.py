"""Rules 1 to 4 of the design on imports, checked in the syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FORBIDDEN_IN_PIPELINE = {"stages", "torch", "torchvision", "timm", "sklearn", "lightning"}

PIPELINE = (
    {"cli"},
    {"archive", "bench", "diagnosis", "service"},
    {"folder_run", "engine", "judge", "report", "studies", "progress", "logging_setup"},
    {"runtime", "decision", "heatmap", "reading", "flags", "render"},
    {"config"},
    {"weights"},
    {"bundle", "bundle_parts", "fused_contract", "io", "looks", "older_bundles"},
    {"preprocess"},
    {"framing"},
    {"tissue", "not_radiograph", "outcome_json"},
    {"domain", "outcome", "source", "errors", "timing", "ordered_pool", "threaded_pipeline"}
    | {"submissions", "row_bands", "lock", "spreadsheet", "atomic"},
    {"regions"},
)
STAGES = (
    {"experiments"},
    {"export"},
    {"bundles"},
    {"evaluation"},
    {"training"},
    {"data"},
    {"network"},
    {"statistics"},
    {"stage_spec"},
    {"samples", "settings", "warning_filter"},
)
LAYERS = {"pipeline": PIPELINE, "stages": STAGES}
"""Layers of both packages, top first. A module imports from its own layer or from lower ones."""


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str, bool]]:
    """(line, absolute module name, whether it is a relative import) of every import."""
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


def layer_of(module: str) -> int | None:
    """Layer of ``pipeline.<part>…`` or ``stages.<part>…``; None for other modules."""
    parts = module.split(".")
    if parts[0] not in LAYERS or len(parts) == 1:
        return None
    return next((i for i, layer in enumerate(LAYERS[parts[0]]) if parts[1] in layer), None)


def faults(file: Path, text: str) -> list[str]:
    """Violations of the rules in one source file; ``file`` is its path below the root."""
    module = ".".join(file.with_suffix("").parts)
    package = ".".join(file.parent.parts)
    in_cli = file.parts[:2] == ("pipeline", "cli")
    violations = []
    for line, target, relative in imports(ast.parse(text), package):
        place = f"{file}:{line}"
        top = target.split(".")[0]
        if file.parts[0] == "pipeline" and top in FORBIDDEN_IN_PIPELINE:
            if not in_cli:
                violations.append(f"{place}: rule 1: pipeline imports {target}")
            elif top != "stages":
                violations.append(
                    f"{place}: rule 1: the cli imports {target}, expected only stages"
                )
        if file.parts[0] == "stages" and target.startswith("pipeline.cli"):
            violations.append(f"{place}: rule 2: stages imports {target}")
        here, there = layer_of(module), layer_of(target)
        same_package = top == file.parts[0]
        if here is not None and there is not None and there < here and same_package:
            violations.append(
                f"{place}: rule 3: {module} imports {target}, which is in a higher layer"
            )
        if top == file.parts[0] and not relative:
            violations.append(f"{place}: rule 4: {target} must be a relative import")
    if in_cli:
        violations += [
            f"{file}:{node.lineno}: rule 1: stages is imported at the top of the module"
            for node in ast.parse(text).body
            for _, target, _ in imports(node, package)
            if isinstance(node, ast.Import | ast.ImportFrom) and target.startswith("stages")
        ]
    return violations


def sources() -> list[Path]:
    return sorted(
        path.relative_to(ROOT)
        for package_name in ("pipeline", "stages")
        for path in (ROOT / package_name).rglob("*.py")
    )


def test_all_sources_are_checked():
    assert {Path("pipeline/cli/run.py"), Path("pipeline/engine.py")} <= set(sources())


@pytest.mark.parametrize("file", sources(), ids=str)
def test_imports_follow_the_rules(file):
    assert faults(file, (ROOT / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("file", sources(), ids=str)
def test_every_module_has_a_layer(file):
    if len(file.parts) > 2 or file.name != "__init__.py":
        assert layer_of(".".join(file.with_suffix("").parts)) is not None, "add it to the layers"


def test_every_entry_of_a_layer_is_a_module():
    for package, layers in LAYERS.items():
        existing = {file.parts[1].removesuffix(".py") for file in sources()
                    if file.parts[0] == package}  # fmt: skip
        assert set().union(*layers) == existing - {"__init__"}


@pytest.mark.parametrize(
    ("file", "text", "rule"),
    [
        ("pipeline/io/raster.py", "import torch", "rule 1"),
        ("pipeline/decision.py", "def f():\n    from stages.metrics import auc", "rule 1"),
        ("pipeline/cli/export.py", "from stages.export import export", "rule 1"),
        ("pipeline/cli/export.py", "def f():\n    import torch", "rule 1"),
        ("stages/training/loop.py", "from pipeline.cli import main", "rule 2"),
        ("stages/training/loop.py", "from pipeline import cli", "rule 2"),
        ("pipeline/domain.py", "from .config import RunConfig", "rule 3"),
        ("pipeline/domain.py", "from . import runtime", "rule 3"),
        ("pipeline/runtime/session.py", "from ..report.record import COLUMNS", "rule 3"),
        ("pipeline/report/record.py", "from ..cli import main", "rule 3"),
        ("stages/statistics/metrics.py", "from ..data.index import read_index", "rule 3"),
        ("stages/bundles/reader.py", "from ..export import onnx_export", "rule 3"),
        ("stages/data/index.py", "from stages.samples import Sample", "rule 4"),
    ],
)
def test_violations_are_detected(file, text, rule):
    assert [fault.split(": ")[1] for fault in faults(Path(file), text)][:1] == [rule]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pipeline/cli/export.py", "def f():\n    from stages.export import export"),
        ("stages/training/loop.py", "from pipeline.preprocess import preprocess"),
        ("pipeline/engine.py", "from .runtime.session import Weights"),
        ("pipeline/io/dicom.py", "from ..domain import XrayImage\nfrom .sniff import sniff"),
    ],
)
def test_valid_imports_pass(file, text):
    assert faults(Path(file), text) == []


def test_documentation_lists_the_same_layers():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for package, layers in LAYERS.items():
        _, _, rest = page.partition(f"## Layers of `{package}/`")
        section, _, _ = rest.partition("\n## ")
        rows = re.findall(r"^\| \d+ \| ([^|]+) \|", section, re.MULTILINE)
        assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == list(layers)


def main() -> None:
    """Print the layers: ``python tests/architecture/test_imports.py``."""
    for package, layers in LAYERS.items():
        for number, layer in enumerate(layers, 1):
            print(f"{package} {number}: {', '.join(sorted(layer))}")  # noqa: T201


if __name__ == "__main__":
    main()
