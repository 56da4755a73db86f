"""Which weights folder a command takes, and how it says so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle import MANIFEST_NAME

if TYPE_CHECKING:
    from ..runtime.session import Weights


def default_weights() -> Path:
    """``./weights``, or the folder beside the packages of a source checkout."""
    here = Path("weights")
    beside = Path(__file__).resolve().parents[2] / "weights"
    return next((f for f in (here, beside) if (f / MANIFEST_NAME).exists()), here)


def weights_line(folder: Path, networks: Weights) -> str:
    """Whose word follows: the folder, and the training runs that its networks come from."""
    runs: dict[str, list[str]] = {}
    for network in networks.networks:
        made = network.spec.provenance
        names = runs.setdefault(made.created[:10], [])
        if made.run not in names:
            names.append(made.run)
    told = "; ".join(f"{', '.join(names)} of {day}" for day, names in runs.items())
    return f"weights: {folder}, {networks.precision} on {networks.device}, trained as {told}"
