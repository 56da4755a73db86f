"""Training stages: selection of samples, meaning of outputs, and targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

from pipeline.bundle import Kind, Target
from pipeline.domain import ANY_REGION, REGIONS, Array
from pipeline.errors import ConfigError

from .samples import Index, Sample

TARGETS: tuple[Target, ...] = get_args(Target)
"""Kinds of labels; also the names of the outputs that learn them."""
UNKNOWN_KIND = "unknown"
Activation = Literal["sigmoid", "softmax"]


@dataclass(frozen=True, slots=True)
class Types:
    """The types of fracture that a specialist learns; see :class:`pipeline.bundle.FractureTypes`.

    Attributes:
        labels: T names.
        activation: ``softmax`` if a fracture has exactly one type, ``sigmoid`` if several.
    """

    labels: tuple[str, ...]
    activation: Activation

    def targets(self, samples: Sequence[Sample]) -> Array:
        """(N, T) float32: 1 yes, 0 no, NaN unknown.

        Types are learned from pictures of fractures with known types, including types that are not
        learned; for ``softmax``, from pictures with exactly one of the types.
        """
        targets = np.full((len(samples), len(self.labels)), np.nan, np.float32)
        for row, sample in enumerate(samples):
            present = [name in sample.type_names for name in self.labels]
            if sample.type_names and (self.activation == "sigmoid" or sum(present) == 1):
                targets[row] = present
        return targets

    @property
    def exclusive(self) -> int:
        """Number of mutually exclusive types: all or 0."""
        return len(self.labels) if self.activation == "softmax" else 0


def types_of(content: Mapping[str, Any] | None) -> Types | None:
    """Parse types from JSON with labels and activation; None for None."""
    return None if content is None else Types(tuple(content["labels"]), content["activation"])


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One kind of training run.

    Attributes:
        name: Name of the resulting bundle.
        kind: Region or fracture.
        region: Region of a fracture stage; else None.
        outputs: All labels that the network learns.
        labels: The labels of its bundle: the first of ``outputs``.
        types: Types of a fracture stage that learns them; they are the last of ``outputs``.
    """

    name: str
    kind: Kind
    region: str | None
    outputs: tuple[str, ...]
    labels: tuple[str, ...]
    types: Types | None = None

    @property
    def concerns_fractures(self) -> tuple[bool, ...]:
        """(K,) whether each output concerns fractures, not regions."""
        return tuple(self.kind is Kind.FRACTURE or name in TARGETS for name in self.outputs)

    def selects(self, sample: Sample) -> bool:
        """Whether the stage is trained or evaluated on a sample."""
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
    """The region stage; with a target, an auxiliary output makes the trunk learn fractures too."""
    outputs = REGIONS if target is None else (*REGIONS, target)
    return StageSpec("region", Kind.REGION, None, outputs, REGIONS)


def fracture_stage(region: str, target: Target, types: Types | None = None) -> StageSpec:
    """The specialist of one region, or of all; named like ``abnormality-hand``."""
    outputs = (target, *(types.labels if types else ()))
    return StageSpec(f"{target}-{region}", Kind.FRACTURE, region, outputs, (target,), types)


def check_types(stage: StageSpec, index: Index) -> None:
    """Check that every fracture type has training pictures with and without it.

    Raises:
        ConfigError: A type is in none or in all of the training pictures with known types.
    """
    if stage.types is None:
        return
    samples = [sample for sample in index.of("train") if stage.selects(sample)]
    targets = stage.types.targets(samples)
    counts = [(int((column == 1).sum()), int((column == 0).sum())) for column in targets.T]
    by_type = dict(zip(stage.types.labels, counts, strict=True))
    if one_sided := [name for name, pair in by_type.items() if 0 in pair]:
        known = Counter(name for sample in samples for name in sample.type_names)
        counted = ", ".join(f"{count} {name}" for name, count in sorted(known.items())) or "none"
        raise ConfigError(
            f"{index.source}: types: the training fractures must include some with and some "
            f"without {', '.join(one_sided)}; found {counted}",
            "name types that are in the column types of the table",
        )


def label_kind(samples: Sequence[Sample], mix: bool) -> Target:
    """The target of a network that is trained on these labels.

    Args:
        samples: Training pictures.
        mix: Whether labels of several kinds may be combined. A fracture is an abnormality, so the
            combination means abnormality.

    Raises:
        ConfigError: There are no labels, or they are of several or unknown kinds.
    """
    kinds = Counter(sample.label_kind for sample in samples if sample.label is not None)
    summary = ", ".join(f"{count} of kind {kind}" for kind, count in sorted(kinds.items()))
    if not kinds:
        raise ConfigError("no training picture has a label, expected labels of one kind")
    if UNKNOWN_KIND in kinds:
        raise ConfigError(
            f"the training labels are {summary}: their meaning is unknown",
            "state it when making the table: fxpipe index … --label-kind fracture (or abnormality)",
        )
    if len(kinds) > 1 and not mix:
        raise ConfigError(
            f"the training labels are {summary}, expected one kind: abnormal is not fractured",
            "train on one of the data sets, or combine them to predict abnormality: "
            "--set mix_label_kinds=true",
        )
    return cast(Target, next(iter(kinds))) if len(kinds) == 1 else "abnormality"
