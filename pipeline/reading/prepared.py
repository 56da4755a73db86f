"""What a run keeps of a picture, and who makes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ..clock import Clock
from ..domain import Array, Flag, ImageRef, Outcome, Placement, Rendered, Status
from ..preprocess import PreprocessSpec
from ..source import Source


@dataclass(frozen=True, slots=True)
class Prepared:
    """One picture, ready for every network; its pixels in full depth are gone.

    Attributes:
        image: Where it comes from.
        arrays: (1, H, W) float32 for each kind of preprocessing that the run needs.
        placements: Where the picture lies on each of them.
        header, identity, rendered: See :class:`pipeline.domain.Outcome`.
        flags: Doubts about its quality.
        elapsed_ms: Reading, decoding and resizing.
        study: See :class:`pipeline.domain.Outcome`; no reader knows it.
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
class Wanted:
    """What a run wants of every picture.

    Attributes:
        preprocessings: Each once.
        identity: Whether it wants identifiers.
        rendered: Whether it wants the picture for reports.
    """

    preprocessings: tuple[PreprocessSpec, ...]
    identity: bool = False
    rendered: bool = False


class Reader(Protocol):
    """Reads the files of one run, any number at the same time, each in a thread of the caller."""

    def read(self, source: Source, wanted: Wanted, clock: Clock) -> Iterable[Item]:
        """The pictures of one file, and the failed outcome of what ends it; at least one item.

        Never raises for what the file holds. What is returned may go on reading while it is
        iterated, in any one thread.

        Args:
            source: The file, or its content in memory.
            wanted: What to make of each picture.
            clock: Told how long it took to read, decode and resize.

        Raises:
            StartError: There is nobody to read it.
        """
        ...

    def stop(self) -> None:
        """Give up what is being read; nothing more is."""
        ...


def after(image: ImageRef) -> int:
    """Number of the picture that follows another one in its file."""
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
        sha256: Of the file's content, if it could be read.
        error: What was found, and what was expected.
        elapsed_ms: Time spent on it.
        unsupported: Whether it is nothing that fxpipe judges.
        identity: What is known of its identifiers.
        flags: What else is to be said of it.
    """
    return Outcome(
        image=ImageRef.of(source, frame, sha256),
        status=Status.UNSUPPORTED if unsupported else Status.FAILED,
        error=error,
        elapsed_ms=elapsed_ms,
        flags=flags,
        identity=identity,
    )
