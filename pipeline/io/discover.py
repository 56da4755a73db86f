"""Which files a run looks at, in which order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputMissingError


def discover(root: Path, exclude: Path | None = None) -> Iterator[Path]:
    """Walk a folder lazily and yield every file in it, hidden ones and non-pictures included.

    One row comes out for every file that goes in, so nothing is left out here. Entries are sorted
    by name (code points, files and folders together) in each folder: the same order on every
    platform. Symlinked files are followed; symlinked folders are not descended, for they may form
    loops. A folder that cannot be listed is yielded itself: reading it gives its failed row. So are
    broken links, pipes, sockets and devices, none of which is ever opened.

    Args:
        root: A file or a folder.
        exclude: A folder below ``root`` that is not entered (the output folder).

    Raises:
        InputMissingError: At once when ``root`` does not exist; at the end of the walk when it
            holds no file.
    """
    if not os.path.lexists(root):
        raise InputMissingError(
            f"{root}: found nothing there, wanted a file or a folder", "check the spelling"
        )
    return _walk(root, _below(root, exclude)) if root.is_dir() else iter((root,))


def _below(root: Path, exclude: Path | None) -> Path | None:
    """``exclude`` written as a path that the walk from ``root`` meets; None when it meets none."""
    if exclude is None:
        return None
    real_root, real_exclude = root.resolve(), exclude.resolve()
    if real_exclude == real_root or not real_exclude.is_relative_to(real_root):
        return None
    return root / real_exclude.relative_to(real_root)


def _walk(root: Path, exclude: Path | None) -> Iterator[Path]:
    found = False
    # A stack in place of recursion: nesting is limited by the disk, not by Python.
    stack = [_entries(root)]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, Path):
            found = True
            yield entry
        elif _is_folder(entry):
            if Path(entry.path) != exclude:
                stack.append(_entries(Path(entry.path)))
        elif _is_wanted(entry):
            found = True
            yield Path(entry.path)
    if not found:
        raise InputMissingError(f"{root}: found a folder without files, wanted at least one file")


def _entries(folder: Path) -> Iterator[os.DirEntry[str] | Path]:
    """The entries of one folder by name; the folder itself when it cannot be listed."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        return iter((folder,))
    return iter(entries)


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
