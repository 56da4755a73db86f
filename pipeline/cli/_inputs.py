"""What ``fxpipe run`` is to read: one file or folder, or several."""

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
        paths: None of them lies in another one.
        root: The folder to which paths in the results are relative: the only folder, or that of the
            only file, else the innermost one that holds all of them.
    """

    paths: tuple[Path, ...]
    root: Path

    def files(
        self, exclude: Path | None = None, left_out: dict[Path, None] | None = None
    ) -> Iterator[Path]:
        """Every file; see :func:`pipeline.io.discover.discover`.

        Raises:
            InputMissingError: At once when one of the paths does not exist or holds no file.
        """
        walks = [discover(path, exclude, left_out) for path in self.paths]
        firsts = [next(walk) for walk in walks]
        return chain.from_iterable(
            chain([first], walk) for first, walk in zip(firsts, walks, strict=True)
        )


def inputs_of(paths: Sequence[Path]) -> Inputs:
    """The inputs of a run, in the order in which they were given.

    Raises:
        UsageError: One of them lies in another one, or no folder holds all of them.
    """
    if len(paths) == 1:
        return Inputs(tuple(paths), paths[0] if paths[0].is_dir() else paths[0].parent)
    for one, other in combinations(paths, 2):
        inner, outer = sorted((one, other), key=lambda path: -len(path.resolve().parts))
        if inner.resolve().is_relative_to(outer.resolve()):
            raise UsageError(
                f"--input {inner} lies in --input {outer}, wanted each file once",
                "name one of them",
            )
    whole = [path.absolute() for path in paths]
    folders = [path if path.is_dir() else path.parent for path in whole]
    try:
        root = Path(os.path.commonpath(folders))
    except ValueError as error:  # drives of Windows
        raise UsageError(
            "found inputs on several drives, wanted them on one", "give a command for each drive"
        ) from error
    return Inputs(tuple(whole), root)
