"""How alike two pictures are, whichever way up they lie.

Two descriptions of a picture, both of its squashed square: a coarse fingerprint finds the few
others that it may be a copy of, and its detail tells copies from look-alikes. Radiographs of one
kind share their coarse shape, and those of one machine its borders and streaks; no two exposures
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
"""Of the square: four quarter turns, each also mirrored."""

CANDIDATE_COSINE = 0.8
"""Of fingerprints. Copies turned, rescaled to 0.4 to 1.5 and stored with JPEG quality 30 to 90
keep 0.99, one exposure processed twice 0.83 and more; six in a thousand pairs of strangers have
as much."""

TWIN_LIKENESS = 0.78
"""Of detail. The same copies keep 0.97, one exposure processed twice mostly 0.79 to 0.95. The
highest of those strangers, 13,000 pairs among 2,000 radiographs, was 0.63, and 0.74 among 1,400
that were all turned by the same angles and filled with black."""

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
"""Half waves across the picture: finer than anatomy, coarser than what compression spoils."""
_STREAK_ORDERS = 4
"""With fewer half waves than this across one side, a wave is a line along it: collimator edges
and streaks of the detector, which all pictures of a machine share."""
_MIDDLE = slice(18, 46)
"""Of the 64 x 64 detail, both ways: free of the sharp edges of a black fill, which two pictures
turned by the same angle share."""
_ROWS, _COLUMNS = 512, 8192
"""Block of the similarity matrix: the turned rows and 512 x 8192 cosines are 40 MB."""
_PAIRS = 1024
"""Pairs compared at once: 2 x 1024 x 64 x 64 float32 are 32 MB."""


def squash(pixels: Array) -> Array:
    """Bring a picture to a square, its darkest pixel to 0 and its lightest to 1.

    Args:
        pixels: (H, W) float32 in [0, 1], of any size.

    Returns:
        (CANVAS_PX, CANVAS_PX) float32 in [0, 1]; all 0 for a picture of one grey value.
    """
    square: Array = preprocess(pixels, _CANVAS)[0][0]
    return square


def _unit_picture(waves: Array) -> Array:
    """(S * S,) float32 of norm 1, by rows, from (S, S) waves; all 0 where there are none."""
    flat: Array = idctn(waves, norm="ortho").astype(np.float32).ravel()
    norm = np.linalg.norm(flat)
    # Of a picture of one grey value rounding leaves 1e-6, which is no shape.
    return flat / norm if norm > 1e-4 else np.zeros_like(flat)


def _coarse(waves: Array) -> Array:
    # Radiographs have amplitudes of about 1 / frequency: without the weight, a comparison sees
    # little but the bright middle that all of them have.
    order = np.arange(_PRINT_PX, dtype=np.float32)
    return _unit_picture(waves[:_PRINT_PX, :_PRINT_PX] * np.hypot(order[:, None], order))


def _detail(waves: Array) -> Array:
    order = np.arange(_DETAIL_PX)
    both = np.hypot(order[:, None], order)
    wanted = (both >= _DETAIL_ORDERS[0]) & (both < _DETAIL_ORDERS[1])
    wanted &= np.minimum(order[:, None], order) >= _STREAK_ORDERS
    return _unit_picture(waves[:_DETAIL_PX, :_DETAIL_PX] * wanted)


def fingerprint(pixels: Array) -> Array:
    """The coarse shape of a picture, every scale of it with about the same weight.

    A turned or mirrored picture has the turned or mirrored fingerprint.

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
        (256,) float32 as :func:`fingerprint` gives it, and (4096,) float16: a 64 x 64 picture of
        the fine structure by rows, mean 0 and norm 1.
    """
    waves: Array = dctn(square, norm="ortho")
    return _coarse(waves), _detail(waves).astype(np.float16)


def turn(squares: NDArray[np.floating], symmetry: int) -> Array:
    """Apply one of the :data:`SYMMETRIES` to flat square pictures.

    Args:
        squares: (N, S * S), each a picture by rows.
        symmetry: 0 to 3 quarter turns against the clock; with 4 added mirrored first.

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
        raise ValueError("found no reference fingerprints, wanted at least one")
    rows = np.zeros(len(queries), np.intp)
    cosines = np.full(len(queries), -np.inf, np.float32)
    for chunk, first, block in _blocks(queries, references):
        found = block.argmax(axis=1)
        value = block[np.arange(len(found)), found]
        better = value > cosines[chunk]
        rows[chunk] = np.where(better, found + first, rows[chunk])
        cosines[chunk] = np.where(better, value, cosines[chunk])
    return rows, np.clip(cosines, -1.0, 1.0)


