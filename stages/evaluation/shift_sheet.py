"""Contact sheet: every shift of the suite applied to a few pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipeline.domain import REGIONS, Array
from pipeline.errors import ImageError, OutputError
from pipeline.io import decode, read_file

from ..samples import NONE, Box, Sample
from .shifts import SUITE, shifted

_CELL_PX, _LABEL_PX = 180, 14
_BACKGROUND, _FOREGROUND = 70, 255


def draw_contact_sheet(samples: Sequence[Sample], target: Path) -> int:
    """Write a PNG with one column per shift and one row per region (and one for no region).

    Marked fractures are framed. The pictures depend on the table alone: those with marked
    fractures come first, then the order of the SHA-256 decides.

    Returns:
        Number of pictures.

    Raises:
        OutputError: The file cannot be written.
    """
    rows = list(_examples(samples))
    sheet = Image.new("L", (len(SUITE) * _CELL_PX, len(rows) * _CELL_PX), _BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for row, (sample, pixels, digest) in enumerate(rows):
        for column, name in enumerate(SUITE):
            changed, boxes = shifted(name, pixels, sample.boxes, digest)
            x, y = column * _CELL_PX, row * _CELL_PX
            height, width = changed.shape
            pen.text((x + 2, y + 1), f"{name} {width} x {height}", fill=_FOREGROUND)
            sheet.paste(_small(changed, boxes), (x + 2, y + _LABEL_PX))
    try:
        sheet.save(target, "PNG")
    except OSError as error:
        raise OutputError(
            f"--show {target}: cannot write the file: {error.strerror}", "choose another file"
        ) from error
    return len(rows)


def _examples(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Array, str]]:
    """One readable picture per kind: its row, (H, W) pixels and SHA-256."""
    for kind in (*REGIONS, NONE):
        matches = [sample for sample in samples if sample.regions == kind]
        for sample in sorted(matches, key=lambda s: (not s.boxes, s.sha256)):
            try:
                content, digest = read_file(sample.path)
                image = next(decode(content, sample.path, digest), None)
            except ImageError:
                continue
            if image is not None:
                yield sample, image.pixels, digest
                break


def _small(pixels: Array, boxes: Sequence[Box]) -> Image.Image:
    """The picture scaled to a cell, with its boxes."""
    image = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    scale = (_CELL_PX - _LABEL_PX - 4) / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    pen = ImageDraw.Draw(image)
    for x0, y0, x1, y1 in boxes:
        pen.rectangle(
            (x0 * size[0], y0 * size[1], x1 * size[0], y1 * size[1]), outline=_FOREGROUND
        )  # fmt: skip
    return image
