"""Opening of a pack from a path or a URL, with a size limit."""

from __future__ import annotations

import hashlib
import http.client
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import BundleError, StartError, UsageError

TIMEOUT_S = 30.0
PIECE_BYTES = 1 << 20

Report = Callable[[int | None], Callable[[], None]]
"""Takes the size in pieces of 1 MiB, or None; returns a function to call after each piece."""


@contextmanager
def opened(source: str, sha256: str | None, max_bytes: int, report: Report) -> Iterator[IO[bytes]]:
    """Open a pack; a remote one is downloaded to an unnamed temporary file first.

    Args:
        source: A path, or a URL of ``file:``, ``https:`` or, if the digest is given, ``http:``.
        sha256: Expected hex digest of the file, if given.
        max_bytes: Largest accepted size.
        report: Callback for the progress of a download.

    Raises:
        UsageError: The source does not exist or cannot be trusted.
        StartError: The download failed.
        BundleError: The file is too large or has another digest.
    """
    parts = urllib.parse.urlsplit(source)
    if parts.scheme in ("http", "https"):
        if parts.scheme == "http" and sha256 is None:
            raise UsageError(
                f"{source}: found http, which can be altered in transit, expected https",
                "or pass the digest of the pack with --sha256",
            )
        with tempfile.TemporaryFile() as file:
            _download(source, file, max_bytes, report)
            _check(file, source, sha256)
            yield file
        return
    path = Path(urllib.request.url2pathname(parts.path) if parts.scheme == "file" else source)
    if not path.is_file():
        raise UsageError(f"{source}: not found, expected a pack created by `fxpipe weights pack`")
    if path.stat().st_size > max_bytes:
        raise _too_long(source, path.stat().st_size, max_bytes)
    with path.open("rb") as file:
        _check(file, source, sha256)
        yield file


class HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Refuse redirects from https to other schemes."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:  # noqa: E501  # fmt: skip
        """Follow the redirect unless it leads from https to another scheme."""
        if req.type == "https" and urllib.parse.urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError(f"redirected to {newurl}, expected https only")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, file: IO[bytes], max_bytes: int, report: Report) -> None:
    opener = urllib.request.build_opener(HttpsOnly)
    try:
        with opener.open(url, timeout=TIMEOUT_S) as response:
            length = response.headers.get("Content-Length", "")
            size = int(length) if length.isdecimal() else None
            if size is not None and size > max_bytes:
                raise _too_long(url, size, max_bytes)
            advance = report(None if size is None else -(-size // PIECE_BYTES))
            received = 0
            while piece := response.read(PIECE_BYTES):
                received += len(piece)
                if received > max_bytes:
                    raise _too_long(url, received, max_bytes)
                file.write(piece)
                advance()
    except (OSError, http.client.HTTPException) as error:
        raise StartError(f"{url}: download failed: {error}", "try again later") from error
    if size is not None and received != size:
        raise StartError(f"{url}: received {received} bytes, expected {size}", "try again later")


def _check(file: IO[bytes], source: str, sha256: str | None) -> None:
    file.seek(0)
    if sha256 is not None:
        actual = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        if actual != sha256.lower():
            raise BundleError(
                f"{source}: sha256 is {actual}, expected {sha256.lower()}",
                "this is another pack, or it was altered: download it again",
            )
        file.seek(0)


def _too_long(source: str, size: int, max_bytes: int) -> BundleError:
    return BundleError(f"{source}: found {size} bytes, expected at most {max_bytes}")