def _blocks(queries: Array, references: Array) -> Iterator[tuple[slice, int, Array]]:
    """Rows, first column and (rows, columns) best cosines of each block of the matrix."""
    for start in range(0, len(queries), _ROWS):
        chunk = slice(start, min(start + _ROWS, len(queries)))
        turned = [turn(queries[chunk], symmetry) for symmetry in range(SYMMETRIES)]
        for first in range(0, len(references), _COLUMNS):
            columns = references[first : first + _COLUMNS].T
            block = turned[0] @ columns
            for rows in turned[1:]:
                np.maximum(block, rows @ columns, out=block)
            yield chunk, first, block


def candidates(prints: Array, parts: Sequence[str], keep: int) -> tuple[Rows, Rows]:
    """Pairs whose fingerprints are alike enough to look closer.

    Args:
        prints: (N, D) float32 fingerprints.
        parts: N names; see ``keep``.
        keep: Pairs kept for each picture: its best ``keep`` in every part, so that many copies in
            its own part cannot hide the one in another.

    Returns:
        Two (P,) arrays of rows, the first smaller than the second, each pair once.
    """
    names = np.asarray(parts)
    found = [np.zeros((2, 0), np.intp)]
    for name in dict.fromkeys(parts):
        members = np.flatnonzero(names == name)
        ones, others, cosines = [], [], []
        for chunk, first, block in _blocks(prints, prints[members]):
            row, column = np.nonzero(_highest(block, keep + 1))  # one more: itself
            ones.append(row + chunk.start)
            others.append(members[column + first])
            cosines.append(block[row, column])
        one, other, cosine = map(np.concatenate, (ones, others, cosines))
        best = np.lexsort((-cosine, one))
        best = best[one[best] != other[best]]
        rank = np.arange(len(best)) - np.searchsorted(one[best], one[best])
        best = best[rank < keep]
        found.append(np.stack([one[best], other[best]]))
    pairs = np.unique(np.sort(np.concatenate(found, axis=1), axis=0), axis=1)
    return pairs[0], pairs[1]


def _highest(block: Array, keep: int) -> NDArray[np.bool_]:
    """(N, M) mask: the ``keep`` best of each row that are candidates at all."""
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
        likeness: Correlation of their fine structure, at most 1; see the function that found it.
        mirrored: Whether the first must be mirrored, left to right, to lie like the second.
        degrees: By which it must be turned then, against the clock, in [0, 360).
    """

    first: int
    second: int
    likeness: float
    mirrored: bool
    degrees: float

    @property
    def how(self) -> str:
        """In words; empty when both lie the same way."""
        words = ["mirrored"] if self.mirrored else []
        if 0.5 <= self.degrees < 359.5:
            words.append(f"turned by {self.degrees:.0f}°")
        return ", ".join(words)


def verify(firsts: Rows, seconds: Rows, prints: Array, details: Half) -> list[Match]:
    """Those of the pairs whose detail is alike too.

    Args:
        firsts: (P,) rows.
        seconds: (P,) rows.
        prints: (N, 256) float32 fingerprints.
        details: (N, 4096) float16.

    Returns:
        Matches whose likeness is that of the whole or of the middle, whichever is less.
    """
    matches = []
    for start in range(0, len(firsts), _PAIRS):
        one, other = firsts[start : start + _PAIRS], seconds[start : start + _PAIRS]
        best = np.full(len(one), -np.inf, np.float32)
        symmetries = np.zeros(len(one), np.intp)
        for symmetry in range(SYMMETRIES):
            coarse = np.einsum("pd,pd->p", turn(prints[one], symmetry), prints[other])
            alike = np.flatnonzero(coarse >= CANDIDATE_COSINE)
            turned = turn(details[one[alike]], symmetry)
            value = _correlation(turned, details[other[alike]].astype(np.float32))
            better = value > best[alike]
            best[alike[better]] = value[better]
            symmetries[alike[better]] = symmetry
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
    """(P,) correlation of (P, 4096) details, of the whole or of the middle: the lower."""
    a, b = (d.reshape(-1, _DETAIL_PX, _DETAIL_PX)[:, _MIDDLE, _MIDDLE] for d in (one, other))
    norms = np.sqrt(np.einsum("pij,pij->p", a, a) * np.einsum("pij,pij->p", b, b))
    middle = np.einsum("pij,pij->p", a, b) / np.maximum(norms, 1e-6)
    whole = np.einsum("pd,pd->p", one, other)
    lower: Array = np.minimum(whole, middle)
    return lower
