"""What a stage is: which samples it sees, what its outputs mean, which score selects it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from pipeline.bundle import Kind
from pipeline.domain import ANY_REGION, REGIONS, Array
from pipeline.errors import ConfigError

from .data.index import Sample

Target = Literal["fracture", "abnormality"]
TARGETS: tuple[Target, ...] = ("fracture", "abnormality")
"""What labels may mean, and so the name of the output that learns them."""
UNKNOWN_KIND = "unknown"


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

    @property
    def speaks_of_fractures(self) -> tuple[bool, ...]:
        """(K,) which outputs do, and not of regions."""
        return tuple(name in TARGETS for name in self.outputs)

    def selects(self, sample: Sample) -> bool:
        """Whether the stage learns from a sample, or is measured on it."""
        if self.region is None:
            return True
        in_view = self.region == ANY_REGION or sample.shows(self.region)
        return in_view and sample.label is not None

    def targets(self, samples: Sequence[Sample]) -> Array:
        """(N, K) float32: 1 yes, 0 no, NaN unknown."""
        label = np.array([[np.nan if s.label is None else s.label] for s in samples], np.float32)
        if self.kind is Kind.FRACTURE:
            return label
        regions = np.stack([sample.region_vector() for sample in samples])
        return np.hstack([regions, label])[:, : len(self.outputs)]


def region_stage(target: Target | None) -> StageSpec:
    """Routing, with an auxiliary output so that the trunk learns to see fractures, or without."""
    outputs = REGIONS if target is None else (*REGIONS, target)
    return StageSpec("region", Kind.REGION, None, outputs, REGIONS)


def fracture_stage(region: str, target: Target) -> StageSpec:
    """The specialist of one region, or of all; named by what it says: ``abnormality-hand``."""
    return StageSpec(f"{target}-{region}", Kind.FRACTURE, region, (target,), (target,))


def label_kind(samples: Sequence[Sample], mix: bool) -> Target:
    """What a network says that learns from these labels.

    Args:
        samples: Training pictures.
        mix: Whether labels of several kinds may be taken together. A fracture is an
            abnormality, so that is what they have in common.

    Raises:
        ConfigError: There are none, or they mean different things, or nobody said what.
    """
    kinds = Counter(sample.label_kind for sample in samples if sample.label is not None)
    shown = ", ".join(f"{count} of kind {kind}" for kind, count in sorted(kinds.items()))
    if not kinds:
        raise ConfigError("no training picture has a label, wanted labels of one kind")
    if UNKNOWN_KIND in kinds:
        raise ConfigError(
            f"the training labels are {shown}: nobody said what they mean",
            "say it when making the table: fxpipe index … --label-kind fracture (or abnormality)",
        )
    if len(kinds) > 1 and not mix:
        raise ConfigError(
            f"the training labels are {shown}, wanted one kind: abnormal is not fractured",
            "train on one of the data sets, or ask for the mixture, which will speak of "
            "abnormality: --set mix_label_kinds=true",
        )
    return cast(Target, next(iter(kinds))) if len(kinds) == 1 else "abnormality"
