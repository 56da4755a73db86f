"""fxpipe's consuming half: from files to verdicts with exported bundles, and never torch."""

import importlib.metadata

DISTRIBUTION = "fxpipe"


def version() -> str:
    """The version of the distribution; where it is not installed, words that say so."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown (not installed)"
