"""The inputs of ``fxpipe run``: files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from ..config import RunConfig
from ..errors import UsageError
from ..io.discover import discover
from ._extras import needs

if TYPE_CHECKING:
    from ..io.remote import Fetched

_FETCH_THREADS = 8
"""An object store answers slowly, but many requests at once."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files and folders, read in this order.

    Attributes:
        paths: The inputs; none is inside another.
        root: The folder to which paths in the results are relative. For one input: the folder, or
            the folder of the file. For several: their deepest common folder.
    """

    paths: tuple[Path, ...]
    root: Path

    @property
    def text(self) -> str:
        """The inputs in words, for the journal of a run."""
        return ", ".join(str(path.resolve()) for path in self.paths)

    def files(
        self, exclude: Path | None = None, left_out: dict[Path, None] | None = None
    ) -> Iterator[Path]:
        """Every file; see :func:`pipeline.io.discover.discover`.

        Raises:
            InputMissingError: One of the paths does not exist or contains no file. Raised before
                the first file is returned.
        """
        walks = [discover(path, exclude, left_out) for path in self.paths]
        firsts = [next(walk) for walk in walks]
        return chain.from_iterable(
            chain([first], walk) for first, walk in zip(firsts, walks, strict=True)
        )


def inputs_of(paths: Sequence[Path]) -> Inputs:
    """The inputs of a run, in the order of the command line.

    Raises:
        UsageError: One input is inside another, or the inputs have no common folder.
    """
    if len(paths) == 1:
        return Inputs(tuple(paths), paths[0] if paths[0].is_dir() else paths[0].parent)
    for one, other in combinations(paths, 2):
        inner, outer = sorted((one, other), key=lambda path: -len(path.resolve().parts))
        if inner.resolve().is_relative_to(outer.resolve()):
            raise UsageError(
                f"--input {inner} is inside --input {outer}; each file must be given once",
                "name only one of them",
            )
    whole = [path.absolute() for path in paths]
    folders = [path if path.is_dir() else path.parent for path in whole]
    try:
        root = Path(os.path.commonpath(folders))
    except ValueError as error:  # Windows drives
        raise UsageError(
            "the inputs are on several drives; they must be on one",
            "run a separate command for each drive",
        ) from error
    return Inputs(tuple(whole), root)


def opened_url(
    ctx: click.Context, sources: Sequence[Path | str], config: RunConfig
) -> Fetched | None:
    """The local copies of a remote input; None without one.

    Args:
        ctx: Removes the temporary folder at the end of the command.
        sources: All inputs.
        config: Number of files to fetch at the same time.

    Raises:
        UsageError: There is another input besides a remote one.
        InputMissingError: It cannot be accessed.
        MissingExtraError: fsspec or a file system is not installed.
    """
    urls = [one for one in sources if isinstance(one, str)]
    if not urls:
        return None
    if len(sources) > 1:
        raise UsageError(
            f"found {len(sources)} inputs with {urls[0]}, expected a URL alone",
            "run a separate command for each URL",
        )
    from ..io.remote import Fetched, RemoteFolder

    with needs("remote"):
        remote = RemoteFolder(urls[0])
    temporary = TemporaryDirectory(prefix="fxpipe-", ignore_cleanup_errors=True)
    folder = Path(ctx.with_resource(temporary))
    threads = max(_FETCH_THREADS, config.reader_threads)
    return Fetched(remote, folder, 2 * threads, threads)
