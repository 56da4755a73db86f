"""Statistics of agreement: rates with Wilson intervals, and Cohen's kappa with a bootstrap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054
"""Two-sided 95 %."""
_DRAWS = 2000
_SEED = 7


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate with its 95 % interval; all None if undefined.

    Attributes:
        value: In [0, 1]; kappa in [-1, 1].
        low, high: Ends of the interval.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, hits: float, number: int) -> Rate:
        """A proportion with its Wilson score interval (Wilson 1927).

        Args:
            hits: Successes, 0 to ``number``; an estimate may have a fraction.
            number: Trials; undefined if 0.
        """
        if not number:
            return cls()
        share, square = hits / number, _Z**2
        centre = (share + square / (2 * number)) / (1 + square / number)
        spread = share * (1 - share) / number + square / (4 * number**2)
        half = _Z * math.sqrt(max(spread, 0.0)) / (1 + square / number)
        return cls(share, max(0.0, centre - half), min(1.0, centre + half))

    def is_disjoint(self, low: float | None, high: float | None) -> bool:
        """Whether the two intervals do not overlap."""
        if self.low is None or self.high is None or low is None or high is None:
            return False
        return self.low > high or self.high < low

    def to_json(self) -> dict[str, Any]:
        """Value and interval limits by name."""
        return {"value": self.value, "low": self.low, "high": self.high}


def kappa(counts: NDArray[np.int64]) -> Rate:
    """Cohen's kappa (Cohen 1960), with the percentile interval of a bootstrap over pictures.

    Args:
        counts: (2, 2) pictures, by the decisions of the first and the second rater.

    Returns:
        Undefined without pictures, or if both raters always make the same decision. Without an
        interval if all draws are equal, such as for perfect agreement.
    """
    number = int(counts.sum())
    value = _kappa(counts[None].astype(float))[0]
    if not number or not np.isfinite(value):
        return Rate()
    draws = np.random.default_rng(_SEED).multinomial(number, counts.ravel() / number, _DRAWS)
    values = _kappa(draws.reshape(_DRAWS, 2, 2).astype(float))
    low, high = np.nanpercentile(values, (2.5, 97.5))
    if low == high:
        return Rate(float(value))
    return Rate(float(value), float(low), float(high))


def _kappa(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kappa of (N, 2, 2) tables; NaN where it is undefined."""
    number = tables.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.trace(tables, axis1=1, axis2=2) / number
        chance = (tables.sum(1) * tables.sum(2)).sum(1) / number**2
        return np.where(chance < 1.0, (observed - chance) / (1.0 - chance), np.nan)
