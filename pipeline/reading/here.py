"""Reads files in this process: in that of a worker, or where nobody wants to be isolated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

from ..clock import Clock
from ..domain import ImageRef, XrayImage
from ..errors import ImageError, OwnOutputError, UnsupportedError
from ..flags import OWN_OUTPUT, framing, quality
from ..io import Room, decode, read_source, study_uid
from ..preprocess import preprocess
from ..render import render
from ..source import Source
from .prepared import Item, Prepared, Wanted, after, unread


class Here:
    """The reader without workers: a decoder that crashes or hangs takes this process with it.

    Args:
        room: For pictures and files of all threads.
    """

    def __init__(self, room: Room) -> None:
        self._room = room

    def read(self, source: Source, wanted: Wanted, clock: Clock) -> list[Item]:
        """See :class:`.prepared.Reader`; all pictures of the file at once."""
        with self._room.for_file(source):
            return list(prepare(source, wanted, clock, self._room))

    def stop(self) -> None:
        """See :class:`.prepared.Reader`; what a thread has begun, it ends."""


def prepare(
    source: Source,
    wanted: Wanted,
    clock: Clock,
    room: Room,
    found: Callable[[str, int], None] | None = None,
) -> Iterator[Item]:
    """Read one file and resize each of its pictures; see :class:`.prepared.Reader`.

    Args:
        source: The file, or its content in memory.
        wanted: What to make of each picture.
        clock: Told what it took.
        room: Taken for each picture until the next item is asked for.
        found: Told SHA-256 and size of the content, before it is decoded.
    """
    failed_at: int | None = None
    content, sha256 = b"", None
    started = time.perf_counter()
    try:
        with clock.measure("read"):
            content, sha256 = read_source(source)
        if found:
            found(sha256, len(content))
        # Closed explicitly: whatever ends this, the room is given back.
        with closing(decode(content, source, sha256, room)) as images:
            while True:
                with clock.measure("decode"):
                    image = next(images, None)
                if image is None:
                    break
                with clock.measure("resize"):
                    item = prepared(image, wanted, started)
                del image  # not kept while the next one is decoded
                failed_at = after(item.image)
                yield item
                del item
                started = time.perf_counter()
        if failed_at is None:
            raise ImageError(
                f"{source.name}: found a file without a picture, expected at least one"
            )
    except ImageError as error:
        unsupported = isinstance(error, UnsupportedError)
        # So a study knows of the pictures that it lost.
        path = ImageRef.of(source).path
        uid = study_uid(content, path) if wanted.identity and not unsupported else None
        yield unread(
            source, failed_at, sha256, str(error), _since(started), unsupported=unsupported,
            identity={"StudyInstanceUID": uid} if uid else None,
            flags=(OWN_OUTPUT,) if isinstance(error, OwnOutputError) else (),
        )  # fmt: skip
    except MemoryError:
        words = f"{source.name}: found a picture that needs more memory than {room.memory}"
        yield unread(source, failed_at, sha256, f"{words}, expected a smaller one", _since(started))


def prepared(image: XrayImage, wanted: Wanted, started: float) -> Prepared:
    """What is kept of a picture.

    Args:
        image: The picture.
        wanted: What to make of it.
        started: ``time.perf_counter`` when it began to be read.
    """
    placed = {spec: preprocess(image.pixels, spec) for spec in wanted.preprocessings}
    framed = all(p.framed for spec, (_, p) in placed.items() if spec.frame == "limb")
    return Prepared(
        image=image.source,
        arrays={spec: array for spec, (array, _) in placed.items()},
        placements={spec: placement for spec, (_, placement) in placed.items()},
        header=image.dicom,
        identity=_identity(image) if wanted.identity else None,
        rendered=render(image.pixels) if wanted.rendered else None,
        flags=image.flags + quality(image.pixels, image.colour) + framing(framed),
        elapsed_ms=_since(started),
    )


def _identity(image: XrayImage) -> Mapping[str, str] | None:
    """Identifiers of a picture; its study by the directory of its medium, if not by its header."""
    if image.identity is None or image.identity.get("StudyInstanceUID"):
        return image.identity
    return {**image.identity, "StudyInstanceUID": study_uid(b"", image.source.path) or ""}


def _since(started: float) -> float:
    """Milliseconds since a ``time.perf_counter`` reading."""
    return (time.perf_counter() - started) * 1000.0
