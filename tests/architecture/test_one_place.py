"""Operations that only one module may contain, so that there is one implementation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = {
    r'"\.partial"|NamedTemporaryFile|\bos\.(replace|rename|fsync)\(': "pipeline/atomic.py",
    r"metadata\.version\(|metadata import version": "pipeline/__init__.py",
}
"""Pattern to the only file that may contain it."""


@pytest.mark.parametrize(("pattern", "place"), PLACES.items())
def test_operation_is_in_one_module(pattern, place):
    files = [
        path.relative_to(ROOT).as_posix()
        for package in ("pipeline", "stages")
        for path in sorted((ROOT / package).rglob("*.py"))
        if re.search(pattern, path.read_text(encoding="utf-8"))
    ]
    assert files == [place]
