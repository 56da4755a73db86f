"""The memory limit of a worker: a fixed base plus an amount for each pixel and byte."""

from __future__ import annotations

import sys
from pathlib import Path

_SPARE_BYTES = 160 * 2**20
"""For memory that does not depend on picture size: preprocessing, report copy, tables."""

_COPIES = 4
"""Copies of a file's content: the original, its decompressed form, one frame."""

_BYTES_A_PIXEL = 24
"""JPEG 2000 needs the most: 4 per sample during decoding, then 2 or 3, then 4 as float32."""


class Allowance:
    """Limits the private memory of this process on Linux; does nothing on other systems.

    It sets the soft limit on data (RLIMIT_DATA), which counts allocations but not libraries. A soft
    limit can be raised again, so each picture gets a limit that fits its size.
    """

    def __init__(self) -> None:
        self._base = data_bytes()
        self.extra = 0

    def allow(self, file_bytes: int, pixels: int = 0) -> None:
        """Set the limit for one picture.

        Args:
            file_bytes: Size of the file.
            pixels: Number of pixels, according to the picture's header.
        """
        self.extra = _SPARE_BYTES + _COPIES * file_bytes + _BYTES_A_PIXEL * pixels
        if sys.platform == "linux":
            import resource

            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            limit = self._base + self.extra
            soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

    @property
    def grown(self) -> bool:
        """Whether this process retains enough memory that it should be replaced."""
        return data_bytes() > self._base + _SPARE_BYTES // 2


def data_bytes() -> int:
    """Bytes that this process has allocated; 0 on systems other than Linux."""
    if sys.platform != "linux":
        return 0
    import resource

    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[5]
    return int(pages) * resource.getpagesize()
