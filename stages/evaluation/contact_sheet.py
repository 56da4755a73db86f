"""The suite of shifts on a few pictures, as one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipeline.domain import REGIONS, Array
from pipeline.errors import ImageError, OutputError
from pipeline.io import decode, read_file

from ..data.index import NONE, Box, Sample
from .shifts import SUITE, shifted

_CELL_PX, _WORDS_PX = 180, 14
_GROUND, _INK = 70, 255


def draw_contact_sheet(samples: Sequence[Sample], target: Path) -> int:
    """Write every shift (columns) of a picture of each region and of none (rows), as PNG.

    Marked fractures have a frame. Which pictures is fixed by the table alone: the marked ones
    whose SHA-256 come first.

    Returns:
        Number of pictures.

    Raises:
        OutputError: The file cannot be written.
    """
    rows = list(_examples(samples))
    sheet = Image.new("L", (len(SUITE) * _CELL_PX, len(rows) * _CELL_PX), _GROUND)
    pen = ImageDraw.Draw(sheet)
    for row, (sample, pixels, digest) in enumerate(rows):
        for column, name in enumerate(SUITE):
            changed, boxes = shifted(name, pixels, sample.boxes, digest)
            x, y = column * _CELL_PX, row * _CELL_PX
            height, width = changed.shape
            pen.text((x + 2, y + 1), f"{name} {width} x {height}", fill=_INK)
            sheet.paste(_small(changed, boxes), (x + 2, y + _WORDS_PX))
    try:
        sheet.save(target, "PNG")
    except OSError as error:
        raise OutputError(
            f"--show {target}: cannot be written: {error.strerror}", "name another file"
        ) from error
    return len(rows)


def _examples(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Array, str]]:
    """One readable picture of each kind: its row, (H, W) pixels and SHA-256."""
    for kind in (*REGIONS, NONE):
        fitting = [sample for sample in samples if sample.regions == kind]
        for sample in sorted(fitting, key=lambda s: (not s.boxes, s.sha256)):
            try:
                content, digest = read_file(sample.path)
                image = next(decode(content, sample.path, digest), None)
            except ImageError:
                continue
            if image is not None:
                yield sample, image.pixels, digest
                break


def _small(pixels: Array, boxes: Sequence[Box]) -> Image.Image:
    """What fits into a cell, the boxes drawn."""
    image = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    scale = (_CELL_PX - _WORDS_PX - 4) / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    pen = ImageDraw.Draw(image)
    for x0, y0, x1, y1 in boxes:
        pen.rectangle(
            (x0 * size[0], y0 * size[1], x1 * size[0], y1 * size[1]), outline=_INK
        )  # fmt: skip
    return image
