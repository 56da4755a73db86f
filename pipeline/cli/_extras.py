"""Error message for a command that needs an optional part of fxpipe that is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import MissingExtraError

_PACKAGES = ("pipeline", "stages")


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a missing third-party module inside the block into an error with install advice.

    ::

        with needs("train"):
            from stages.train import train

    Args:
        extra: The extra that installs the modules, as in ``fxpipe[train]``.

    Raises:
        MissingExtraError: A module of another distribution is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if missing.partition(".")[0] in _PACKAGES and missing not in _PACKAGES:
            raise  # a bug in fxpipe
        raise MissingExtraError(
            f"the module {missing!r} is not installed", f'pip install "fxpipe[{extra}]"'
        ) from error
