"""Specialist with several looks: the whole limb first, then its most suspicious parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..bundle import CloserLooks, FractureSpec
from ..domain import Array, StageOutput
from ..looks import Place, part, places
from ..preprocess import PreprocessSpec
from .ensemble_network import onto_grid
from .network import Batch, Part, Stage


class Closer:
    """A fracture stage with closer looks.

    The fracture types, if the stage predicts them, are those of the deciding look: the one with
    the highest logit, or the first of equal ones.

    Args:
        stage: Fracture stage whose contract defines closer looks.
        looks: Settings of the closer looks.
    """

    def __init__(self, stage: Stage[FractureSpec], looks: CloserLooks) -> None:
        self._stage, self._looks = stage, looks
        self.spec: FractureSpec = stage.spec.looking_closer()

    @property
    def canvas(self) -> PreprocessSpec:
        """Preprocessing of the larger rendering that each picture needs."""
        return self._looks.canvas

    @property
    def count(self) -> int:
        """Number of looks per picture."""
        return 1 + self._looks.count

    @property
    def networks(self) -> tuple[Part, ...]:
        """See :class:`pipeline.runtime.network.Stage`."""
        return self._stage.networks

    def look(
        self, batch: Batch, rows: Sequence[int] | None = None, *, evidence: bool = False
    ) -> StageOutput:
        """See :meth:`pipeline.runtime.network.Stage.look`.

        Returns:
            Combined logits (before ``bias``) and probabilities of all looks. With ``evidence``,
            also the evidence of the first look, raised to that of each part where it is higher.
        """
        looks, own = self._looks, self.spec.preprocess
        first = self._stage.look(batch, rows, evidence=True)
        assert first.evidence is not None  # noqa: S101  (the contract promises a heatmap)
        larger = batch.pictures(looks.canvas, rows)
        chosen = [places(e[0], looks.count, looks.canvas, own) for e in first.evidence]
        cut = [
            part(array, place, own)
            for array, regions in zip(larger, chosen, strict=True)
            for place in regions
        ]
        near = self._stage.look(batch.parts(own, cut), evidence=evidence)
        highest = near.logits.reshape(len(first), looks.count).max(1, keepdims=True)
        logits = looks.whole * first.logits + looks.close * highest
        with np.errstate(over="ignore"):
            odds = np.exp(-(logits + looks.bias))
        probabilities = (1.0 / (1.0 + odds)).astype(np.float32)
        maps = None
        if evidence and near.evidence is not None:
            maps = first.evidence.copy()
            for i, (row, place) in enumerate(_owners(chosen)):
                _merge_part(maps[row], near.evidence[i], place, looks.canvas, own)
        types = _deciding(first, near, looks.count)
        return StageOutput(
            first.labels, logits.astype(np.float32), probabilities, maps, types=types
        )


def _deciding(first: StageOutput, near: StageOutput, count: int) -> StageOutput | None:
    """Types of the deciding look of each picture; None if there are none.

    Args:
        first: Output for N pictures.
        near: Output for their parts, ``count`` consecutive rows per picture.
        count: Number of parts per picture.
    """
    if first.types is None or near.types is None:
        return None
    near_logits = near.logits.reshape(len(first), count)
    deciding = np.concatenate([first.logits, near_logits], axis=1).argmax(1)
    rows = np.arange(len(first))

    def of_deciding(whole: Array, close: Array) -> Array:
        looks = np.concatenate([whole[:, None], close.reshape(len(first), count, -1)], axis=1)
        selected: Array = looks[rows, deciding]
        return selected

    return StageOutput(
        first.types.labels,
        of_deciding(first.types.logits, near.types.logits),
        of_deciding(first.types.probabilities, near.types.probabilities),
    )


def _owners(chosen: Sequence[Sequence[Place]]) -> list[tuple[int, Place]]:
    return [(row, place) for row, regions in enumerate(chosen) for place in regions]


def _merge_part(
    maps: Array, near: Array, place: Place, canvas: PreprocessSpec, own: PreprocessSpec
) -> None:
    """Raise the (1, h, w) map of the first look to the map of one part where that is higher."""
    rows, columns = maps.shape[1:]
    top, left = (round(at / whole * n) for at, whole, n in (
        (place[0], canvas.height_px, rows), (place[1], canvas.width_px, columns)))  # fmt: skip
    height = max(1, round(own.height_px / canvas.height_px * rows))
    width = max(1, round(own.width_px / canvas.width_px * columns))
    height, width = min(height, rows - top), min(width, columns - left)
    target = maps[:, top : top + height, left : left + width]
    np.maximum(target, onto_grid(near[None], (height, width))[0], out=target)
