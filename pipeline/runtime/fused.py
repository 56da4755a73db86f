"""Every stage of a run in one graph, which looks at a batch once for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from ..bundle import DENSITY, FractureSpec, RegionSpec
from ..domain import Array, StageOutput
from ..fused import FusedSpec, Group
from .graph import Graph, Sizes
from .network import Batch

S = TypeVar("S", bound=RegionSpec | FractureSpec)


class Fused:
    """An opened fused graph.

    Args:
        spec: Its contract.
        digest: SHA-256 of its file.
        session: The ``onnxruntime.InferenceSession`` that holds it.

    Raises:
        BundleError: The graph does not have the inputs and outputs of its contract.
    """

    def __init__(self, spec: FusedSpec, digest: str, session: Any) -> None:
        self.spec = spec
        self.digest = digest
        canvas = spec.preprocess
        gives: dict[str, Sizes] = {
            name: _sizes(port, len(spec.columns[group]))
            for name, (group, port) in spec.outputs.items()
        }
        takes: Sizes = (None, 1, canvas.height_px, canvas.width_px)
        self._graph = Graph(spec.name, session, ("image", takes), gives)

    @property
    def region(self) -> FusedStage[RegionSpec] | None:
        """The stage that routes, if there is one."""
        router = self.spec.router
        return FusedStage(self, router, "region", slice(None)) if router else None

    @property
    def fracture(self) -> dict[str, FusedStage[FractureSpec]]:
        """The specialists, by region."""
        return {
            spec.region: FusedStage(self, spec, "fracture", slice(column, column + 1))
            for column, spec in enumerate(self.spec.specialists)
        }

    def ask(self, images: Array) -> dict[str, Array]:
        """Every output for a batch, by name: the graph computes them all in any case.

        Args:
            images: (N, 1, H, W) float32 in [0, 1], preprocessed as the contract says.

        Raises:
            DeviceError: The device gave up, for want of memory above all.
        """
        names = list(self.spec.outputs)
        return dict(zip(names, self._graph.run(names, images), strict=True))


def _sizes(port: str, columns: int) -> Sizes:
    """Shape of an output, the batch size open."""
    if port == DENSITY:
        return (None,)
    return (None, columns, None, None) if port == "evidence" else (None, columns)


class FusedStage(Generic[S]):
    """A :class:`~pipeline.runtime.network.Stage` that is some columns of a fused graph.

    Args:
        fused: The graph.
        spec: Contract of the stage.
        group: Beginning of the names of its outputs.
        columns: Which columns of them are its own.
    """

    def __init__(self, fused: Fused, spec: S, group: Group, columns: slice) -> None:
        self.spec = spec
        self._fused = fused
        self._group = group
        self._columns = columns

    @property
    def bundle(self) -> str:
        """The fused graph's: see :class:`~pipeline.runtime.network.Part`."""
        return self._fused.spec.name

    @property
    def digest(self) -> str:
        """Likewise."""
        return self._fused.digest

    @property
    def networks(self) -> tuple[FusedStage[S], ...]:
        """Itself, which has its trunk inside."""
        return (self,)

    def look(
        self, batch: Batch, rows: Sequence[int] | None = None, *, evidence: bool = False
    ) -> StageOutput:
        """See :meth:`pipeline.runtime.network.Stage.look`."""
        said = batch.once(self._fused, self.spec.preprocess, self._fused.ask)
        mapped = evidence and self.spec.heatmap
        return StageOutput(
            self.spec.labels,
            self._own(said, "logits", rows),
            self._own(said, "probabilities", rows),
            self._own(said, "evidence", rows) if mapped else None,
            self._own(said, DENSITY, rows) if DENSITY in self.spec.outputs else None,
        )

    def _own(self, said: Mapping[str, Array], port: str, rows: Sequence[int] | None) -> Array:
        whole = said[f"{self._group}_{port}"]
        own = whole if port == DENSITY else whole[:, self._columns]
        return own if rows is None else own[list(rows)]
