"""Bundle contracts: the metadata that is embedded in each exported network.

The manifest lists each file's digest, which is checked before the file is parsed. The contract
(:data:`BundleSpec`) is one JSON string in the ONNX metadata, so a bundle always contains its
preprocessing, labels, calibration and thresholds. Each kind of bundle has its own model in this
union, selected by ``kind``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from .atomic import write_atomic
from .bundle_parts import (
    CloserLooks,
    Density,
    Digest,
    Estimate,
    FractureTypes,
    Frozen,
    Kind,
    Name,
    Precision,
    Provenance,
    StoredPoint,
    StoredStudyPoint,
    Target,
    Temperature,
)
from .errors import BundleError
from .older_bundles import upgrade_contract
from .outcome import OperatingPoint
from .preprocess import PreprocessSpec

__all__ = [
    "CloserLooks",
    "Density",
    "Digest",
    "Estimate",
    "FractureTypes",
    "Frozen",
    "Kind",
    "Name",
    "Precision",
    "Provenance",
    "StoredPoint",
    "StoredStudyPoint",
    "Target",
]  # plus the names that this module defines
METADATA_KEY = "fxpipe"
MANIFEST_NAME = "manifest.json"
DENSITY = "density"
"""Name of the output that the density gate uses."""
TYPE_PORTS = ("type_logits", "type_probabilities")
"""Names of the outputs for fracture types."""
T = TypeVar("T")


class Contract(Frozen):
    """Base of all contracts embedded in a graph."""

    def to_metadata(self) -> dict[str, str]:
        """Key and value for the ONNX metadata."""
        return {METADATA_KEY: self.model_dump_json()}

    def changed(self, **values: Any) -> Self:
        """A validated copy with some values replaced.

        Raises:
            ValidationError: The values are invalid.
        """
        return type(self).model_validate({**self.model_dump(), **values})


class NetworkSpec(Contract):
    """Fields common to the contracts of all networks.

    Attributes:
        schema_version: Schema in which the contract was first written. Versions 1 and 2 had one
            model for all kinds; version 1 had no density gate.
        name: ``trunk``, ``region``, ``fracture-hand`` …
        precision: See :class:`Precision`.
        preprocess: Preprocessing before the graph (or before its trunk).
        provenance: See :class:`Provenance`.
    """

    schema_version: Literal[1, 2, 3] = 3
    name: Name
    precision: Precision
    preprocess: PreprocessSpec
    provenance: Provenance


class TrunkSpec(NetworkSpec):
    """The shared trunk, which maps pictures to feature maps for the heads.

    Attributes:
        input: ``image`` (N, 1, H, W) in [0, 1].
        trunk: Digest of its weights.
    """

    kind: Literal[Kind.TRUNK] = Kind.TRUNK
    input: Literal["image"] = "image"
    trunk: Digest

    @property
    def features_of(self) -> None:
        """None, because its input is pictures."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of the graph."""
        return ("features",)


