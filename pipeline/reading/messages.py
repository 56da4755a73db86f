"""Messages between a run and its workers: a JSON header, then arrays as raw bytes.

Four bytes give the length of the header, and the header gives the shapes of the arrays. Both are
checked before memory is allocated, because a hostile file may have compromised the worker.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..domain import ImageRef, Placement, Rendered
from ..outcome import Outcome
from ..outcome_json import flags_from_json, flags_to_json, from_json, texts, to_json
from ..preprocess import PreprocessSpec
from ..source import NamedBytes, Source
from .prepared_picture import Item, Prepared, ReadOptions

Message = dict[str, Any]
Arrays = list[NDArray[Any]]

_MAX_HEADER_BYTES = 2**20
_DTYPES = {"float32": np.float32, "uint8": np.uint8}
_OF_THE_RUN: Message = {
    "region": None,
    "findings": (),
    "bundle_digests": {},
    "header": None,
    "study": None,
}
"""What only the run itself says, and its values for a picture that cannot be read."""

_LENGTH = struct.Struct("<I")

MALFORMED = (AttributeError, KeyError, OverflowError, TypeError, ValueError)
"""Exceptions that a message with missing or mistyped parts can cause."""


class MessageError(Exception):
    """The other side has ended, or sent a malformed message."""


def send(stream: BinaryIO, message: Message, arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Write one message and flush.

    Args:
        stream: Output stream to the other side.
        message: JSON values; file names may contain surrogate escapes (names that are not UTF-8).
        arrays: float32 or uint8.

    Raises:
        MessageError: The other side has ended, or the message is too long.
    """
    shapes = [[array.dtype.name, *array.shape] for array in arrays]
    header = json.dumps({**message, "arrays": shapes}).encode("ascii")
    if len(header) > _MAX_HEADER_BYTES:
        raise MessageError(f"found a header of {len(header)} bytes")
    try:
        stream.write(_LENGTH.pack(len(header)) + header)
        for array in arrays:
            stream.write(np.ascontiguousarray(array).data.cast("B"))
        stream.flush()
    except (OSError, ValueError) as error:  # ValueError: closed on this side
        raise MessageError("found a closed pipe") from error


