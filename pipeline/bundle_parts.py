"""The parts that contracts of bundles are made of; see :mod:`pipeline.bundle`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .domain import Aggregation
from .preprocess import PreprocessSpec

Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Temperature = Annotated[float, Field(gt=0.0)]
Target = Literal["fracture", "abnormality"]


class Frozen(BaseModel):
    """Cannot be changed, and takes no field that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kind(StrEnum):
    """What a bundle is."""

    TRUNK = "trunk"
    REGION = "region"
    FRACTURE = "fracture"
    ENSEMBLE = "ensemble"
    """The mean of several fracture networks."""
    FUSED = "fused"
    """Every stage of a weights folder in one graph, and nothing beside it."""

    @property
    def judges(self) -> bool:
        """Whether such a bundle says of a picture whether it is positive."""
        return self in (Kind.FRACTURE, Kind.ENSEMBLE)


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
        operating_points, study_points: Of all looks together; see
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


class FractureTypes(Frozen):
    """The types of fracture that a specialist tells, given that there is a fracture.

    Attributes:
        labels: Names of the types, in the order of the output columns.
        activation: ``sigmoid`` where a picture may show several types at once, each with a
            probability of its own; ``softmax`` where it shows one, and all sum to 1.
        temperature, bias: Calibration that the graph holds, one value a type:
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
            raise ValueError("temperature and bias have one value a type")
        if self.activation == "softmax" and len(self.labels) < 2:
            raise ValueError("softmax tells two types or more apart")
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
