"""Heatmaps from evidence maps: normalisation to the peak, contours and coloured overlays.

The output of a specialist is linear in the mean of its last feature map, so its evidence map is the
class activation map of Zhou et al. (2016, arXiv:1512.04150) and needs no gradients; before the ReLU
it equals Grad-CAM. As in Grad-CAM, positive evidence is shown as a fraction of its maximum; the
probability gives the overall strength. Evidence outside the limb (:mod:`.tissue`) cannot be a
fracture and is not shown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .domain import Array, Heatmap, Placement, Rendered
from .preprocess import PreprocessSpec
from .row_bands import bands
from .tissue import Mask

COLOURS = "inferno"
"""Perceptually uniform colour map, by its name in matplotlib and cmap."""

CONTOUR_COLOUR = (0, 230, 230)
"""Colour of the contour line, a hue that ``inferno`` does not contain."""

Contour = NDArray[np.float64]

_FINER = 6
"""Subdivisions of a cell of the map, so that contours follow the smooth colours."""

_ON_LIMB = 0.125
"""Share of a cell on the limb from which it is shown, so that the skin edge stays visible."""


def to_heatmap(
    evidence: Array, spec: PreprocessSpec, placement: Placement, limb: Mask | None = None
) -> Heatmap:
    """Normalise an evidence map to its maximum on the limb.

    Args:
        evidence: (h, w) float32, covering the canvas; positive values support the finding.
        spec: Preprocessing of the canvas.
        placement: Placement of the picture on the canvas.
        limb: Mask of the limb by :func:`pipeline.tissue.tissue`; None if unknown.

    Returns:
        Cells in [0, 1]: 1 at the peak, 0 without positive evidence or outside the limb; all 0 if
        there is no positive evidence.
    """
    canvas_px = spec.height_px, spec.width_px
    positive = np.maximum(evidence, 0.0)
    displayed = positive
    if limb is not None:
        displayed = np.where(on_limb(limb, evidence.shape, canvas_px, placement), positive, 0.0)
    highest, whole = float(displayed.max()), float(positive.sum())
    cells = displayed / np.float32(highest) if highest > 0.0 else np.zeros_like(positive)
    hidden = 1.0 - float(displayed.sum()) / whole if whole > 0.0 else 0.0
    return Heatmap(cells.astype(np.float32), canvas_px, placement, min(max(hidden, 0.0), 1.0))


def on_limb(
    limb: Mask, shape: tuple[int, ...], canvas_px: tuple[int, int], placement: Placement
) -> Mask:
    """Mask of the cells of a map of which at least an eighth is on the limb.

    Args:
        limb: (h, w) mask, covering the picture.
        shape: Rows and columns of the map, which covers the canvas.
        canvas_px: See :class:`pipeline.domain.Heatmap`.
        placement: See :class:`pipeline.domain.Heatmap`.
    """
    indices = []
    for axis, (cells, length_px) in enumerate(zip(shape, canvas_px, strict=True)):
        centres_px = (np.arange(cells * _FINER) + 0.5) * length_px / (cells * _FINER)
        scale = (placement.scale_y, placement.scale_x)[axis]
        first_px = (placement.top_px, placement.left_px)[axis]
        source_px = (centres_px - first_px) / scale
        indices.append(np.floor(source_px / placement.source_shape[axis] * limb.shape[axis]))
    rows, columns = (index.astype(np.intp) for index in indices)
    inside = ((rows >= 0) & (rows < limb.shape[0]))[:, None] & (
        (columns >= 0) & (columns < limb.shape[1])
    )
    rows, columns = rows.clip(0, limb.shape[0] - 1), columns.clip(0, limb.shape[1] - 1)
    covered = limb[rows][:, columns] & inside
    shares = covered.reshape(shape[0], _FINER, shape[1], _FINER).mean((1, 3))
    return np.asarray(shares >= _ON_LIMB)


def peak(
    cells: Array, canvas_px: tuple[int, int], placement: Placement
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Position of the maximum of a map.

    Args:
        cells: (h, w) map, covering the canvas.
        canvas_px: See :class:`pipeline.domain.Heatmap`.
        placement: See :class:`pipeline.domain.Heatmap`.

    Returns:
        (y, x) of the centre of the highest cell, which may be in the padding outside the picture,
        and (height, width) of a cell; both in source px.
    """
    height_px, width_px = _cell_px(cells, canvas_px)
    row, column = divmod(int(cells.argmax()), cells.shape[1])
    centre = placement.to_source((row + 0.5) * height_px, (column + 0.5) * width_px)
    return centre, (height_px / placement.scale_y, width_px / placement.scale_x)


