"""Writes the DICOM objects of every judged DICOM picture, one file each."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
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

_Maker = Callable[[int], SOPClass]


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
        self._run = Run(version(), digests, config)
        self._written: Counter[Kind] = Counter()
        self._without: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()
        self._notes: list[tuple[str, str]] = []
        self._last: tuple[tuple[Path | None, str | None], Origin] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if not self._run.keeps_identity:
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
                for kind, name, content in self._objects(outcome):
                    write_whole(self._folder / f"{name}.dcm", content)
                    self._written[kind] += 1
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
                self._numbers[about] += 1
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

    def _objects(self, outcome: Outcome) -> list[tuple[Kind, str, bytes]]:
        """Kind, file name and content of all objects of a picture.

        Raises:
            ImageError: At least one object cannot be made; then none is written.
        """
        name = outcome.image.name
        try:
            with quiet():
                origin = self._origin(outcome)
                return [
                    (kind, self._name(outcome, word), self._content(make, origin, kind))
                    for kind, word, make in self._makers(outcome, origin)
                ]
        except ImageError:
            raise
        # Broad, as in decoding: pydicom and highdicom raise almost any exception on a malformed
        # header. Only the type is reported, because the text may contain patient identifiers.
        except Exception as error:
            raise OriginError(
                f"{name}: the header is malformed ({type(error).__name__})"
            ) from error

    def _makers(self, outcome: Outcome, origin: Origin) -> Iterator[tuple[Kind, str, _Maker]]:
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

    def _content(self, make: _Maker, origin: Origin, kind: Kind) -> bytes:
        """The content of the file, built in memory: if encoding fails, no partial file remains."""
        # A digest, because the journal must not contain identifiers.
        key = hashlib.sha256(f"{kind.value} {origin.study}".encode()).hexdigest()[:16]
        made = make(self._numbers[key] + 1)
        file = BytesIO()
        made.save_as(file, enforce_file_format=True)
        self._numbers[key] += 1
        self._notes.append((kind.value, key))
        return file.getvalue()

    def _name(self, outcome: Outcome, word: str) -> str:
        """File name from digests, like those of heatmaps: no file name and no patient name."""
        frame = "" if outcome.image.frame is None else f"-{outcome.image.frame}"
        return f"{str(outcome.image.sha256)[:16]}{frame}-{word}"

    def _origin(self, outcome: Outcome) -> Origin:
        """The original of the picture; the last one is kept for other frames of the same file."""
        key = (outcome.image.path, outcome.image.sha256)
        if self._last is None or self._last[0] != key:
            self._last = (key, read_origin(outcome.image))
        return self._last[1]
