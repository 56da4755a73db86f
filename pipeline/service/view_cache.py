"""Rendered pictures for the page: ``cache/ab/abcd…-FRAME.jpg``. Rendered again on demand."""

from __future__ import annotations

import base64
import secrets
from contextlib import suppress
from pathlib import Path


class ViewCache:
    """Files of a cache folder, which may be deleted at any time.

    Args:
        folder: The data folder; ``cache/`` is made in it.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "cache"
        self._folder.mkdir(parents=True, exist_ok=True)

    def put(self, sha256: str, frame: int, encoded: str) -> None:
        """Store a JPEG in base64; a full disk is ignored."""
        path = self._path(sha256, frame)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(secrets.token_hex(8))
            partial.write_bytes(base64.b64decode(encoded))
            partial.replace(path)

    def get(self, sha256: str, frame: int) -> bytes | None:
        """The JPEG of a picture; None if it is not in the cache."""
        try:
            return self._path(sha256, frame).read_bytes()
        except OSError:
            return None

    def remove(self, sha256: str) -> None:
        """Delete all pictures of a file."""
        folder = self._path(sha256, 0).parent
        with suppress(OSError):
            for path in folder.glob(f"{sha256}-*.jpg"):
                path.unlink(missing_ok=True)

    def _path(self, sha256: str, frame: int) -> Path:
        return self._folder / sha256[:2] / f"{sha256}-{frame}.jpg"
