"""Benchmark figures: medians with their spread, ratios per round, and time by part."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .rounds import Score

PARTS = ("read", "decode", "resize", "trunk", "heads", "writing", "idle")
"""Names of the parts of a run, in order."""

REFERENCE = "torch-loop"
"""Contender that ratios refer to, on the same kind of device."""

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, minimum and maximum of some rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Compute the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of one contender.

    Attributes:
        name, device: See :class:`~.rounds.ContenderSpec`.
        rounds_s: Seconds of the whole job, by round.
        seconds: Spread of ``rounds_s``.
        images_per_s: Pictures per second of the whole job.
        reference: Name of the reference contender; None if it was not measured.
        ratio: Speed relative to the reference, compared round by round.
        session_images_per_s: Pictures per second of the networks alone; None if not measured.
        session_share: Ratio of ``images_per_s`` to ``session_images_per_s``, round by round.
        parts_ms: Thread-milliseconds per picture by part, mean of all rounds; the sum is that of
            all cores. None if unknown.
        looks: Number of looks by specialists in one round.
        peak_mb: Peak resident memory of the process until the end of the job of the first round,
            in millions of bytes.
        peak_note: Why ``peak_mb`` is None.
        facts: See :class:`~.rounds.Contender`.
    """

    name: str
    device: str
    rounds_s: tuple[float, ...]
    seconds: Spread
    images_per_s: Spread
    reference: str | None
    ratio: Spread | None
    session_images_per_s: Spread | None
    session_share: Spread | None
    parts_ms: Mapping[str, float] | None
    looks: int
    peak_mb: float | None
    peak_note: str
    facts: Mapping[str, Any]

    @property
    def shares(self) -> dict[str, float]:
        """Share of each part in the total, in [0, 1]; empty if unknown."""
        parts = self.parts_ms or {}
        total = sum(parts.values())
        return {name: value / total for name, value in parts.items()} if total else {}

    def to_json(self) -> dict[str, Any]:
        """All attributes and the shares, as JSON."""
        return {**asdict(self), "shares": self.shares}


def reference_of(device: str) -> str:
    """Name of the reference contender for ``device``."""
    return f"{REFERENCE}-{'cpu' if device == 'cpu' else 'cuda'}"


def measure(scores: Sequence[Score], cores: int) -> list[Measured]:
    """Compute the figures of all contenders.

    Args:
        scores: Scores with the same number of rounds, at least one.
        cores: Number of cores available to this process; their unused time is idle time.
    """
    by_name = {score.entrant.name: score for score in scores}
    return [
        _measured(score, by_name.get(reference_of(score.entrant.device)), cores)
        for score in scores
    ]  # fmt: skip


def _measured(score: Score, reference: Score | None, cores: int) -> Measured:
    first = score.rounds[0]
    seconds = [round_.seconds for round_ in score.rounds]
    rates = [round_.tally.pictures / round_.seconds for round_ in score.rounds]
    ratio = None
    if reference is not None:
        pairs = zip(reference.rounds, score.rounds, strict=True)
        ratio = Spread.of([base.seconds / own.seconds for base, own in pairs])
    session = [r.session_images_per_s for r in score.rounds if r.session_images_per_s is not None]
    shares = [rate / networks for rate, networks in zip(rates, session, strict=False)]
    return Measured(
        name=score.entrant.name,
        device=score.entrant.device,
        rounds_s=tuple(seconds),
        seconds=Spread.of(seconds),
        images_per_s=Spread.of(rates),
        reference=None if reference is None else reference.entrant.name,
        ratio=ratio,
        session_images_per_s=Spread.of(session) if session else None,
        session_share=Spread.of(shares) if shares else None,
        parts_ms=_parts(score, cores),
        looks=first.tally.looks,
        # In later rounds the pictures of a session may be in memory too.
        peak_mb=None if first.peak_bytes is None else first.peak_bytes / 1e6,
        peak_note=first.peak_note,
        facts=score.facts,
    )


def _parts(score: Score, cores: int) -> dict[str, float] | None:
    """Thread-milliseconds per picture; idle is the unused time of the cores, at least 0.

    With more threads than cores, the time of a thread includes waiting for a core, so the sum can
    exceed the time of the cores.
    """
    if not score.rounds[0].tally.parts_s:
        return None
    pictures = sum(round_.tally.pictures for round_ in score.rounds)
    names = dict.fromkeys([*PARTS[:-1], *score.rounds[0].tally.parts_s])
    sums = {
        name: sum(round_.tally.parts_s.get(name, 0.0) for round_ in score.rounds) for name in names
    }  # fmt: skip
    available = cores * sum(round_.seconds for round_ in score.rounds)
    sums[PARTS[-1]] = max(0.0, available - sum(sums.values()))
    return {name: seconds * 1000.0 / pictures for name, seconds in sums.items()}
