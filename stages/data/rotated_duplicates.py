"""Detection of copies rotated by any angle, from rings around the middle of a picture.

A rotation about the middle shifts every ring along itself and does not change the amplitudes of
its waves; neither does mirroring. So the amplitudes find candidates for all angles at once, and
the waves with their phases give the angle and verify the exposure. Pixels that a rotation cuts
off or fills with black are outside the largest ring.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from pipeline.domain import Array

from .near_duplicates import CANVAS_PX, Half, Match, Rows

TILT_LIKENESS = 0.92
"""Threshold for the correlation of all rings at the best angle. Copies rotated by 3 to 45 degrees,
up to three times in succession, and stored with JPEG quality 60 to 95 keep 0.95; the maximum of the
nearest unrelated pictures among 2,000 radiographs was 0.84."""

_ANGLES = 256
_RINGS = 28
_RADII = 0.95 * 1.05 ** -np.arange(_RINGS, dtype=np.float32)
"""Radii as fractions of the largest circle in the picture: 0.95 to 0.25."""
_FIRST, _LAST = 6, 48
"""Waves around a ring: finer than anatomy, coarser than compression damage."""
RINGS_SHAPE = (2, _RINGS, _LAST - _FIRST + 1)
_FINE_PX, _BROAD_PX, _NEAR_PX = 0.7, 4.0, 6.0
"""Standard deviations of the blurs that bound the detail, and of the neighbourhood of the local
contrast. The outermost ring has an angle for every 1.5 px."""
_LEAST_CONTRAST = 0.02
"""Fraction of white; below it is the noise of empty areas, which compression removes."""
_COARSE_LAST, _POOLED = 28, 2
"""Last wave whose amplitudes are compared, and number of rings pooled together."""
_ROWS = 512
"""Pictures compared with all others at once."""
_PAIRS = 512
"""Pairs compared by angle at once: 1 MB of waves for each 100."""


def describe_rings(square: Array, shape: tuple[int, int]) -> Half:
    """The waves around the middle of a picture.

    Args:
        square: (CANVAS_PX, CANVAS_PX) float32, the squashed picture.
        shape: (H, W) of the original picture, in which the rings are circles.

    Returns:
        (2, 28, 43) float16: real and imaginary part of each ring's waves, of norm 1 together;
        all 0 for a picture of one grey value.
    """
    angles = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False, dtype=np.float32)
    middle, shorter = (CANVAS_PX - 1) / 2, min(shape)
    down = middle + CANVAS_PX / 2 * shorter / shape[0] * _RADII[:, None] * np.sin(angles)
    right = middle + CANVAS_PX / 2 * shorter / shape[1] * _RADII[:, None] * np.cos(angles)
    rings = map_coordinates(_even(square), [down, right], order=1)
    orders = np.arange(_FIRST, _LAST + 1)
    # Amplitudes decrease with the order: the weight balances the scales.
    waves = np.fft.rfft(rings, axis=1)[:, _FIRST : _LAST + 1] * np.sqrt(orders)
    norm = np.linalg.norm(waves)
    waves = waves / norm if norm > 1e-3 else np.zeros_like(waves)
    return np.stack([waves.real, waves.imag]).astype(np.float16)


def _even(square: Array) -> Array:
    """The detail of a picture with normalised local contrast.

    Otherwise a straight bone through the middle, which is common, would dominate.
    """
    detail = gaussian_filter(square, _FINE_PX) - gaussian_filter(square, _BROAD_PX)
    contrast = np.sqrt(gaussian_filter(detail**2, _NEAR_PX))
    return (detail / (contrast + _LEAST_CONTRAST)).astype(np.float32)


def amplitudes(rings: Half) -> Array:
    """Descriptor of a picture's rings that is invariant to rotation and mirroring.

    Args:
        rings: (2, 28, 43) float16.

    Returns:
        (322,) float32 of norm 1: pooled over two neighbouring rings; square roots, so that a few
        bright edges do not dominate.
    """
    real, imaginary = rings[:, :, : _COARSE_LAST - _FIRST + 1].astype(np.float32)
    pooled = np.hypot(real, imaginary).reshape(_RINGS // _POOLED, _POOLED, -1).mean(axis=1)
    flat: Array = np.sqrt(pooled).ravel()
    return flat / max(float(np.linalg.norm(flat)), 1e-6)


def tilt_candidates(prints: Array, parts: Sequence[str], keep: int) -> tuple[Rows, Rows]:
    """Pairs with the most similar amplitudes.

    Args:
        prints: (N, 322) float32 amplitudes.
        parts: N names; each picture keeps its best ``keep`` in every part.
        keep: At least 1.

    Returns:
        Two (P,) arrays of rows, the first smaller than the second, each pair once.
    """
    names = np.asarray(parts)
    pairs = [np.zeros((2, 0), np.intp)]
    for name in dict.fromkeys(parts):
        members = np.flatnonzero(names == name)
        kept = min(keep + 1, len(members))  # one more: in its own part each matches itself
        references = prints[members].T
        for start in range(0, len(prints), _ROWS):
            cosines = prints[start : start + _ROWS] @ references
            best = np.argpartition(-cosines, kept - 1, axis=1)[:, :kept]
            one = np.repeat(np.arange(start, start + len(best)), kept)
            pairs.append(np.stack([one, members[best.ravel()]]))
    distinct = np.unique(np.sort(np.concatenate(pairs, axis=1), axis=0), axis=1)
    distinct = distinct[:, distinct[0] < distinct[1]]
    return distinct[0], distinct[1]


def verify_tilt(firsts: Rows, seconds: Rows, rings: Half) -> list[Match]:
    """Select the pairs whose rings all agree at one angle.

    Args:
        firsts: (P,) rows.
        seconds: (P,) rows.
        rings: (N, 2, 28, 43) float16.

    Returns:
        At most one match per pair; its likeness is the correlation of all rings.
    """
    matches = []
    for start in range(0, len(firsts), _PAIRS):
        one, other = firsts[start : start + _PAIRS], seconds[start : start + _PAIRS]
        a, b = _complex(rings[one]), _complex(rings[other])
        scores = np.stack([_by_angle(a, b.conj()), _by_angle(a, b)], axis=1)
        for i in np.flatnonzero(scores.max(axis=(1, 2)) >= TILT_LIKENESS):
            mirrored, step = divmod(int(scores[i].argmax()), _ANGLES)
            turned = 360.0 * step / _ANGLES
            matches.append(
                Match(
                    first=int(one[i]),
                    second=int(other[i]),
                    likeness=min(float(scores[i].max()), 1.0),
                    mirrored=bool(mirrored),
                    degrees=(180.0 - turned) % 360.0 if mirrored else turned,
                )
            )
    return matches


def _complex(rings: Half) -> NDArray[np.complex64]:
    parts = rings.astype(np.float32)
    waves: NDArray[np.complex64] = parts[:, 0] + np.complex64(1j) * parts[:, 1]
    return waves


def _by_angle(a: NDArray[np.complex64], b: NDArray[np.complex64]) -> Array:
    """(P, _ANGLES) correlation of all rings (total norm 1), for every angle."""
    spectrum = np.zeros((len(a), _ANGLES // 2 + 1), np.complex64)
    spectrum[:, _FIRST : _LAST + 1] = (a * b).sum(axis=1)
    # irfft counts each wave twice and divides by the number of angles.
    correlation: Array = np.fft.irfft(spectrum, n=_ANGLES, axis=1).astype(np.float32)
    return correlation * np.float32(_ANGLES / 2)
