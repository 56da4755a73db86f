"""What only one file may do, so that nobody writes a second copy of it."""

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
def test_it_is_in_one_place(pattern, place):
    found = [
        path.relative_to(ROOT).as_posix()
        for half in ("pipeline", "stages")
        for path in sorted((ROOT / half).rglob("*.py"))
        if re.search(pattern, path.read_text(encoding="utf-8"))
    ]
    assert found == [place]