def on_picture(heatmap: Heatmap, height_px: int, width_px: int) -> Array:
    """Interpolate the map to the size of a picture.

    Args:
        heatmap: Heatmap of the picture.
        height_px: Height of the result.
        width_px: Width of the result.

    Returns:
        (height_px, width_px) float32 in [0, 1]; 0 where the picture exceeds the canvas, which the
        network did not process.
    """
    rows, columns = heatmap.cells.shape
    cell = _cell_px(heatmap.cells, heatmap.canvas_px)
    source_height, source_width = heatmap.placement.source_shape
    first = heatmap.placement.to_canvas(0.0, 0.0)
    last = heatmap.placement.to_canvas(float(source_height), float(source_width))
    # In cells: the ends of the picture, then its part on the canvas.
    ends = [(first[i] / cell[i], last[i] / cell[i]) for i in (0, 1)]
    seen = [(max(0.0, ends[i][0]), min(float(n), ends[i][1])) for i, n in ((0, rows), (1, columns))]
    spans = [
        tuple(round((edge - low) / (high - low) * size) for edge in part)
        for part, (low, high), size in zip(seen, ends, (height_px, width_px), strict=True)
    ]
    (top, bottom), (left, right) = spans
    box = (seen[1][0], seen[0][0], seen[1][1], seen[0][1])
    size = (max(1, right - left), max(1, bottom - top))
    part = np.asarray(Image.fromarray(heatmap.cells).resize(size, Image.Resampling.BICUBIC, box))
    whole = np.zeros((height_px, width_px), np.float32)
    np.clip(part, 0.0, 1.0, out=whole[top : top + size[1], left : left + size[0]])
    return whole


def contours(heatmap: Heatmap, level: float) -> list[Contour]:
    """Contour lines at a fraction of the peak.

    Args:
        heatmap: Heatmap of the picture.
        level: The fraction, in (0, 1).

    Returns:
        Closed lines, each (n, 2) of (y, x) in source px, inside the picture.
    """
    from contourpy import contour_generator

    rows, columns = heatmap.cells.shape
    size = (_FINER * columns, _FINER * rows)
    fine = np.asarray(Image.fromarray(heatmap.cells).resize(size, Image.Resampling.BICUBIC))
    height_px, width_px = _cell_px(fine, heatmap.canvas_px)
    # A rim of zeros closes every line; its position is the outer edge of the last cells.
    rim = np.pad(fine.astype(np.float64), 1)
    y = np.clip(np.arange(-0.5, len(rim) - 1), 0.0, len(fine)) * height_px
    x = np.clip(np.arange(-0.5, rim.shape[1] - 1), 0.0, fine.shape[1]) * width_px
    source_height, source_width = heatmap.placement.source_shape
    lines = []
    for line in contour_generator(x, y, rim).lines(level):
        points = [heatmap.placement.to_source(y_px, x_px) for x_px, y_px in np.asarray(line)]
        inside = np.clip(points, 0.0, (source_height, source_width))
        if np.ptp(inside, axis=0).all():  # not collapsed at the edge of the picture
            lines.append(inside)
    return lines


def coloured(values: Array, opacity: float) -> NDArray[np.uint8]:
    """Colours for a map, with opacity proportional to its values.

    Args:
        values: (H, W) in [0, 1].
        opacity: Opacity of the highest value, in [0, 1].

    Returns:
        (H, W, 4) uint8 RGBA, alpha not premultiplied.
    """
    import cmap

    table = (cmap.Colormap(COLOURS).lut(256) * 255.0).round().astype(np.uint8)
    table[:, 3] = np.rint(np.arange(256) * opacity)
    levels = np.empty(values.shape, np.uint8)
    for rows in bands(*values.shape):
        levels[rows] = np.rint(np.clip(values[rows], 0.0, 1.0) * 255.0)
    colours: NDArray[np.uint8] = table[levels]
    return colours


def overlay(
    rendered: Rendered, heatmap: Heatmap, level: float, opacity: float, caption: str = ""
) -> Image.Image:
    """Draw the heatmap and a contour over a picture.

    Args:
        rendered: The picture.
        heatmap: Heatmap of the same picture.
        level: Fraction of the peak for the contour, in (0, 1).
        opacity: Opacity of the colours, in [0, 1].
        caption: Text below the picture; none if empty.

    Returns:
        RGB image in which pixel (y, x) corresponds to pixel (y, x) of the rendered picture.
    """
    height, width = rendered.pixels.shape
    colours = Image.fromarray(coloured(on_picture(heatmap, height, width), opacity))
    grey = Image.fromarray(rendered.pixels).convert("RGBA")
    displayed = Image.alpha_composite(grey, colours).convert("RGB")
    pen = ImageDraw.Draw(displayed)
    line_px = max(2, round(max(height, width) / 400))
    for contour in contours(heatmap, level):
        points = [(x / rendered.reduction, y / rendered.reduction) for y, x in contour.tolist()]
        pen.line(points, fill=CONTOUR_COLOUR, width=line_px, joint="curve")
    return _captioned(displayed, caption) if caption else displayed


def _captioned(displayed: Image.Image, caption: str) -> Image.Image:
    """The image with a line of text below it, in the largest font that fits."""
    font_px = max(10, round(max(displayed.size) / 40))
    width = ImageFont.load_default(font_px).getlength(caption)
    font_px = max(8, min(font_px, int(font_px * 0.96 * displayed.width / max(width, 1.0))))
    strip = Image.new("RGB", (displayed.width, 2 * font_px))
    pen = ImageDraw.Draw(strip)
    pen.text(
        (font_px // 2, font_px), caption, "white", ImageFont.load_default(font_px), anchor="lm"
    )
    whole = Image.new("RGB", (displayed.width, displayed.height + strip.height))
    whole.paste(displayed)
    whole.paste(strip, (0, displayed.height))
    return whole


def _cell_px(cells: Array, canvas_px: tuple[int, int]) -> tuple[float, float]:
    """Height and width of a cell on the canvas."""
    return canvas_px[0] / cells.shape[0], canvas_px[1] / cells.shape[1]
