"""Heatmaps drawn over their pictures: one PNG for each finding with a heatmap."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Self

from PIL.PngImagePlugin import PngInfo

from ..heatmap import overlay
from ..io.own_output import MAKER, OVERLAYS
from ..outcome import Outcome
from .record import caption, heatmap_files
from .stream import naming_file, write_whole
from .writer import Job, Writer


class HeatmapWriter(Writer):
    """Writes overlays; a picture without a heatmap gets none.

    Args:
        output: Folder of the results; the overlays are written to ``heatmaps/`` in it.
        contour: Share of the peak at which the contour is drawn, in (0, 1).
        opacity: Opacity of the strongest colour, in [0, 1].
    """

    def __init__(self, output: Path, contour: float, opacity: float) -> None:
        self._output = output
        self._style = contour, opacity
        with naming_file(output / OVERLAYS):
            (output / OVERLAYS).mkdir(exist_ok=True)

    @classmethod
    def opened(cls, path: Path, job: Job) -> Self:
        """See :meth:`~.writer.Writer.opened`."""
        return cls(path.parent, job.config.contour, job.config.opacity)

    def write(self, outcome: Outcome) -> None:
        """Write the overlays of one outcome; byte-identical pictures share their files."""
        files = heatmap_files(outcome)
        for finding in outcome.findings:
            if finding.heatmap is None or outcome.rendered is None:
                continue
            image = overlay(outcome.rendered, finding.heatmap, *self._style, caption(finding))
            file = BytesIO()
            image.save(file, "PNG", compress_level=4, pnginfo=_software_tag())
            write_whole(self._output / files[finding.region], file.getvalue())


def _software_tag() -> PngInfo:
    """The tag by which a later run recognises the file as fxpipe's output."""
    info = PngInfo()
    info.add_text("Software", MAKER)
    return info
