"""Networks opened and checked against their contract, and the batch of pictures they look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..bundle import BundleSpec, Kind
from ..domain import Array, StageOutput
from ..errors import BundleError, DeviceError
from ..preprocess import PreprocessSpec
from .providers import RUNTIME_ERRORS

_FLOAT = "tensor(float)"


class Stage(Protocol):
    """Anything that answers for the pictures of a batch: one network, or several as one."""

    @property
    def spec(self) -> BundleSpec:
        """What it promises."""
        ...

    @property
    def networks(self) -> tuple[Network, ...]:
        """Every network that has a part in the answer, the trunks left out."""
        ...

    def look(
        self, batch: Batch, rows: Sequence[int] | None = None, *, evidence: bool = False
    ) -> StageOutput:
        """Answer for some pictures of a batch.

        Args:
            batch: The pictures.
            rows: Which of them; None for all.
            evidence: Whether evidence maps are wanted too, if there are any.

        Raises:
            DeviceError: The device gave up, for want of memory above all.
        """
        ...


class Batch:
    """The inputs of N pictures, each made once: arrays by preprocessing, features by trunk.

    Args:
        pictures: Of each picture its (1, H, W) float32 array by preprocessing.
        trunks: By the identity of their weights.
    """

    def __init__(
        self, pictures: Sequence[Mapping[PreprocessSpec, Array]], trunks: Mapping[str, Network]
    ) -> None:
        self._pictures = pictures
        self._trunks = trunks
        self._arrays: dict[PreprocessSpec, Array] = {}
        self._features: dict[str, Array] = {}

    def inputs(self, network: Network, rows: Sequence[int] | None = None) -> Array:
        """What a network takes of some rows: (R, 1, H, W) pictures or (R, C, h, w) features."""
        taken = self._all_inputs(network)
        return taken if rows is None or len(rows) == len(taken) else taken[rows]

    def _all_inputs(self, network: Network) -> Array:
        if network.spec.input == "image":
            return self._stacked(network.spec.preprocess)
        identity = str(network.spec.trunk)
        if identity not in self._features:
            trunk = self._trunks[identity]
            self._features[identity] = trunk.features(self._stacked(trunk.spec.preprocess))
        return self._features[identity]

    def _stacked(self, spec: PreprocessSpec) -> Array:
        if spec not in self._arrays:
            self._arrays[spec] = np.stack([arrays[spec] for arrays in self._pictures])
        return self._arrays[spec]


class Network:
    """One opened bundle.

    Args:
        spec: Its contract.
        digest: SHA-256 of its file.
        session: The ``onnxruntime.InferenceSession`` that holds the graph.

    Raises:
        BundleError: The graph does not have the inputs and outputs of its contract.
    """

    def __init__(self, spec: BundleSpec, digest: str, session: Any) -> None:
        self.spec = spec
        self.digest = digest
        self._session = session
        self._shapes = {
            port.name: (port.type, tuple(port.shape))
            for port in (*session.get_inputs(), *session.get_outputs())
        }
        inputs = [port.name for port in session.get_inputs()]
        if inputs != [spec.input]:
            raise BundleError(f"bundle {spec.name}: inputs are {inputs}, wanted [{spec.input!r}]")
        self._check_ports()

    @property
    def networks(self) -> tuple[Network, ...]:
        """Itself: see :class:`Stage`."""
        return (self,)

    def look(
        self, batch: Batch, rows: Sequence[int] | None = None, *, evidence: bool = False
    ) -> StageOutput:
        """See :meth:`Stage.look`."""
        return self.predict(batch.inputs(self, rows), evidence=evidence)

    def features(self, images: Array) -> Array:
        """Run a trunk.

        Args:
            images: (N, 1, H, W) float32 in [0, 1], preprocessed as the contract says.

        Returns:
            (N, C, h, w) float32.

        Raises:
            DeviceError: The device gave up, for want of memory above all.
        """
        return self._run(["features"], images)[0]

    def predict(self, inputs: Array, *, evidence: bool = False) -> StageOutput:
        """Run a stage.

        Args:
            inputs: (N, 1, H, W) float32 in [0, 1] for a complete network, (N, C, h, w) float32
                from its trunk for a head, (N, M) float32 in [0, 1] for the mean of an ensemble.
            evidence: Whether to bring back the evidence maps too, if the graph has them.

        Raises:
            DeviceError: The device gave up, for want of memory above all.
        """
        names = ["logits", "probabilities"]
        if evidence and "evidence" in self._shapes:
            names.append("evidence")
        values = self._run(names, inputs)
        return StageOutput(self.spec.labels, *values)

    def channels(self, port: str) -> int | None:
        """Fixed channel count of an input or output; None when the graph leaves it open."""
        size = self._shapes[port][1][1]
        return size if isinstance(size, int) else None

    def _run(self, names: Sequence[str], inputs: Array) -> list[Array]:
        try:
            values: list[Array] = self._session.run(names, {self.spec.input: inputs})
        except RUNTIME_ERRORS as error:
            raise DeviceError(
                f"bundle {self.spec.name}: the device failed on a batch of shape "
                f"{inputs.shape}: {error}",
                "try a smaller --batch-size, or --device cpu",
            ) from error
        return values

    def _check_ports(self) -> None:
        """Compare names, types and fixed sizes with the contract; open sizes fit anything."""
        spec, labels = self.spec, len(self.spec.labels)
        takes: dict[str, tuple[int | None, ...]] = {
            "image": (None, 1, spec.preprocess.height_px, spec.preprocess.width_px),
            "features": (None,) * 4,
            "members": (None, len(spec.members)),
        }
        wanted: dict[str, tuple[int | None, ...]] = {spec.input: takes[spec.input]}
        if spec.kind is Kind.TRUNK:
            wanted["features"] = (None,) * 4
        else:
            wanted |= {"logits": (None, labels), "probabilities": (None, labels)}
            if spec.heatmap and not spec.members:
                wanted["evidence"] = (None, labels, None, None)
        for name, sizes in wanted.items():
            if name not in self._shapes:
                raise BundleError(
                    f"bundle {spec.name}: no {name!r} in the graph, which has "
                    f"{', '.join(self._shapes)}"
                )
            self._check_port(name, sizes)

    def _check_port(self, name: str, sizes: tuple[int | None, ...]) -> None:
        kind, shape = self._shapes[name]
        fits = len(shape) == len(sizes) and all(
            want is None or not isinstance(found, int) or found == want
            for found, want in zip(shape, sizes, strict=True)
        )
        if kind != _FLOAT or not fits or isinstance(shape[0], int):
            wanted = ["N", *("any" if size is None else size for size in sizes[1:])]
            raise BundleError(
                f"bundle {self.spec.name}: {name} is {kind} {list(shape)}, wanted {_FLOAT} "
                f"{wanted} with an open batch size"
            )
