"""What a stage is: which samples it sees, what its outputs mean, which score selects it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.bundle import Kind
from pipeline.domain import REGIONS, Array
from pipeline.errors import ConfigError

from .data.index import Sample

FRACTURE = "fracture"


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One kind of training run.

    Attributes:
        name: Of the bundle that comes of it.
        kind: Region or fracture.
        region: Of a fracture stage.
        outputs: All labels that the network learns.
        labels: The labels that its bundle speaks for: the first of ``outputs``.
    """

    name: str
    kind: Kind
    region: str | None
    outputs: tuple[str, ...]
    labels: tuple[str, ...]

    def selects(self, sample: Sample) -> bool:
        """Whether the stage learns from a sample, or is measured on it."""
        if self.region is None:
            return True
        return sample.shows(self.region) and sample.label is not None

    def targets(self, samples: Sequence[Sample]) -> Array:
        """(N, K) float32: 1 yes, 0 no, NaN unknown."""
        label = np.array([[np.nan if s.label is None else s.label] for s in samples], np.float32)
        if self.kind is Kind.FRACTURE:
            return label
        regions = np.stack([sample.region_vector() for sample in samples])
        return np.hstack([regions, label])


def region_stage() -> StageSpec:
    """Routing, with fracture as an auxiliary output so that the trunk learns to see fractures."""
    return StageSpec("region", Kind.REGION, None, (*REGIONS, FRACTURE), REGIONS)


def fracture_stage(region: str) -> StageSpec:
    """The specialist of one region."""
    return StageSpec(f"fracture-{region}", Kind.FRACTURE, region, (FRACTURE,), (FRACTURE,))


def one_label_kind(samples: Sequence[Sample]) -> str:
    """What the labels of all samples mean.

    Raises:
        ConfigError: They mean different things, or there are none.
    """
    kinds = sorted({sample.label_kind for sample in samples if sample.label is not None})
    if len(kinds) != 1:
        raise ConfigError(f"the labels are of {len(kinds)} kinds {kinds}, wanted exactly one")
    return kinds[0]
