"""Fixtures of the tests of data tables."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _propagate_stages_log(monkeypatch):
    """Pass log records on to ``caplog``, also after another test has configured logging."""
    monkeypatch.setattr(logging.getLogger("stages"), "propagate", True)
