"""Types of decisions and results: immutable, and validated on construction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeVar

from .domain import Flag, Heatmap, ImageRef, Rendered, check
from .regions import ANY_REGION

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


SEVERITY = (
    Verdict.POSITIVE,
    Verdict.UNCERTAIN,
    Status.FAILED,
    Status.UNSUPPORTED,
    Verdict.NEGATIVE,
)
"""Every answer about a picture or a study, the most severe first: what was not judged may hide more
than what is negative."""


def _check_probability(name: str, value: float) -> None:
    check(0.0 <= value <= 1.0, f"{name} is {value}, expected a number in [0, 1]")


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
        check(
            set(self.probabilities) == set(self.thresholds),
            f"probabilities for {sorted(self.probabilities)}, thresholds for "
            f"{sorted(self.thresholds)}: expected the same regions",
        )
        for region, probability in self.probabilities.items():
            _check_probability(f"probability of {region}", probability)
        for name in ("density", "density_threshold", "density_far"):
            value = getattr(self, name)
            check(value is None or math.isfinite(value), f"{name} is {value}, expected a number")
            check(
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
        check(
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


def by_severity(calls: Iterable[Call]) -> list[Call]:
    """The calls with the most severe verdict first, those of one verdict by falling probability."""
    return sorted(calls, key=lambda call: (SEVERITY.index(call.verdict), -call.probability))


def most_severe(calls: Iterable[Call]) -> Call | None:
    """The first call of :func:`by_severity`; None without calls."""
    return next(iter(by_severity(calls)), None)


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
        check(
            judged == bool(self.findings),
            f"status {self.status} with {len(self.findings)} findings",
        )
        check(judged == (self.error is None), f"status {self.status} with error {self.error!r}")

    @property
    def unexamined(self) -> tuple[str, ...]:
        """The regions that fired but that no specialist examined."""
        examined = {finding.region for finding in self.findings}
        fired = self.region.fired if self.region and ANY_REGION not in examined else ()
        return tuple(region for region in fired if region not in examined)

    @property
    def leading(self) -> FractureCall | None:
        """The finding that decides the row: most severe verdict, then highest probability."""
        return most_severe(self.findings)
