"""An open ONNX graph whose inputs and outputs match a contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..domain import Array
from ..errors import BundleError, DeviceError
from .providers import RUNTIME_ERRORS

_FLOAT = "tensor(float)"

Sizes = tuple[int | None, ...]
"""Expected shape of a port; None matches any size. The first, the batch size, is always open."""


class Graph:
    """An ONNX Runtime session with one input.

    Args:
        name: Name of the bundle, for messages.
        session: The ``onnxruntime.InferenceSession``.
        expected_input: Name and shape of the input.
        expected_outputs: Shape of each required output, by name; the graph may have more.

    Raises:
        BundleError: The graph does not have these ports.
    """

    def __init__(
        self,
        name: str,
        session: Any,
        expected_input: tuple[str, Sizes],
        expected_outputs: Mapping[str, Sizes],
    ) -> None:
        self.name = name
        self._session = session
        self._input = expected_input[0]
        self._ports = {
            port.name: (port.type, tuple(port.shape))
            for port in (*session.get_inputs(), *session.get_outputs())
        }
        inputs = [port.name for port in session.get_inputs()]
        if inputs != [self._input]:
            raise BundleError(f"bundle {name}: inputs are {inputs}, expected [{self._input!r}]")
        for port, sizes in {self._input: expected_input[1], **expected_outputs}.items():
            self._check(port, sizes)

    def has(self, port: str) -> bool:
        """Whether the graph has an input or output of that name."""
        return port in self._ports

    def channels(self, port: str) -> int | None:
        """Fixed channel count of an input or output; None if the graph leaves it open."""
        size = self._ports[port][1][1]
        return size if isinstance(size, int) else None

    def run(self, outputs: Sequence[str], inputs: Array) -> list[Array]:
        """Compute some outputs for a batch.

        Raises:
            DeviceError: The device failed, usually because it ran out of memory.
        """
        try:
            values: list[Array] = self._session.run(list(outputs), {self._input: inputs})
        except RUNTIME_ERRORS as error:
            raise DeviceError(
                f"bundle {self.name}: the device failed on a batch of shape "
                f"{inputs.shape}: {error}",
                "try a smaller --batch-size, or --device cpu",
            ) from error
        return values

    def _check(self, port: str, sizes: Sizes) -> None:
        """Check name, type and fixed sizes of a port; open sizes match any size."""
        if port not in self._ports:
            raise BundleError(
                f"bundle {self.name}: no {port!r} in the graph, which has {', '.join(self._ports)}"
            )
        kind, shape = self._ports[port]
        fits = len(shape) == len(sizes) and all(
            size is None or not isinstance(actual, int) or actual == size
            for actual, size in zip(shape, sizes, strict=True)
        )
        if kind != _FLOAT or not fits or isinstance(shape[0], int):
            expected = ["N", *("any" if size is None else size for size in sizes[1:])]
            raise BundleError(
                f"bundle {self.name}: {port} is {kind} {list(shape)}, expected {_FLOAT} "
                f"{expected} with an open batch size"
            )
