"""The original of a picture, read again for the references and header values of its objects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo

from pydicom.dataset import Dataset
from pydicom.uid import UID

from ...domain import ImageRef
from ...errors import ImageError
from ...io import read_file
from ...io.dicom import picture_header

_LINKS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_NAMING = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_ZONE = re.compile(r"([+-])(\d\d)([0-5]\d)")


class OriginError(ImageError):
    """An original that no object can refer to."""


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """The original of a picture.

    Attributes:
        header: Dataset as read, with its pixel data.
        reference: The values that objects refer to, without identifiers of the patient.
        zone: Time zone of its dates and times, and of those of its objects; None if the header
            states none: then the zone of this machine is used.
    """

    header: Dataset
    reference: Dataset
    zone: tzinfo | None

    @property
    def study(self) -> str:
        """Its StudyInstanceUID."""
        return str(self.reference.StudyInstanceUID)

    @property
    def burned_in(self) -> bool:
        """Whether, according to the header, its pixels contain patient data."""
        return str(self.header.get("BurnedInAnnotation") or "").strip() == "YES"

    @property
    def grey(self) -> bool:
        """Whether it is a monochrome picture."""
        return self.header.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2")

    def mention(self, frame: int | None) -> Dataset:
        """A reference item to it, or to one frame of it.

        Built here because highdicom refers to frames only for multi-frame classes, and files of
        other classes also have frames.

        Args:
            frame: Zero-based; None for a single image.
        """
        item = Dataset()
        item.ReferencedSOPClassUID = self.reference.SOPClassUID
        item.ReferencedSOPInstanceUID = self.reference.SOPInstanceUID
        if frame is not None:
            item.ReferencedFrameNumber = frame + 1
        return item

    def now(self) -> datetime:
        """The current time in its zone."""
        return datetime.now(self.zone).astimezone(self.zone)


def read_origin(image: ImageRef) -> Origin:
    """Read the file of a picture again, and check that its content is what was judged.

    Raises:
        ImageError: It cannot be read, its content was changed, or its UIDs are missing or invalid.
        Exception: Any exception of pydicom on a malformed header; the caller translates it.
    """
    name = image.name
    if image.path is None:
        raise OriginError(f"{name}: found content in memory, expected a file to read again")
    content, sha256 = read_file(image.path)
    if sha256 != image.sha256:
        raise OriginError(f"{name}: the file was changed after it was judged")
    header, _ = picture_header(content, name)
    for keyword in _LINKS:
        value = header.get(keyword)
        if not value:
            raise OriginError(f"{name}: the header has no {keyword}")
        if not UID(str(value)).is_valid:
            raise OriginError(f"{name}: the {keyword} is not a valid UID")
    return Origin(header, _reference(header), _zone(header))


def _reference(header: Dataset) -> Dataset:
    reference = Dataset()
    for keyword in _LINKS:
        setattr(reference, keyword, UID(str(header[keyword].value)))
    for keyword in _NAMING:
        setattr(reference, keyword, "")
    for keyword in ("Rows", "Columns", "SamplesPerPixel"):
        setattr(reference, keyword, int(header[keyword].value))
    # highdicom reads grey values of multi-frame pictures from these; fxpipe sets its own.
    reference.SharedFunctionalGroupsSequence = [Dataset()]
    reference.PerFrameFunctionalGroupsSequence = []
    return reference


def _zone(header: Dataset) -> tzinfo | None:
    match = _ZONE.fullmatch(str(header.get("TimezoneOffsetFromUTC") or "").strip())
    if match is None:
        return None
    sign = -1 if match[1] == "-" else 1
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return timezone(sign * offset) if offset <= timedelta(hours=14) else None
