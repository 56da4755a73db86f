"""Incremental parser for multipart/related messages (RFC 2387, RFC 2046)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from email.message import Message

from ..errors import FxpipeError

_MOST_HEADER_BYTES = 8192
_NEWLINE = b"\r\n"


class MultipartError(FxpipeError):
    """The message is malformed."""


@dataclass(frozen=True, slots=True)
class PartBegins:
    """Start of a part.

    Attributes:
        headers: By name in lower case.
    """

    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class PartData:
    """Bytes of the content of a part."""

    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PartEnds:
    """End of a part."""


Event = PartBegins | PartData | PartEnds


class MultipartParser:
    """Parses a message incrementally, in constant memory.

    Text before the first and after the last part, and white space after a boundary, is skipped.

    Args:
        boundary: Parameter of the Content-Type.
    """

    def __init__(self, boundary: str) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
        # The first boundary may be at the start of the message.
        self._buffer = bytearray(_NEWLINE)
        self._state = self._preamble
        self._ended = False

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Parse more bytes; yield the resulting events.

        Raises:
            MultipartError: The message is malformed.
        """
        self._buffer += piece
        while not self._ended:
            events = self._state()
            if events is None:
                return
            yield from events

    def close(self) -> None:
        """Check that the message is complete.

        Raises:
            MultipartError: The message is incomplete.
        """
        if not self._ended:
            raise MultipartError("the message ended early")

    def _preamble(self) -> list[Event] | None:
        if self._skip() is not None:
            return []
        del self._buffer[: -len(self._delimiter)]
        return None

    def _skip(self) -> bytes | None:
        """Data before the next boundary; None if the buffer contains no complete boundary."""
        at = self._buffer.find(self._delimiter)
        if at < 0:
            return None
        content = bytes(self._buffer[:at])
        del self._buffer[: at + len(self._delimiter)]
        self._state = self._after_boundary
        return content

    def _after_boundary(self) -> list[Event] | None:
        if len(self._buffer) < 2:
            return None
        if self._buffer.startswith(b"--"):
            self._ended = True
            return []
        end = self._buffer.find(_NEWLINE)
        if end < 0:
            self._limit()
            return None
        if self._buffer[:end].strip():
            raise MultipartError("found text after a boundary, expected a new line")
        # The new line is kept: it is the empty line of a part without headers.
        del self._buffer[:end]
        self._state = self._headers
        return []

    def _headers(self) -> list[Event] | None:
        end = self._buffer.find(_NEWLINE * 2)
        if end < 0:
            self._limit()
            return None
        headers = {}
        for line in bytes(self._buffer[:end]).decode("latin-1").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon:
                headers[name.strip().lower()] = value.strip()
        # The last new line is kept, because it may belong to the boundary of an empty part.
        del self._buffer[: end + 2]
        self._state = self._first_data
        return [PartBegins(headers)]

    def _first_data(self) -> list[Event] | None:
        if len(self._buffer) < len(self._delimiter):
            return None
        if not self._buffer.startswith(self._delimiter):
            del self._buffer[:2]
        self._state = self._data
        return []

    def _data(self) -> list[Event] | None:
        content = self._skip()
        if content is not None:
            return [PartData(content), PartEnds()] if content else [PartEnds()]
        ready = len(self._buffer) - len(self._delimiter)
        if ready <= 0:
            return None
        content = bytes(self._buffer[:ready])
        del self._buffer[:ready]
        return [PartData(content)]

    def _limit(self) -> None:
        if len(self._buffer) > _MOST_HEADER_BYTES:
            raise MultipartError(f"found headers of a part of more than {_MOST_HEADER_BYTES} bytes")


def content_type(header: str) -> tuple[str, dict[str, str]]:
    """Media type in lower case, and parameters by name, of a Content-Type."""
    message = Message()
    message["content-type"] = header.encode("latin-1", "replace").decode("latin-1")
    parameters = message.get_params(failobj=[])[1:]
    named = {name.lower(): str(value) for name, value in parameters}
    return message.get_content_type(), named


async def encoded(
    parts: Iterable[tuple[str, AsyncIterator[bytes]]], boundary: str
) -> AsyncIterator[bytes]:
    """Encode a message.

    Args:
        parts: Content type and content of each.
        boundary: Must not occur in any content.
    """
    for kind, content in parts:
        yield f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()
        async for piece in content:
            yield piece
    yield f"\r\n--{boundary}--\r\n".encode()
