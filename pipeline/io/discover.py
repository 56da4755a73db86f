"""Search for the input files of a run, in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputMissingError
from .own_output import OVERLAYS, without_results


def discover(
    root: Path, exclude: Path | None = None, left_out: dict[Path, None] | None = None
) -> Iterator[Path]:
    """Walk a folder lazily and yield every file in it, including hidden files and non-pictures.

    Every input file gets a row, so only results of fxpipe are skipped: the folder ``exclude``, and
    the files that a run writes to a folder with a ``results.csv`` of fxpipe, by name. All other
    files there are yielded. Entries of each folder are sorted by name (code points, files and
    folders together), so the order is the same on every platform. Links to files are followed,
    links to folders are not, because they may form loops. A folder that cannot be listed is yielded
    itself, so that it gets a failed row. So are broken links, pipes, sockets and devices; none of
    these is ever opened.

    Args:
        root: A file or a folder.
        exclude: A folder below ``root`` to skip (the output folder).
        left_out: Filled with the skipped folders of results, in order.

    Raises:
        InputMissingError: ``root`` does not exist (raised at once), or contains no file (raised at
            the end of the walk).
    """
    if not os.path.lexists(root):
        raise InputMissingError(
            f"{root}: not found, expected a file or a folder", "check the spelling"
        )
    if not root.is_dir():
        return iter((root,))
    return _walk(root, _below(root, exclude), {} if left_out is None else left_out)


def _below(root: Path, exclude: Path | None) -> Path | None:
    """``exclude`` as a path below ``root``; None if it is elsewhere."""
    if exclude is None:
        return None
    real_root, real_exclude = root.resolve(), exclude.resolve()
    if real_exclude == real_root or not real_exclude.is_relative_to(real_root):
        return None
    return root / real_exclude.relative_to(real_root)


def _walk(root: Path, exclude: Path | None, left_out: dict[Path, None]) -> Iterator[Path]:
    any_file = False
    # A stack instead of recursion, because folders may be nested deeper than Python allows.
    stack = [_entries(root, left_out)]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, Path):
            any_file = True
            yield entry
        elif _is_folder(entry):
            if Path(entry.path) == exclude:
                left_out[Path(entry.path)] = None
            else:
                stack.append(_entries(Path(entry.path), left_out))
        elif _is_input(entry):
            any_file = True
            yield Path(entry.path)
    if not any_file:
        content = "only results of fxpipe" if left_out else "a folder without files"
        raise InputMissingError(f"{root}: found {content}, expected at least one file")


def _entries(folder: Path, left_out: dict[Path, None]) -> Iterator[os.DirEntry[str] | Path]:
    """Entries of one folder by name; the folder itself if it cannot be listed."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        return iter((folder,))
    others = without_results(folder, entries)
    if len(others) < len(entries):
        left_out[folder.parent if folder.name == OVERLAYS else folder] = None
    return iter(others)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _is_input(entry: os.DirEntry[str]) -> bool:
    """Whether an entry gets a row: anything except links to folders."""
    try:
        return not entry.is_dir()
    except OSError:
        return True
