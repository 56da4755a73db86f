"""Contact sheets of augmented training pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.domain import Array
from pipeline.framing import find_limb
from pipeline.io import decode, read_file
from pipeline.preprocess import PreprocessSpec, preprocess

from ..samples import Sample
from ..settings import AugmentConfig
from .augment import View, augment
from .dataset import Sources

CELL_PX = 160
FRAME_COLOUR = (255, 80, 80)
FRACTURE_COLOUR = (0, 230, 230)
_LABEL_PX = 14

ONE_BY_ONE: dict[str, dict[str, object]] = {
    "right_angles": {"right_angles": 1.0},
    "rotate_deg": {},
    "scale": {},
    "aspect": {},
    "zoom": {"zoom": 1.0},
    "gamma": {},
    "curve": {},
    "local_contrast": {},
    "contrast": {},
    "blur": {"blur": 1.0},
    "resample": {"resample": 1.0},
    "noise": {"noise": 1.0},
    "jpeg": {"jpeg": 1.0},
    "coarse": {"coarse": 1.0},
    "collimation": {"collimation": 1.0},
    "rim": {"rim": 1.0},
    "marker": {"marker": 1.0},
    "text": {"text": 1.0},
    "invert": {"invert": 1.0},
}
"""Overrides that make the effect of each single setting visible; if empty, its configured range is
drawn."""


def sheet(
    samples: Sequence[Sample], spec: PreprocessSpec, config: AugmentConfig, views: int, seed: int
) -> Image.Image:
    """One row per picture: the source with its frame, the preprocessed picture, then random views.

    Args:
        samples: One row each.
        spec: Preprocessing of the network.
        config: Ranges and probabilities.
        views: Number of random views per row.
        seed: Seed of the views.

    Raises:
        ImageError: A file cannot be read.
    """
    titles = ["source", "as in use", *(f"view {number}" for number in range(1, views + 1))]
    canvas = _blank(titles, len(samples))
    for row, sample in enumerate(samples):
        pixels = _read(sample)
        cells = [_source(pixels), _preprocessed(preprocess(pixels, spec)[0])]
        for view in range(views):
            # Seeded by epoch and row, as in training.
            cells.append(_view(Sources(config, seed + view, ()).view(sample, spec, row)))
        _put(canvas, row, cells)
    return canvas


def sheet_by_setting(
    samples: Sequence[Sample], spec: PreprocessSpec, config: AugmentConfig, seed: int
) -> Image.Image:
    """As :func:`sheet`, with one column per setting, in which only that setting is drawn."""
    canvas = _blank(["as in use", *ONE_BY_ONE], len(samples))
    disabled = config.model_copy(update={"draw": "none"}).effective
    for row, sample in enumerate(samples):
        pixels = _read(sample)
        cells = [_preprocessed(preprocess(pixels, spec)[0])]
        for name, strongest in ONE_BY_ONE.items():
            alone = disabled.model_copy(update={name: getattr(config, name), **strongest})
            rng = np.random.default_rng([seed, row])
            cells.append(_view(augment(pixels, sample.boxes, spec, alone, rng)))
        _put(canvas, row, cells)
    return canvas


def _read(sample: Sample) -> Array:
    content, digest = read_file(sample.path)
    return next(iter(decode(content, sample.path, digest))).pixels


def _source(pixels: Array) -> Image.Image:
    """The whole picture, with the frame of the limb."""
    frame = find_limb(pixels)
    picture = Image.fromarray((pixels * 255).astype(np.uint8))
    picture.thumbnail((CELL_PX, CELL_PX))
    thumbnail = picture.convert("RGB")
    if frame.found:
        width, height = thumbnail.size
        box = frame.left * width, frame.top * height, frame.right * width - 1, frame.bottom * height
        ImageDraw.Draw(thumbnail).rectangle((*box[:3], box[3] - 1), outline=FRAME_COLOUR)
    return thumbnail


def _preprocessed(array: Array) -> Image.Image:
    picture = Image.fromarray((array[0] * 255).astype(np.uint8))
    picture.thumbnail((CELL_PX, CELL_PX))
    return picture.convert("RGB")


def _view(view: View) -> Image.Image:
    """A view with outlines of its marked fractures."""
    colours = np.repeat((view.canvas[0] * 255).astype(np.uint8)[..., None], 3, 2)
    mask = view.mask[0]
    edge = mask & ~(np.roll(mask, 2, 0) & np.roll(mask, -2, 0))
    edge |= mask & ~(np.roll(mask, 2, 1) & np.roll(mask, -2, 1))
    colours[edge] = FRACTURE_COLOUR
    picture = Image.fromarray(colours)
    picture.thumbnail((CELL_PX, CELL_PX))
    return picture


def _blank(titles: Sequence[str], rows: int) -> Image.Image:
    canvas = Image.new("RGB", (CELL_PX * len(titles), _LABEL_PX + CELL_PX * rows), (24, 24, 24))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for column, title in enumerate(titles):
        draw.text((column * CELL_PX + 3, 0), title, (255, 255, 255), font)
    return canvas


def _put(canvas: Image.Image, row: int, cells: Sequence[Image.Image]) -> None:
    for column, cell in enumerate(cells):
        left, top = ((CELL_PX - side) // 2 for side in cell.size)
        canvas.paste(cell, (column * CELL_PX + left, _LABEL_PX + row * CELL_PX + top))
