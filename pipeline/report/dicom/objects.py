"""Writes the DICOM objects of every judged DICOM picture, one file each."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Self

from highdicom import SOPClass

from ... import version
from ...config import RunConfig
from ...errors import ImageError
from ...io.warning_filter import quiet
from ...outcome import Outcome, Status
from ..record import plain
from ..stream import write_whole
from ..writer import Job, Writer
from .object_provenance import Kind, Run
from .origin import Origin, OriginError, read_origin
from .presentation_state import presentation_state
from .secondary_capture import secondary_capture
from .structured_report import structured_report

log = logging.getLogger(__name__)

_Make = Callable[[int], SOPClass]


@dataclass(frozen=True, slots=True)
class Made:
    """A DICOM object in memory.

    Attributes:
        kind: Of the object.
        uid: Its SOPInstanceUID.
        series: Key of its kind and study, a digest: notes are kept where no identifier may be.
        name: File name without suffix; it has no name of a file or a patient in it.
        content: The file.
    """

    kind: Kind
    uid: str
    series: str
    name: str
    content: bytes = field(repr=False)


class Maker:
    """Makes the objects of pictures, and numbers them in their series.

    Args:
        run: Weights and settings that the outcomes come from.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._last: tuple[tuple[Path | None, str | None], Origin] | None = None
        self.numbers: Counter[str] = Counter()

    def objects(self, outcome: Outcome) -> list[Made]:
        """Everything about a picture with a verdict, or nothing.

        Args:
            outcome: With the header of a DICOM file that can be read again.

        Raises:
            ImageError: There can be none.
        """
        name = outcome.image.name
        made: list[Made] = []
        numbers = self.numbers.copy()
        try:
            with quiet():
                origin = self._origin(outcome)
                for kind, word, make in self._makers(outcome, origin):
                    series = _series_key(kind, origin)
                    numbers[series] += 1
                    uid, content = _written(make(numbers[series]))
                    made.append(Made(kind, uid, series, _file_name(outcome, word), content))
        except ImageError:
            raise
        # Broad, as in decoding: pydicom and highdicom raise nearly anything on a malformed
        # header. Only the type is told, because the text may quote patient identifiers.
        except Exception as error:
            raise OriginError(
                f"{name}: found a header of which none can be made ({type(error).__name__})"
            ) from error
        self.numbers = numbers
        return made

    def _makers(self, outcome: Outcome, origin: Origin) -> Iterator[tuple[Kind, str, _Make]]:
        run, rendered = self._run, outcome.rendered
        yield Kind.REPORT, "report", partial(structured_report, outcome, origin, run)
        shown = [(f, f.heatmap) for f in outcome.findings if f.heatmap is not None]
        if rendered is None or not shown:
            return
        if origin.burned_in and not run.keeps_identity:
            log.warning(
                "%s: no overlay of it: its header says that the patient can be read in the picture",
                plain(outcome.image.name),
            )
        else:
            for finding, heatmap in shown:
                make = partial(secondary_capture, finding, heatmap, rendered, outcome, origin, run)
                yield Kind.OVERLAY, f"{finding.region}-overlay", make
        if origin.grey:
            yield Kind.MARKS, "marks", partial(presentation_state, shown, outcome, origin, run)
        else:
            log.warning("%s: no marks for it: a picture in colour", plain(outcome.image.name))

    def _origin(self, outcome: Outcome) -> Origin:
        """Of the picture; that of the last file is kept, for its other frames."""
        key = (outcome.image.path, outcome.image.sha256)
        if self._last is None or self._last[0] != key:
            self._last = (key, read_origin(outcome.image))
        return self._last[1]


def _written(made: SOPClass) -> tuple[str, bytes]:
    """UID and file, in memory, so that no file is half written if a value cannot be encoded."""
    file = BytesIO()
    made.save_as(file, enforce_file_format=True)
    return str(made.SOPInstanceUID), file.getvalue()


def _series_key(kind: Kind, origin: Origin) -> str:
    return hashlib.sha256(f"{kind.value} {origin.study}".encode()).hexdigest()[:16]


def _file_name(outcome: Outcome, word: str) -> str:
    """By content, as heatmaps are named, so that no name of a file or a patient gets in."""
    frame = "" if outcome.image.frame is None else f"-{outcome.image.frame}"
    return f"{str(outcome.image.sha256)[:16]}{frame}-{word}"


class DicomWriter(Writer):
    """Writes DICOM files for a PACS.

    Every picture with a verdict from a DICOM file gets a structured report. If there are heatmaps,
    it also gets an overlay for each and, except for colour pictures, a presentation state with all
    contours. The objects belong to the study of the original and refer to it by UID. They contain
    the patient's identity only if identifiers are kept.

    Args:
        folder: Output folder; created if missing. Files of an earlier run are replaced.
        config: Settings of the run.
        digests: Bundle name to SHA-256 of every network of the run.

    Raises:
        OSError: The folder cannot be made.
    """

    def __init__(self, folder: Path, config: RunConfig, digests: Mapping[str, str]) -> None:
        self._folder = folder
        run = Run(version(), digests, config)
        self._maker = Maker(run)
        self._written: Counter[Kind] = Counter()
        self._without: Counter[str] = Counter()
        self._notes: list[tuple[str, str]] = []
        folder.mkdir(parents=True, exist_ok=True)
        if not run.keeps_identity:
            log.warning(
                "--dicom-out: the objects do not name the patient; a PACS that files by patient ID "
                "needs --identifiers keep"
            )

    @classmethod
    def opened(cls, path: Path, job: Job) -> Self:
        """See :meth:`~..writer.Writer.opened`."""
        return cls(path, job.config, job.weights.digests(job.weights.stages))

    def write(self, outcome: Outcome) -> None:
        """Write the objects of one outcome; a picture without objects is counted."""
        if outcome.header is None:
            self._skip("not a DICOM picture")
        elif outcome.status is not Status.OK:
            self._skip("no verdict")
        else:
            try:
                for made in self._maker.objects(outcome):
                    write_whole(self._folder / f"{made.name}.dcm", made.content)
                    self._written[made.kind] += 1
                    self._notes.append((made.kind.value, made.series))
            except ImageError as error:
                self._skip("not possible (see the warnings)")
                log.warning("%s; no DICOM objects were written for it", plain(str(error)))

    def noted(self) -> list[tuple[str, str]]:
        """Kind and series of each object since the last call, or the reason why there is none."""
        notes, self._notes = self._notes, []
        return notes

    def recount(self, outcome: Outcome, notes: Iterable[tuple[str, str]]) -> None:
        """Count the objects of an earlier process, and continue their numbering."""
        for kind, about in notes:
            if kind:
                self._written[Kind(kind)] += 1
                self._maker.numbers[about] += 1
            else:
                self._without[about] += 1

    @property
    def summary(self) -> str:
        """Numbers of objects by kind, and of pictures without objects by reason."""
        written = ", ".join(f"{kind.value} {self._written[kind]}" for kind in Kind)
        without = ", ".join(f"{reason} {n}" for reason, n in self._without.items())
        return f"DICOM objects: {written}" + (f"; pictures without: {without}" if without else "")

    def _skip(self, reason: str) -> None:
        self._without[reason] += 1
        self._notes.append(("", reason))
