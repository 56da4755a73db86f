"""The journal of an unfinished run: one line for each file that is completely written.

The journal exists only while a run is unfinished, and decides what of it is valid. Its first line
describes the run. Each other line contains a file, its digest, its outcomes, and the end of each
output after its last row. Lines and outputs have checksums, so a partly written output is detected
in whatever order the disk stored the parts.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..outcome import Outcome
from ..outcome_json import to_json
from .record import heatmap_files, image_text
from .stream import BEGINNING, Mark, Stream, write_whole
from .writer import StreamWriter, Writer

NAME = "unfinished.journal"
_SYNC_S = 5.0
"""Seconds between syncs: the work that a power failure can lose. A kill loses no flushed data."""

Json = dict[str, Any]


class Journal:
    """A :class:`~pipeline.report.writer.ReportWriter` that runs after all others.

    A file is recorded when the next one begins, because only then all its frames are written. When
    the ``with`` block ends without an exception, the run is finished and the journal is removed.

    Args:
        output: The output folder.
        root: See :func:`pipeline.report.record.to_record`.
        after: Position where the journal of an unfinished run continues, with the number of files
            before it.
    """

    def __init__(self, output: Path, root: Path, after: Mark) -> None:
        self.files = after.rows
        self._root = root
        self._stream = Stream(output / NAME, after)
        self._streams: Sequence[Stream] = ()
        self._writers: Mapping[str, Writer] = {}
        self._begun: Mapping[str, Mark] = {}
        self._ended: Mapping[str, Mark] = {}
        self._notes: list[dict[str, Any]] = []
        self._open: list[Outcome] = []
        self._synced = time.monotonic()

    def follow(self, writers: Mapping[str, Writer], marks: Mapping[str, Mark]) -> None:
        """Record the positions of these outputs, and the notes of their writers.

        Args:
            writers: Writers by the name of the output.
            marks: Positions where outputs continue, by file name; new outputs are missing.
        """
        self._writers = writers
        streams = [one.stream for one in writers.values() if isinstance(one, StreamWriter)]
        self._streams = streams
        self._begun = {
            stream.path.name: marks.get(stream.path.name, BEGINNING) for stream in streams
        }

    def write(self, outcome: Outcome) -> None:
        """Take one outcome that all other writers have written."""
        if self._open and self._open[0].image.path != outcome.image.path:
            self._commit()
        self._open.append(outcome)
        self._ended = {stream.path.name: stream.mark for stream in self._streams}
        notes = {name: writer.noted() for name, writer in self._writers.items()}
        self._notes.append({name: note for name, note in notes.items() if note is not None})
        if time.monotonic() - self._synced > _SYNC_S:
            for stream in (*self._streams, self._stream):
                stream.sync()
            self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close(whole=False)
        if kind is None:
            self._stream.path.unlink(missing_ok=True)

    def _commit(self) -> None:
        """Write the line of the completed file."""
        image = self._open[0].image
        files = [file for outcome in self._open for file in heatmap_files(outcome).values()]
        entry = {
            "path": image_text(image, self._root),
            "outcomes": [to_json(outcome) for outcome in self._open],
            "outputs": {
                name: [begun.size, begun.crc, self._ended[name].size, self._ended[name].crc]
                for name, begun in self._begun.items()
            },
            "heatmaps": files,
            "notes": self._notes,
        }
        self._stream.write(_line(entry))
        self._stream.flush()
        self.files += 1
        self._begun, self._open, self._notes = self._ended, [], []


def begin(output: Path, about: Json) -> Mark:
    """Start a journal; an existing one is replaced.

    Args:
        output: The output folder.
        about: Description of the run.

    Returns:
        The end of the first line.
    """
    content = _line(about).encode()
    write_whole(output / NAME, content)
    return Mark(len(content), zlib.crc32(content))


def read(output: Path) -> Iterator[tuple[Json, Mark]]:
    """The complete lines, up to the first incomplete one; none without a journal.

    Yields:
        Content of the line, and its end, with the number of files up to there.
    """
    try:
        file = (output / NAME).open("rb")
    except FileNotFoundError:
        return
    size = crc = 0
    with file:
        for files, line in enumerate(file):
            content = _content(line)
            if content is None:
                return
            size, crc = size + len(line), zlib.crc32(line, crc)
            yield content, Mark(size, crc, files)


def _line(content: Json) -> str:
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def _content(line: bytes) -> Json | None:
    """The content of a line; None if it is incomplete."""
    if not line.endswith(b"\n") or line[:8] != b"%08x" % zlib.crc32(line[9:-1]):
        return None
    content: Json = json.loads(line[9:])
    return content
