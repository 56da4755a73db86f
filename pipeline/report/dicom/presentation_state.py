"""Contours and captions as a softcopy presentation state, to be shown over the original."""

from __future__ import annotations

from typing import Any

import numpy as np
from highdicom import pr
from highdicom.color import CIELabColor
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from ...domain import FractureCall, Heatmap, Outcome
from ...heatmap import CONTOUR_COLOUR, Contour, contours
from ...io.frames import stored_frames
from ...io.grey import (
    first_item,
    header_number,
    is_inverted,
    look_up_table,
    modality_extremes,
)
from ..record import caption, subject
from .origin import Origin
from .provenance import Kind, Run, complete, identification, tracking_uid

# A value of an explicit VR has 65534 bytes at most, and a point takes eight.
_MOST_POINTS = 8000
_LINE_SHARE = 0.05
"""Height of a line of text, as a share of the displayed area."""


def presentation_state(
    shown: list[tuple[FractureCall, Heatmap]],
    outcome: Outcome,
    origin: Origin,
    run: Run,
    number: int,
) -> pr.GrayscaleSoftcopyPresentationState:
    """Marks on one picture or frame, and the grey values that the networks were shown.

    Args:
        shown: The findings that have a heatmap.
        outcome: About the picture.
        origin: Of it, monochrome.
        run: That found it.
        number: Of the presentation state in its series.

    Raises:
        Exception: Whatever pydicom raises on malformed headers; the caller translates.
    """
    layer = pr.GraphicLayer(
        layer_name="FXPIPE",
        order=1,
        description="contours and captions by fxpipe, not verified",
        display_color=CIELabColor.from_rgb(*CONTOUR_COLOUR),
    )
    made = pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[origin.reference],
        device_serial_number=f"weights {run.weights}",
        content_label="FXPIPE",
        content_description=f"contour at {run.config.contour:.0%} of the peak of each heatmap",
        graphic_layers=[layer],
        graphic_annotations=[
            pr.GraphicAnnotation(
                referenced_images=[origin.reference],
                graphic_layer=layer,
                graphic_objects=_graphics(finding, heatmap, outcome, run) or None,
                text_objects=[_text(finding, line)],
            )
            for line, (finding, heatmap) in enumerate(shown)
        ],
        **identification(Kind.MARKS, origin, outcome, run, number),
    )
    # Also where there are frames: see Origin.mention.
    for holder in (*made.ReferencedSeriesSequence, *made.GraphicAnnotationSequence):
        holder.ReferencedImageSequence = [origin.mention(outcome.image.frame)]
    _set_greys(made, origin.header, outcome)
    made.Laterality = ""  # of a series, which may have both sides; wanted as type 2C
    complete(made, origin, run)
    return made


def _graphics(
    finding: FractureCall, heatmap: Heatmap, outcome: Outcome, run: Run
) -> list[pr.GraphicObject]:
    """The contours of one finding.

    Both count from the outer corner of the first pixel, which is 0.0 (PS3.3 C.10.5.1.2).
    """
    return [
        pr.GraphicObject(
            graphic_type="POLYLINE",
            graphic_data=_thinned(line)[:, ::-1].copy(),  # (row, column) to (column, row)
            units="PIXEL",
            tracking_id=subject(finding),
            tracking_uid=tracking_uid(finding, outcome),
        )
        for line in contours(heatmap, run.config.contour)
    ]


def _thinned(line: Contour) -> Contour:
    """The line with as many points as one element can hold, closed as it was."""
    step = -(-len(line) // _MOST_POINTS)
    return line if step == 1 else np.vstack([line[:-1:step], line[:1]])


def _text(finding: FractureCall, line: int) -> pr.TextObject:
    """The caption, at the top left of whatever part is displayed."""
    top = 0.01 + line * _LINE_SHARE
    return pr.TextObject(
        text_value=caption(finding),
        units="DISPLAY",
        bounding_box=(0.01, top, 0.99, top + 0.8 * _LINE_SHARE),
        text_justification="LEFT",
    )


def _set_greys(made: Dataset, header: Dataset, outcome: Outcome) -> None:
    """Modality LUT, window and direction that the picture was judged with (:mod:`..io.grey`).

    A presentation state overrules the original's own: without them a viewer would show it flat,
    and MONOCHROME1 upside down.
    """
    big_endian = header.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    slope = header_number(header.get("RescaleSlope"))
    intercept = header_number(header.get("RescaleIntercept"))
    if item := first_item(header, "ModalityLUTSequence"):
        modality = _lut_item(item, big_endian)
        modality.ModalityLUTType = "US"
        made.ModalityLUTSequence = [modality]
    elif slope and intercept is not None:
        made.RescaleSlope, made.RescaleIntercept = header.RescaleSlope, header.RescaleIntercept
        made.RescaleType = "US"
    if item := first_item(header, "VOILUTSequence"):
        voi = Dataset()
        voi.VOILUTSequence = [_lut_item(item, big_endian)]
    else:
        voi = _window(header, outcome, big_endian)
    made.SoftcopyVOILUTSequence = [voi]
    made.PresentationLUTShape = "INVERSE" if is_inverted(header) else "IDENTITY"


def _lut_item(item: Dataset, big_endian: bool) -> Dataset:
    """A table of the original without its explanation, which is free text."""
    table, first, bits = look_up_table(item, big_endian)
    copy = Dataset()
    descriptor = [len(table) % 2**16, first, bits]
    copy.add_new("LUTDescriptor", "SS" if first < 0 else "US", descriptor)
    copy.add_new("LUTData", "OW", table.astype("<u2").tobytes())
    return copy


def _window(header: Dataset, outcome: Outcome, big_endian: bool) -> Dataset:
    """The original's first window; the one that fills the picture where it has none."""
    voi = Dataset()
    centre = header_number(header.get("WindowCenter"))
    width = header_number(header.get("WindowWidth"))
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    least = 1.0 if function == "LINEAR" else 0.0
    if centre is None or width is None or width < least or width == 0.0:
        low, high = _extremes(header, outcome, big_endian)
        centre, width, function = (low + high) / 2 + 0.5, high - low + 1.0, "LINEAR"
    voi.WindowCenter, voi.WindowWidth = _decimal(centre), _decimal(width)
    if function != "LINEAR":
        voi.VOILUTFunction = function
    return voi


def _extremes(header: Dataset, outcome: Outcome, big_endian: bool) -> tuple[float, float]:
    """The least and the greatest value of the frame that was judged, padding aside."""
    for index, (frame, _) in enumerate(stored_frames(header, outcome.image.path.name)):
        if index == (outcome.image.frame or 0):
            return modality_extremes(frame, header, big_endian=big_endian)
    return 0.0, 2.0 ** int(header.BitsStored) - 1.0


def _decimal(value: float) -> Any:
    """A number in at most 16 characters."""
    return f"{value:.10g}"
