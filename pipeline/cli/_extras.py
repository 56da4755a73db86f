"""Commands that need an optional part of fxpipe say so when it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import MissingExtraError

_OWN = ("pipeline", "stages")


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a missing third-party module inside the block into advice.

    ::

        with needs("train"):
            from stages.train import train

    Args:
        extra: The extra that brings the modules, as in ``fxpipe[train]``.

    Raises:
        MissingExtraError: A module of another distribution is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if missing.partition(".")[0] in _OWN and missing not in _OWN:
            raise  # a fault of fxpipe's own
        raise MissingExtraError(
            f"the module {missing!r} is not installed", f'pip install "fxpipe[{extra}]"'
        ) from error
