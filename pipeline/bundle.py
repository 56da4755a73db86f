"""A bundle: one exported network with its whole contract embedded, listed in a manifest.

The manifest gives each file's digest, which is compared before a byte of the file is parsed;
the contract (:data:`BundleSpec`) is one JSON string in the ONNX metadata, so a bundle can
never be separated from its preprocessing, labels, calibration and thresholds. Each kind of bundle
has a model of its own; ``kind`` says which. A new kind is a new model in that union.
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
from .domain import OperatingPoint
from .errors import BundleError
from .older_bundles import in_present_form
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
]  # and what is defined here
METADATA_KEY = "fxpipe"
MANIFEST_NAME = "manifest.json"
DENSITY = "density"
"""Name of the output that a density gate judges."""
TYPE_PORTS = ("type_logits", "type_probabilities")
"""Names of the outputs that tell fracture types."""
T = TypeVar("T")


class Contract(Frozen):
    """What is embedded in a graph."""

    def to_metadata(self) -> dict[str, str]:
        """The key and value that go into the ONNX metadata."""
        return {METADATA_KEY: self.model_dump_json()}

    def changed(self, **values: Any) -> Self:
        """The same contract with other values, checked as a new one is.

        Raises:
            ValidationError: They do not fit.
        """
        return type(self).model_validate({**self.model_dump(), **values})


class NetworkSpec(Contract):
    """What the contracts of all networks have.

    Attributes:
        schema_version: Under which it was first written. Versions 1 and 2 had one model for all
            kinds; version 1 knew no density gate.
        name: ``trunk``, ``region``, ``fracture-hand`` …
        precision: See :class:`Precision`.
        preprocess: What must happen to pixels before the graph (or before its trunk).
        provenance: See :class:`Provenance`.
    """

    schema_version: Literal[1, 2, 3] = 3
    name: Name
    precision: Precision
    preprocess: PreprocessSpec
    provenance: Provenance


class TrunkSpec(NetworkSpec):
    """Pictures to feature maps, for the heads that share it.

    Attributes:
        input: ``image`` (N, 1, H, W) in [0, 1].
        trunk: Identity of its weights.
    """

    kind: Literal[Kind.TRUNK] = Kind.TRUNK
    input: Literal["image"] = "image"
    trunk: Digest

    @property
    def features_of(self) -> None:
        """None: it takes pictures."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of the graph."""
        return ("features",)


class AnswerSpec(NetworkSpec):
    """A network that answers.

    Attributes:
        heatmap: Whether there is evidence: only a network whose decision is linear in the mean
            of its last feature map gives it, and only an ensemble whose members all do so on
            canvases that show the same part of a picture.
        labels: One name for each column of ``logits`` and ``probabilities``.
        temperature, bias: Calibration that the graph holds:
            probability = sigmoid(logit / temperature + bias), one value a label.
    """

    heatmap: bool = True
    labels: tuple[str, ...]
    temperature: tuple[Temperature, ...]
    bias: tuple[float, ...]

    @property
    def features_of(self) -> Digest | None:
        """The trunk whose output it takes; None where it takes something else."""
        return None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of the graph, in their order."""
        return ("logits", "probabilities", *(("evidence",) if self.heatmap else ()))


class TrainedSpec(AnswerSpec):
    """A network that answers, and was trained: a head behind a trunk, or a complete one.

    Attributes:
        input: ``image`` (N, 1, H, W) in [0, 1], or ``features``, the output of its trunk.
        trunk: Identity of the trunk that it was trained on; None for a complete network.
    """

    input: Literal["image", "features"]
    trunk: Digest | None

    @model_validator(mode="after")
    def _names_its_trunk(self) -> Self:
        if self.input == "features" and self.trunk is None:
            raise ValueError("a head that takes features names its trunk")
        return self

    @property
    def features_of(self) -> Digest | None:
        """See :class:`AnswerSpec`."""
        return self.trunk if self.input == "features" else None


class RegionSpec(TrainedSpec):
    """The router: which regions are in view.

    Attributes:
        route_thresholds: The probability from which each region fires.
        density: Its density gate; None in one from before there was any.
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
            raise ValueError("temperature and bias have one value a label")
        if set(self.route_thresholds) != set(self.labels):
            raise ValueError("route_thresholds has one value a label")
        return self


