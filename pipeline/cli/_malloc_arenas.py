"""Limits the memory that glibc keeps for each thread."""

from __future__ import annotations

import ctypes
import platform

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2


def limit_malloc_arenas() -> None:
    """Make all threads share two heaps. Does nothing without glibc.

    By default glibc gives each thread a separate heap, and each heap keeps the memory of large
    pictures. With eight readers this doubled the peak. Call it before threads are started.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
