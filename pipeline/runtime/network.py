"""Networks opened and checked against their contract, and the batch of pictures they look at."""

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
from ..clock import Clock
from ..domain import Array, StageOutput
from ..preprocess import PreprocessSpec
from .graph import Graph, Sizes

N = TypeVar("N", bound=TrunkSpec | RegionSpec | FractureSpec | EnsembleSpec)
S = TypeVar("S", bound=RegionSpec | FractureSpec | EnsembleSpec)
S_co = TypeVar("S_co", bound=AnswerSpec, covariant=True)


class Part(Protocol):
    """Anything that has a part in an answer: a network, or one stage of a fused graph."""

    @property
    def spec(self) -> BundleSpec:
        """What it promises."""
        ...

    @property
    def bundle(self) -> str:
        """Name of the bundle that it is in."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the file that it is in."""
        ...


class Stage(Protocol[S_co]):
    """Anything that answers for the pictures of a batch: one network, or several as one."""

    @property
    def spec(self) -> S_co:
        """What it promises."""
        ...

    @property
    def networks(self) -> tuple[Part, ...]:
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


Router = Stage[RegionSpec]
Specialist = Stage[JudgeSpec]


class Batch:
    """N pictures, with what is made of them once: arrays by preprocessing, features by trunk, and
    the answers of fused graphs.

    Args:
        pictures: Of each picture its (1, H, W) float32 array by preprocessing.
        trunks: By the identity of their weights.
        clock: Told how long the trunks (and fused graphs) run.
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
        self._answers: dict[object, Mapping[str, Array]] = {}

    def inputs(self, spec: AnswerSpec, rows: Sequence[int] | None = None) -> Array:
        """What a network takes of some rows: (R, 1, H, W) pictures or (R, C, h, w) features."""
        trunk = spec.features_of
        taken = self._stacked(spec.preprocess) if trunk is None else self._featured(trunk)
        return taken if rows is None or len(rows) == len(taken) else taken[rows]

    def pictures(self, spec: PreprocessSpec, rows: Sequence[int] | None = None) -> Array:
        """(R, 1, H, W) float32 pictures of some rows, all without ``rows``."""
        taken = self._stacked(spec)
        return taken if rows is None else taken[list(rows)]

    def parts(self, spec: PreprocessSpec, arrays: Sequence[Array]) -> Batch:
        """A batch of other pictures, (1, H, W) float32 each, for the same trunks."""
        return Batch([{spec: array} for array in arrays], self._trunks, self._clock)

    def once(
        self, asked: object, spec: PreprocessSpec, ask: Callable[[Array], Mapping[str, Array]]
    ) -> Mapping[str, Array]:
        """Everything that a graph says of all pictures, whoever wants some of it first.

        Args:
            asked: The graph: what its answers are kept by.
            spec: Of its pictures.
            ask: From (N, 1, H, W) pictures to its outputs by name.
        """
        if asked not in self._answers:
            with self._clock.measure("trunk"):
                self._answers[asked] = ask(self._stacked(spec))
        return self._answers[asked]

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
    """One opened bundle.

    Args:
        spec: Its contract.
        digest: SHA-256 of its file.
        session: The ``onnxruntime.InferenceSession`` that holds the graph.

    Raises:
        BundleError: The graph does not have the inputs and outputs of its contract.
    """

    def __init__(self, spec: N, digest: str, session: Any) -> None:
        self.spec = spec
        self.digest = digest
        self._graph = Graph(spec.name, session, _taken(spec), _given(spec))

    @property
    def bundle(self) -> str:
        """See :class:`Part`."""
        return self.spec.name

    def channels(self, port: str) -> int | None:
        """Fixed channel count of an input or output; None when the graph leaves it open."""
        return self._graph.channels(port)

    def _run(self, names: Sequence[str], inputs: Array) -> list[Array]:
        return self._graph.run(names, inputs)


class Trunk(Opened[TrunkSpec]):
    """An opened trunk."""

    def features(self, images: Array) -> Array:
        """Run it.

        Args:
            images: (N, 1, H, W) float32 in [0, 1], preprocessed as the contract says.

        Returns:
            (N, C, h, w) float32.

        Raises:
            DeviceError: The device gave up, for want of memory above all.
        """
        return self._run(["features"], images)[0]


class Network(Opened[S]):
    """An opened stage, or an opened mean of an ensemble."""

    @property
    def networks(self) -> tuple[Network[S], ...]:
        """Itself: see :class:`Stage`."""
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
            evidence: Whether to bring back the evidence maps too, if the graph has them.

        Raises:
            DeviceError: The device gave up, for want of memory above all.
        """
        names = [name for name in self.spec.outputs if evidence or name != "evidence"]
        values = dict(zip(names, self._run(names, inputs), strict=True))
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


def _taken(spec: BundleSpec) -> tuple[str, Sizes]:
    """The input that a contract promises."""
    if isinstance(spec, EnsembleSpec):
        return spec.input, (None, len(spec.members))
    if spec.input == "features":
        return spec.input, (None,) * 4
    return spec.input, (None, 1, spec.preprocess.height_px, spec.preprocess.width_px)


def _given(spec: BundleSpec) -> dict[str, Sizes]:
    """The outputs that a contract promises."""
    if isinstance(spec, TrunkSpec):
        return dict.fromkeys(spec.outputs, (None,) * 4)
    labels = len(spec.labels)
    sizes: dict[str, Sizes] = {"evidence": (None, labels, None, None), DENSITY: (None,)}
    if isinstance(spec, FractureSpec) and spec.types is not None:
        sizes |= dict.fromkeys(TYPE_PORTS, (None, len(spec.types.labels)))
    return {name: sizes.get(name, (None, labels)) for name in spec.outputs}
