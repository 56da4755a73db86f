"""A pack from a path or a URL, as an opened file that is not longer than it may be."""

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

Told = Callable[[int | None], Callable[[], None]]
"""Given the size in pieces of 1 MiB, or None: gives what is called for each piece."""


@contextmanager
def opened(source: str, sha256: str | None, most: int, told: Told) -> Iterator[IO[bytes]]:
    """Open a pack; one of another machine is fetched whole, into a file without a name.

    Args:
        source: A path, or a URL of ``file:``, ``https:`` or, if the digest is given, ``http:``.
        sha256: What the file must have, if given.
        most: Bytes that it may have.
        told: Hears of the progress.

    Raises:
        UsageError: The source is not there, or not to be trusted.
        StartError: It cannot be fetched.
        BundleError: Too long, or not of the wanted digest.
    """
    parts = urllib.parse.urlsplit(source)
    if parts.scheme in ("http", "https"):
        if parts.scheme == "http" and sha256 is None:
            raise UsageError(
                f"{source}: found http, which anybody on the way can change, wanted https",
                "or give the digest of the pack with --sha256",
            )
        with tempfile.TemporaryFile() as file:
            _download(source, file, most, told)
            _check(file, source, sha256)
            yield file
        return
    path = Path(urllib.request.url2pathname(parts.path) if parts.scheme == "file" else source)
    if not path.is_file():
        raise UsageError(f"{source}: not found, wanted a pack of `fxpipe weights pack`")
    if path.stat().st_size > most:
        raise _too_long(source, path.stat().st_size, most)
    with path.open("rb") as file:
        _check(file, source, sha256)
        yield file


class _Careful(urllib.request.HTTPRedirectHandler):
    """Never from https to anything else."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:  # noqa: E501  # fmt: skip
        if req.type == "https" and urllib.parse.urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError(f"sent on to {newurl}, wanted https all the way")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, file: IO[bytes], most: int, told: Told) -> None:
    opener = urllib.request.build_opener(_Careful)
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer:
            length = answer.headers.get("Content-Length", "")
            size = int(length) if length.isdecimal() else None
            if size is not None and size > most:
                raise _too_long(url, size, most)
            advance = told(None if size is None else -(-size // PIECE_BYTES))
            found = 0
            while piece := answer.read(PIECE_BYTES):
                found += len(piece)
                if found > most:
                    raise _too_long(url, found, most)
                file.write(piece)
                advance()
    except (OSError, http.client.HTTPException) as error:
        raise StartError(f"{url}: cannot be fetched: {error}", "try again later") from error
    if size is not None and found != size:
        raise StartError(f"{url}: found {found} bytes, wanted {size}", "try again later")


def _check(file: IO[bytes], source: str, sha256: str | None) -> None:
    file.seek(0)
    if sha256 is not None:
        found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        if found != sha256.lower():
            raise BundleError(
                f"{source}: sha256 is {found}, wanted {sha256.lower()}",
                "the pack is another one, or was altered on its way: fetch it again",
            )
        file.seek(0)


def _too_long(source: str, found: int, most: int) -> BundleError:
    return BundleError(f"{source}: found {found} bytes, wanted {most} at most")
