"""A bundle: one exported network with its whole contract embedded, listed in a manifest.

The manifest gives each file's digest, which is compared before a byte of the file is parsed;
the contract (:class:`BundleSpec`) is one JSON string in the ONNX metadata, so a bundle can
never be separated from its preprocessing, labels, calibration and thresholds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .atomic import write_atomic
from .domain import Aggregation, OperatingPoint
from .errors import BundleError
from .preprocess import PreprocessSpec

METADATA_KEY = "fxpipe"
MANIFEST_NAME = "manifest.json"
DENSITY = "density"
"""Name of the output that a density gate judges."""

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Frozen(BaseModel):
    """Cannot be changed, and takes no field that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kind(StrEnum):
    """What a bundle is."""

    TRUNK = "trunk"
    REGION = "region"
    FRACTURE = "fracture"
    FUSED = "fused"
    """Every stage of a weights folder in one graph, and nothing beside it."""


class Precision(StrEnum):
    """Number format of the graph; inputs and outputs are always float32."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Estimate(Frozen):
    """A rate with its interval: None where it is undefined, and then ``note`` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


class StoredPoint(Frozen):
    """An operating point as it is stored in a fracture bundle, with what it was seen to do.

    Attributes:
        threshold, doubt_below: See :class:`pipeline.domain.OperatingPoint`.
        rule: How it was chosen, in words.
        sensitivity, specificity: On the validation split it was chosen on.
    """

    threshold: float = Field(ge=0.0, le=1.0)
    doubt_below: float = Field(ge=0.0, le=1.0)
    rule: str
    sensitivity: Estimate
    specificity: Estimate


class StoredStudyPoint(StoredPoint):
    """An operating point for whole studies; its figures are of studies, not of pictures.

    Attributes:
        aggregation: How the probabilities of a study's pictures become one.
    """

    aggregation: Aggregation


class CloserLooks(Frozen):
    """How a specialist looks closer, and decides on all looks together; see :mod:`.looks`.

    The log odds of all looks together are ``whole`` × logit of the first look + ``close`` × the
    highest logit of the closer ones + ``bias``.

    Attributes:
        canvas: Of the larger rendering of the same frame from which the parts are cut; each has
            the size of the stage's own canvas.
        count: How many parts.
        whole, close, bias: See above.
        operating_points, study_points: See :class:`BundleSpec`; of all looks together.
    """

    canvas: PreprocessSpec
    count: int = Field(ge=1, le=16)
    whole: float = Field(ge=0.0)
    close: float = Field(ge=0.0)
    bias: float
    operating_points: Mapping[str, StoredPoint]
    study_points: Mapping[str, StoredStudyPoint] = Field(default_factory=dict)


class Density(Frozen):
    """How a region stage tells a picture that is far from all training pictures.

    Its ``density`` output is the mean cosine similarity to the nearest of some reference pictures
    (training pictures that show a supported region), in a projection of the pooled feature maps
    (deep nearest neighbours, Sun et al. 2022, arXiv 2204.06507).

    Attributes:
        dimensions: Of the projection.
        references: How many reference pictures are stored.
        neighbours: How many of them, the nearest, the similarity is averaged over.
        threshold: Below this similarity a picture is unsupported, whatever the router says.
        refused: Share of the supported validation pictures, as they are and augmented, that this
            threshold refuses.
        far: Below this similarity a picture that is judged is far from the training pictures, and
            *positive* only from the highest stored threshold; at least ``threshold``.
    """

    dimensions: int = Field(ge=1)
    references: int = Field(ge=1)
    neighbours: int = Field(ge=1)
    threshold: float = Field(ge=-1.0, le=1.0)
    refused: float = Field(ge=0.0, le=1.0)
    far: float = Field(ge=-1.0, le=1.0)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.neighbours > self.references:
            raise ValueError(f"{self.neighbours} neighbours among {self.references} references")
        if self.far < self.threshold:
            raise ValueError(f"far is {self.far}, below the threshold {self.threshold}")
        return self


class Provenance(Frozen):
    """Where a bundle comes from.

    Attributes:
        fxpipe_version: That exported it.
        run: Name of the training run.
        created: When the run was begun, ISO 8601.
        index_digest: SHA-256 of the table it learned from.
        data: Origins of the training pictures, in words.
        initial_weights: Where training started.
        versions: Of the packages that computed the run.
        counts: Pictures, positives and groups of each split, in words.
        recipe: All settings of the run.
        best_epoch: Whose weights these are.
        architecture: The backbone, in timm's words.
        warnings: Why it deserves little trust, a sentence each.
    """

    fxpipe_version: str
    run: str
    created: str
    index_digest: str
    data: str
    initial_weights: str
    versions: Mapping[str, str]
    counts: Mapping[str, str] = Field(default_factory=dict)
    recipe: Mapping[str, Any] = Field(default_factory=dict)
    best_epoch: int | None = None
    architecture: str = "resnet50"
    warnings: tuple[str, ...] = ()


class Contract(Frozen):
    """What is embedded in a graph."""

    def to_metadata(self) -> dict[str, str]:
        """The key and value that go into the ONNX metadata."""
        return {METADATA_KEY: self.model_dump_json()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str) -> Self:
        """Read the contract back from ONNX metadata.

        Raises:
            BundleError: There is none, or it is not of this schema.
        """
        if METADATA_KEY not in metadata:
            raise BundleError(
                f"{source}: no {METADATA_KEY!r} metadata, wanted a network exported by fxpipe",
                "make one with `fxpipe export --run RUN`",
            )
        try:
            return cls.model_validate_json(metadata[METADATA_KEY])
        except ValidationError as error:
            raise BundleError(f"{source}: unreadable contract: {error}") from error


