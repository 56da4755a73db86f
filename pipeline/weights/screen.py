"""A look at the bytes of an ONNX file before anything opens it.

ONNX Runtime parses and optimises in C++. What fxpipe's graphs never hold is refused before it gets
to see them: operators of other domains than ONNX's own (also those that ONNX Runtime knows),
functions that a file defines itself, and weights that lie outside of the file. This needs four
kinds of protobuf fields, so the walk is here and the package ``onnx`` is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import BundleError

OWN_DOMAINS = (b"", b"ai.onnx")

_MOST_FIELDS = 5_000_000
_MOST_DEPTH = 8
"""Graphs in attributes of nodes in graphs …: fxpipe's own have none."""

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
    """Refuse a file that no export of fxpipe looks like.

    Args:
        content: The whole file, already compared with its digest.
        source: Name for messages.

    Returns:
        The opset of ONNX's own operators that it wants.

    Raises:
        BundleError: Not ONNX, or with parts that are never run.
    """
    # ONNX Runtime would take these bytes for its own format, which nothing here looks through.
    if content[4:8] == b"ORTM":
        raise BundleError(f"{source}: found a file of ONNX Runtime's own format, wanted ONNX")
    return _Walk(source).model(memoryview(content))


def metadata_of(content: bytes, source: str) -> dict[str, str]:
    """The metadata of an ONNX file, among them its contract, without opening it.

    Args:
        content: The whole file, already compared with its digest.
        source: Name for messages.

    Raises:
        BundleError: Not ONNX.
    """
    return dict(_Walk(source).metadata(memoryview(content)))


class _Walk:
    """Through one file; every field that is looked at is counted."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._left = _MOST_FIELDS

    def model(self, data: memoryview) -> int:
        opset: int | None = None
        graphs = 0
        for number, value in self._fields(data):
            if number == _MODEL_FUNCTIONS:
                raise BundleError(
                    f"{self._source}: found a function of the file's own, wanted ONNX's operators"
                )
            if number == _MODEL_GRAPH and isinstance(value, memoryview):
                graphs += 1
                self._graph(value, 0)
            elif number == _MODEL_OPSET and isinstance(value, memoryview):
                opset = max(self._opset(value), opset or 0)
        if graphs != 1 or not opset:
            raise BundleError(
                f"{self._source}: found {graphs} graphs and opset {opset}, wanted one ONNX graph"
            )
        return opset

    def metadata(self, data: memoryview) -> Iterator[tuple[str, str]]:
        for number, value in self._fields(data):
            if number == _MODEL_METADATA and isinstance(value, memoryview):
                pair = dict(self._fields(value))
                key, text = (bytes(pair.get(n) or b"") for n in (_PAIR_KEY, _PAIR_VALUE))
                yield key.decode("utf-8", "replace"), text.decode("utf-8", "replace")

    def _opset(self, data: memoryview) -> int:
        """The version, if the domain is ONNX's own; else 0."""
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
                f"{self._source}: found the operator {_word(operator)} of the domain "
                f"{_word(domain)}, wanted only ONNX's own",
                "a foreign network is not run: export it with `fxpipe export`",
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
                    f"{self._source}: found weights outside of the file, wanted all of them inside"
                )

    def _fields(self, data: memoryview) -> Iterator[tuple[int, int | memoryview | None]]:
        """Number and value of each field: bytes, an integer, or None for a fixed-width one."""
        place, end = 0, len(data)
        while place < end:
            self._left -= 1
            if self._left < 0:
                raise self._damaged(f"more than {_MOST_FIELDS} fields")
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
                raise self._damaged("a field that ends outside of its message")
            yield number, value

    def _varint(self, data: memoryview, place: int) -> tuple[int, int]:
        if place < len(data) and data[place] < 0x80:  # nearly all of them
            return data[place], place + 1
        value = 0
        for step in range(10):
            if place + step >= len(data):
                break
            byte = data[place + step]
            value |= (byte & 0x7F) << (7 * step)
            if byte < 0x80:
                return value, place + step + 1
        raise self._damaged("an integer without an end")

    def _damaged(self, what: str) -> BundleError:
        return BundleError(f"{self._source}: found {what}, wanted a valid ONNX file")


def _word(name: bytes) -> str:
    return repr(name.decode("utf-8", "replace"))
