"""How much memory a worker may have: what it has anyway, and so much for each pixel and byte."""

from __future__ import annotations

import sys
from pathlib import Path

_SPARE_BYTES = 160 * 2**20
"""For what does not grow with the picture: preprocessing, the copy for reports, tables."""

_COPIES = 4
"""Of a file's content: itself, its inflated or unpacked form, a frame of it."""

_BYTES_A_PIXEL = 24
"""JPEG 2000 takes most: 4 for each sample while it decodes, then 2 or 3, then 4 as float32."""


class Allowance:
    """Limits the private memory of this process; elsewhere than on Linux it limits nothing.

    The soft limit on data (RLIMIT_DATA), which counts what is allocated and not the libraries: it
    may be raised again, so that a small file has little and a large picture what it needs.
    """

    def __init__(self) -> None:
        self._base = data_bytes()
        self.more = 0

    def allow(self, file_bytes: int, pixels: int = 0) -> None:
        """Set the limit for one picture.

        Args:
            file_bytes: Of the file.
            pixels: Of the picture, as its header has it.
        """
        self.more = _SPARE_BYTES + _COPIES * file_bytes + _BYTES_A_PIXEL * pixels
        if sys.platform == "linux":
            import resource

            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            wanted = self._base + self.more
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

    @property
    def swollen(self) -> bool:
        """Whether this process has kept so much that a new one would be better."""
        return data_bytes() > self._base + _SPARE_BYTES // 2


def data_bytes() -> int:
    """What this process has allocated; 0 where there is no /proc."""
    if sys.platform != "linux":
        return 0
    import resource

    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[5]
    return int(pages) * resource.getpagesize()
