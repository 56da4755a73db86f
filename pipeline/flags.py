"""Flags: doubts about one picture, from its quality and from its DICOM header.

A flag does not change the verdict, except ``blank``: a picture without contrast cannot be judged.
:mod:`pipeline.io` sets ``header-mended`` and ``not-square`` when it corrects a header. Each other
rule is one function with a limit defined here; docs/reading-results.md lists them. The limits were
set on 1,984 readable radiographs of FracAtlas, without their labels, by inspecting flagged
pictures: ``several-exposures`` flags 165, of which 91 show an upper limb, and 81 of those show two
exposures or two limbs; ``inverted`` flags none, but flags 1,926 of their negatives and, wrongly, 23
of 61 chest radiographs, whose rim is bright; the other flags apply to one picture in total.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from .domain import REGIONS, Array, Flag
from .io.body_parts import body_part
from .not_radiograph import MOST_GREY, constant, signs
from .outcome import HeaderEffect, RegionCall

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
"""Minimum length of the shorter side; the training pictures have at least 373 px."""

LEAST_CONTRAST = 0.025
"""Standard deviation of the means of 12 x 12 parts: low for noise, at least 0.04 for limbs."""

MOST_BRIGHT = 0.6
"""Limit for the medians of the picture and its rim: air is dark unless the picture is inverted."""

MOST_BLACK = 0.8
"""Maximum share of the picture that is as black as collimated areas."""

BLACK = 0.02
"""Grey value up to which a pixel counts as black."""

LEAST_DIVIDED = 0.6
"""How consistently a straight line from edge to edge separates two objects: 1 is a drawn line."""

_ANALYSIS_PX = 128
_PARTS = 12
_TOLERANCE_PX = 3


def quality(pixels: Array, colour: float = 0.0) -> tuple[Flag, ...]:
    """Flags from the pixels.

    Args:
        pixels: (H, W) float32 in [0, 1], bone bright.
        colour: Share of the picture that is coloured, in [0, 1].
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
        return  # the other checks need contrast
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
    if features := ", ".join(signs(pixels, colour)):
        yield Flag(
            "not-a-radiograph",
            "Possibly not a radiograph but a photograph, a screenshot or a print: it has "
            f"{features}",
        )
    if (grey := constant(pixels)) > MOST_GREY:
        yield Flag(
            "grey-block",
            f"Part of the picture is missing: {grey:.0%} of it is one constant grey, as in damaged "
            "files",
        )


def framing(framed: bool) -> tuple[Flag, ...]:
    """Flag for a missing limb, in a run whose networks need the limb framed.

    Args:
        framed: See :class:`pipeline.domain.Placement`.
    """
    if framed:
        return ()
    return (Flag("not-framed", "No limb found: the whole picture was used"),)


def reconcile(
    header: Mapping[str, str] | None,
    detected: Sequence[str] | None,
    regions: Collection[str] = REGIONS,
) -> tuple[Flag, ...]:
    """Flag for a disagreement between the header and the router about the body part.

    Args:
        header: See :class:`pipeline.domain.XrayImage`.
        detected: The regions that the router detected, empty for an unsupported picture; None
            without a router.
        regions: The regions that the router supports.
    """
    part = body_part(header, regions)
    if detected is None or not part.said:
        return ()
    if part.regions & set(detected) or not (part.regions or detected):
        return ()
    regions_text = " and ".join(detected) or "no supported region"
    return (
        Flag(
            "body-part-differs",
            f"The header names another body part: {part.said}, found {regions_text}",
        ),
    )


