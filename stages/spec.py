"""What a stage is: which samples it sees, what its outputs mean, which score selects it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

from pipeline.bundle import Kind, Target
from pipeline.domain import ANY_REGION, REGIONS, Array
from pipeline.errors import ConfigError

from .data.index import Index, Sample

TARGETS: tuple[Target, ...] = get_args(Target)
"""What labels may mean, and so the name of the output that learns them."""
UNKNOWN_KIND = "unknown"
Activation = Literal["sigmoid", "softmax"]


@dataclass(frozen=True, slots=True)
class Types:
    """The types of fracture that a specialist learns; see :class:`pipeline.bundle.FractureTypes`.

    Attributes:
        labels: T names.
        activation: ``softmax`` where a fracture is of one type, ``sigmoid`` where of several.
    """

    labels: tuple[str, ...]
    activation: Activation

    def targets(self, samples: Sequence[Sample]) -> Array:
        """(N, T) float32: 1 yes, 0 no, NaN unknown.

        Types are learned from pictures of fractures whose types are known, whatever others they
        are of; for ``softmax`` those of exactly one of the types.
        """
        found = np.full((len(samples), len(self.labels)), np.nan, np.float32)
        for row, sample in enumerate(samples):
            shown = [name in sample.type_names for name in self.labels]
            if sample.type_names and (self.activation == "sigmoid" or sum(shown) == 1):
                found[row] = shown
        return found

    @property
    def exclusive(self) -> int:
        """How many of them exclude each other: all or none."""
        return len(self.labels) if self.activation == "softmax" else 0


def types_of(told: Mapping[str, Any] | None) -> Types | None:
    """The types in JSON that names labels and activation; None for None."""
    return None if told is None else Types(tuple(told["labels"]), told["activation"])


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One kind of training run.

    Attributes:
        name: Of the bundle that comes of it.
        kind: Region or fracture.
        region: Of a fracture stage.
        outputs: All labels that the network learns.
        labels: The labels that its bundle speaks for: the first of ``outputs``.
        types: Of a fracture stage that learns types of fracture; they are the last of ``outputs``.
    """

    name: str
    kind: Kind
    region: str | None
    outputs: tuple[str, ...]
    labels: tuple[str, ...]
    types: Types | None = None

    @property
    def speaks_of_fractures(self) -> tuple[bool, ...]:
        """(K,) which outputs do, and not of regions."""
        return tuple(self.kind is Kind.FRACTURE or name in TARGETS for name in self.outputs)

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
            return label if self.types is None else np.hstack([label, self.types.targets(samples)])
        regions = np.stack([sample.region_vector() for sample in samples])
        return np.hstack([regions, label])[:, : len(self.outputs)]


def region_stage(target: Target | None) -> StageSpec:
    """Routing, with an auxiliary output so that the trunk learns to see fractures, or without."""
    outputs = REGIONS if target is None else (*REGIONS, target)
    return StageSpec("region", Kind.REGION, None, outputs, REGIONS)


def fracture_stage(region: str, target: Target, types: Types | None = None) -> StageSpec:
    """The specialist of one region, or of all; named by what it says: ``abnormality-hand``."""
    outputs = (target, *(types.labels if types else ()))
    return StageSpec(f"{target}-{region}", Kind.FRACTURE, region, outputs, (target,), types)


def check_types(stage: StageSpec, index: Index) -> None:
    """Make sure that there is something to learn each type of fracture from.

    Raises:
        ConfigError: A type is in no training picture, or in all whose types are known.
    """
    if stage.types is None:
        return
    samples = [sample for sample in index.of("train") if stage.selects(sample)]
    targets = stage.types.targets(samples)
    counts = [(int((column == 1).sum()), int((column == 0).sum())) for column in targets.T]
    told = dict(zip(stage.types.labels, counts, strict=True))
    if lacking := [name for name, pair in told.items() if 0 in pair]:
        known = Counter(name for sample in samples for name in sample.type_names)
        there = ", ".join(f"{count} {name}" for name, count in sorted(known.items())) or "none"
        raise ConfigError(
            f"{index.source}: types: the training fractures are not both with and without "
            f"{', '.join(lacking)}; found {there}",
            "name types that are in the column types of the table",
        )


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
