"""Check of the content of an ONNX file before ONNX Runtime opens it.

ONNX Runtime parses and optimises graphs in C++. This module first refuses what graphs of fxpipe
never contain: operators outside the ONNX domain (including those of ONNX Runtime), functions
defined in the file, and external weights. It reads the few protobuf fields it needs itself, without
the package ``onnx``.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import BundleError

OWN_DOMAINS = (b"", b"ai.onnx")

MAX_FIELDS = 5_000_000
"""Most protobuf fields of a file; a file with more is refused."""

_MOST_DEPTH = 8
"""Nesting of graphs in node attributes; graphs of fxpipe have none."""

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA, _MODEL_FUNCTIONS = 7, 8, 14, 25
_PAIR_KEY, _PAIR_VALUE = 1, 2
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_SPARSE = 1, 5, 15
_NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def screen(content: bytes, source: str) -> int:
    """Refuse a file that does not look like an export of fxpipe.

    Args:
        content: Whole file, already compared with its digest.
        source: Name for messages.

    Returns:
        The opset of the ONNX domain that the file requires.

    Raises:
        BundleError: The file is not ONNX, or has content that is refused.
    """
    # ONNX Runtime would read these bytes as ORT format, which is not checked here.
    if content[4:8] == b"ORTM":
        raise BundleError(f"{source}: found a file in ORT format, expected ONNX")
    return _Walk(source).model(memoryview(content))


def metadata_of(content: bytes, source: str) -> dict[str, str]:
    """Metadata of an ONNX file, including the contract, without opening it.

    Args:
        content: Whole file, already compared with its digest.
        source: Name for messages.

    Raises:
        BundleError: The file is not ONNX.
    """
    return dict(_Walk(source).metadata(memoryview(content)))


class _Walk:
    """Parser of one file, with a limit on the number of fields."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._remaining = MAX_FIELDS

    def model(self, data: memoryview) -> int:
        opset: int | None = None
        graphs = 0
        for number, value in self._fields(data):
            if number == _MODEL_FUNCTIONS:
                raise BundleError(
                    f"{self._source}: found a function defined in the file, expected only ONNX "
                    "operators"
                )
            if number == _MODEL_GRAPH and isinstance(value, memoryview):
                graphs += 1
                self._graph(value, 0)
            elif number == _MODEL_OPSET and isinstance(value, memoryview):
                opset = max(self._opset(value), opset or 0)
        if graphs != 1 or not opset:
            raise BundleError(
                f"{self._source}: found {graphs} graphs and opset {opset}, expected one ONNX graph"
            )
        return opset

    def metadata(self, data: memoryview) -> Iterator[tuple[str, str]]:
        for number, value in self._fields(data):
            if number == _MODEL_METADATA and isinstance(value, memoryview):
                pair = dict(self._fields(value))
                key, text = (bytes(pair.get(n) or b"") for n in (_PAIR_KEY, _PAIR_VALUE))
                yield key.decode("utf-8", "replace"), text.decode("utf-8", "replace")

    def _opset(self, data: memoryview) -> int:
        """The version if the domain is that of ONNX; else 0."""
        domain, version = b"", 0
        for number, value in self._fields(data):
            if number == _OPSET_DOMAIN and isinstance(value, memoryview):
                domain = bytes(value[:64])
            elif number == _OPSET_VERSION and isinstance(value, int):
                version = value
        return version if domain in OWN_DOMAINS else 0

    def _graph(self, data: memoryview, depth: int) -> None:
        if depth > _MOST_DEPTH:
            raise self._damaged(f"graphs nested more than {_MOST_DEPTH} deep")
        for number, value in self._fields(data):
            if not isinstance(value, memoryview):
                continue
            if number == _GRAPH_NODE:
                self._node(value, depth)
            elif number == _GRAPH_TENSOR:
                self._tensor(value)
            elif number == _GRAPH_SPARSE:
                self._sparse(value)

    def _node(self, data: memoryview, depth: int) -> None:
        operator, domain = b"", b""
        for number, value in self._fields(data):
            if not isinstance(value, memoryview):
                continue
            if number == _NODE_OP:
                operator = bytes(value[:64])
            elif number == _NODE_DOMAIN and bytes(value[:64]) not in OWN_DOMAINS:
                domain = bytes(value[:64])
            elif number == _NODE_ATTRIBUTE:
                self._attribute(value, depth)
        if domain:
            raise BundleError(
                f"{self._source}: found the operator {_quoted(operator)} of the domain "
                f"{_quoted(domain)}, expected only ONNX operators",
                "fxpipe runs only its own exports: export the network with `fxpipe export`",
            )

    def _attribute(self, data: memoryview, depth: int) -> None:
        for number, value in self._fields(data):
            if not isinstance(value, memoryview):
                continue
            if number in _ATTRIBUTE_TENSORS:
                self._tensor(value)
            elif number in _ATTRIBUTE_GRAPHS:
                self._graph(value, depth + 1)
            elif number in _ATTRIBUTE_SPARSE:
                self._sparse(value)

    def _sparse(self, data: memoryview) -> None:
        for _, value in self._fields(data):  # values and indices; dims are numbers
            if isinstance(value, memoryview):
                self._tensor(value)

    def _tensor(self, data: memoryview) -> None:
        for number, value in self._fields(data):
            if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value):
                raise BundleError(
                    f"{self._source}: found external weights, expected all of them in the file"
                )

    def _fields(self, data: memoryview) -> Iterator[tuple[int, int | memoryview | None]]:
        """Number and value of each field: bytes, an integer, or None for a fixed-width one."""
        place, end = 0, len(data)
        while place < end:
            self._remaining -= 1
            if self._remaining < 0:
                raise self._damaged(f"more than {MAX_FIELDS} fields")
            key, place = self._varint(data, place)
            number, wire = key >> 3, key & 7
            value: int | memoryview | None = None
            if wire == _VARINT:
                value, place = self._varint(data, place)
            elif wire == _BYTES:
                length, place = self._varint(data, place)
                value = data[place : place + length]
                place += length
            elif wire in (_FIXED32, _FIXED64):
                place += 4 if wire == _FIXED32 else 8
            else:
                raise self._damaged(f"wire type {wire}")
            if number == 0 or place > end:
                raise self._damaged("a field that ends outside its message")
            yield number, value

    def _varint(self, data: memoryview, place: int) -> tuple[int, int]:
        if place < len(data) and data[place] < 0x80:  # the common case
            return data[place], place + 1
        value = 0
        for step in range(10):
            if place + step >= len(data):
                break
            byte = data[place + step]
            value |= (byte & 0x7F) << (7 * step)
            if byte < 0x80:
                return value, place + step + 1
        raise self._damaged("an unterminated integer")

    def _damaged(self, fault: str) -> BundleError:
        return BundleError(f"{self._source}: found {fault}, expected a valid ONNX file")


def _quoted(name: bytes) -> str:
    return repr(name.decode("utf-8", "replace"))
