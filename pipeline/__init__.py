"""fxpipe's consuming half: from files to verdicts with exported bundles, and never torch."""

import importlib.metadata
from collections.abc import Iterable

DISTRIBUTION = "fxpipe"


def version_of(distribution: str) -> str | None:
    """The version of an installed distribution; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions_of(distributions: Iterable[str]) -> dict[str, str]:
    """The version of each distribution that is installed, in the order given."""
    return {name: found for name in distributions if (found := version_of(name))}


def version() -> str:
    """The version of fxpipe; where it is not installed, words that say so."""
    return version_of(DISTRIBUTION) or "unknown (not installed)"
