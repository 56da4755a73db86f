"""The original of a picture, read again: what its objects refer to and what they take from it."""

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
    """A picture to which no object can refer."""


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """A picture's original.

    Attributes:
        header: As read, with its pixel data.
        reference: What of it objects refer to, and nothing that names anybody.
        zone: In which its dates and times are told, and so those of its objects; None, which is
            this machine's, where it does not say.
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
        """Whether its pixels say whose they are, by its own word."""
        return str(self.header.get("BurnedInAnnotation") or "").strip() == "YES"

    @property
    def grey(self) -> bool:
        """Whether it is a monochrome picture."""
        return self.header.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2")

    def mention(self, frame: int | None) -> Dataset:
        """An item that refers to it, or to one frame of it.

        By hand, because highdicom refers to frames of multi-frame classes only, and files of
        other classes have frames too.

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
        """The time, in its zone."""
        return datetime.now(self.zone).astimezone(self.zone)


def read_origin(image: ImageRef) -> Origin:
    """Read the file of a picture again, and make sure that it still is what was judged.

    Raises:
        ImageError: It cannot be read, is not what was judged, or cannot be referred to.
        Exception: Whatever pydicom raises on malformed headers; the caller translates.
    """
    name = image.name
    if image.path is None:
        raise OriginError(f"{name}: found content in memory, wanted a file that can be read again")
    content, sha256 = read_file(image.path)
    if sha256 != image.sha256:
        raise OriginError(f"{name}: found another content than was judged")
    header, _ = picture_header(content, name)
    for keyword in _LINKS:
        value = header.get(keyword)
        if not value:
            raise OriginError(f"{name}: found no {keyword}")
        if not UID(str(value)).is_valid:
            raise OriginError(f"{name}: found a {keyword} that is none")
    return Origin(header, _reference(header), _zone(header))


def _reference(header: Dataset) -> Dataset:
    reference = Dataset()
    for keyword in _LINKS:
        setattr(reference, keyword, UID(str(header[keyword].value)))
    for keyword in _NAMING:
        setattr(reference, keyword, "")
    for keyword in ("Rows", "Columns", "SamplesPerPixel"):
        setattr(reference, keyword, int(header[keyword].value))
    # Where highdicom would look for greys of multi-frame pictures; fxpipe takes none from there.
    reference.SharedFunctionalGroupsSequence = [Dataset()]
    reference.PerFrameFunctionalGroupsSequence = []
    return reference


def _zone(header: Dataset) -> tzinfo | None:
    found = _ZONE.fullmatch(str(header.get("TimezoneOffsetFromUTC") or "").strip())
    if found is None:
        return None
    sign = -1 if found[1] == "-" else 1
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(sign * offset) if offset <= timedelta(hours=14) else None
