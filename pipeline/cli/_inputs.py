"""The inputs of ``fxpipe run``: files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path

from ..errors import UsageError
from ..io.discover import discover


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
