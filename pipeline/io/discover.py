"""Which files a run looks at, in which order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputMissingError
from .own import OVERLAYS, without_results


def discover(
    root: Path, exclude: Path | None = None, left_out: dict[Path, None] | None = None
) -> Iterator[Path]:
    """Walk a folder lazily and yield every file in it, hidden ones and non-pictures included.

    One row comes out for every file that goes in, so nothing is left out here but results of
    fxpipe: the folder ``exclude``, and in a folder with a ``results.csv`` of fxpipe the files that
    a run writes there, by their names. Whatever else lies in it is yielded. Entries are sorted
    by name (code points, files and folders together) in each folder: the same order on every
    platform. Symlinked files are followed; symlinked folders are not descended, for they may form
    loops. A folder that cannot be listed is yielded itself: reading it gives its failed row. So are
    broken links, pipes, sockets and devices, none of which is ever opened.

    Args:
        root: A file or a folder.
        exclude: A folder below ``root`` that is not entered (the output folder).
        left_out: Filled with the folders of results that were met, in order.

    Raises:
        InputMissingError: At once when ``root`` does not exist; at the end of the walk when it
            holds no file.
    """
    if not os.path.lexists(root):
        raise InputMissingError(
            f"{root}: found nothing there, wanted a file or a folder", "check the spelling"
        )
    if not root.is_dir():
        return iter((root,))
    return _walk(root, _below(root, exclude), {} if left_out is None else left_out)


def _below(root: Path, exclude: Path | None) -> Path | None:
    """``exclude`` written as a path that the walk from ``root`` meets; None when it meets none."""
    if exclude is None:
        return None
    real_root, real_exclude = root.resolve(), exclude.resolve()
    if real_exclude == real_root or not real_exclude.is_relative_to(real_root):
        return None
    return root / real_exclude.relative_to(real_root)


def _walk(root: Path, exclude: Path | None, left_out: dict[Path, None]) -> Iterator[Path]:
    found = False
    # A stack in place of recursion: nesting is limited by the disk, not by Python.
    stack = [_entries(root, left_out)]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, Path):
            found = True
            yield entry
        elif _is_folder(entry):
            if Path(entry.path) == exclude:
                left_out[Path(entry.path)] = None
            else:
                stack.append(_entries(Path(entry.path), left_out))
        elif _is_wanted(entry):
            found = True
            yield Path(entry.path)
    if not found:
        what = "nothing but results of fxpipe" if left_out else "a folder without files"
        raise InputMissingError(f"{root}: found {what}, wanted at least one file")


def _entries(folder: Path, left_out: dict[Path, None]) -> Iterator[os.DirEntry[str] | Path]:
    """The entries of one folder by name; the folder itself when it cannot be listed."""
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


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    """Everything but links to folders; what is no regular file gets a row that says so."""
    try:
        return not entry.is_dir()
    except OSError:
        return True
