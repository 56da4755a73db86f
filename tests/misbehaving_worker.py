"""A worker whose decoder does what a file's content says: the worst that decoders do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from pipeline.domain import ImageRef, XrayImage
from pipeline.io import Room
from pipeline.reading import in_process, worker
from pipeline.reading.worker import main as work
from pipeline.source import Source

BIG_BYTES = 2**31


def _decode(content: bytes, source: Source, sha256: str, room: Room) -> Iterator[XrayImage]:
    """Do words: ``good`` is a picture of one grey value, the others end badly."""
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
                header = b'{"kind": "picture", "arrays": [["float32", 100000, 100000]]}'
                _say(header)
            elif word == "lie":
                _say(b'{"kind": "room", "pixels": Infinity, "arrays": []}')
            image = ImageRef.of(source, number, sha256)
            yield XrayImage(np.full((8, 8), 0.5, np.float32), image, 8)


_answers = -1


def _say(header: bytes) -> None:
    os.write(_answers, len(header).to_bytes(4, "little") + header)


def main() -> int:
    """A worker with that decoder."""
    global _answers
    in_process.decode = _decode  # type: ignore[assignment]
    channel = worker._channel

    def spied() -> object:
        global _answers
        requests, answers = channel()
        _answers = answers.fileno()
        return requests, answers

    worker._channel = spied  # type: ignore[assignment]
    return work()
