"""Heatmaps over their pictures, one PNG for each finding that has one."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Self

from PIL.PngImagePlugin import PngInfo

from ..heatmap import overlay
from ..io.own_output import MAKER, OVERLAYS
from ..outcome import Outcome
from .record import caption, heatmap_files
from .stream import told, write_whole
from .writer import Job, Writer


class HeatmapWriter(Writer):
    """Write overlays; a picture without a heatmap gets none.

    Args:
        output: Folder of the results; the overlays go into ``heatmaps/`` in it.
        contour: Share of the peak at which a line is drawn around it, in (0, 1).
        opacity: Of the colours where they are strongest, in [0, 1].
    """

    def __init__(self, output: Path, contour: float, opacity: float) -> None:
        self._output = output
        self._look = contour, opacity
        with told(output / OVERLAYS):
            (output / OVERLAYS).mkdir(exist_ok=True)

    @classmethod
    def opened(cls, path: Path, job: Job) -> Self:
        """See :meth:`~.writer.Writer.opened`."""
        return cls(path.parent, job.config.contour, job.config.opacity)

    def write(self, outcome: Outcome) -> None:
        """Write the overlays of one outcome; byte-identical pictures share theirs."""
        files = heatmap_files(outcome)
        for finding in outcome.findings:
            if finding.heatmap is None or outcome.rendered is None:
                continue
            shown = overlay(outcome.rendered, finding.heatmap, *self._look, caption(finding))
            file = BytesIO()
            shown.save(file, "PNG", compress_level=4, pnginfo=_made_by())
            write_whole(self._output / files[finding.region], file.getvalue())


def _made_by() -> PngInfo:
    """Words in the file by which a later run knows it again."""
    info = PngInfo()
    info.add_text("Software", MAKER)
    return info
