"""Similarity of two pictures, invariant to quarter turns and mirroring.

A picture squashed to a square has two descriptors: a coarse fingerprint, which finds candidates for
copies, and fine detail, which distinguishes copies from similar pictures. Radiographs of one kind
share their coarse shape, and those of one machine its borders and streaks; two exposures never
share the fine structure of bone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

from pipeline.domain import Array
from pipeline.preprocess import Fit, PreprocessSpec, preprocess

Half = NDArray[np.float16]
Rows = NDArray[np.intp]

SYMMETRIES = 8
"""Symmetries of the square: four quarter turns, each with and without mirroring."""

CANDIDATE_COSINE = 0.8
"""Threshold for fingerprints. Copies that are turned, rescaled to 0.4 to 1.5 and stored with JPEG
quality 30 to 90 keep 0.99, one exposure processed twice 0.83 or more; six in a thousand unrelated
pairs exceed the threshold."""

TWIN_LIKENESS = 0.78
"""Threshold for detail. The same copies keep 0.97, one exposure processed twice mostly 0.79 to
0.95. The maximum of those unrelated pairs (13,000 among 2,000 radiographs) was 0.63, and 0.74
among 1,400 radiographs that were all turned by the same angles and filled with black."""

CANVAS_PX = 128
_CANVAS = PreprocessSpec(
    frame="whole",
    height_px=CANVAS_PX,
    width_px=CANVAS_PX,
    fit=Fit.SQUASH,
    clip_percent=(0.0, 100.0),
)
_PRINT_PX = 16
_DETAIL_PX = 64
PRINT_SHAPE = (_PRINT_PX**2,)
DETAIL_SHAPE = (_DETAIL_PX**2,)
_DETAIL_ORDERS = (24, 64)
"""Half waves across the picture: finer than anatomy, coarser than compression damage."""
_STREAK_ORDERS = 4
"""Waves with fewer half waves than this along one side are lines along it: collimator edges and
detector streaks, which all pictures of a machine share."""
_MIDDLE = slice(18, 46)
"""Central part of the 64 x 64 detail: without the sharp edges of a black fill, which two pictures
turned by the same angle share."""
ROWS, COLUMNS = 512, 8192
"""Queries and references in a block of the similarity matrix: the rotated queries and 512 x 8192
cosines are 40 MB."""
_PAIRS = 1024
"""Pairs compared at once: 2 x 1024 x 64 x 64 float32 are 32 MB."""


def squash(pixels: Array) -> Array:
    """Resize a picture to a square, and stretch its grey values to [0, 1].

    Args:
        pixels: (H, W) float32 in [0, 1], of any size.

    Returns:
        (CANVAS_PX, CANVAS_PX) float32 in [0, 1]; all 0 for a picture of one grey value.
    """
    square: Array = preprocess(pixels, _CANVAS)[0][0]
    return square


def _unit_picture(waves: Array) -> Array:
    """(S * S,) float32 of norm 1, by rows, from (S, S) waves; all 0 if the waves are 0."""
    flat: Array = idctn(waves, norm="ortho").astype(np.float32).ravel()
    norm = np.linalg.norm(flat)
    # Rounding leaves 1e-6 for a picture of one grey value, which has no structure.
    return flat / norm if norm > 1e-4 else np.zeros_like(flat)


def _coarse(waves: Array) -> Array:
    # Radiographs have amplitudes of about 1 / frequency: without the weight, the bright middle
    # that all of them have would dominate.
    order = np.arange(_PRINT_PX, dtype=np.float32)
    return _unit_picture(waves[:_PRINT_PX, :_PRINT_PX] * np.hypot(order[:, None], order))


def _detail(waves: Array) -> Array:
    order = np.arange(_DETAIL_PX)
    radius = np.hypot(order[:, None], order)
    band = (radius >= _DETAIL_ORDERS[0]) & (radius < _DETAIL_ORDERS[1])
    band &= np.minimum(order[:, None], order) >= _STREAK_ORDERS
    return _unit_picture(waves[:_DETAIL_PX, :_DETAIL_PX] * band)


def fingerprint(pixels: Array) -> Array:
    """The coarse shape of a picture, with about the same weight for every scale.

    The fingerprint of a turned or mirrored picture is the turned or mirrored fingerprint.

    Args:
        pixels: (H, W) float32 in [0, 1], of any size.

    Returns:
        (256,) float32 of mean 0 and norm 1: a 16 x 16 picture by rows; all 0 for a picture of
        one grey value.
    """
    return describe(squash(pixels))[0]


def describe(square: Array) -> tuple[Array, Half]:
    """Fingerprint and detail of one picture.

    Args:
        square: (CANVAS_PX, CANVAS_PX) float32, from :func:`squash`.

    Returns:
        (256,) float32 as from :func:`fingerprint`, and (4096,) float16: a 64 x 64 picture of
        the fine structure by rows, mean 0 and norm 1.
    """
    waves: Array = dctn(square, norm="ortho")
    return _coarse(waves), _detail(waves).astype(np.float16)


def turn(squares: NDArray[np.floating], symmetry: int) -> Array:
    """Apply one of the :data:`SYMMETRIES` to flat square pictures.

    Args:
        squares: (N, S * S), each a picture by rows.
        symmetry: 0 to 3 quarter turns counter-clockwise; plus 4: mirrored first.

    Returns:
        (N, S * S) float32.
    """
    side = round(squares.shape[1] ** 0.5)
    pictures = squares.reshape(-1, side, side)
    if symmetry >= SYMMETRIES // 2:
        pictures = pictures[..., ::-1]
    turned = np.rot90(pictures, symmetry % 4, axes=(1, 2))
    return np.ascontiguousarray(turned, np.float32).reshape(squares.shape)


def nearest(queries: Array, references: Array) -> tuple[Rows, Array]:
    """The most similar reference of each query, over all symmetries of the square.

    Args:
        queries: (N, D) float32 fingerprints.
        references: (M, D) float32 fingerprints, M at least 1.

    Returns:
        (N,) rows of ``references`` and (N,) float32 cosines in [-1, 1].

    Raises:
        ValueError: There is no reference.
    """
    if not len(references):
        raise ValueError("no reference fingerprints; at least one is required")
    rows = np.zeros(len(queries), np.intp)
    cosines = np.full(len(queries), -np.inf, np.float32)
    for chunk, first, block in _blocks(queries, references):
        best = block.argmax(axis=1)
        value = block[np.arange(len(best)), best]
        better = value > cosines[chunk]
        rows[chunk] = np.where(better, best + first, rows[chunk])
        cosines[chunk] = np.where(better, value, cosines[chunk])
    return rows, np.clip(cosines, -1.0, 1.0)


def _blocks(queries: Array, references: Array) -> Iterator[tuple[slice, int, Array]]:
    """Rows, first column and (rows, columns) best cosines of each block of the matrix."""
    for start in range(0, len(queries), ROWS):
        chunk = slice(start, min(start + ROWS, len(queries)))
        turned = [turn(queries[chunk], symmetry) for symmetry in range(SYMMETRIES)]
        for first in range(0, len(references), COLUMNS):
            columns = references[first : first + COLUMNS].T
            block = turned[0] @ columns
            for rows in turned[1:]:
                np.maximum(block, rows @ columns, out=block)
            yield chunk, first, block


def candidates(prints: Array, parts: Sequence[str], keep: int) -> tuple[Rows, Rows]:
    """Pairs whose fingerprints are similar enough for verification.

    Args:
        prints: (N, D) float32 fingerprints.
        parts: N names; see ``keep``.
        keep: Each picture keeps its best ``keep`` pairs in every part, so that many copies in its
            own part do not hide one in another.

    Returns:
        Two (P,) arrays of rows, the first smaller than the second, each pair once.
    """
    names = np.asarray(parts)
    pairs = [np.zeros((2, 0), np.intp)]
    for name in dict.fromkeys(parts):
        members = np.flatnonzero(names == name)
        firsts, seconds, cosines = [], [], []
        for chunk, first, block in _blocks(prints, prints[members]):
            row, column = np.nonzero(_highest(block, keep + 1))  # one more: itself
            firsts.append(row + chunk.start)
            seconds.append(members[column + first])
            cosines.append(block[row, column])
        one, other, cosine = map(np.concatenate, (firsts, seconds, cosines))
        best = np.lexsort((-cosine, one))
        best = best[one[best] != other[best]]
        rank = np.arange(len(best)) - np.searchsorted(one[best], one[best])
        best = best[rank < keep]
        pairs.append(np.stack([one[best], other[best]]))
    distinct = np.unique(np.sort(np.concatenate(pairs, axis=1), axis=0), axis=1)
    return distinct[0], distinct[1]


def _highest(block: Array, keep: int) -> NDArray[np.bool_]:
    """(N, M) mask: the ``keep`` best of each row above :data:`CANDIDATE_COSINE`."""
    mask: NDArray[np.bool_] = block >= CANDIDATE_COSINE
    crowded = np.flatnonzero(mask.sum(axis=1) > keep)
    if len(crowded):
        rows = block[crowded]
        mask[crowded] &= rows >= np.partition(rows, -keep, axis=1)[:, -keep, None]
    return mask


@dataclass(frozen=True, slots=True)
class Match:
    """A pair of pictures that show the same exposure.

    Attributes:
        first, second: Rows.
        likeness: Correlation of their fine structure, at most 1; see the verifying function.
        mirrored: Whether the first must be mirrored, left to right, to match the second.
        degrees: Counter-clockwise rotation that follows, in [0, 360).
    """

    first: int
    second: int
    likeness: float
    mirrored: bool
    degrees: float

    @property
    def how(self) -> str:
        """Description of the transform; empty for the same orientation."""
        words = ["mirrored"] if self.mirrored else []
        if 0.5 <= self.degrees < 359.5:
            words.append(f"turned by {self.degrees:.0f}°")
        return ", ".join(words)


def verify(firsts: Rows, seconds: Rows, prints: Array, details: Half) -> list[Match]:
    """Select the pairs whose detail is similar too.

    Args:
        firsts: (P,) rows.
        seconds: (P,) rows.
        prints: (N, 256) float32 fingerprints.
        details: (N, 4096) float16.

    Returns:
        Matches; the likeness is that of the whole or of the middle, whichever is lower.
    """
    matches = []
    for start in range(0, len(firsts), _PAIRS):
        one, other = firsts[start : start + _PAIRS], seconds[start : start + _PAIRS]
        best = np.full(len(one), -np.inf, np.float32)
        symmetries = np.zeros(len(one), np.intp)
        for symmetry in range(SYMMETRIES):
            coarse = np.einsum("pd,pd->p", turn(prints[one], symmetry), prints[other])
            similar = np.flatnonzero(coarse >= CANDIDATE_COSINE)
            turned = turn(details[one[similar]], symmetry)
            value = _correlation(turned, details[other[similar]].astype(np.float32))
            better = value > best[similar]
            best[similar[better]] = value[better]
            symmetries[similar[better]] = symmetry
        matches += [
            Match(
                first=int(one[i]),
                second=int(other[i]),
                likeness=min(float(best[i]), 1.0),
                mirrored=bool(symmetries[i] >= SYMMETRIES // 2),
                degrees=90.0 * (symmetries[i] % 4),
            )
            for i in np.flatnonzero(best >= TWIN_LIKENESS)
        ]
    return matches


def _correlation(one: Array, other: Array) -> Array:
    """(P,) correlation of (P, 4096) details: the lower one of the whole and of the middle."""
    a, b = (d.reshape(-1, _DETAIL_PX, _DETAIL_PX)[:, _MIDDLE, _MIDDLE] for d in (one, other))
    norms = np.sqrt(np.einsum("pij,pij->p", a, a) * np.einsum("pij,pij->p", b, b))
    middle = np.einsum("pij,pij->p", a, b) / np.maximum(norms, 1e-6)
    whole = np.einsum("pd,pd->p", one, other)
    lower: Array = np.minimum(whole, middle)
    return lower
