"""Reading of X-ray images from files: find, read, detect the format, decode.

``discover`` finds files, ``read_source`` reads a file or content in memory, ``decode`` decodes its
pictures.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from ..domain import ImageRef, XrayImage
from ..errors import ImageError, NotAPictureError, UnreadableImageError
from ..source import NamedBytes, Source
from .dicomdir import listed_study
from .discover import discover
from .limits import MAX_FILE_BYTES
from .memory_budget import UNLIMITED, MemoryBudget
from .raster import read_raster
from .sniff import Kind, claims_picture, refusal, sniff
from .warning_filter import quiet

__all__ = [
    "MemoryBudget",
    "check_size",
    "decode",
    "discover",
    "read_file",
    "read_source",
    "study_uid",
]

_TO_READ = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_BINARY", "O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK")
)


def read_source(source: Source) -> tuple[bytes, str]:
    """Read a file, or take content in memory, under the same limits.

    Returns:
        The content and its SHA-256 as a hex digest.

    Raises:
        NotAPictureError: See :func:`read_file`.
        UnreadableImageError: See :func:`read_file`.
    """
    if not isinstance(source, NamedBytes):
        return read_file(source)
    check_size(len(source.content), source.name)
    return source.content, hashlib.sha256(source.content).hexdigest()


def read_file(path: Path) -> tuple[bytes, str]:
    """Read a whole regular file; pipes, devices and sockets are never opened.

    Returns:
        The content and its SHA-256 as a hex digest.

    Raises:
        NotAPictureError: The file is too large and its name is not that of a picture.
        UnreadableImageError: The file cannot be read, or changed while it was read.
    """
    try:
        _check_file(path.stat(), path.name)
        # Checked again after opening, because the path may refer to another file by then. Opening
        # a pipe would wait for its writer.
        with os.fdopen(os.open(path, _TO_READ), "rb") as file:
            before = os.fstat(file.fileno())
            _check_file(before, path.name)
            content = file.read(before.st_size + 1)
            after = os.fstat(file.fileno())
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UnreadableImageError(f"{path.name}: cannot read the file ({reason})") from error
    if len(content) != before.st_size or _state(before) != _state(after):
        raise UnreadableImageError(
            f"{path.name}: the file changed while it was read, expected a complete file",
            "run again after it is written",
        )
    return content, hashlib.sha256(content).hexdigest()


def _check_file(status: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableImageError(f"{name}: found a folder that cannot be listed")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImageError(
            f"{name}: found a pipe, socket or device, expected a regular file"
        )
    check_size(status.st_size, name)


def check_size(size: int, name: str) -> None:
    """Refuse content that is too large to be read.

    Args:
        size: Size of the content in bytes.
        name: File name, for the error.

    Raises:
        NotAPictureError: The content is too large and its name is not that of a picture.
        UnreadableImageError: The content is too large and its name is that of a picture.
    """
    if size > MAX_FILE_BYTES:
        error = UnreadableImageError if claims_picture(name) else NotAPictureError
        raise error(f"{name}: found {size} bytes, expected at most {MAX_FILE_BYTES}")


def _state(status: os.stat_result) -> tuple[int, int]:
    """Size and time stamp, which change if a file is written."""
    return status.st_size, status.st_mtime_ns


def decode(
    content: bytes, source: Source, sha256: str, room: MemoryBudget = UNLIMITED
) -> Generator[XrayImage, None, None]:
    """Decode the pictures of one file, one at a time.

    Decoding starts at the first ``next``. A file whose third frame is broken yields two images,
    then raises.

    Args:
        content: The whole file.
        source: Origin of the content; only its path and name are used.
        sha256: Hex digest of ``content``.
        room: Memory budget, reserved for each picture from its decoding until the next one is
            requested or the generator is closed; see :class:`MemoryBudget` for sharing.

    Yields:
        One image for each picture, with a frame number only if the file has several.

    Raises:
        UnsupportedError: Neither content nor name is that of a picture, or fxpipe does not judge
            pictures of this kind.
        UnreadableImageError: The picture cannot be decoded.
    """
    kind = sniff(content)
    with closing(_pictures(content, kind, ImageRef.of(source, sha256=sha256), room)) as pictures:
        while True:
            try:
                with quiet():
                    picture = next(pictures, None)
            except ImageError:
                raise
            except MemoryError as error:
                raise UnreadableImageError(
                    f"{source.name}: the {kind} file needs more memory than {room.memory}, "
                    "expected a smaller file"
                ) from error
            except RecursionError as error:
                raise UnreadableImageError(
                    f"{source.name}: the {kind} file is nested too deeply, expected a valid file"
                ) from error
            # The decoders raise nearly any exception on hostile input, and one bad file must not
            # end a run. The message has only the type: the text may quote patient identifiers.
            except Exception as error:
                raise UnreadableImageError(
                    f"{source.name}: cannot decode the {kind} file ({type(error).__name__}), "
                    "expected a complete and valid file"
                ) from error
            if picture is None:
                return
            yield picture
            del picture  # free it before the next one is decoded


def study_uid(content: bytes, path: Path | None) -> str | None:
    """The StudyInstanceUID of a file, even if its picture cannot be decoded.

    A study can so list the pictures that failed. None if the file is not DICOM, or too damaged, and
    no DICOMDIR lists it.

    Args:
        content: The whole file, or empty if it could not be read.
        path: Path of the file; None for content in memory, which has no medium.
    """
    if sniff(content) is not Kind.DICOM:
        return listed_study(path)
    from .dicom import read_study_uid

    try:
        with quiet():
            uid = read_study_uid(content)
    # As in decode. The row of the file already has the error.
    except Exception:  # noqa: BLE001
        uid = None
    return uid or listed_study(path)


def _pictures(
    content: bytes, kind: Kind, ref: ImageRef, room: MemoryBudget
) -> Generator[XrayImage, None, None]:
    if kind is Kind.UNKNOWN:
        raise refusal(content, ref.name)
    if kind is Kind.DICOM:
        # Imported here because pydicom takes a third of a second to load, and a process that
        # leaves decoding to its workers does not need it.
        from .dicom import read_dicom

        yield from read_dicom(content, ref, room)
    else:
        yield from read_raster(content, kind, ref, room)
