"""Makes the DICOM objects of judged DICOM pictures, and writes one file for each."""

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
        kind: Kind of the object.
        uid: Its SOPInstanceUID.
        series: Digest of its kind and study, because the journal must not contain identifiers.
        name: File name without suffix, made from digests: no file name and no patient name.
        content: Content of the file.
    """

    kind: Kind
    uid: str
    series: str
    name: str
    content: bytes = field(repr=False)


class Maker:
    """Makes the objects of pictures in memory, and numbers them in their series.

    Args:
        run: The run that the outcomes come from.

    Attributes:
        numbers: Number of objects made so far, by :attr:`Made.series`.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._last: tuple[tuple[Path | None, str | None], Origin] | None = None
        self.numbers: Counter[str] = Counter()

    def objects(self, outcome: Outcome) -> list[Made]:
        """All objects of a picture.

        Args:
            outcome: Outcome with a verdict of a picture from a DICOM file, which is read again.

        Raises:
            ImageError: At least one object cannot be made; then none is returned or numbered.
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
        # Broad, as in decoding: pydicom and highdicom raise almost any exception on a malformed
        # header. Only the type is reported, because the text may contain patient identifiers.
        except Exception as error:
            raise OriginError(
                f"{name}: the header is malformed ({type(error).__name__})"
            ) from error
        self.numbers = numbers
        return made

    def _makers(self, outcome: Outcome, origin: Origin) -> Iterator[tuple[Kind, str, _Make]]:
        run, rendered = self._run, outcome.rendered
        yield Kind.REPORT, "report", partial(structured_report, outcome, origin, run)
        mapped = [(f, f.heatmap) for f in outcome.findings if f.heatmap is not None]
        if rendered is None or not mapped:
            return
        if origin.burned_in and not run.keeps_identity:
            log.warning(
                "%s: no overlay was written: according to its header, patient data are burned into "
                "the picture",
                plain(outcome.image.name),
            )
        else:
            for finding, heatmap in mapped:
                make = partial(secondary_capture, finding, heatmap, rendered, outcome, origin, run)
                yield Kind.OVERLAY, f"{finding.region}-overlay", make
        if origin.grey:
            yield Kind.MARKS, "marks", partial(presentation_state, mapped, outcome, origin, run)
        else:
            log.warning(
                "%s: no presentation state was written, because the picture is in colour",
                plain(outcome.image.name),
            )

    def _origin(self, outcome: Outcome) -> Origin:
        """The original of the picture; the last one is kept for other frames of the same file."""
        key = (outcome.image.path, outcome.image.sha256)
        if self._last is None or self._last[0] != key:
            self._last = (key, read_origin(outcome.image))
        return self._last[1]


def _written(made: SOPClass) -> tuple[str, bytes]:
    """SOPInstanceUID and file, built in memory: if encoding fails, no partial file remains."""
    file = BytesIO()
    made.save_as(file, enforce_file_format=True)
    return str(made.SOPInstanceUID), file.getvalue()


def _series_key(kind: Kind, origin: Origin) -> str:
    return hashlib.sha256(f"{kind.value} {origin.study}".encode()).hexdigest()[:16]


def _file_name(outcome: Outcome, word: str) -> str:
    """File name from digests, like those of heatmaps: no file name and no patient name."""
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
