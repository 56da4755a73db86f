"""The project is written in plain English."""

from __future__ import annotations

import shutil

import pytest
from plain_english import ROOT, count

MOST = 4.0
"""Idioms in 1,000 words; comparable projects have 1 to 3."""


def test_idioms_are_rare():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("the files are listed by git")
    idioms, words, found = count()
    assert words > 50_000
    assert 1000 * idioms / words < MOST, found.most_common(10)
