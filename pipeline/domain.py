"""Domain types of the pipeline: immutable, and validated on construction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from .regions import ANY_REGION as ANY_REGION
from .regions import REGIONS as REGIONS
from .source import Source

Array = NDArray[np.float32]

Aggregation = Literal["max"]
"""How the probabilities of a study's pictures are combined: the maximum. So views without signs of
a fracture do not dilute a view that shows one."""
AGGREGATION: Aggregation = "max"


class Status(StrEnum):
    """Processing status of one input."""

    OK = "ok"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"


HeaderUse = Literal["combine", "ignore"]
"""Whether routing uses the body part in the DICOM header."""


class HeaderEffect(StrEnum):
    """Effect of the DICOM header on the routing of one picture."""

    NOTHING = "nothing"
    AGREED = "agreed"
    VETOED = "vetoed"
    HELPED = "helped"
    IGNORED = "ignored"


class Verdict(StrEnum):
    """Decision of a fracture stage at the chosen operating point."""

    POSITIVE = "positive"
    UNCERTAIN = "uncertain"
    NEGATIVE = "negative"


GRAVITY = (Verdict.POSITIVE, Verdict.UNCERTAIN, Status.FAILED, Status.UNSUPPORTED, Verdict.NEGATIVE)
"""Every answer about a picture or a study, the gravest first: what was not judged may hide more
than what is negative."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_probability(name: str, value: float) -> None:
    _check(0.0 <= value <= 1.0, f"{name} is {value}, expected a number in [0, 1]")


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Reference to one image of a source.

    Attributes:
        path: The file; None for content in memory.
        frame: Zero-based frame of a multi-frame file; None for a single image.
        sha256: Hex digest of the whole file; None when it could not be read.
        name: Name in messages and reports; by default the file's name without its folder.
    """

    path: Path | None
    frame: int | None = None
    sha256: str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            if self.path is None:
                raise ValueError("found neither a path nor a name, expected one of them")
            object.__setattr__(self, "name", self.path.name)

    @classmethod
    def of(cls, source: Source, frame: int | None = None, sha256: str | None = None) -> ImageRef:
        """The reference to an image of a source.

        Args:
            source: The file, or its content in memory.
            frame: See :class:`ImageRef`.
            sha256: See :class:`ImageRef`.
        """
        return cls(source if isinstance(source, Path) else None, frame, sha256, source.name)


@dataclass(frozen=True, slots=True)
class XrayImage:
    """One radiograph, ready for preprocessing.

    Attributes:
        pixels: (H, W) float32 in [0, 1], bone bright; resampled to square pixels if necessary.
        source: The file (and frame) that it was read from.
        bit_depth: Bits stored for each pixel in the source.
        spacing_mm: (row, column) distance of pixel centres at the detector, or None.
        dicom: Header values that the pipeline uses (never identifiers), or None.
        identity: Identifiers of patient, study, series and instance by DICOM keyword, or None.
        flags: Corrections that were made during reading, which may be wrong.
        colour: Share of the picture that is clearly coloured, in [0, 1].
    """

    pixels: Array
    source: ImageRef
    bit_depth: int
    spacing_mm: tuple[float, float] | None = None
    dicom: Mapping[str, str] | None = None
    identity: Mapping[str, str] | None = field(default=None, repr=False)
    flags: tuple[Flag, ...] = ()
    colour: float = 0.0

    def __post_init__(self) -> None:
        _check(
            self.pixels.ndim == 2 and self.pixels.dtype == np.float32,
            f"pixels are {self.pixels.dtype} {self.pixels.shape}, expected float32 (H, W)",
        )
        _check(
            min(self.pixels.shape) > 0, f"pixels are {self.pixels.shape}, expected at least 1 x 1"
        )
        low, high = float(self.pixels.min()), float(self.pixels.max())
        _check(low >= 0.0 and high <= 1.0, f"pixels span [{low}, {high}], expected [0, 1]")


@dataclass(frozen=True, slots=True)
class Flag:
    """A doubt about one picture that affects how far its verdict can be trusted.

    Attributes:
        name: One of :data:`pipeline.flags.NAMES`.
        reason: What was found, as a sentence for the reader of the picture.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """A picture as a viewer shows it, for reports: upright, windowed, bone bright.

    Attributes:
        pixels: (H, W) uint8.
        reduction: Source px per pixel, an integer; above 1 only for very large pictures.
    """

    pixels: NDArray[np.uint8]
    reduction: int = 1

    def __post_init__(self) -> None:
        _check(
            self.pixels.ndim == 2 and self.pixels.dtype == np.uint8,
            f"pixels are {self.pixels.dtype} {self.pixels.shape}, expected uint8 (H, W)",
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """Position of the source picture on the model's canvas.

    Attributes:
        scale_y, scale_x: Canvas px per source px.
        top_px, left_px: Canvas position of the source's top left corner (negative when cropped).
        source_shape: (H, W) of the source in px.
        framed: Whether the limb was found; otherwise the canvas shows the whole picture.
    """

    scale_y: float
    scale_x: float
    top_px: float
    left_px: float
    source_shape: tuple[int, int]
    framed: bool = False

    def to_canvas(self, y_px: float, x_px: float) -> tuple[float, float]:
        """Map a source point (y, x) in px to the canvas."""
        return y_px * self.scale_y + self.top_px, x_px * self.scale_x + self.left_px

    def to_source(self, y_px: float, x_px: float) -> tuple[float, float]:
        """Map a canvas point (y, x) in px back to the source."""
        return (y_px - self.top_px) / self.scale_y, (x_px - self.left_px) / self.scale_x


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """Location of a specialist's evidence in a picture.

    Attributes:
        cells: (h, w) float32 in [0, 1], covering the canvas: the evidence for the finding relative
            to its maximum; 0 where the evidence is absent, negative or outside the limb.
        canvas_px: Height and width of the model's canvas.
        placement: Position of the picture on the canvas.
        hidden: Share in [0, 1] of all evidence for the finding that is outside the limb.
    """

    cells: Array
    canvas_px: tuple[int, int]
    placement: Placement
    hidden: float = 0.0

    def __post_init__(self) -> None:
        _check(
            self.cells.ndim == 2 and self.cells.dtype == np.float32,
            f"cells are {self.cells.dtype} {self.cells.shape}, expected float32 (h, w)",
        )
        _check(0.0 <= self.hidden <= 1.0, f"hidden is {self.hidden}, expected a number in [0, 1]")


@dataclass(frozen=True, slots=True)
class StageOutput:
    """Output of one stage for a batch of N pictures and K labels.

    Attributes:
        labels: K names, one for each column.
        logits: (N, K) float32, uncalibrated.
        probabilities: (N, K) float32 in [0, 1], calibrated; labels are independent.
        evidence: (N, K, h, w) float32 or None. For a network, its mean over h and w plus the bias
            is the logit; for an ensemble, it is the mean of its members' evidence / temperature.
        density: (N,) float32 or None. For a region stage with a density gate, the similarity to
            the nearest training pictures; see :class:`pipeline.bundle.Density`.
        types: Output for fracture types, one column per type; None for a stage without types; see
            :class:`pipeline.bundle.FractureTypes`.
    """

    labels: tuple[str, ...]
    logits: Array
    probabilities: Array
    evidence: Array | None = None
    density: Array | None = None
    types: StageOutput | None = None

    def __post_init__(self) -> None:
        expected = (self.logits.shape[0], len(self.labels))
        for name in ("logits", "probabilities"):
            shape = getattr(self, name).shape
            _check(
                shape == expected,
                f"{name} are {shape}, expected {expected} for labels {self.labels}",
            )
        if self.evidence is not None:
            shape = self.evidence.shape
            _check(shape[:2] == expected, f"evidence is {shape}, expected {expected} + (h, w)")
        if self.density is not None:
            shape = self.density.shape
            _check(shape == expected[:1], f"density is {shape}, expected {expected[:1]}")
        if self.types is not None:
            _check(len(self.types) == len(self), f"types of {len(self.types)} pictures")

    def __len__(self) -> int:
        return int(self.logits.shape[0])


@dataclass(frozen=True, slots=True)
class RegionCall:
    """Routing decision: which specialists examine a picture.

    Attributes:
        probabilities: Calibrated probability of each supported region, independent of the others.
        thresholds: Lowest probability at which a region fires; the threshold of a region that the
            header names may be lower than the router's own.
        density: Similarity to the nearest training pictures, in [-1, 1]; None if the region stage
            does not compute it.
        density_threshold: The density below which no region fires, regardless of the
            probabilities; None if the density gate is missing or off.
        density_far: The density below which a picture counts as far from the training pictures;
            None if this check is missing or off.
        header_effect: Effect of the header on the routing.
        veto: Why the header excludes the detected regions; None when it does not.
    """

    probabilities: Mapping[str, float]
    thresholds: Mapping[str, float]
    density: float | None = None
    density_threshold: float | None = None
    density_far: float | None = None
    header_effect: HeaderEffect = HeaderEffect.NOTHING
    veto: str | None = None

    def __post_init__(self) -> None:
        _check(
            set(self.probabilities) == set(self.thresholds),
            f"probabilities for {sorted(self.probabilities)}, thresholds for "
            f"{sorted(self.thresholds)}: expected the same regions",
        )
        for region, probability in self.probabilities.items():
            _check_probability(f"probability of {region}", probability)
        for name in ("density", "density_threshold", "density_far"):
            value = getattr(self, name)
            _check(value is None or math.isfinite(value), f"{name} is {value}, expected a number")
            _check(
                value is None or self.density is not None,
                f"{name} is {value}, but there is no density",
            )

    @property
    def unfamiliar(self) -> bool:
        """Whether the picture is too far from the training pictures to be judged."""
        if self.density is None or self.density_threshold is None:
            return False
        return self.density < self.density_threshold

    @property
    def far(self) -> bool:
        """Whether the picture is far from the training pictures, regardless of the gate."""
        return (
            self.density is not None
            and self.density_far is not None
            and self.density < self.density_far
        )

    @property
    def ranking(self) -> tuple[str, ...]:
        """All regions in descending order of probability."""
        return tuple(sorted(self.probabilities, key=lambda r: -self.probabilities[r]))

    @property
    def detected(self) -> tuple[str, ...]:
        """The regions at or above their threshold, in descending order of probability."""
        return tuple(r for r in self.ranking if self.probabilities[r] >= self.thresholds[r])

    @property
    def fired(self) -> tuple[str, ...]:
        """The regions whose specialists run: all detected ones, unless density or header veto."""
        return () if self.unfamiliar or self.veto else self.detected

    @property
    def reason(self) -> str | None:
        """Why no region fired; None when one did."""
        if self.fired:
            return None
        if self.unfamiliar:
            return (
                "unlike anything that the networks were trained on: similarity "
                f"{self.density:.3f}, expected {self.density_threshold:.3f} or more"
            )
        if self.veto:
            return self.veto
        best = self.ranking[0]
        return (
            f"no supported region recognised: the nearest is {best} with probability "
            f"{self.probabilities[best]:.3f}, expected {self.thresholds[best]:.3f} or more"
        )


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A named rule that turns a calibrated probability into a verdict.

    Attributes:
        name: ``sensitive``, ``balanced``, ``specific`` or a user's own.
        threshold: Positive at or above this probability.
        doubt_below: Negative below this probability; uncertain between it and ``threshold``. Equal
            to ``threshold`` when there is no uncertain band.
    """

    name: str
    threshold: float
    doubt_below: float

    def __post_init__(self) -> None:
        _check_probability("threshold", self.threshold)
        _check(
            0.0 <= self.doubt_below <= self.threshold,
            f"doubt_below is {self.doubt_below}, expected [0, threshold {self.threshold}]",
        )

    def verdict(self, probability: float) -> Verdict:
        """Decide on one calibrated probability in [0, 1]."""
        if probability >= self.threshold:
            return Verdict.POSITIVE
        return Verdict.UNCERTAIN if probability >= self.doubt_below else Verdict.NEGATIVE


@dataclass(frozen=True, slots=True)
class FractureCall:
    """Finding of one specialist for one picture.

    Attributes:
        region: Region of the specialist; ``all`` for one that examines every region.
        target: Meaning of its training labels: ``fracture`` or ``abnormality``.
        probability: Calibrated, in [0, 1].
        operating_point: The rule that was applied.
        heatmap: Location of the evidence; None if not requested or not supported by the network.
        far: Whether the rule is the one for pictures that are far from the training pictures.
        types: Calibrated probability of each fracture type, given a fracture; empty if the
            specialist does not classify types, or the verdict is negative.
    """

    region: str
    target: str
    probability: float
    operating_point: OperatingPoint
    heatmap: Heatmap | None = field(default=None, compare=False, repr=False)
    far: bool = False
    types: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_probability(f"probability of {self.target} ({self.region})", self.probability)
        for name, probability in self.types.items():
            _check_probability(f"probability of {name} ({self.region})", probability)

    @property
    def verdict(self) -> Verdict:
        """The operating point applied to the probability."""
        return self.operating_point.verdict(self.probability)


@dataclass(frozen=True, slots=True)
class StudyCall:
    """Finding of one specialist for the pictures of one study.

    Attributes:
        call: Finding for the picture with the highest probability, decided at the study point.
        image: That picture.
        threshold_of: Whether the point was fitted to whole studies, or to single pictures because
            no study point is stored.
        aggregation: How the pictures' probabilities were combined.
    """

    call: FractureCall
    image: ImageRef
    threshold_of: Literal["study", "picture"]
    aggregation: Aggregation = AGGREGATION

    @property
    def verdict(self) -> Verdict:
        """Verdict on the study."""
        return self.call.verdict

    @property
    def probability(self) -> float:
        """Probability of the study, in [0, 1]."""
        return self.call.probability


Call = TypeVar("Call", FractureCall, StudyCall)


def by_gravity(calls: Iterable[Call]) -> list[Call]:
    """The calls with the gravest verdict first, those of one verdict by falling probability."""
    return sorted(calls, key=lambda call: (GRAVITY.index(call.verdict), -call.probability))


def gravest(calls: Iterable[Call]) -> Call | None:
    """The first call of :func:`by_gravity`; None without calls."""
    return next(iter(by_gravity(calls)), None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The final result for one input.

    Attributes:
        image: The input.
        status: ``ok`` has findings; ``unsupported`` and ``failed`` have an ``error`` text instead.
        region: The routing decision; None when the picture was not routed: it failed earlier, or
            there is no region stage.
        findings: One call for each specialist that examined the picture.
        error: Why there is no finding; None when there is one.
        elapsed_ms: Time spent on this input: reading and resizing, plus its share of the batch.
        bundle_digests: SHA-256 of each bundle file that contributed, by bundle name.
        header: The DICOM header values that the pipeline uses, never identifiers.
        flags: Doubts about the picture.
        study: Key that the pictures of one study share, never a patient identifier; None if the
            study is unknown.
        identity: Identifiers by DICOM keyword; None unless they were requested.
        rendered: The picture for reports; None when no report was requested.
    """

    image: ImageRef
    status: Status
    region: RegionCall | None = None
    findings: tuple[FractureCall, ...] = ()
    error: str | None = None
    elapsed_ms: float = 0.0
    bundle_digests: Mapping[str, str] = field(default_factory=dict)
    header: Mapping[str, Any] | None = None
    flags: tuple[Flag, ...] = ()
    study: str | None = None
    identity: Mapping[str, str] | None = field(default=None, repr=False)
    rendered: Rendered | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        judged = self.status is Status.OK
        _check(
            judged == bool(self.findings),
            f"status {self.status} with {len(self.findings)} findings",
        )
        _check(judged == (self.error is None), f"status {self.status} with error {self.error!r}")

    @property
    def unexamined(self) -> tuple[str, ...]:
        """The regions that fired but that no specialist examined."""
        examined = {finding.region for finding in self.findings}
        fired = self.region.fired if self.region and ANY_REGION not in examined else ()
        return tuple(region for region in fired if region not in examined)

    @property
    def leading(self) -> FractureCall | None:
        """The finding that decides the row: the gravest verdict, then the highest probability."""
        return gravest(self.findings)