class BundleSpec(Contract):
    """The contract of one network.

    Attributes:
        schema_version: Of this model. Version 1 knew no density gate.
        name: ``trunk``, ``region``, ``fracture-hand`` …
        kind, precision: See the enumerations.
        input: ``image`` (N, 1, H, W) in [0, 1], ``features`` (the trunk's output), or
            ``members`` (N, M) in [0, 1]: the calibrated probabilities of an ensemble's members.
        trunk: Identity of the trunk's weights: its own for a trunk, the one it was trained
            on for a head, None for a complete network.
        preprocess: What must happen to pixels before the graph (or before its trunk); of an
            ensemble that of its first member, on whose canvas its heatmap lies.
        members: Of an ensemble, in the order of its input: name of each bundle that it asks, and
            SHA-256 of the one file, in the ensemble's own precision, for which it was made.
        labels: One name for each output column; empty for a trunk.
        heatmap: Whether there is evidence: only a network whose decision is linear in the mean
            of its last feature map gives it, and only an ensemble whose members all do so on
            canvases that show the same part of a picture.
        region, target: For a fracture stage: its region (or ``all``) and what its labels meant.
        temperature, bias: Calibration that the graph holds:
            probability = sigmoid(logit / temperature + bias), one value a label.
        route_thresholds: For a region stage: the probability from which each region fires.
        density: For a region stage: its density gate; None in one from before there was any.
        operating_points: For a fracture stage, by name.
        default_point: The operating point when the user names none.
        study_points: Likewise for whole studies, by name of an operating point; empty where they
            were not fitted: then the point for pictures decides on studies too.
        closer: For a fracture stage with a heatmap: how it looks closer; None where it does not.
        provenance: See :class:`Provenance`.
    """

    schema_version: Literal[1, 2] = 2
    name: str = Field(pattern="^[a-z0-9][a-z0-9-]*$")
    kind: Kind
    precision: Precision
    input: Literal["image", "features", "members"]
    trunk: Digest | None
    preprocess: PreprocessSpec
    members: Mapping[str, Digest] = Field(default_factory=dict)
    labels: tuple[str, ...] = ()
    heatmap: bool = True
    region: str | None = None
    target: Literal["fracture", "abnormality"] | None = None
    temperature: tuple[Annotated[float, Field(gt=0.0)], ...] = ()
    bias: tuple[float, ...] = ()
    route_thresholds: Mapping[str, float] = Field(default_factory=dict)
    density: Density | None = None
    operating_points: Mapping[str, StoredPoint] = Field(default_factory=dict)
    default_point: str | None = None
    study_points: Mapping[str, StoredStudyPoint] = Field(default_factory=dict)
    closer: CloserLooks | None = None
    provenance: Provenance

    @model_validator(mode="after")
    def _complete(self) -> BundleSpec:
        """A spec that is built is one that can be run."""
        faults = []
        if self.kind is Kind.FUSED:
            faults.append("a fused graph is no single network")
        if self.kind is Kind.TRUNK and (self.labels or self.trunk is None):
            faults.append("a trunk has a digest and no labels")
        if self.input == "features" and self.trunk is None:
            faults.append("a head that takes features names its trunk")
        if self.members or self.input == "members":
            faults += self._ensemble_faults()
        if not len(self.labels) == len(self.temperature) == len(self.bias):
            faults.append("temperature and bias have one value a label")
        if self.kind is Kind.REGION and set(self.route_thresholds) != set(self.labels):
            faults.append("route_thresholds has one value a label")
        if self.kind is not Kind.REGION and self.density is not None:
            faults.append("only a region stage has a density gate")
        if self.kind is Kind.FRACTURE and (
            self.region is None
            or self.target is None
            or self.default_point not in self.operating_points
        ):
            faults.append("a fracture stage has a region, a target and a default operating point")
        if strange := set(self.study_points) - set(self.operating_points):
            faults.append(f"study points {sorted(strange)} are no operating points")
        if self.closer is not None:
            faults += self._closer_faults(self.closer)
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _closer_faults(self, closer: CloserLooks) -> list[str]:
        faults = []
        if self.kind is not Kind.FRACTURE or not self.heatmap:
            faults.append("only a fracture stage with a heatmap looks closer")
        own, canvas = self.preprocess, closer.canvas
        if canvas.height_px * own.width_px != canvas.width_px * own.height_px:
            faults.append("the canvas of closer looks has other proportions than the stage's own")
        if canvas.height_px < own.height_px or canvas.frame != own.frame:
            faults.append("closer looks are cut from a larger canvas with the same frame")
        if set(closer.operating_points) != set(self.operating_points):
            faults.append("closer looks have other operating points than the first look")
        return faults

    def looking_closer(self) -> BundleSpec:
        """The contract of all looks together: the thresholds are those that hold for them."""
        if self.closer is None:
            return self
        return self.model_copy(
            update={
                "operating_points": self.closer.operating_points,
                "study_points": self.closer.study_points,
            }
        )

    def _ensemble_faults(self) -> list[str]:
        faults = []
        if self.input != "members" or self.kind is not Kind.FRACTURE or self.trunk is not None:
            faults.append("only a fracture stage that takes members, and no trunk, has members")
        if len(self.members) < 2:
            faults.append(f"an ensemble has two members or more, found {len(self.members)}")
        if self.name in self.members:
            faults.append("an ensemble is not its own member")
        return faults

    def operating_point(self, name: str | None) -> OperatingPoint:
        """The named operating point, or the default one.

        Raises:
            BundleError: The bundle has no point of that name.
        """
        chosen = name or self.default_point or ""
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
        chosen = name or self.default_point or ""
        stored = self.study_points.get(chosen)
        return OperatingPoint(chosen, stored.threshold, stored.doubt_below) if stored else None


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
