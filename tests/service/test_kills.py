"""A service that is killed during uploads loses and duplicates no picture."""

from __future__ import annotations

import service_kills
from tiny_networks import write_bundles


def test_killed_service_loses_and_duplicates_no_picture(tmp_path):
    counts = service_kills.run(tmp_path / "data", write_bundles(tmp_path / "weights"), kills=3)
    assert counts["acknowledged"] > 0
    assert (counts["lost"], counts["doubled"], counts["without_file"]) == (0, 0, 0)