def receive(
    stream: BinaryIO, max_bytes: int = 0, hold: Callable[[int], None] = lambda _: None
) -> tuple[Message, Arrays]:
    """Read one message.

    Args:
        stream: Input stream from the other side.
        max_bytes: Size limit of all arrays together.
        hold: Called with the size of all arrays in bytes before memory is allocated for them.

    Raises:
        MessageError: The other side has ended, or the message is malformed.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, bytearray(_LENGTH.size)))
    if length > _MAX_HEADER_BYTES:
        raise MessageError(f"found a header of {length} bytes")
    try:
        message = json.loads(_exactly(stream, bytearray(length)))
        shapes = [(np.dtype(_DTYPES[name]), tuple(shape)) for name, *shape in message["arrays"]]
        if not all(type(n) is int and n > 0 for _, shape in shapes for n in shape):
            raise ValueError
        size = sum(math.prod(shape) * dtype.itemsize for dtype, shape in shapes)
    except (*MALFORMED, RecursionError) as error:
        raise MessageError(f"found a malformed header ({type(error).__name__})") from error
    if size > max_bytes:
        raise MessageError(f"found arrays of {size} bytes, expected at most {max_bytes}")
    hold(size)
    arrays = [np.empty(shape, dtype) for dtype, shape in shapes]
    for array in arrays:
        _exactly(stream, array.data.cast("B"))
    return message, arrays


def _exactly(stream: BinaryIO, buffer: Any) -> Any:
    """Fill a buffer of bytes."""
    view, filled = memoryview(buffer), 0
    while filled < len(view):
        try:
            count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        except (OSError, ValueError) as error:  # ValueError: closed on this side
            raise MessageError("found a closed pipe") from error
        if not count:
            raise MessageError("found the end in the middle of a message")
        filled += count
    return buffer


# -------------------------------------------------------------------------------- requests


def request(source: Source, options: ReadOptions) -> tuple[Message, Arrays]:
    """A request to a worker; content in memory becomes a uint8 array unless it is empty."""
    message: Message = {
        "specs": [spec.model_dump(mode="json") for spec in options.preprocessings],
        "identity": options.identity,
        "rendered": options.rendered,
    }
    if isinstance(source, Path):
        return {**message, "path": str(source.absolute())}, []
    content = [np.frombuffer(source.content, np.uint8)] if source.content else []
    return {**message, "name": source.name}, content


def requested(message: Message, arrays: Sequence[NDArray[Any]]) -> tuple[Source, ReadOptions]:
    """Parse a message from :func:`request`."""
    specs = tuple(PreprocessSpec.model_validate(spec) for spec in message["specs"])
    options = ReadOptions(specs, message["identity"], message["rendered"])
    if "path" in message:
        return Path(message["path"]), options
    return NamedBytes(message["name"], b"".join(array.tobytes() for array in arrays)), options


# -------------------------------------------------------------------------------- pictures


def packed(item: Item) -> tuple[Message, Arrays]:
    """A picture, or the outcome of one that cannot be read, as a message."""
    if isinstance(item, Outcome):
        return {"kind": "unread", "outcome": to_json(item)}, []
    arrays: Arrays = list(item.arrays.values())
    if item.rendered is not None:
        arrays.append(item.rendered.pixels)
    message = {
        "kind": "picture",
        "frame": item.image.frame,
        "sha256": item.image.sha256,
        "elapsed_ms": item.elapsed_ms,
        "placements": [astuple(placement) for placement in item.placements.values()],
        "header": item.header,
        "identity": item.identity,
        "reduction": item.rendered and item.rendered.reduction,
        "flags": flags_to_json(item.flags),
    }
    return message, arrays


def unpacked(
    message: Message, arrays: Sequence[NDArray[Any]], source: Source, options: ReadOptions
) -> Item:
    """The picture in a message, with a reference to the run's source.

    Raises:
        MessageError: The message does not match the request.
    """
    try:
        if message["kind"] == "unread":
            return _unread(message["outcome"], source)
        specs = options.preprocessings
        rendered = None
        if options.rendered:
            *arrays, pixels = arrays
            rendered = Rendered(pixels, int(message["reduction"]))
        for spec, array in zip(specs, arrays, strict=True):
            if array.shape != (1, spec.height_px, spec.width_px) or array.dtype != np.float32:
                raise ValueError(f"array is {array.dtype} {array.shape}")
        return Prepared(
            image=ImageRef.of(source, _frame(message["frame"]), _text(message["sha256"])),
            arrays=dict(zip(specs, arrays, strict=True)),
            placements=dict(zip(specs, map(_placement, message["placements"]), strict=True)),
            header=texts(message["header"]),
            identity=texts(message["identity"]),
            rendered=rendered,
            flags=flags_from_json(message["flags"]),
            elapsed_ms=_milliseconds(message["elapsed_ms"]),
        )
    except MALFORMED as error:
        raise MessageError(f"found a malformed picture ({error})") from error


def _frame(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 0):
        raise ValueError("frame")
    return value


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _milliseconds(value: Any) -> float:
    if not math.isfinite(value) or value < 0.0:
        raise ValueError("elapsed_ms")
    return float(value)


def _placement(values: Sequence[Any]) -> Placement:
    scale_y, scale_x, top_px, left_px, (height, width), framed = values
    return Placement(scale_y, scale_x, top_px, left_px, (height, width), bool(framed))


def _unread(values: Mapping[str, Any], source: Source) -> Outcome:
    """The outcome of a picture that cannot be read.

    Raises:
        ValueError: It says more than a worker can know: a worker has no networks.
    """
    if any(values[name] for name in _OF_THE_RUN):
        raise ValueError("found a verdict, expected the reason why the picture cannot be read")
    checked = {
        "frame": _frame(values["frame"]),
        "sha256": _text(values["sha256"]),
        "error": str(values["error"]),
        "elapsed_ms": _milliseconds(values["elapsed_ms"]),
    }
    return from_json({**values, **_OF_THE_RUN, **checked}, source)
