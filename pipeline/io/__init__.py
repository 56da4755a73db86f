"""From files to X-ray images: find, read, tell the format, decode.

``discover`` finds the files, ``read_source`` reads one or takes content in memory, ``decode`` turns
it into pictures.
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
from .discover import discover
from .limits import MAX_FILE_BYTES
from .medium import listed_study
from .quiet import quiet
from .raster import read_raster
from .room import UNLIMITED, Room
from .sniff import Kind, claims_picture, refusal, sniff

__all__ = ["Room", "check_size", "decode", "discover", "read_file", "read_source", "study_uid"]

_TO_READ = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_BINARY", "O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK")
)


def read_source(source: Source) -> tuple[bytes, str]:
    """The content of a file or of bytes in memory, under the same limits.

    Returns:
        The content and its SHA-256 as a hex digest.

    Raises:
        NotAPictureError: See :func:`read_file`.
        UnreadableImageError: Likewise.
    """
    if not isinstance(source, NamedBytes):
        return read_file(source)
    check_size(len(source.content), source.name)
    return source.content, hashlib.sha256(source.content).hexdigest()


def read_file(path: Path) -> tuple[bytes, str]:
    """Read a regular file whole; pipes, devices and sockets are never opened.

    Returns:
        The content and its SHA-256 as a hex digest.

    Raises:
        NotAPictureError: The file is too large and its name claims no picture.
        UnreadableImageError: Anything else that keeps it from being read, or from being read as
            it was at one moment.
    """
    try:
        _check_file(path.stat(), path.name)
        # Looked at again when it is open: in between the name may have got another meaning, and
        # to open a pipe would wait for its writer.
        with os.fdopen(os.open(path, _TO_READ), "rb") as file:
            before = os.fstat(file.fileno())
            _check_file(before, path.name)
            content = file.read(before.st_size + 1)
            after = os.fstat(file.fileno())
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UnreadableImageError(
            f"{path.name}: found a file that cannot be read ({reason}), wanted a readable one"
        ) from error
    if len(content) != before.st_size or _moment(before) != _moment(after):
        raise UnreadableImageError(
            f"{path.name}: found a file that changed while it was read, wanted one that is "
            "complete",
            "run again when it has been written",
        )
    return content, hashlib.sha256(content).hexdigest()


def _check_file(found: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise UnreadableImageError(
            f"{name}: found a folder that cannot be listed, wanted a readable one"
        )
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableImageError(f"{name}: found a pipe, socket or device, wanted a regular file")
    check_size(found.st_size, name)


def check_size(size: int, name: str) -> None:
    """Refuse content that is too large to be read.

    Args:
        size: Its bytes.
        name: Of the file, for the error.

    Raises:
        NotAPictureError: It is too large and its name claims no picture.
        UnreadableImageError: It is too large and its name claims a picture.
    """
    if size > MAX_FILE_BYTES:
        error = UnreadableImageError if claims_picture(name) else NotAPictureError
        raise error(f"{name}: found {size} bytes, wanted at most {MAX_FILE_BYTES}")


def _moment(found: os.stat_result) -> tuple[int, int]:
    """What changes when a file is written."""
    return found.st_size, found.st_mtime_ns


def decode(
    content: bytes, source: Source, sha256: str, room: Room = UNLIMITED
) -> Generator[XrayImage, None, None]:
    """Decode the pictures of one file, one at a time.

    Nothing happens before the first ``next``. A file whose third frame is broken yields two
    images, then raises.

    Args:
        content: The whole file.
        source: Where it comes from; only its path and name are used.
        sha256: Hex digest of ``content``.
        room: Taken for each picture before it is decoded and until the next one is asked for or
            the generator is closed; see :class:`Room` for who may share one.

    Yields:
        One image for each picture, with a frame number only when the file holds several.

    Raises:
        UnsupportedError: Neither content nor name is that of a picture, or it is none that
            fxpipe judges.
        UnreadableImageError: A picture that cannot be decoded.
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
                    f"{source.name}: found a {kind} file that needs more memory than "
                    f"{room.memory}, wanted a smaller one"
                ) from error
            except RecursionError as error:
                raise UnreadableImageError(
                    f"{source.name}: found a {kind} file that is nested too deeply, wanted a "
                    "shallower one"
                ) from error
            # The one broad catch: on hostile input the decoders raise nearly anything, and one
            # bad file must not end a run. Only the type is told: the text may quote patient
            # identifiers.
            except Exception as error:
                raise UnreadableImageError(
                    f"{source.name}: found a {kind} file that cannot be decoded "
                    f"({type(error).__name__}), wanted a whole and valid one"
                ) from error
            if picture is None:
                return
            yield picture
            del picture  # not kept while the next one is decoded


def study_uid(content: bytes, path: Path | None) -> str | None:
    """The StudyInstanceUID of a file, also of one whose picture cannot be decoded.

    So a study knows of the pictures that it lost. None for what is no DICOM, or too broken, unless
    the directory of its medium lists it.

    Args:
        content: The whole file, or nothing when it could not be read.
        path: Where it was read from; None for content that was in memory, which has no medium.
    """
    if sniff(content) is not Kind.DICOM:
        return listed_study(path)
    from .dicom import read_study_uid

    try:
        with quiet():
            found = read_study_uid(content)
    # As in decode: hostile files raise nearly anything. The row tells already what is wrong.
    except Exception:  # noqa: BLE001
        found = None
    return found or listed_study(path)


def _pictures(
    content: bytes, kind: Kind, ref: ImageRef, room: Room
) -> Generator[XrayImage, None, None]:
    if kind is Kind.UNKNOWN:
        raise refusal(content, ref.name)
    if kind is Kind.DICOM:
        # Here and not above: pydicom takes a third of a second to import, which a run that only
        # has its workers decode never needs.
        from .dicom import read_dicom

        yield from read_dicom(content, ref, room)
    else:
        yield from read_raster(content, kind, ref, room)
