"""Counts the pictures that each network evaluates, in batches of any size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.runtime.graph import Graph


def count_rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Start counting; the returned dict has the rows so far by name of the bundle."""
    rows: dict[str, int] = {}
    original = Graph.run

    def counted(self: Graph, outputs: Sequence[str], inputs: np.ndarray) -> list[np.ndarray]:
        rows[self.name] = rows.get(self.name, 0) + len(inputs)
        return original(self, outputs, inputs)

    monkeypatch.setattr(Graph, "run", counted)
    return rows
