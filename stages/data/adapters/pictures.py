"""Looking at the pictures of a data set: which files there are, and whether each can be decoded.

Every file is read and decoded once, in threads, so that a broken one is found here and not in a
night's training.
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

from pipeline.errors import (
    ImageError,
    IndexFaultsError,
    NotAPictureError,
    UnsupportedError,
)
from pipeline.io import decode, discover, read_file
from pipeline.progress import Progress, Silent

from ..index import Sample
from ..twins import flagged

logger = logging.getLogger(__name__)

T = TypeVar("T")

Watch = Callable[[int], AbstractContextManager[Progress]]
"""Given the number of pictures, shows how far the looking is."""

_BY_SYSTEMS = {"Thumbs.db", "desktop.ini", "__MACOSX", "DICOMDIR"}
"""Files and folders that operating systems and DICOM media add."""
_NAMED = 5

FLAGS = ("truncated", "unreadable", "not_a_radiograph", "not_a_picture")


@dataclass(frozen=True, slots=True)
class Look:
    """What reading one file gave.

    Attributes:
        sha256: Of the file; empty when it cannot be read.
        flag: One of ``FLAGS``; empty for a picture that can be decoded.
        fault: The same in a sentence.
    """

    sha256: str
    flag: str = ""
    fault: str = ""


def unwatched(_: int) -> AbstractContextManager[Progress]:
    """Shows nothing."""
    return nullcontext(Silent())


def walk(folder: Path) -> list[Path]:
    """Every file below a folder in a stable order, but for hidden ones; how many is logged.

    Hidden are names with a dot in front (``._image1.png`` of macOS, of which MURA has some) and
    what operating systems leave behind.

    Raises:
        InputMissingError: No such folder, or no file in it.
    """
    found = list(discover(folder))
    shown = [path for path in found if not any(map(hidden, path.relative_to(folder).parts))]
    if len(shown) < len(found):
        logger.info("%s: %d hidden files were skipped", folder, len(found) - len(shown))
    return shown


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the data set's."""
    return name.startswith(".") or name in _BY_SYSTEMS


def named(names: Iterable[object]) -> str:
    """The first few in words."""
    words = [str(name) for name in names]
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return ", ".join(words[:_NAMED]) + more


def counted(words: Iterable[str]) -> str:
    """Each with its number, the most frequent first."""
    return named(f"{word!r} {n} times" for word, n in Counter(words).most_common())


def each(paths: Sequence[Path], work: Callable[[Path], T], watch: Watch) -> list[T]:
    """Do the work on every file, in order."""
    done = []
    # Threads and not processes: decoding leaves the interpreter's lock.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool, watch(len(paths)) as progress:
        for result in pool.map(work, paths):
            done.append(result)
            progress.advance()
    return done


def look_at(path: Path) -> Look:
    """Read and decode one file, every frame of it."""
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
    # In the words of Pillow and of our own DICOM reader; the name in front may say anything.
    words = str(error).removeprefix(path.name).lower()
    return "truncated" if "truncated" in words else "unreadable"


def looked_at(rows: Sequence[Sample], watch: Watch, listed: bool = False) -> list[Sample]:
    """The rows with the digests of their files; those that cannot be decoded flagged, excluded.

    Args:
        rows: One a file.
        watch: Told of the progress.
        listed: Whether the data set names each file. If not, a file that neither is a picture nor
            claims to be one by its name (a read-me, say) loses its row.
    """
    return judged(rows, each([row.path for row in rows], look_at, watch), listed)


def judged(rows: Sequence[Sample], looks: Sequence[Look], listed: bool) -> list[Sample]:
    """As :func:`looked_at`, with what looking gave."""
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
        logger.info("%d files are no pictures and have no row: %s", len(others), named(others))
    if broken:
        logger.warning("%d pictures are excluded, the first: %s", len(broken), broken[0])
    return kept


def missing(paths: Iterable[tuple[str, Path]]) -> list[str]:
    """A fault for each file that is not there.

    Args:
        paths: Where it is listed, in words, and the file.
    """
    return [f"{where}: no picture {path}" for where, path in paths if not path.is_file()]


def refuse(source: Path, faults: Sequence[str]) -> None:
    """Raise all faults at once, if there are any.

    Raises:
        IndexFaultsError: There are.
    """
    if faults:
        raise IndexFaultsError(str(source), faults)


def descend(folder: Path, fits: Callable[[Path], bool]) -> Path | None:
    """The folder, or the only one directly in it, that fits; None when there is none or several.

    Archives are often unpacked into a folder of their own.
    """
    if not folder.is_dir():
        return None
    if fits(folder):
        return folder
    inside = [path for path in folder.iterdir() if path.is_dir() and not hidden(path.name)]
    fitting = [path for path in inside if fits(path)]
    return fitting[0] if len(fitting) == 1 else None
