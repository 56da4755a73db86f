"""How much of an unfinished run still holds for the files as they are now.

Kept is the longest beginning of the walk whose files have the content that was judged, and whose
rows stand in every output as they were written. So the outputs end as those of an uninterrupted
run over the files as they are: what appeared, changed or vanished costs the work behind it, never a
row. Nothing is moved about in the outputs.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import ImageError
from ..io import read_file
from ..ordered_pool import in_order
from ..outcome import Outcome
from ..outcome_json import from_json
from .journal import Json
from .record import path_text
from .stream import Mark

_PIECE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Done:
    """One file of the part that is kept.

    Attributes:
        path: The file.
        outcomes: Of its frames, without pictures and heatmaps.
        notes: Of each outcome, by output, what its writer noted.
    """

    path: Path
    outcomes: tuple[Outcome, ...]
    notes: tuple[Mapping[str, Any], ...]


@dataclass(slots=True)
class Kept:
    """The part of an unfinished run that is not done again.

    Attributes:
        journal: Where the journal goes on; its ``rows`` are files.
        outputs: By name, where the others go on; none when all begin.
        rows: In each of them.
        broken: Why not more of what was written down is kept; empty when all is.
    """

    journal: Mark
    outputs: dict[str, Mark] = field(default_factory=dict)
    rows: int = 0
    broken: str = ""


def keep(
    entries: Iterator[tuple[Json, Mark]],
    paths: Iterator[Path],
    output: Path,
    root: Path,
    threads: int,
    take: Callable[[Done], None],
    kept: Kept,
) -> Iterator[Path]:
    """Hold the journal against the walk, file by file.

    Args:
        entries: Of the journal, behind its first line.
        paths: The walk.
        output: The output folder.
        root: See :func:`pipeline.report.record.to_record`.
        threads: That read files.
        take: Called for each file that is kept, in order.
        kept: Brought up to date.

    Returns:
        The files that are left to do, in order.
    """
    pulled: deque[Path] = deque()
    told: deque[tuple[Json, Mark]] = deque()

    def tasks() -> Iterator[Callable[[], str]]:
        # The journal first: no path is taken from the walk that no entry is held against.
        for entry, path in zip(entries, paths, strict=False):
            told.append(entry)
            pulled.append(path)
            yield partial(_fault, entry[0], path, output, root)

    with closing(in_order(tasks(), threads, 2 * threads, "fxpipe-check")) as faults:
        for kept.broken in faults:
            if kept.broken:
                break
            entry, kept.journal = told.popleft()
            path = pulled.popleft()
            outcomes = tuple(from_json(one, path) for one in entry["outcomes"])
            kept.rows += len(outcomes)
            for name, (_, _, size, crc) in entry["outputs"].items():
                kept.outputs[name] = Mark(size, crc)
            take(Done(path, outcomes, tuple(entry["notes"])))
    kept.outputs = {
        name: Mark(mark.size, mark.crc, kept.rows) for name, mark in kept.outputs.items()
    }
    return chain(pulled, paths)


def _fault(entry: Mapping[str, Any], path: Path, output: Path, root: Path) -> str:
    """Why the rows of a file cannot be kept; empty when they can."""
    name = path_text(path, root)
    if entry["path"] != name:
        return f"{name}: a file that came, or {entry['path']} went"
    if not _same_content(entry["outcomes"][0], path):
        return f"{name}: changed"
    for file, span in entry["outputs"].items():
        if not _holds(output / file, *span):
            return f"{file}: not as it was written, from {name} on"
    for file in entry["heatmaps"]:
        if not (output / file).is_file():
            return f"{file}: gone"
    return ""


def _same_content(outcome: Json, path: Path) -> bool:
    """Whether a file has the digest it had, or cannot be read for the reason it could not.

    What was read and failed then fails again; what could not be read is tried again.
    """
    sha256: str | None = outcome["sha256"]
    if sha256 is None:
        try:
            read_file(path)
        except ImageError as error:
            return str(error) == str(outcome["error"])
        return False
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _holds(path: Path, start: int, start_crc: int, end: int, end_crc: int) -> bool:
    """Whether an output has between two places what was written there."""
    try:
        with path.open("rb") as file:
            file.seek(start, os.SEEK_SET)
            left, crc = end - start, start_crc
            while left and (piece := file.read(min(left, _PIECE_BYTES))):
                left, crc = left - len(piece), zlib.crc32(piece, crc)
    except OSError:
        return False
    return not left and crc == end_crc
