"""Docstrings refer only to modules, classes, functions and values that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "stages")
REFERENCE = re.compile(r":(?:mod|class|func|meth|data|attr|exc|obj):`~?([^`]+)`")
Scope = ast.Module | ast.ClassDef
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, tuple[Path, ast.Module]]:
    """File and syntax tree of every module, by name."""
    found = {}
    for path in sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        found[name] = path, ast.parse(path.read_text(encoding="utf-8"))
    return found


def package_of(module: str) -> str:
    path, _ = modules()[module]
    return module if path.stem == "__init__" else module.rpartition(".")[0]


def nested(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a scope, with those in its ``if`` and ``try`` blocks."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try):
            yield from nested(
                [s for s in ast.iter_child_nodes(statement) if isinstance(s, ast.stmt)]
            )


@cache
def members(scope: Scope, package: str) -> dict[str, ast.ClassDef | str | None]:
    """Names that a module or class defines.

    The value is the class, the full name of what is imported, or None for anything else.
    """
    found: dict[str, ast.ClassDef | str | None] = {}
    for statement in nested(scope.body):
        if isinstance(statement, ast.ClassDef):
            found[statement.name] = statement
        elif isinstance(statement, Function):
            found[statement.name] = None
            if isinstance(scope, ast.ClassDef):
                found |= dict.fromkeys(attributes(statement))
        elif isinstance(statement, ast.ImportFrom):
            base = resolve_name("." * statement.level + (statement.module or ""), package)
            found |= {a.asname or a.name: f"{base}.{a.name}" for a in statement.names}
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = (node for target in targets for node in ast.walk(target))
            found |= {node.id: None for node in names if isinstance(node, ast.Name)}
    return found


def attributes(function: Function) -> Iterator[str]:
    """Attributes of ``self`` that a method assigns."""
    for node in ast.walk(function):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), ctx=ast.Store()):
                yield node.attr


def exists(name: str) -> bool:
    """Whether a full name leads to a module, or to something that a module defines."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        module = ".".join(parts[:count])
        if module in modules():
            return has(modules()[module][1], module, parts[count:])
    return parts[0] not in PACKAGES  # another package


def has(scope: Scope, module: str, path: list[str]) -> bool:
    """Whether a scope of a module defines the first name of a path, and that the second, etc."""
    if not path:
        return True
    first, *rest = path
    found = members(scope, package_of(module))
    if first not in found:
        bases = scope.bases if isinstance(scope, ast.ClassDef) else []
        return any(inherits(base, module, path) for base in bases)
    target = found[first]
    if isinstance(target, str):
        return exists(".".join([target, *rest]))
    return not rest if target is None else has(target, module, rest)


def inherits(base: ast.expr, module: str, path: list[str]) -> bool:
    name = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
    inside = members(modules()[module][1], package_of(module)).get(name.split(".")[0])
    if isinstance(inside, str) and inside.split(".")[0] not in PACKAGES:
        return False
    return has(modules()[module][1], module, [*name.split("."), *path])


def references(scope: ast.AST, enclosing: tuple[ast.ClassDef, ...] = ()) -> Iterator[
    tuple[int, str, tuple[ast.ClassDef, ...]]
]:  # fmt: skip
    """(line, reference, enclosing classes) of every reference in the strings of a scope."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for match in REFERENCE.finditer(node.value):
                line = node.lineno + node.value.count("\n", 0, match.start())
                yield line, match[1], enclosing
        inner = (*enclosing, node) if isinstance(node, ast.ClassDef) else enclosing
        yield from references(node, inner)


def resolves(reference: str, module: str, enclosing: tuple[ast.ClassDef, ...]) -> bool:
    """Whether a reference exists: relative, in an enclosing class, in the module, or absolute."""
    if reference.startswith("."):
        return exists(resolve_name(reference, package_of(module)))
    path = reference.split(".")
    scopes: tuple[Scope, ...] = (*enclosing, modules()[module][1])
    if any(has(scope, module, path) for scope in scopes):
        return True
    return len(path) > 1 and exists(reference)


@pytest.mark.parametrize("package", PACKAGES)
def test_references_resolve(package):
    unresolved = [
        f"{path.relative_to(ROOT)}:{line}: {reference}"
        for module, (path, tree) in modules().items()
        for line, reference, enclosing in references(tree)
        if module.split(".")[0] == package and not resolves(reference, module, enclosing)
    ]
    assert not unresolved, "\n".join(unresolved)


@pytest.mark.parametrize(
    ("reference", "module", "expected"),
    [
        ("pipeline.engine", "pipeline.judge", True),
        ("pipeline.engines", "pipeline.judge", False),
        ("pipeline.engine.Engine.outcomes", "pipeline.judge", True),
        ("pipeline.engine.Engine.results", "pipeline.judge", False),
        (".engine.Engine", "pipeline.judge", True),
        (".judge.Engine", "pipeline.engine", False),
        ("Judge.limits", "pipeline.judge", True),
        ("judge", "pipeline.judge", False),
        ("pipeline.io.MemoryBudget", "stages.data.index", True),  # imported by the package
        ("pipeline.bundle.FractureSpec.input", "stages.data.index", True),  # inherited
        ("click.Path", "pipeline.cli.run", True),
    ],
)
def test_only_existing_names_resolve(reference, module, expected):
    assert resolves(reference, module, ()) is expected
