"""Reads files in the current process: inside a worker, or in the run if isolation is off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

from ..domain import ImageRef, XrayImage
from ..errors import ImageError, OwnOutputError, UnsupportedError
from ..flags import OWN_OUTPUT, framing, quality
from ..io import MemoryBudget, decode, read_source, study_uid
from ..preprocess import preprocess
from ..render import render
from ..source import Source
from ..timing import Clock
from .prepared_picture import Item, Prepared, ReadOptions, next_frame, unread


class InProcessReader:
    """A reader without workers: a decoder that crashes or hangs affects the whole process.

    Args:
        room: Memory budget for the pictures and files of all threads.
    """

    def __init__(self, room: MemoryBudget) -> None:
        self._room = room

    def read(self, source: Source, options: ReadOptions, clock: Clock) -> list[Item]:
        """See :class:`.prepared_picture.Reader`; reads the whole file before it returns."""
        with self._room.for_file(source):
            return list(prepare(source, options, clock, self._room))

    def stop(self) -> None:
        """See :class:`.prepared_picture.Reader`; threads finish the files they have started."""


def prepare(
    source: Source,
    options: ReadOptions,
    clock: Clock,
    room: MemoryBudget,
    on_content: Callable[[str, int], None] | None = None,
) -> Iterator[Item]:
    """Read one file and resize each of its pictures; see :class:`.prepared_picture.Reader`.

    Args:
        source: The file, or its content in memory.
        options: What to produce from each picture.
        clock: Records the times.
        room: Reserved for each picture until the next item is requested.
        on_content: Called with SHA-256 and size of the content before it is decoded.
    """
    failed_at: int | None = None
    content, sha256 = b"", None
    started = time.perf_counter()
    try:
        with clock.measure("read"):
            content, sha256 = read_source(source)
        if on_content:
            on_content(sha256, len(content))
        # Closed explicitly, so that the room is always released.
        with closing(decode(content, source, sha256, room)) as images:
            while True:
                with clock.measure("decode"):
                    image = next(images, None)
                if image is None:
                    break
                with clock.measure("resize"):
                    item = prepared(image, options, started)
                del image  # not kept while the next one is decoded
                failed_at = next_frame(item.image)
                yield item
                del item
                started = time.perf_counter()
        if failed_at is None:
            raise ImageError(
                f"{source.name}: found a file without a picture, expected at least one"
            )
    except ImageError as error:
        unsupported = isinstance(error, UnsupportedError)
        # The study identifier lets a study report its unreadable pictures.
        path = ImageRef.of(source).path
        uid = study_uid(content, path) if options.identity and not unsupported else None
        yield unread(
            source, failed_at, sha256, str(error), _since(started), unsupported=unsupported,
            identity={"StudyInstanceUID": uid} if uid else None,
            flags=(OWN_OUTPUT,) if isinstance(error, OwnOutputError) else (),
        )  # fmt: skip
    except MemoryError:
        message = f"{source.name}: found a picture that needs more memory than {room.memory}"
        reason = f"{message}, expected a smaller one"
        yield unread(source, failed_at, sha256, reason, _since(started))


def prepared(image: XrayImage, options: ReadOptions, started: float) -> Prepared:
    """Preprocess one decoded picture.

    Args:
        image: The picture.
        options: What to produce from it.
        started: ``time.perf_counter`` when reading started.
    """
    preprocessed = {spec: preprocess(image.pixels, spec) for spec in options.preprocessings}
    framed = all(p.framed for spec, (_, p) in preprocessed.items() if spec.frame == "limb")
    return Prepared(
        image=image.source,
        arrays={spec: array for spec, (array, _) in preprocessed.items()},
        placements={spec: placement for spec, (_, placement) in preprocessed.items()},
        header=image.dicom,
        identity=_identity(image) if options.identity else None,
        rendered=render(image.pixels) if options.rendered else None,
        flags=image.flags + quality(image.pixels, image.colour) + framing(framed),
        elapsed_ms=_since(started),
    )


def _identity(image: XrayImage) -> Mapping[str, str] | None:
    """Identifiers of a picture; the study comes from the header, else from a DICOMDIR."""
    if image.identity is None or image.identity.get("StudyInstanceUID"):
        return image.identity
    return {**image.identity, "StudyInstanceUID": study_uid(b"", image.source.path) or ""}


def _since(started: float) -> float:
    """Milliseconds since a ``time.perf_counter`` reading."""
    return (time.perf_counter() - started) * 1000.0
