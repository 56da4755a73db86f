"""Random tone: grey value changes by detector, exposure and the vendor's software."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import uniform_filter

from pipeline.domain import Array

from ..settings import AugmentConfig

LOCAL = (6, 16)
"""Range of the divisor that gives the neighbourhood of local contrast as a part of the canvas."""


def change(values: Array, config: AugmentConfig, rng: np.random.Generator) -> Array:
    """Gamma, tone curve, local contrast, contrast and brightness, black level.

    Args:
        values: (H, W) float32 in [0, 1].
        config: Ranges.
        rng: Random generator.

    Returns:
        (H, W) float32 in [0, 1].
    """
    values = values ** math.exp(rng.uniform(-config.gamma, config.gamma))
    if config.curve > 0:
        values = _curve(values, config.curve, rng)
    if rng.random() < 0.5 and config.local_contrast != (0.0, 0.0):
        side = int(min(values.shape) / rng.uniform(*LOCAL)) // 2 * 2 + 1
        around = uniform_filter(values, side, mode="nearest")
        values = values + rng.uniform(*config.local_contrast) * (values - around)
    middle = float(values.mean())
    values = (values - middle) * rng.uniform(1 - config.contrast, 1 + config.contrast) + middle
    values = values * rng.uniform(1 - config.brightness, 1 + config.brightness)
    if rng.random() < 0.3:
        values = values + rng.uniform(0.0, config.lift)
    return np.clip(values, 0.0, 1.0).astype(np.float32)


def _curve(values: Array, bend: float, rng: np.random.Generator) -> Array:
    """A rising curve through random points; ``bend`` is the largest log ratio of its slopes."""
    steps = np.exp(rng.uniform(-bend, bend, 5))
    heights = np.concatenate([[0.0], np.cumsum(steps) / steps.sum()])
    curved: Array = np.interp(values, np.linspace(0.0, 1.0, 6), heights).astype(np.float32)
    return curved
