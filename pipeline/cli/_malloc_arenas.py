"""Keeps glibc from holding back memory for every thread."""

from __future__ import annotations

import ctypes
import platform

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2


def few_arenas() -> None:
    """Let all threads share two heaps; elsewhere than on glibc nothing happens.

    glibc gives each thread a heap of its own, and each keeps what large pictures left in it: with
    eight readers that doubled the peak. Call it before threads are started.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
