"""Open networks, checked against their contracts, and the batches of pictures that they judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from ..bundle import (
    DENSITY,
    TYPE_PORTS,
    AnswerSpec,
    BundleSpec,
    EnsembleSpec,
    FractureSpec,
    JudgeSpec,
    RegionSpec,
    TrunkSpec,
)
from ..domain import Array, StageOutput
from ..preprocess import PreprocessSpec
from ..timing import Clock
from .graph import Graph, Sizes

N = TypeVar("N", bound=TrunkSpec | RegionSpec | FractureSpec | EnsembleSpec)
S = TypeVar("S", bound=RegionSpec | FractureSpec | EnsembleSpec)
S_co = TypeVar("S_co", bound=AnswerSpec, covariant=True)


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


class Stage(Protocol[S_co]):
    """One network, or several that are combined, with predictions for a batch of pictures."""

    @property
    def spec(self) -> S_co:
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


Router = Stage[RegionSpec]
Specialist = Stage[JudgeSpec]


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
        trunks: Mapping[str, Trunk],
        clock: Clock | None = None,
    ) -> None:
        self._pictures = pictures
        self._clock = clock or Clock()
        self._trunks = trunks
        self._arrays: dict[PreprocessSpec, Array] = {}
        self._features: dict[str, Array] = {}
        self._outputs: dict[object, Mapping[str, Array]] = {}

    def inputs(self, spec: AnswerSpec, rows: Sequence[int] | None = None) -> Array:
        """Input of a network for some rows: (R, 1, H, W) pictures or (R, C, h, w) features."""
        trunk = spec.features_of
        inputs = self._stacked(spec.preprocess) if trunk is None else self._featured(trunk)
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

    def _featured(self, identity: str) -> Array:
        if identity not in self._features:
            trunk = self._trunks[identity]
            with self._clock.measure("trunk"):
                self._features[identity] = trunk.features(self._stacked(trunk.spec.preprocess))
        return self._features[identity]

    def _stacked(self, spec: PreprocessSpec) -> Array:
        if spec not in self._arrays:
            self._arrays[spec] = np.stack([arrays[spec] for arrays in self._pictures])
        return self._arrays[spec]


class Opened(Generic[N]):
    """One open bundle.

    Args:
        spec: Contract of the bundle.
        digest: SHA-256 of the file.
        session: ``onnxruntime.InferenceSession`` of the graph.

    Raises:
        BundleError: The graph does not have the inputs and outputs of its contract.
    """

    def __init__(self, spec: N, digest: str, session: Any) -> None:
        self.spec = spec
        self.digest = digest
        self._graph = Graph(spec.name, session, _input_of(spec), _outputs_of(spec))

    @property
    def bundle(self) -> str:
        """See :class:`Part`."""
        return self.spec.name

    def channels(self, port: str) -> int | None:
        """Fixed channel count of an input or output; None if the graph leaves it open."""
        return self._graph.channels(port)

    def evaluate(self, names: Sequence[str], inputs: Array) -> list[Array]:
        """Evaluate the graph on one batch.

        Args:
            names: Outputs to compute.
            inputs: Values of the only input, as its contract describes them.

        Returns:
            One array for each name.

        Raises:
            DeviceError: The device failed, usually because it ran out of memory.
        """
        return self._graph.run(names, inputs)


class Trunk(Opened[TrunkSpec]):
    """An open trunk."""

    def features(self, images: Array) -> Array:
        """Compute the features of pictures.

        Args:
            images: (N, 1, H, W) float32 in [0, 1], preprocessed as in the contract.

        Returns:
            (N, C, h, w) float32.

        Raises:
            DeviceError: The device failed, usually because it ran out of memory.
        """
        return self.evaluate(["features"], images)[0]


class Network(Opened[S]):
    """An open stage, or the open averaging bundle of an ensemble."""

    @property
    def networks(self) -> tuple[Network[S], ...]:
        """The network itself: see :class:`Stage`."""
        return (self,)

    def look(
        self, batch: Batch, rows: Sequence[int] | None = None, *, evidence: bool = False
    ) -> StageOutput:
        """See :meth:`Stage.look`."""
        return self.predict(batch.inputs(self.spec, rows), evidence=evidence)

    def predict(self, inputs: Array, *, evidence: bool = False) -> StageOutput:
        """Run a stage.

        Args:
            inputs: (N, 1, H, W) float32 in [0, 1] for a complete network, (N, C, h, w) float32
                from its trunk for a head, (N, M) float32 in [0, 1] for the mean of an ensemble.
            evidence: Whether to return evidence maps too, if the graph has them.

        Raises:
            DeviceError: The device failed, usually because it ran out of memory.
        """
        names = [name for name in self.spec.outputs if evidence or name != "evidence"]
        values = dict(zip(names, self.evaluate(names, inputs), strict=True))
        return StageOutput(
            self.spec.labels,
            values["logits"],
            values["probabilities"],
            values.get("evidence"),
            values.get(DENSITY),
            _types(self.spec, values),
        )


def _types(spec: AnswerSpec, values: Mapping[str, Array]) -> StageOutput | None:
    if not isinstance(spec, FractureSpec) or spec.types is None:
        return None
    logits, probabilities = (values[port] for port in TYPE_PORTS)
    return StageOutput(spec.types.labels, logits, probabilities)


def _input_of(spec: BundleSpec) -> tuple[str, Sizes]:
    """Name and shape of the input of a contract."""
    if isinstance(spec, EnsembleSpec):
        return spec.input, (None, len(spec.members))
    if spec.input == "features":
        return spec.input, (None,) * 4
    return spec.input, (None, 1, spec.preprocess.height_px, spec.preprocess.width_px)


def _outputs_of(spec: BundleSpec) -> dict[str, Sizes]:
    """Shapes of the outputs of a contract, by name."""
    if isinstance(spec, TrunkSpec):
        return dict.fromkeys(spec.outputs, (None,) * 4)
    labels = len(spec.labels)
    sizes: dict[str, Sizes] = {"evidence": (None, labels, None, None), DENSITY: (None,)}
    if isinstance(spec, FractureSpec) and spec.types is not None:
        sizes |= dict.fromkeys(TYPE_PORTS, (None, len(spec.types.labels)))
    return {name: sizes.get(name, (None, labels)) for name in spec.outputs}
