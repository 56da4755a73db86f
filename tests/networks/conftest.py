"""Fixtures of the tests that run tiny networks."""

from __future__ import annotations

import pytest
from engine_runs import open_bundles

from pipeline.runtime.session import Weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Weights:
    """Open bundles: trunk, region stage and one specialist for each region."""
    return open_bundles(tmp_path_factory.mktemp("weights"))
