"""An opened ONNX graph: its ports compared with a contract, and run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..domain import Array
from ..errors import BundleError, DeviceError
from .providers import RUNTIME_ERRORS

_FLOAT = "tensor(float)"

Sizes = tuple[int | None, ...]
"""Wanted shape of a port; None fits anything. The first, the batch size, is always left open."""


class Graph:
    """A session that takes one array.

    Args:
        name: Of the bundle, for messages.
        session: The ``onnxruntime.InferenceSession``.
        takes: Name and shape of its input.
        gives: Shape of each output that is wanted, by name; the graph may have others too.

    Raises:
        BundleError: The graph does not have these ports.
    """

    def __init__(
        self, name: str, session: Any, takes: tuple[str, Sizes], gives: Mapping[str, Sizes]
    ) -> None:
        self._name = name
        self._session = session
        self._input = takes[0]
        self._ports = {
            port.name: (port.type, tuple(port.shape))
            for port in (*session.get_inputs(), *session.get_outputs())
        }
        inputs = [port.name for port in session.get_inputs()]
        if inputs != [self._input]:
            raise BundleError(f"bundle {name}: inputs are {inputs}, wanted [{self._input!r}]")
        for port, sizes in {self._input: takes[1], **gives}.items():
            self._check(port, sizes)

    def has(self, port: str) -> bool:
        """Whether there is an input or output of that name."""
        return port in self._ports

    def channels(self, port: str) -> int | None:
        """Fixed channel count of an input or output; None when the graph leaves it open."""
        size = self._ports[port][1][1]
        return size if isinstance(size, int) else None

    def run(self, outputs: Sequence[str], inputs: Array) -> list[Array]:
        """Some outputs for a batch.

        Raises:
            DeviceError: The device gave up, for want of memory above all.
        """
        try:
            values: list[Array] = self._session.run(list(outputs), {self._input: inputs})
        except RUNTIME_ERRORS as error:
            raise DeviceError(
                f"bundle {self._name}: the device failed on a batch of shape "
                f"{inputs.shape}: {error}",
                "try a smaller --batch-size, or --device cpu",
            ) from error
        return values

    def _check(self, port: str, sizes: Sizes) -> None:
        """Compare name, type and fixed sizes with what is wanted; open sizes fit anything."""
        if port not in self._ports:
            raise BundleError(
                f"bundle {self._name}: no {port!r} in the graph, which has {', '.join(self._ports)}"
            )
        kind, shape = self._ports[port]
        fits = len(shape) == len(sizes) and all(
            want is None or not isinstance(found, int) or found == want
            for found, want in zip(shape, sizes, strict=True)
        )
        if kind != _FLOAT or not fits or isinstance(shape[0], int):
            wanted = ["N", *("any" if size is None else size for size in sizes[1:])]
            raise BundleError(
                f"bundle {self._name}: {port} is {kind} {list(shape)}, wanted {_FLOAT} "
                f"{wanted} with an open batch size"
            )
