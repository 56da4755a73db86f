"""Prepared pictures and the reader protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ..domain import Array, Flag, ImageRef, Placement, Rendered
from ..outcome import Outcome, Status
from ..preprocess import PreprocessSpec
from ..source import Source
from ..timing import Clock


@dataclass(frozen=True, slots=True)
class Prepared:
    """One picture, ready for every network; the full-depth pixels are not kept.

    Attributes:
        image: Reference to the source image.
        arrays: (1, H, W) float32 for each preprocessing that the run needs.
        placements: Position of the picture on each canvas.
        header, identity, rendered: See :class:`pipeline.outcome.Outcome`.
        flags: Quality flags.
        elapsed_ms: Time for reading, decoding and resizing.
        study: See :class:`pipeline.outcome.Outcome`; readers leave it None.
    """

    image: ImageRef
    arrays: Mapping[PreprocessSpec, Array]
    placements: Mapping[PreprocessSpec, Placement]
    header: Mapping[str, str] | None
    identity: Mapping[str, str] | None
    rendered: Rendered | None
    flags: tuple[Flag, ...]
    elapsed_ms: float
    study: str | None = None


Item = Prepared | Outcome
"""A picture, or the outcome of one that cannot be read."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a reader produces from every picture.

    Attributes:
        preprocessings: The required preprocessings, without duplicates.
        identity: Whether to return identifiers.
        rendered: Whether to return the picture for reports.
    """

    preprocessings: tuple[PreprocessSpec, ...]
    identity: bool = False
    rendered: bool = False


class Reader(Protocol):
    """Reads the files of one run; several caller threads may read at the same time."""

    def read(self, source: Source, options: ReadOptions, clock: Clock) -> Iterable[Item]:
        """The pictures of one file, then a failed outcome if reading fails; at least one item.

        Never raises because of the file's content. The result may read lazily while one thread
        (any thread) iterates over it.

        Args:
            source: The file, or its content in memory.
            options: What to produce from each picture.
            clock: Records the time for reading, decoding and resizing.

        Raises:
            StartError: No worker can be started.
        """
        ...

    def stop(self) -> None:
        """Abandon the files that are being read, and read no more."""
        ...


def next_frame(image: ImageRef) -> int:
    """Zero-based number of the next picture in the file."""
    return (image.frame or 0) + 1


def unread(
    source: Source,
    frame: int | None,
    sha256: str | None,
    error: str,
    elapsed_ms: float,
    *,
    unsupported: bool = False,
    identity: Mapping[str, str] | None = None,
    flags: tuple[Flag, ...] = (),
) -> Outcome:
    """The outcome of a picture that cannot be read.

    Args:
        source: The file, or its content in memory.
        frame: Zero-based number of the picture; None for the first, which may be the only one.
        sha256: Digest of the file's content, if it could be read.
        error: What was found, and what was expected.
        elapsed_ms: Time spent on it.
        unsupported: Whether it is of a kind that fxpipe does not judge.
        identity: Known identifiers.
        flags: Flags of the picture.
    """
    return Outcome(
        image=ImageRef.of(source, frame, sha256),
        status=Status.UNSUPPORTED if unsupported else Status.FAILED,
        error=error,
        elapsed_ms=elapsed_ms,
        flags=flags,
        identity=identity,
    )
