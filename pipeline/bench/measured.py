"""What a contest shows: medians with their spread, ratios round by round, where the time went."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .contest import Score

PARTS = ("read", "decode", "resize", "trunk", "heads", "writing", "idle")
"""Names of the work of a run, in its order."""

REFERENCE = "torch-loop"
"""What every ratio is taken against, on the same kind of device."""

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some rounds, and their least and greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Measured:
    """One contender's figures.

    Attributes:
        name, device: See :class:`~.contest.Entrant`.
        rounds_s: Seconds of the whole job, by round.
        seconds: Their spread.
        images_per_s: Pictures a second of the whole job.
        reference: Whom it is compared with; None when that one was not measured.
        ratio: How many times as fast as the reference, each round with the same round.
        session_images_per_s: Of the networks alone; None when it was not measured.
        session_share: The whole job's pictures a second as a share of that, round by round.
        parts_ms: Thread-milliseconds a picture by the name of the work, mean of all rounds; the
            sum is that of all cores. None where it is unknown.
        looks: How often a specialist looked, in a round.
        peak_mb: The most memory that its process had resident until the end of the first round's
            job, in millions of bytes.
        peak_note: Why that is None.
        facts: See :class:`~.contest.Contender`.
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
        """Each part as a share in [0, 1] of all of them; empty where they are unknown."""
        parts = self.parts_ms or {}
        total = sum(parts.values())
        return {name: value / total for name, value in parts.items()} if total else {}

    def to_json(self) -> dict[str, Any]:
        """Everything, and the shares."""
        return {**asdict(self), "shares": self.shares}


def reference_of(device: str) -> str:
    """Name of the contender that one on ``device`` is compared with."""
    return f"{REFERENCE}-{'cpu' if device == 'cpu' else 'cuda'}"


def measure(scores: Sequence[Score], cores: int) -> list[Measured]:
    """Figures of every contender.

    Args:
        scores: Each with at least one round, all with the same number.
        cores: How many this process may use: what they could have done is idle time.
    """
    by_name = {score.entrant.name: score for score in scores}
    return [
        _measured(score, by_name.get(reference_of(score.entrant.device)), cores)
        for score in scores
    ]  # fmt: skip


def _measured(score: Score, reference: Score | None, cores: int) -> Measured:
    first = score.rounds[0]
    seconds = [done.seconds for done in score.rounds]
    rates = [done.tally.pictures / done.seconds for done in score.rounds]
    ratio = None
    if reference is not None:
        pairs = zip(reference.rounds, score.rounds, strict=True)
        ratio = Spread.of([theirs.seconds / ours.seconds for theirs, ours in pairs])
    alone = [r.session_images_per_s for r in score.rounds if r.session_images_per_s is not None]
    shares = [rate / session for rate, session in zip(rates, alone, strict=False)]
    return Measured(
        name=score.entrant.name,
        device=score.entrant.device,
        rounds_s=tuple(seconds),
        seconds=Spread.of(seconds),
        images_per_s=Spread.of(rates),
        reference=None if reference is None else reference.entrant.name,
        ratio=ratio,
        session_images_per_s=Spread.of(alone) if alone else None,
        session_share=Spread.of(shares) if shares else None,
        parts_ms=_parts(score, cores),
        looks=first.tally.looks,
        # Later rounds do the same again, but perhaps beside the pictures of a session.
        peak_mb=None if first.peak_bytes is None else first.peak_bytes / 1e6,
        peak_note=first.peak_note,
        facts=score.facts,
    )


def _parts(score: Score, cores: int) -> dict[str, float] | None:
    """Thread-milliseconds a picture; idle is what the cores had left, and never less than 0.

    With more threads than cores a thread's seconds contain its waiting for a core, so that the
    sum can be greater than what the cores had.
    """
    if not score.rounds[0].tally.parts_s:
        return None
    pictures = sum(done.tally.pictures for done in score.rounds)
    names = dict.fromkeys([*PARTS[:-1], *score.rounds[0].tally.parts_s])
    sums = {
        name: sum(done.tally.parts_s.get(name, 0.0) for done in score.rounds) for name in names
    }  # fmt: skip
    had = cores * sum(done.seconds for done in score.rounds)
    sums[PARTS[-1]] = max(0.0, had - sum(sums.values()))
    return {name: seconds * 1000.0 / pictures for name, seconds in sums.items()}
