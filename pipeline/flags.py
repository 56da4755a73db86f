"""Doubts about one picture, raised before its verdict is trusted: quality, and the header's word.

A flag changes no verdict, but for ``blank``: of a picture without contrast, nothing can be said.
``header-mended`` and ``not-square`` come from :mod:`pipeline.io`, which knows what it mended. Each
other rule is one function with its limit beside it; docs/reading-results.md lists them. The limits
were set on the 1,984 readable radiographs of FracAtlas at hand, without their labels, by looking at
what is found: ``several-exposures`` in 165, of which 91 with an upper limb, and 81 of those show
two exposures or two limbs; ``inverted`` in none, in 1,926 of their negatives, and, wrongly, in 23
of 61 chest radiographs, whose rim is bright; the others in none but one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from .artificial import MOST_GREY, constant, signs
from .domain import REGIONS, Array, Flag, HeaderEffect, RegionCall
from .io.body_parts import body_part

BLANK = "blank"
"""A picture with this flag gets no verdict."""

NAMES = (
    "header-mended",
    "not-square",
    "too-small",
    BLANK,
    "inverted",
    "mostly-collimation",
    "several-exposures",
    "body-part-differs",
    "far-from-training",
    "header-helped",
    "not-framed",
    "not-a-radiograph",
    "grey-block",
    "own-output",
)

OWN_OUTPUT = Flag("own-output", "Made by fxpipe itself: an earlier result is not judged again")

LEAST_SIDE_PX = 200
"""Of the shorter side; the networks have learned from pictures of 373 px and more."""

LEAST_CONTRAST = 0.025
"""Standard deviation of the means of 12 x 12 parts: noise has little, limbs have .04 and more."""

MOST_BRIGHT = 0.6
"""Median of the picture, and of its rim: air is dark, unless black and white are exchanged."""

MOST_BLACK = 0.8
"""Share of the picture that is as black as nothing but a collimator leaves it."""

BLACK = 0.02
"""Grey value up to which a place counts as black."""

LEAST_DIVIDED = 0.6
"""How evenly one straight line from edge to edge divides two bodies: 1 is a drawn line."""

_LOOK_PX = 128
_PARTS = 12
_NEAR_PX = 3


def quality(pixels: Array, colour: float = 0.0) -> tuple[Flag, ...]:
    """What is wrong with the picture itself.

    Args:
        pixels: (H, W) float32 in [0, 1], bone bright.
        colour: Share of the picture that is coloured.
    """
    return tuple(_quality(pixels, colour))


def _quality(pixels: Array, colour: float) -> Iterator[Flag]:
    height, width = pixels.shape
    if min(height, width) < LEAST_SIDE_PX:
        yield Flag(
            "too-small",
            f"Few pixels: {width} x {height}, and fine detail needs {LEAST_SIDE_PX} or more on "
            "the shorter side",
        )
    small = _small(pixels)
    contrast = _contrast(small)
    if contrast < LEAST_CONTRAST:
        yield Flag(
            BLANK,
            f"Hardly any contrast: {contrast:.3f}, where radiographs have {LEAST_CONTRAST} or more",
        )
        return  # nothing else can be said of it
    rim, middle = _brightness(small)
    if min(rim, middle) > MOST_BRIGHT:
        yield Flag(
            "inverted",
            f"Black and white may be exchanged: rim ({rim:.2f}) and picture ({middle:.2f}) are "
            f"bright, where air is darker than {MOST_BRIGHT}",
        )
    black = float((small <= BLACK).mean())
    if black > MOST_BLACK:
        yield Flag(
            "mostly-collimation",
            f"Mostly black: {black:.0%} of the picture, where {MOST_BLACK:.0%} is usual at most",
        )
    if max(_divided(small), _divided(np.ascontiguousarray(small.T))) > LEAST_DIVIDED:
        yield Flag("several-exposures", "Two exposures on one plate: one answer for both")
    if found := ", ".join(signs(pixels, colour)):
        yield Flag(
            "not-a-radiograph",
            f"Perhaps no radiograph but a photograph, a screenshot or a print: it has {found}",
        )
    if (grey := constant(pixels)) > MOST_GREY:
        yield Flag(
            "grey-block",
            f"Part of the picture is missing: {grey:.0%} of it is one constant grey, as in damaged "
            "files",
        )


def framing(framed: bool) -> tuple[Flag, ...]:
    """Whether the limb was found, in a run whose networks want it framed.

    Args:
        framed: See :class:`pipeline.domain.Placement`.
    """
    if framed:
        return ()
    return (Flag("not-framed", "No limb stands out: the whole picture was read"),)


def reconcile(
    header: Mapping[str, str] | None,
    found: Sequence[str] | None,
    regions: Collection[str] = REGIONS,
) -> tuple[Flag, ...]:
    """Whether the header and the router disagree about the part of the body.

    Args:
        header: See :class:`pipeline.domain.XrayImage`.
        found: The regions that the router found, none for an unsupported picture; None where
            there is no router.
        regions: Those that the router knows.
    """
    part = body_part(header, regions)
    if found is None or not part.said:
        return ()
    if part.regions & set(found) or not (part.regions or found):
        return ()
    seen = " and ".join(found) or "no supported region"
    return (
        Flag(
            "body-part-differs",
            f"Another body part than the header says: {part.said}, found {seen}",
        ),
    )


def routing(call: RegionCall | None) -> tuple[Flag, ...]:
    """What is doubtful about a picture that is judged, by the routing decision of it.

    Args:
        call: None where there is none.
    """
    return () if call is None else tuple(_routing(call))


def _routing(call: RegionCall) -> Iterator[Flag]:
    if call.far:
        yield Flag(
            "far-from-training",
            f"Unlike most pictures that the networks learned from (similarity {call.density:.3f}, "
            f"usual from {call.density_far:.3f}): positive only from the highest stored threshold",
        )
    if call.header_effect is HeaderEffect.HELPED:
        yield Flag(
            "header-helped",
            "Judged with the help of the header: by the pixels alone, the region that it names "
            "would not have been recognised",
        )


def _small(pixels: Array) -> Array:
    """The picture at no more than 128 px, smallest value 0 and largest 1."""
    # Every k-th pixel first: the mean over all of a large picture would cost more than the rest.
    step = max(1, max(pixels.shape) // (4 * _LOOK_PX))
    picture = Image.fromarray(np.ascontiguousarray(pixels[::step, ::step]))
    picture.thumbnail((_LOOK_PX, _LOOK_PX), Image.Resampling.BILINEAR, reducing_gap=None)
    small = np.asarray(picture)
    low, high = float(small.min()), float(small.max())
    stretched: Array = (small - np.float32(low)) / np.float32(max(high - low, 1e-6))
    return stretched


def _contrast(small: Array) -> float:
    """Standard deviation of the means of the picture's parts."""
    means = Image.fromarray(small).resize((_PARTS, _PARTS), Image.Resampling.BOX)
    return float(np.asarray(means).std())


