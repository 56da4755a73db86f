"""Parts of bundle contracts; see :mod:`pipeline.bundle`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .outcome import Aggregation
from .preprocess import PreprocessSpec

Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Temperature = Annotated[float, Field(gt=0.0)]
Target = Literal["fracture", "abnormality"]


class Frozen(BaseModel):
    """Base of immutable models that reject unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kind(StrEnum):
    """Kind of a bundle."""

    TRUNK = "trunk"
    REGION = "region"
    FRACTURE = "fracture"
    ENSEMBLE = "ensemble"
    """The mean of several fracture networks."""
    FUSED = "fused"
    """All stages of a weights folder in one graph, the only bundle in its folder."""

    @property
    def judges(self) -> bool:
        """Whether a bundle of this kind decides whether a picture is positive."""
        return self in (Kind.FRACTURE, Kind.ENSEMBLE)


class Precision(StrEnum):
    """Number format of the graph; inputs and outputs are always float32."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Estimate(Frozen):
    """A rate with its interval; None if undefined, with the reason in ``note``."""

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


class StoredPoint(Frozen):
    """An operating point as stored in a fracture bundle, with its measured performance.

    Attributes:
        threshold, doubt_below: See :class:`pipeline.outcome.OperatingPoint`.
        rule: Description of how it was chosen.
        sensitivity, specificity: Measured on the validation split on which it was chosen.
    """

    threshold: float = Field(ge=0.0, le=1.0)
    doubt_below: float = Field(ge=0.0, le=1.0)
    rule: str
    sensitivity: Estimate
    specificity: Estimate


class StoredStudyPoint(StoredPoint):
    """An operating point for whole studies; its rates are per study, not per picture.

    Attributes:
        aggregation: How the probabilities of a study's pictures are combined.
    """

    aggregation: Aggregation


class CloserLooks(Frozen):
    """Settings of closer looks and of the decision on all looks together; see :mod:`.looks`.

    The log odds of all looks together are ``whole`` × logit of the first look + ``close`` × the
    highest logit of the closer looks + ``bias``.

    Attributes:
        canvas: Preprocessing of the larger rendering of the same frame from which the parts are
            cut; each part has the size of the stage's own canvas.
        count: Number of parts.
        whole, close, bias: Coefficients of the formula above.
        operating_points, study_points: Operating points for all looks together; see
            :class:`pipeline.bundle.JudgeSpec`.
    """

    canvas: PreprocessSpec
    count: int = Field(ge=1, le=16)
    whole: float = Field(ge=0.0)
    close: float = Field(ge=0.0)
    bias: float
    operating_points: Mapping[str, StoredPoint]
    study_points: Mapping[str, StoredStudyPoint] = Field(default_factory=dict)


class Density(Frozen):
    """How a region stage detects pictures that are far from the training pictures.

    Its ``density`` output is the mean cosine similarity to the nearest reference pictures
    (training pictures that show a supported region), in a projection of the pooled feature maps
    (deep nearest neighbours, Sun et al. 2022, arXiv 2204.06507).

    Attributes:
        dimensions: Number of dimensions of the projection.
        references: Number of stored reference pictures.
        neighbours: Number of nearest reference pictures over which the similarity is averaged.
        threshold: A picture below this similarity is unsupported, regardless of the routing.
        refused: Share of the supported validation pictures, original and augmented, that this
            threshold rejects.
        far: A judged picture below this similarity is far from the training pictures, and
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


class FractureTypes(Frozen):
    """The fracture types that a specialist classifies, given that there is a fracture.

    Attributes:
        labels: Names of the types, in the order of the output columns.
        activation: ``sigmoid`` if a picture may show several types, with independent
            probabilities; ``softmax`` if it shows one, with probabilities that sum to 1.
        temperature, bias: Calibration in the graph, one value per type:
            probability = activation(logit / temperature + bias).
    """

    labels: tuple[Name, ...] = Field(min_length=1)
    activation: Literal["sigmoid", "softmax"]
    temperature: tuple[Temperature, ...]
    bias: tuple[float, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"a type is listed twice in {', '.join(self.labels)}")
        if not len(self.labels) == len(self.temperature) == len(self.bias):
            raise ValueError("temperature and bias must have one value per type")
        if self.activation == "softmax" and len(self.labels) < 2:
            raise ValueError("softmax requires at least two types")
        return self


class Provenance(Frozen):
    """Origin of a bundle.

    Attributes:
        fxpipe_version: Version that exported it.
        run: Name of the training run.
        created: Start time of the run, ISO 8601.
        index_digest: SHA-256 of the training table.
        data: Description of the origins of the training pictures.
        initial_weights: Description of the initial weights.
        versions: Versions of the packages that the run used.
        counts: Description of pictures, positives and groups, by split.
        recipe: All settings of the run.
        best_epoch: Epoch of the exported weights.
        architecture: Name of the backbone in timm.
        warnings: Reasons to distrust the bundle, one sentence each.
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
