"""The default weights folder, and the line that describes the weights of a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle import MANIFEST_NAME

if TYPE_CHECKING:
    from ..runtime.session import Weights


def default_weights() -> Path:
    """``./weights``, or the folder next to the packages of a source checkout."""
    here = Path("weights")
    checkout = Path(__file__).resolve().parents[2] / "weights"
    return next((f for f in (here, checkout) if (f / MANIFEST_NAME).exists()), here)


def weights_line(folder: Path, networks: Weights) -> str:
    """One line about the weights: folder, precision, device, and the training runs with dates."""
    runs: dict[str, list[str]] = {}
    for network in networks.networks:
        provenance = network.spec.provenance
        names = runs.setdefault(provenance.created[:10], [])
        if provenance.run not in names:
            names.append(provenance.run)
    trained = "; ".join(f"{', '.join(names)} of {day}" for day, names in runs.items())
    return f"weights: {folder}, {networks.precision} on {networks.device}, trained as {trained}"
