"""Fused graph: all stages of a run, evaluated once per batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from ..bundle import DENSITY, FractureSpec, RegionSpec
from ..domain import Array, StageOutput
from ..fused_contract import FusedSpec, Group
from .graph import Graph, Sizes
from .network import Batch

S = TypeVar("S", bound=RegionSpec | FractureSpec)


class Fused:
    """An opened fused graph.

    Args:
        spec: Contract of the graph.
        digest: SHA-256 of the file.
        session: ``onnxruntime.InferenceSession`` of the graph.

    Raises:
        BundleError: The graph does not have the inputs and outputs of its contract.
    """

    def __init__(self, spec: FusedSpec, digest: str, session: Any) -> None:
        self.spec = spec
        self.digest = digest
        canvas = spec.preprocess
        outputs: dict[str, Sizes] = {
            name: _sizes(port, len(spec.columns[group]))
            for name, (group, port) in spec.outputs.items()
        }
        input_shape: Sizes = (None, 1, canvas.height_px, canvas.width_px)
        self._graph = Graph(spec.name, session, ("image", input_shape), outputs)

    @property
    def region(self) -> FusedStage[RegionSpec] | None:
        """The region stage; None if there is none."""
        router = self.spec.router
        return FusedStage(self, router, "region", slice(None)) if router else None

    @property
    def fracture(self) -> dict[str, FusedStage[FractureSpec]]:
        """The specialists, by region."""
        return {
            spec.region: FusedStage(self, spec, "fracture", slice(column, column + 1))
            for column, spec in enumerate(self.spec.specialists)
        }

    def evaluate(self, images: Array) -> dict[str, Array]:
        """Compute all outputs for a batch, by name.

        Args:
            images: (N, 1, H, W) float32 in [0, 1], preprocessed as in the contract.

        Raises:
            DeviceError: The device failed, usually because it ran out of memory.
        """
        names = list(self.spec.outputs)
        return dict(zip(names, self._graph.run(names, images), strict=True))


def _sizes(port: str, columns: int) -> Sizes:
    """Shape of an output with an open batch size."""
    if port == DENSITY:
        return (None,)
    return (None, columns, None, None) if port == "evidence" else (None, columns)


class FusedStage(Generic[S]):
    """A :class:`~pipeline.runtime.network.Stage` that reads some columns of a fused graph.

    Args:
        fused: The graph.
        spec: Contract of the stage.
        group: Prefix of the names of its outputs.
        columns: Its columns in those outputs.
    """

    def __init__(self, fused: Fused, spec: S, group: Group, columns: slice) -> None:
        self.spec = spec
        self._fused = fused
        self._group = group
        self._columns = columns

    @property
    def bundle(self) -> str:
        """Name of the fused graph: see :class:`~pipeline.runtime.network.Part`."""
        return self._fused.spec.name

    @property
    def digest(self) -> str:
        """SHA-256 of the file of the fused graph."""
        return self._fused.digest

    @property
    def networks(self) -> tuple[FusedStage[S], ...]:
        """The stage itself; the graph contains its trunk."""
        return (self,)

    def look(
        self, batch: Batch, rows: Sequence[int] | None = None, *, evidence: bool = False
    ) -> StageOutput:
        """See :meth:`pipeline.runtime.network.Stage.look`."""
        outputs = batch.once(self._fused, self.spec.preprocess, self._fused.evaluate)
        mapped = evidence and self.spec.heatmap
        return StageOutput(
            self.spec.labels,
            self._select(outputs, "logits", rows),
            self._select(outputs, "probabilities", rows),
            self._select(outputs, "evidence", rows) if mapped else None,
            self._select(outputs, DENSITY, rows) if DENSITY in self.spec.outputs else None,
        )

    def _select(self, outputs: Mapping[str, Array], port: str, rows: Sequence[int] | None) -> Array:
        values = outputs[f"{self._group}_{port}"]
        selected = values if port == DENSITY else values[:, self._columns]
        return selected if rows is None else selected[list(rows)]