class JudgeSpec(AnswerSpec):
    """A network that says of a region's pictures whether they are positive.

    Attributes:
        region: Whose pictures (or ``all``).
        target: What its training labels meant.
        labels: The one decision.
        operating_points: By name.
        default_point: The operating point when the user names none.
        study_points: Likewise for whole studies, by name of an operating point; empty where they
            were not fitted: then the point for pictures decides on studies too.
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
    def _points_are_there(self) -> Self:
        if self.default_point not in self.operating_points:
            raise ValueError(f"the default operating point {self.default_point!r} is not stored")
        if strange := set(self.study_points) - set(self.operating_points):
            raise ValueError(f"study points {sorted(strange)} are no operating points")
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
                f"wanted one of {', '.join(self.operating_points)}"
            )
        stored = self.operating_points[chosen]
        return OperatingPoint(chosen, stored.threshold, stored.doubt_below)

    def far_point(self, name: str | None) -> OperatingPoint:
        """The same point for pictures that are far from the training pictures.

        *Positive* begins at the highest threshold that is stored, and *negative* ends where it
        always does: what lies between is uncertain.

        Raises:
            BundleError: The bundle has no point of that name.
        """
        highest = max(point.threshold for point in self.operating_points.values())
        point = self.operating_point(name)
        return replace(point, threshold=max(point.threshold, highest))

    def study_point(self, name: str | None) -> OperatingPoint | None:
        """The point of that name for whole studies; None where none is stored."""
        chosen = name or self.default_point
        stored = self.study_points.get(chosen)
        return OperatingPoint(chosen, stored.threshold, stored.doubt_below) if stored else None


class FractureSpec(JudgeSpec, TrainedSpec):
    """A single fracture network.

    Attributes:
        closer: How it looks closer; None where it does not.
        types: The types of fracture that it tells; None where it tells none.
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
            faults.append("only a fracture stage with a heatmap looks closer")
        own, canvas = self.preprocess, self.closer.canvas
        if canvas.height_px * own.width_px != canvas.width_px * own.height_px:
            faults.append("the canvas of closer looks has other proportions than the stage's own")
        if canvas.height_px < own.height_px or canvas.frame != own.frame:
            faults.append("closer looks are cut from a larger canvas with the same frame")
        if set(self.closer.operating_points) != set(self.operating_points):
            faults.append("closer looks have other operating points than the first look")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def looking_closer(self) -> Self:
        """The contract of all looks together: the thresholds are those that hold for them."""
        if self.closer is None:
            return self
        points = {"operating_points": self.closer.operating_points}
        return self.model_copy(update={**points, "study_points": self.closer.study_points})


class EnsembleSpec(JudgeSpec):
    """The mean of several fracture networks; it tells no types.

    Its ``preprocess`` is that of its first member, on whose canvas its heatmap lies.

    Attributes:
        input: ``members`` (N, M) in [0, 1]: the calibrated probabilities of its members.
        members: In the order of its input: name of each bundle that it asks, and SHA-256 of the
            one file, in the ensemble's own precision, for which it was made.
    """

    kind: Literal[Kind.ENSEMBLE] = Kind.ENSEMBLE
    input: Literal["members"] = "members"
    members: Mapping[str, Digest] = Field(min_length=2)

    @property
    def trunk(self) -> None:
        """None, as in a complete network."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """See :class:`AnswerSpec`; the evidence is its members'."""
        return ("logits", "probabilities")

    @model_validator(mode="after")
    def _has_others_for_members(self) -> Self:
        if self.name in self.members:
            raise ValueError("an ensemble is not its own member")
        return self


BundleSpec = Annotated[
    Annotated[TrunkSpec | RegionSpec | FractureSpec | EnsembleSpec, Field(discriminator="kind")],
    BeforeValidator(in_present_form),
]
"""The contract of one network, of any kind; those of older versions are read too."""

_OF_A_NETWORK: TypeAdapter[TrunkSpec | RegionSpec | FractureSpec | EnsembleSpec] = TypeAdapter(
    BundleSpec
)


def read_contract(metadata: Mapping[str, str], source: str) -> BundleSpec:
    """The contract of a network in ONNX metadata.

    Args:
        metadata: Of the graph.
        source: Its file, for messages.

    Raises:
        BundleError: There is none, or it is not of this schema.
    """
    return contract_in(metadata, source, _OF_A_NETWORK)


def contract_in(metadata: Mapping[str, str], source: str, model: TypeAdapter[T]) -> T:
    """A contract of the model that is wanted; see :func:`read_contract`."""
    if METADATA_KEY not in metadata:
        raise BundleError(
            f"{source}: no {METADATA_KEY!r} metadata, wanted a network exported by fxpipe",
            "make one with `fxpipe export --run RUN`",
        )
    try:
        return model.validate_json(metadata[METADATA_KEY])
    except ValidationError as error:
        raise BundleError(f"{source}: unreadable contract: {error}") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
