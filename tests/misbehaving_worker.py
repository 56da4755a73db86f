"""A worker with a decoder that misbehaves as the content of a file requests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from pipeline.domain import ImageRef, XrayImage
from pipeline.io import MemoryBudget
from pipeline.reading import in_process
from pipeline.reading.worker import main as work
from pipeline.source import Source

BIG_BYTES = 2**31


def _decode(content: bytes, source: Source, sha256: str, room: MemoryBudget) -> Iterator[XrayImage]:
    """Follow the words of a file, and yield a picture of one grey value after each.

    ``good`` does nothing else, ``print`` writes to stdout and ``doze`` waits 0.3 s. ``segfault``,
    ``abort`` and ``leave`` end the process, ``hang`` never ends, ``breed`` waits for a child
    process, ``eat`` allocates 2 GiB, ``stumble`` raises an exception. ``babble`` (random bytes),
    ``boast`` (arrays that are too large) and ``lie`` (a request of invalid size) send messages that
    break the protocol.
    """
    for number, word in enumerate(content.decode().split()):
        with room.for_picture(100):
            if word == "segfault":
                import ctypes

                ctypes.string_at(0)
            elif word == "abort":
                os.abort()
            elif word == "leave":
                os._exit(3)
            elif word == "breed":
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
                (source.parent / "child").write_text(str(child.pid))
                child.wait()
            elif word == "hang":
                while True:
                    pass
            elif word == "doze":
                time.sleep(0.3)
            elif word == "eat":
                np.ones(BIG_BYTES, np.uint8)
            elif word == "stumble":
                raise KeyError("Invented^Person")
            elif word == "print":
                os.write(1, b"noise " * 1000)
                sys.stdout.write("noise")
            elif word == "babble":
                os.write(_answers, b"\xff" * 100)
            elif word == "boast":
                _send(b'{"kind": "picture", "arrays": [["float32", 100000, 100000]]}')
            elif word == "lie":
                _send(b'{"kind": "room", "pixels": Infinity, "arrays": []}')
            image = ImageRef.of(source, number, sha256)
            yield XrayImage(np.full((8, 8), 0.5, np.float32), image, 8)


_answers = -1
"""Descriptor of the pipe to the run."""


def _send(header: bytes) -> None:
    os.write(_answers, len(header).to_bytes(4, "little") + header)


def main() -> int:
    """Run the worker with that decoder; returns its exit status."""
    global _answers
    _answers = os.dup(1)  # the worker redirects stdout
    in_process.decode = _decode  # type: ignore[assignment, attr-defined]
    return work()
