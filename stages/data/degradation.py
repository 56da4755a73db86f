"""Random image degradation by storage and transport, and random objects on the plate."""

from __future__ import annotations

import io
import math
import string

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from pipeline.domain import Array

from ..settings import AugmentConfig

GREYS = (0.0, 0.0, 0.05, 0.3, 0.9, 1.0)
"""Fill values of collimation and markers: mostly black, sometimes grey or white."""
MAX_BLUR = 0.01
"""Largest standard deviation of the blur, as a fraction of the canvas."""


def damage(values: Array, config: AugmentConfig, rng: np.random.Generator) -> Array:
    """Blur, resampling, noise, JPEG and coarse grey values, each with its probability.

    Args:
        values: (H, W) float32 in [0, 1].
        config: Probabilities.
        rng: Random generator.

    Returns:
        (H, W) float32 in [0, 1].
    """
    height, width = values.shape
    if rng.random() < config.blur:
        sigma = rng.uniform(0.3, MAX_BLUR * min(values.shape))
        values = gaussian_filter(values, sigma)
    if rng.random() < config.resample:
        share = rng.uniform(0.3, 0.8)
        low = max(8, round(width * share)), max(8, round(height * share))
        filters = (Image.Resampling.BILINEAR, Image.Resampling.NEAREST, Image.Resampling.BICUBIC)
        small = Image.fromarray(values).resize(low, Image.Resampling.BILINEAR)
        values = np.asarray(small.resize((width, height), filters[rng.integers(3)]))
    if rng.random() < config.noise:
        grain = rng.standard_normal(values.shape, np.float32) * rng.uniform(0.005, 0.06)
        # The detector correlates quantum noise: half of the time it is coarse.
        values = values + (gaussian_filter(grain, 0.8) * 2 if rng.random() < 0.5 else grain)
    values = np.clip(values, 0.0, 1.0)
    if rng.random() < config.jpeg:
        packed = io.BytesIO()
        picture = Image.fromarray((values * 255).round().astype(np.uint8))
        picture.save(packed, "JPEG", quality=int(rng.integers(12, 70)))
        values = np.asarray(Image.open(packed), np.float32) / np.float32(255)
    if rng.random() < config.coarse:
        levels = 2 ** int(rng.integers(4, 7)) - 1
        values = np.round(values * levels) / np.float32(levels)
    return values.astype(np.float32)


def cover(values: Array, config: AugmentConfig, rng: np.random.Generator) -> Array:
    """Collimation, bright plate rims, markers and text.

    Args:
        values: (H, W) float32 in [0, 1].
        config: Probabilities.
        rng: Random generator.

    Returns:
        (H, W) float32 in [0, 1].
    """
    values = values.copy()
    if rng.random() < config.collimation:
        values[~_field(values.shape, rng)] = rng.choice(GREYS)
    if rng.random() < config.rim:
        width = int(rng.uniform(0.01, 0.1) * min(values.shape))
        turned = np.rot90(values, int(rng.integers(4)))  # a view: assignment changes the picture
        turned[:width] = rng.uniform(0.7, 1.0)
    for _ in range(rng.integers(0, 3) if rng.random() < config.marker else 0):
        _mark(values, rng)
    if rng.random() < config.text:
        values = _write(values, rng)
    return values


def _field(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """(H, W) bool: a rotated rectangle, or the round field of fluoroscopy."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    y, x = y - rng.uniform(-0.1, 0.1), x - rng.uniform(-0.1, 0.1)
    if rng.random() < 0.2:
        return np.hypot(y, x) < rng.uniform(0.75, 1.15)
    turn = rng.uniform(-0.4, 0.4) if rng.random() < 0.5 else 0.0
    along = np.abs(x * math.cos(turn) + y * math.sin(turn)) < rng.uniform(0.6, 1.1)
    across = np.abs(y * math.cos(turn) - x * math.sin(turn)) < rng.uniform(0.6, 1.1)
    return along & across


def _mark(values: Array, rng: np.random.Generator) -> None:
    """Fill a rectangle of a lead marker's size."""
    height, width = values.shape
    rows, columns = (max(2, int(rng.uniform(0.03, 0.13) * n)) for n in (height, width))
    top, left = rng.integers(height - rows), rng.integers(width - columns)
    values[top : top + rows, left : left + columns] = rng.choice(GREYS)


def _write(values: Array, rng: np.random.Generator) -> Array:
    """A side letter, or a line of burnt-in text."""
    picture = Image.fromarray((values * 255).astype(np.uint8))
    height, width = values.shape
    alone = rng.random() < 0.6
    letters = "LR" if alone else string.ascii_uppercase + string.digits + "   "
    text = "".join(rng.choice(list(letters), 1 if alone else int(rng.integers(5, 22))))
    size_px = rng.uniform(0.06, 0.15) if alone else rng.uniform(0.03, 0.06)
    font = ImageFont.load_default(max(6.0, size_px * min(height, width)))
    place = rng.uniform(0.02, 0.85) * width, rng.uniform(0.02, 0.9) * height
    ImageDraw.Draw(picture).text(place, text, int(rng.choice([255, 230, 0])), font)
    return np.asarray(picture, np.float32) / np.float32(255)