def _brightness(small: Array) -> tuple[float, float]:
    """Medians of the outer sixteenth on every side, and of the whole."""
    rim_px = max(1, min(small.shape) // 16)
    rim = np.ones(small.shape, np.bool_)
    rim[rim_px:-rim_px, rim_px:-rim_px] = False
    return float(np.median(small[rim])), float(np.median(small))


def _divided(small: Array) -> float:
    """How clearly a line from top to bottom divides two bodies, in [0, 1].

    Looked for are nearly upright lines in the middle half, free of tissue, with at least a quarter
    of all tissue on either side; measured is how consistently the grey value steps there.
    """
    height, width = small.shape
    air, tissue = _levels(small)
    if min(height, width) < _LOOK_PX // 4 or air > 0.4 or tissue - air < 0.08:
        return 0.0
    sure = small > air + 0.4 * (tissue - air)
    rows = np.flatnonzero(sure.mean(1) <= 0.8)  # without the bright edge of a plate
    if len(rows) < height // 2:
        return 0.0
    picture, sure = small[rows], sure[rows]
    free = picture <= air + 0.25 * (tissue - air)
    margin = round(0.12 * width)
    sure[:, :margin] = sure[:, -margin:] = False
    step = np.zeros_like(picture)
    step[:, 1:-1] = np.clip((picture[:, 2:] - picture[:, :-2]) / np.float32(0.03), -1.0, 1.0)

    columns = np.arange(round(0.25 * width), round(0.75 * width))
    around = np.arange(columns[0] - _NEAR_PX, columns[-1] + _NEAR_PX + 1)
    best = 0.0
    for lean_px in range(-9, 10, 3):  # from the top to the bottom, of 128
        shift = np.rint((rows / height - 0.5) * lean_px * width / _LOOK_PX).astype(np.intp)[:, None]
        clear = np.take_along_axis(free, shift + around, axis=1).mean(0)
        near = sliding_window_view(clear, 2 * _NEAR_PX + 1).max(1)
        left = _left_of(sure, shift + columns)
        wanted = (near > 0.88) & (np.minimum(left, 1.0 - left) > 0.25)
        if wanted.any():
            steps = np.take_along_axis(step, shift + columns[wanted], axis=1).mean(0)
            best = max(best, float(np.abs(steps).max()))
    return best


def _left_of(sure: NDArray[np.bool_], at: NDArray[np.intp]) -> NDArray[np.float64]:
    """Share of the tissue that lies left of each leaning line."""
    before = np.cumsum(sure, axis=1)
    left = np.take_along_axis(before, at, axis=1).sum(0)
    return np.asarray(left / max(1, int(before[:, -1].sum())))


def _levels(small: Array) -> tuple[float, float]:
    """Grey value of air (the commonest) and of the densest tissue, the picture's edges left out."""
    rows, columns = (round(0.08 * side) for side in small.shape)
    inner = small[rows : small.shape[0] - rows, columns : small.shape[1] - columns]
    counts, edges = np.histogram(inner, 50, (0.0, 1.0))
    commonest = int(counts.argmax())
    return float(edges[commonest : commonest + 2].mean()), float(np.percentile(inner, 95))
