"""Listing and checking of the pictures of a data set.

Every file is read and decoded once, in threads, so that a broken one is found before training.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pipeline.errors import ImageError, IndexFaultsError, NotAPictureError, UnsupportedError
from pipeline.io import decode, discover, read_file
from pipeline.progress import Progress, Silent

from ...samples import Sample
from ..exact_duplicates import flagged

logger = logging.getLogger(__name__)

T = TypeVar("T")

Watch = Callable[[int], AbstractContextManager[Progress]]
"""Takes the number of pictures and shows the progress of checking them."""

_SYSTEM_NAMES = {"Thumbs.db", "desktop.ini", "__MACOSX", "DICOMDIR"}
"""Files and folders that operating systems and DICOM media add."""
_MAX_NAMES = 5

FLAGS = ("truncated", "unreadable", "not_a_radiograph", "not_a_picture")


@dataclass(frozen=True, slots=True)
class Look:
    """The result of checking one file.

    Attributes:
        sha256: Of the file; empty when it cannot be read.
        flag: One of ``FLAGS``; empty for a picture that can be decoded.
        fault: Message for the flag.
    """

    sha256: str
    flag: str = ""
    fault: str = ""


def unwatched(_: int) -> AbstractContextManager[Progress]:
    """Show nothing."""
    return nullcontext(Silent())


def walk(folder: Path) -> list[Path]:
    """List every file in a folder in a stable order; hidden files are skipped and counted in a log.

    Hidden files have a name with a leading dot (``._image1.png`` of macOS, as in MURA) or are
    system files.

    Raises:
        InputMissingError: The folder does not exist or is empty.
    """
    files = list(discover(folder))
    visible = [path for path in files if not any(map(hidden, path.relative_to(folder).parts))]
    if len(visible) < len(files):
        logger.info("%s: %d hidden files were skipped", folder, len(files) - len(visible))
    return visible


def hidden(name: str) -> bool:
    """Whether a file or folder of this name does not belong to the data set."""
    return name.startswith(".") or name in _SYSTEM_NAMES


def named(names: Iterable[object]) -> str:
    """The first few names, and the number of the others."""
    words = [str(name) for name in names]
    more = f" and {len(words) - _MAX_NAMES} more" if len(words) > _MAX_NAMES else ""
    return ", ".join(words[:_MAX_NAMES]) + more


def counted(words: Iterable[str]) -> str:
    """Each word with its count, the most frequent first."""
    return named(f"{word!r} {n} times" for word, n in Counter(words).most_common())


def each(paths: Sequence[Path], work: Callable[[Path], T], watch: Watch) -> list[T]:
    """Apply ``work`` to every file; the results are in order."""
    results = []
    # Threads suffice: decoding releases the interpreter's lock.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool, watch(len(paths)) as progress:
        for result in pool.map(work, paths):
            results.append(result)
            progress.advance()
    return results


def look_at(path: Path) -> Look:
    """Read and decode one file with all its frames."""
    digest = ""
    try:
        content, digest = read_file(path)
        for _ in decode(content, path, digest):
            pass
    except ImageError as error:
        return Look(digest, _flag(error, path), str(error))
    return Look(digest)


def _flag(error: ImageError, path: Path) -> str:
    if isinstance(error, NotAPictureError):
        return "not_a_picture"
    if isinstance(error, UnsupportedError):
        return "not_a_radiograph"
    # Messages of Pillow and of the DICOM reader; the leading file name may contain any word.
    words = str(error).removeprefix(path.name).lower()
    return "truncated" if "truncated" in words else "unreadable"


def looked_at(rows: Sequence[Sample], watch: Watch, listed: bool = False) -> list[Sample]:
    """Check the files and add their digests; undecodable ones are flagged and excluded.

    Args:
        rows: One per file.
        watch: Shows the progress.
        listed: Whether the data set lists each file. If not, a file that is not a picture and has
            no picture's name (such as a read-me) loses its row.
    """
    return judged(rows, each([row.path for row in rows], look_at, watch), listed)


def judged(rows: Sequence[Sample], looks: Sequence[Look], listed: bool) -> list[Sample]:
    """As :func:`looked_at`, from given check results."""
    kept, broken, others = [], [], []
    for row, look in zip(rows, looks, strict=True):
        if look.flag == "not_a_picture" and not listed:
            others.append(row.path.name)
            continue
        known = replace(row, sha256=look.sha256)
        flag = "unreadable" if look.flag == "not_a_picture" else look.flag
        kept.append(flagged(known, flag) if flag else known)
        if look.flag:
            broken.append(look.fault)
    if others:
        logger.info("%d files are not pictures and were skipped: %s", len(others), named(others))
    if broken:
        logger.warning("%d pictures were excluded, the first: %s", len(broken), broken[0])
    return kept


def missing(paths: Iterable[tuple[str, Path]]) -> list[str]:
    """A fault for each file that does not exist.

    Args:
        paths: Location of the entry, for the message, and the file.
    """
    return [f"{where}: picture {path} not found" for where, path in paths if not path.is_file()]


def refuse(source: Path, faults: Sequence[str]) -> None:
    """Raise an error with all faults, if there are any.

    Raises:
        IndexFaultsError: There are faults.
    """
    if faults:
        raise IndexFaultsError(str(source), faults)


def descend(folder: Path, fits: Callable[[Path], bool]) -> Path | None:
    """The folder, or its only direct subfolder, that fits; None if none or several do.

    Archives are often unpacked into an extra folder.
    """
    if not folder.is_dir():
        return None
    if fits(folder):
        return folder
    subfolders = [path for path in folder.iterdir() if path.is_dir() and not hidden(path.name)]
    fitting = [path for path in subfolders if fits(path)]
    return fitting[0] if len(fitting) == 1 else None
