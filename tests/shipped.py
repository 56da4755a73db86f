"""How the weights in the repository are opened."""

from __future__ import annotations

GATE = "off"
"""They have no density gate yet. With weights that have one this module goes, and its uses too."""
UNGATED = ("--set", f"gate={GATE}")
