"""Determines which part of an unfinished run is still valid for the present files.

The kept part is the longest beginning of the file list for which every file has the content that
was judged, and every output contains the rows as they were written. The final outputs are therefore
those of an uninterrupted run over the present files. If a file was added, changed or removed, all
later files are judged again; no row is lost. Rows in the outputs are never reordered.
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
    """One file of the kept part.

    Attributes:
        path: The file.
        outcomes: Outcomes of its frames, without pictures and heatmaps.
        notes: For each outcome, the notes of the writers by output name.
    """

    path: Path
    outcomes: tuple[Outcome, ...]
    notes: tuple[Mapping[str, Any], ...]


@dataclass(slots=True)
class Kept:
    """The part of an unfinished run that is not done again.

    Attributes:
        journal: Position where the journal continues; its ``rows`` are files.
        outputs: Positions where the outputs continue, by name; empty if all are new.
        rows: Number of rows in each output.
        broken: Why the rest of the journal is not kept; empty if all of it is.
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
    """Compare the journal with the list of files, file by file.

    Args:
        entries: Lines of the journal after the first.
        paths: The files of the inputs, in order.
        output: The output folder.
        root: See :func:`pipeline.report.record.to_record`.
        threads: Number of threads that read files.
        take: Called for each kept file, in order.
        kept: Updated with the kept part.

    Returns:
        The remaining files, in order.
    """
    pending_paths: deque[Path] = deque()
    pending_entries: deque[tuple[Json, Mark]] = deque()

    def tasks() -> Iterator[Callable[[], str]]:
        # zip takes the entry first, so no path is consumed without an entry to compare it with.
        for entry, path in zip(entries, paths, strict=False):
            pending_entries.append(entry)
            pending_paths.append(path)
            yield partial(_fault, entry[0], path, output, root)

    with closing(in_order(tasks(), threads, 2 * threads, "fxpipe-check")) as faults:
        for kept.broken in faults:
            if kept.broken:
                break
            entry, kept.journal = pending_entries.popleft()
            path = pending_paths.popleft()
            outcomes = tuple(from_json(one, path) for one in entry["outcomes"])
            kept.rows += len(outcomes)
            for name, (_, _, size, crc) in entry["outputs"].items():
                kept.outputs[name] = Mark(size, crc)
            take(Done(path, outcomes, tuple(entry["notes"])))
    kept.outputs = {
        name: Mark(mark.size, mark.crc, kept.rows) for name, mark in kept.outputs.items()
    }
    return chain(pending_paths, paths)


def _fault(entry: Mapping[str, Any], path: Path, output: Path, root: Path) -> str:
    """The reason why the rows of a file cannot be kept; empty if they can."""
    name = path_text(path, root)
    if entry["path"] != name:
        return f"{name} was added, or {entry['path']} was removed"
    if not _same_content(entry["outcomes"][0], path):
        return f"{name} was changed"
    for file, span in entry["outputs"].items():
        if not _contains_span(output / file, *span):
            return f"{file} was changed from {name} on"
    for file in entry["heatmaps"]:
        if not (output / file).is_file():
            return f"{file} is missing"
    return ""


def _same_content(outcome: Json, path: Path) -> bool:
    """Whether a file still has its digest or, if it could not be read, the same read error.

    A file that was read and failed would fail again, so it is kept. A file that could not be read
    is tried again.
    """
    sha256: str | None = outcome["sha256"]
    if sha256 is None:
        try:
            read_file(path)
        except ImageError as error:
            return str(error) == str(outcome["error"])
        return False
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe might never end
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _contains_span(path: Path, start: int, start_crc: int, end: int, end_crc: int) -> bool:
    """Whether an output still contains the bytes written between two positions."""
    try:
        with path.open("rb") as file:
            file.seek(start, os.SEEK_SET)
            remaining, crc = end - start, start_crc
            while remaining and (piece := file.read(min(remaining, _PIECE_BYTES))):
                remaining, crc = remaining - len(piece), zlib.crc32(piece, crc)
    except OSError:
        return False
    return not remaining and crc == end_crc
