"""Open networks, checked against their contracts, and the batches of pictures that they judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..bundle import DENSITY, BundleSpec, Kind
from ..clock import Clock
from ..domain import Array, StageOutput
from ..preprocess import PreprocessSpec
from .graph import Graph, Sizes


class Part(Protocol):
    """A network, or one stage of a fused graph."""

    @property
    def spec(self) -> BundleSpec:
        """The contract."""
        ...

    @property
    def bundle(self) -> str:
        """Name of the bundle that contains it."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the file that contains it."""
        ...


class Stage(Protocol):
    """One network, or several that are combined, with predictions for a batch of pictures."""

    @property
    def spec(self) -> BundleSpec:
        """The contract."""
        ...

    @property
    def networks(self) -> tuple[Part, ...]:
        """All networks that contribute to the predictions, except the trunks."""
        ...

    def look(
        self, batch: Batch, rows: Sequence[int] | None = None, *, evidence: bool = False
    ) -> StageOutput:
        """Predict some pictures of a batch.

        Args:
            batch: The pictures.
            rows: Indices of the pictures; None for all.
            evidence: Whether to return evidence maps too, if there are any.

        Raises:
            DeviceError: The device failed, usually because it ran out of memory.
        """
        ...


class Batch:
    """N pictures, with a cache of stacked arrays, trunk features and outputs of fused graphs.

    Args:
        pictures: For each picture, its (1, H, W) float32 array by preprocessing.
        trunks: Trunks by the identity of their weights.
        clock: Measures the time of the trunks and fused graphs.
    """

    def __init__(
        self,
        pictures: Sequence[Mapping[PreprocessSpec, Array]],
        trunks: Mapping[str, Network],
        clock: Clock | None = None,
    ) -> None:
        self._pictures = pictures
        self._clock = clock or Clock()
        self._trunks = trunks
        self._arrays: dict[PreprocessSpec, Array] = {}
        self._features: dict[str, Array] = {}
        self._outputs: dict[object, Mapping[str, Array]] = {}

    def inputs(self, network: Network, rows: Sequence[int] | None = None) -> Array:
        """Input of a network for some rows: (R, 1, H, W) pictures or (R, C, h, w) features."""
        inputs = self._all_inputs(network)
        return inputs if rows is None or len(rows) == len(inputs) else inputs[rows]

    def pictures(self, spec: PreprocessSpec, rows: Sequence[int] | None = None) -> Array:
        """(R, 1, H, W) float32 pictures of some rows; None for all rows."""
        stacked = self._stacked(spec)
        return stacked if rows is None else stacked[list(rows)]

    def parts(self, spec: PreprocessSpec, arrays: Sequence[Array]) -> Batch:
        """A batch of other pictures, (1, H, W) float32 each, for the same trunks."""
        return Batch([{spec: array} for array in arrays], self._trunks, self._clock)

    def once(
        self, graph: object, spec: PreprocessSpec, evaluate: Callable[[Array], Mapping[str, Array]]
    ) -> Mapping[str, Array]:
        """All outputs of a graph for all pictures, computed on the first call.

        Args:
            graph: The graph, as the key of the cache.
            spec: Preprocessing of its pictures.
            evaluate: Function from (N, 1, H, W) pictures to outputs by name.
        """
        if graph not in self._outputs:
            with self._clock.measure("trunk"):
                self._outputs[graph] = evaluate(self._stacked(spec))
        return self._outputs[graph]

    def _all_inputs(self, network: Network) -> Array:
        if network.spec.input == "image":
            return self._stacked(network.spec.preprocess)
        identity = str(network.spec.trunk)
        if identity not in self._features:
            trunk = self._trunks[identity]
            with self._clock.measure("trunk"):
                self._features[identity] = trunk.features(self._stacked(trunk.spec.preprocess))
        return self._features[identity]

    def _stacked(self, spec: PreprocessSpec) -> Array:
        if spec not in self._arrays:
            self._arrays[spec] = np.stack([arrays[spec] for arrays in self._pictures])
        return self._arrays[spec]


class Network:
    """One open bundle.

    Args:
        spec: Contract of the bundle.
        digest: SHA-256 of the file.
        session: ``onnxruntime.InferenceSession`` of the graph.

    Raises:
        BundleError: The graph does not have the inputs and outputs of its contract.
    """

    def __init__(self, spec: BundleSpec, digest: str, session: Any) -> None:
        self.spec = spec
        self.digest = digest
        self._graph = Graph(spec.name, session, *_ports(spec))

    @property
    def bundle(self) -> str:
        """See :class:`Part`."""
        return self.spec.name

    @property
    def networks(self) -> tuple[Network, ...]:
        """The network itself: see :class:`Stage`."""
        return (self,)

    def look(
        self, batch: Batch, rows: Sequence[int] | None = None, *, evidence: bool = False
    ) -> StageOutput:
        """See :meth:`Stage.look`."""
        return self.predict(batch.inputs(self, rows), evidence=evidence)

    def features(self, images: Array) -> Array:
        """Run a trunk.

        Args:
            images: (N, 1, H, W) float32 in [0, 1], preprocessed as in the contract.

        Returns:
            (N, C, h, w) float32.

        Raises:
            DeviceError: The device failed, usually because it ran out of memory.
        """
        return self._run(["features"], images)[0]

    def predict(self, inputs: Array, *, evidence: bool = False) -> StageOutput:
        """Run a stage.

        Args:
            inputs: (N, 1, H, W) float32 in [0, 1] for a complete network, (N, C, h, w) float32
                from its trunk for a head, (N, M) float32 in [0, 1] for the mean of an ensemble.
            evidence: Whether to return evidence maps too, if the graph has them.

        Raises:
            DeviceError: The device failed, usually because it ran out of memory.
        """
        names = ["logits", "probabilities"]
        if evidence and self._graph.has("evidence"):
            names.append("evidence")
        if self.spec.density is not None:
            names.append(DENSITY)
        values = dict(zip(names, self._run(names, inputs), strict=True))
        return StageOutput(self.spec.labels, **values)

    def channels(self, port: str) -> int | None:
        """Fixed channel count of an input or output; None if the graph leaves it open."""
        return self._graph.channels(port)

    def _run(self, names: Sequence[str], inputs: Array) -> list[Array]:
        return self._graph.run(names, inputs)


def _ports(spec: BundleSpec) -> tuple[tuple[str, Sizes], dict[str, Sizes]]:
    """Expected input and outputs of a contract."""
    labels = len(spec.labels)
    inputs: dict[str, Sizes] = {
        "image": (None, 1, spec.preprocess.height_px, spec.preprocess.width_px),
        "features": (None,) * 4,
        "members": (None, len(spec.members)),
    }
    outputs: dict[str, Sizes] = {"features": (None,) * 4}
    if spec.kind is not Kind.TRUNK:
        outputs = {"logits": (None, labels), "probabilities": (None, labels)}
        if spec.heatmap and not spec.members:
            outputs["evidence"] = (None, labels, None, None)
    if spec.density is not None:
        outputs[DENSITY] = (None,)
    return (spec.input, inputs[spec.input]), outputs