def routing(call: RegionCall | None) -> tuple[Flag, ...]:
    """Flags of a judged picture from its routing decision.

    Args:
        call: The routing decision; None without a region stage.
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
    """The picture reduced to at most 128 px, scaled to [0, 1]."""
    # Subsample first: averaging all pixels of a large picture would take most of the time.
    step = max(1, max(pixels.shape) // (4 * _ANALYSIS_PX))
    picture = Image.fromarray(np.ascontiguousarray(pixels[::step, ::step]))
    picture.thumbnail((_ANALYSIS_PX, _ANALYSIS_PX), Image.Resampling.BILINEAR, reducing_gap=None)
    small = np.asarray(picture)
    low, high = float(small.min()), float(small.max())
    stretched: Array = (small - np.float32(low)) / np.float32(max(high - low, 1e-6))
    return stretched


def _contrast(small: Array) -> float:
    """Standard deviation of the means of the picture's parts."""
    means = Image.fromarray(small).resize((_PARTS, _PARTS), Image.Resampling.BOX)
    return float(np.asarray(means).std())


def _brightness(small: Array) -> tuple[float, float]:
    """Medians of the rim (the outer sixteenth on every side) and of the whole picture."""
    rim_px = max(1, min(small.shape) // 16)
    rim = np.ones(small.shape, np.bool_)
    rim[rim_px:-rim_px, rim_px:-rim_px] = False
    return float(np.median(small[rim])), float(np.median(small))


def _divided(small: Array) -> float:
    """How clearly a line from top to bottom separates two objects, in [0, 1].

    Candidates are nearly vertical lines in the middle half, free of tissue, with at least a quarter
    of all tissue on either side. The result measures how consistently the grey value steps there.
    """
    height, width = small.shape
    air, tissue = _levels(small)
    if min(height, width) < _ANALYSIS_PX // 4 or air > 0.4 or tissue - air < 0.08:
        return 0.0
    tissue_mask = small > air + 0.4 * (tissue - air)
    rows = np.flatnonzero(tissue_mask.mean(1) <= 0.8)  # without the bright edge of a plate
    if len(rows) < height // 2:
        return 0.0
    picture, tissue_mask = small[rows], tissue_mask[rows]
    free = picture <= air + 0.25 * (tissue - air)
    margin = round(0.12 * width)
    tissue_mask[:, :margin] = tissue_mask[:, -margin:] = False
    step = np.zeros_like(picture)
    step[:, 1:-1] = np.clip((picture[:, 2:] - picture[:, :-2]) / np.float32(0.03), -1.0, 1.0)

    columns = np.arange(round(0.25 * width), round(0.75 * width))
    around = np.arange(columns[0] - _TOLERANCE_PX, columns[-1] + _TOLERANCE_PX + 1)
    best = 0.0
    for lean_px in range(-9, 10, 3):  # from the top to the bottom, of 128
        shift = np.rint((rows / height - 0.5) * lean_px * width / _ANALYSIS_PX).astype(np.intp)[
            :, None
        ]
        clear = np.take_along_axis(free, shift + around, axis=1).mean(0)
        near = sliding_window_view(clear, 2 * _TOLERANCE_PX + 1).max(1)
        left_share = _left_of(tissue_mask, shift + columns)
        candidates = (near > 0.88) & (np.minimum(left_share, 1.0 - left_share) > 0.25)
        if candidates.any():
            steps = np.take_along_axis(step, shift + columns[candidates], axis=1).mean(0)
            best = max(best, float(np.abs(steps).max()))
    return best


def _left_of(tissue_mask: NDArray[np.bool_], at: NDArray[np.intp]) -> NDArray[np.float64]:
    """Share of the tissue to the left of each candidate line."""
    before = np.cumsum(tissue_mask, axis=1)
    tissue_left = np.take_along_axis(before, at, axis=1).sum(0)
    return np.asarray(tissue_left / max(1, int(before[:, -1].sum())))


def _levels(small: Array) -> tuple[float, float]:
    """Grey values of air (the most frequent) and of the densest tissue, ignoring the edges."""
    rows, columns = (round(0.08 * side) for side in small.shape)
    inner = small[rows : small.shape[0] - rows, columns : small.shape[1] - columns]
    counts, edges = np.histogram(inner, 50, (0.0, 1.0))
    commonest = int(counts.argmax())
    return float(edges[commonest : commonest + 2].mean()), float(np.percentile(inner, 95))