class AnswerSpec(NetworkSpec):
    """A network with probabilities as output.

    Attributes:
        heatmap: Whether it has an evidence output. This requires a network whose logit is linear
            in the mean of its last feature map, or an ensemble of such members whose canvases
            show the same part of a picture.
        labels: One name for each column of ``logits`` and ``probabilities``.
        temperature, bias: Calibration in the graph:
            probability = sigmoid(logit / temperature + bias), one value per label.
    """

    heatmap: bool = True
    labels: tuple[str, ...]
    temperature: tuple[Temperature, ...]
    bias: tuple[float, ...]

    @property
    def features_of(self) -> Digest | None:
        """Digest of the trunk whose output it takes; None for any other input."""
        return None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of the graph, in order."""
        return ("logits", "probabilities", *(("evidence",) if self.heatmap else ()))


class TrainedSpec(AnswerSpec):
    """A trained network: a head on a trunk, or a complete network.

    Attributes:
        input: ``image`` (N, 1, H, W) in [0, 1], or ``features``, the output of its trunk.
        trunk: Digest of the trunk that it was trained on; None for a complete network.
    """

    input: Literal["image", "features"]
    trunk: Digest | None

    @model_validator(mode="after")
    def _names_its_trunk(self) -> Self:
        if self.input == "features" and self.trunk is None:
            raise ValueError("a head that takes features must name its trunk")
        return self

    @property
    def features_of(self) -> Digest | None:
        """See :class:`AnswerSpec`."""
        return self.trunk if self.input == "features" else None


class RegionSpec(TrainedSpec):
    """The router, which detects the regions in view.

    Attributes:
        route_thresholds: Lowest probability at which each region fires.
        density: Its density gate; None in bundles from before the gate was introduced.
    """

    kind: Literal[Kind.REGION] = Kind.REGION
    route_thresholds: Mapping[str, float]
    density: Density | None

    @property
    def outputs(self) -> tuple[str, ...]:
        """See :class:`AnswerSpec`."""
        return (*super().outputs, *((DENSITY,) if self.density else ()))

    @model_validator(mode="after")
    def _one_value_a_label(self) -> Self:
        if not len(self.labels) == len(self.temperature) == len(self.bias):
            raise ValueError("temperature and bias must have one value per label")
        if set(self.route_thresholds) != set(self.labels):
            raise ValueError("route_thresholds must have one value per label")
        return self


class JudgeSpec(AnswerSpec):
    """A network that decides whether pictures of a region are positive.

    Attributes:
        region: The region, or ``all``.
        target: Meaning of its training labels.
        labels: A single label.
        operating_points: Operating points for pictures, by name.
        default_point: Name of the operating point when the user names none.
        study_points: Operating points for whole studies, by the same names; empty if none were
            fitted: then the points for pictures decide on studies too.
    """

    region: str
    target: Target
    labels: tuple[str]
    temperature: tuple[Temperature]
    bias: tuple[float]
    operating_points: Mapping[str, StoredPoint]
    default_point: str
    study_points: Mapping[str, StoredStudyPoint] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _points_are_stored(self) -> Self:
        if self.default_point not in self.operating_points:
            raise ValueError(f"the default operating point {self.default_point!r} is not stored")
        if unknown := set(self.study_points) - set(self.operating_points):
            raise ValueError(f"study points {sorted(unknown)} are not operating points")
        return self

    def operating_point(self, name: str | None) -> OperatingPoint:
        """The named operating point, or the default one.

        Raises:
            BundleError: The bundle has no point of that name.
        """
        chosen = name or self.default_point
        if chosen not in self.operating_points:
            raise BundleError(
                f"bundle {self.name}: no operating point {chosen!r}, "
                f"expected one of {', '.join(self.operating_points)}"
            )
        stored = self.operating_points[chosen]
        return OperatingPoint(chosen, stored.threshold, stored.doubt_below)

    def far_point(self, name: str | None) -> OperatingPoint:
        """The named operating point, adapted to pictures far from the training pictures.

        The threshold is raised to the highest one stored and ``doubt_below`` is unchanged, so
        everything in between is uncertain.

        Raises:
            BundleError: The bundle has no point of that name.
        """
        highest = max(point.threshold for point in self.operating_points.values())
        point = self.operating_point(name)
        return replace(point, threshold=max(point.threshold, highest))

    def study_point(self, name: str | None) -> OperatingPoint | None:
        """The named operating point for whole studies; None if none is stored."""
        chosen = name or self.default_point
        stored = self.study_points.get(chosen)
        return OperatingPoint(chosen, stored.threshold, stored.doubt_below) if stored else None


class FractureSpec(JudgeSpec, TrainedSpec):
    """A single fracture network.

    Attributes:
        closer: Settings of its closer looks; None if it has none.
        types: The fracture types that it classifies; None if it has none.
    """

    kind: Literal[Kind.FRACTURE] = Kind.FRACTURE
    closer: CloserLooks | None = None
    types: FractureTypes | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """See :class:`AnswerSpec`."""
        return (*super().outputs, *(TYPE_PORTS if self.types else ()))

    @model_validator(mode="after")
    def _looks_closer_at_the_same_frame(self) -> Self:
        if self.closer is None:
            return self
        faults = []
        if not self.heatmap:
            faults.append("closer looks require a fracture stage with a heatmap")
        own, canvas = self.preprocess, self.closer.canvas
        if canvas.height_px * own.width_px != canvas.width_px * own.height_px:
            faults.append("the canvas of closer looks must have the stage's aspect ratio")
        if canvas.height_px < own.height_px or canvas.frame != own.frame:
            faults.append("closer looks must be cut from a larger canvas with the same frame")
        if set(self.closer.operating_points) != set(self.operating_points):
            faults.append("closer looks must have the operating points of the first look")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def looking_closer(self) -> Self:
        """The contract with the operating points for all looks together."""
        if self.closer is None:
            return self
        points = {"operating_points": self.closer.operating_points}
        return self.model_copy(update={**points, "study_points": self.closer.study_points})


class EnsembleSpec(JudgeSpec):
    """The mean of several fracture networks; it does not classify fracture types.

    Its ``preprocess`` is that of its first member, whose canvas its heatmap uses.

    Attributes:
        input: ``members`` (N, M) in [0, 1]: the calibrated probabilities of its members.
        members: Name of each member bundle, in the order of the input, and the SHA-256 of its
            file in the ensemble's own precision.
    """

    kind: Literal[Kind.ENSEMBLE] = Kind.ENSEMBLE
    input: Literal["members"] = "members"
    members: Mapping[str, Digest] = Field(min_length=2)

    @property
    def trunk(self) -> None:
        """None, as for a complete network."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """See :class:`AnswerSpec`; its members provide the evidence."""
        return ("logits", "probabilities")

    @model_validator(mode="after")
    def _has_others_for_members(self) -> Self:
        if self.name in self.members:
            raise ValueError("an ensemble must not be its own member")
        return self


BundleSpec = Annotated[
    Annotated[TrunkSpec | RegionSpec | FractureSpec | EnsembleSpec, Field(discriminator="kind")],
    BeforeValidator(upgrade_contract),
]
"""The contract of one network of any kind; older schema versions are accepted."""

_OF_A_NETWORK: TypeAdapter[TrunkSpec | RegionSpec | FractureSpec | EnsembleSpec] = TypeAdapter(
    BundleSpec
)


def read_contract(metadata: Mapping[str, str], source: str) -> BundleSpec:
    """Read the contract of a network from ONNX metadata.

    Args:
        metadata: Metadata of the graph.
        source: Name of its file, for messages.

    Raises:
        BundleError: The contract is missing or invalid.
    """
    return contract_in(metadata, source, _OF_A_NETWORK)


def contract_in(metadata: Mapping[str, str], source: str, model: TypeAdapter[T]) -> T:
    """Read a contract as the given model; see :func:`read_contract`."""
    if METADATA_KEY not in metadata:
        raise BundleError(
            f"{source}: no {METADATA_KEY!r} metadata, expected a network exported by fxpipe",
            "create one with `fxpipe export --run RUN`",
        )
    try:
        return model.validate_json(metadata[METADATA_KEY])
    except ValidationError as error:
        raise BundleError(f"{source}: unreadable contract: {error}") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically: a reader sees either the old file or the new one."""
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
