"""Detection of the file format by content; file names are not reliable."""

from __future__ import annotations

import struct
from enum import StrEnum
from pathlib import PurePath

from ..errors import ImageError, NotAPictureError, UnreadableImageError


class Kind(StrEnum):
    """The supported formats."""

    JPEG = "JPEG"
    PNG = "PNG"
    TIFF = "TIFF"
    WEBP = "WebP"
    BMP = "BMP"
    DICOM = "DICOM"
    UNKNOWN = "unknown"


EXPECTED = "DICOM, JPEG, PNG, TIFF, WebP or BMP"

_PICTURE_SUFFIXES = (
    *(".dcm", ".dicom", ".dic", ".ima", ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff"),
    *(".webp", ".bmp", ".dib", ".gif", ".jp2", ".j2k", ".j2c", ".jpf", ".jpx", ".jls", ".jxl"),
    *(".heic", ".heif", ".avif"),
)
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)

_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())

# Descriptions for messages; the first match is used.
_LOOKS_LIKE = (
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"GIF8", "a GIF picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"{\\rtf", "an RTF document"),
    (b"\0\x05\x16\x07", "file attributes of macOS (AppleDouble)"),
)


def sniff(content: bytes) -> Kind:
    """Detect the format from the content.

    Args:
        content: The whole file, or at least its first 4 KiB.
    """
    # DICOM first: its preamble of 128 bytes may contain the header of another format.
    if content[128:132] == b"DICM" or _is_bare_dicom(content):
        return Kind.DICOM
    if content.startswith(b"\xff\xd8\xff"):
        return Kind.JPEG
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return Kind.PNG
    if content.startswith(_TIFF_STARTS):
        return Kind.TIFF
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return Kind.WEBP
    # "BM" may also start a text.
    if content[:2] == b"BM" and int.from_bytes(content[14:18], "little") in _BMP_HEADER_BYTES:
        return Kind.BMP
    return Kind.UNKNOWN


def refusal(content: bytes, name: str) -> ImageError:
    """Error for content that :func:`sniff` does not recognise.

    Args:
        content: The whole file.
        name: File name, which decides between the two errors.

    Returns:
        :class:`UnreadableImageError` if the file is empty or :func:`claims_picture` is true for
        its name, :class:`NotAPictureError` otherwise.
    """
    if not content:
        return UnreadableImageError(f"{name}: found an empty file (0 bytes), expected {EXPECTED}")
    error = UnreadableImageError if claims_picture(name) else NotAPictureError
    return error(f"{name}: found {_looks_like(content)}, expected {EXPECTED}")


def claims_picture(name: str) -> bool:
    """Whether a file name may be that of a picture: by its suffix, or because it has none.

    DICOM files are often named ``IM000001`` or by a UID, whose last component is not a suffix. Dot
    files (``.DS_Store``) do not count, nor do the attribute files that macOS writes to other file
    systems (``._IM000001.jpg``).
    """
    name = PurePath(name).name
    if name.startswith("._"):
        return False
    suffix = PurePath(name).suffix.lower()
    if not suffix:
        return not name.startswith(".")
    return suffix in _PICTURE_SUFFIXES or suffix[1:].isdigit()


def _is_bare_dicom(content: bytes) -> bool:
    """Whether content starts with two valid, ascending elements of group 0002 or 0008.

    Little endian is explicit or implicit, big endian always explicit. Text cannot start like this,
    because one of the first two bytes is zero.
    """
    return any(_are_elements(content, order) for order in "<>")


def _are_elements(content: bytes, order: str) -> bool:
    first = _element(content, 0, order)
    if first is None:
        return False
    second = _element(content, first[1], order)
    return second is not None and second[0] > first[0]


def _element(content: bytes, start: int, order: str) -> tuple[tuple[int, int], int] | None:
    """Tag and end offset of the DICOM element at ``start``; None if it is not valid."""
    head = content[start : start + 12]
    if len(head) < 8:
        return None
    group, number = struct.unpack_from(f"{order}HH", head)
    if group not in (0x0002, 0x0008) or number > 0x3010:
        return None
    vr = head[4:6]
    if vr in _LONG_VRS:
        if len(head) < 12 or head[6:8] != b"\0\0":
            return None
        length, begin = struct.unpack_from(f"{order}I", head, 8)[0], start + 12
    elif vr in _SHORT_VRS:
        length, begin = struct.unpack_from(f"{order}H", head, 6)[0], start + 8
    elif order == "<":
        length, begin = struct.unpack_from("<I", head, 4)[0], start + 8
    else:
        return None
    end = begin + length
    return None if length % 2 or end > len(content) else ((group, number), end)


def _looks_like(content: bytes) -> str:
    """Describe unknown content."""
    for start, description in _LOOKS_LIKE:
        if content.startswith(start):
            return description
    if content[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file"
    head = content[:4096].removeprefix(b"\xef\xbb\xbf")
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    # "ignore": a multi-byte character may be cut off at the end. Control bytes mean binary data.
    text = head.decode("utf-8", "ignore")
    if len(text.encode()) >= len(head) - 3 and all(
        c.isprintable() or c in "\t\r\n\f" for c in text
    ):
        return "text"
    return "content of an unknown format"
