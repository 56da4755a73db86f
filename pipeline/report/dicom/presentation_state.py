"""Contours and captions as a softcopy presentation state that a viewer draws over the original."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from highdicom import pr
from highdicom.color import CIELabColor
from pydicom.dataset import Dataset

from ...domain import Heatmap
from ...heatmap import CONTOUR_COLOUR, Contour, contours
from ...io.dicom import is_big_endian, pixel_aspect
from ...io.frames import stored_frames
from ...io.grey import Table, is_inverted, modality_extremes, modality_table, voi_table
from ...io.header import first_item, header_number, of_frame, window
from ...outcome import FractureCall, Outcome
from ..record import caption, subject
from .object_provenance import Kind, Run, complete, identification, tracking_uid
from .origin import Origin

MAX_POINTS = 8000
"""Most points of one line: an element of explicit VR has at most 65534 bytes, a point takes 8."""

_LINE_SHARE = 0.05
"""Height of a text line, as a share of the displayed area."""
_MOST_ASPECT_TERM = 10_000
"""Largest integer in the ratio that describes the aspect of a pixel."""


def presentation_state(
    mapped: list[tuple[FractureCall, Heatmap]],
    outcome: Outcome,
    origin: Origin,
    run: Run,
    number: int,
) -> pr.GrayscaleSoftcopyPresentationState:
    """Marks on one picture or frame, with the grey-value transformation used for the networks.

    Args:
        mapped: The findings with a heatmap.
        outcome: Outcome of the picture.
        origin: Its original, monochrome.
        run: The run.
        number: Number of the presentation state in its series.

    Raises:
        Exception: Any exception of pydicom on a malformed header; the caller translates it.
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
                graphic_objects=_graphics(finding, heatmap, outcome, origin, run) or None,
                text_objects=[_text(finding, line)],
            )
            for line, (finding, heatmap) in enumerate(mapped)
        ],
        **identification(Kind.MARKS, origin, outcome, run, number),
    )
    # Replaced because of frames: see Origin.mention.
    for holder in (*made.ReferencedSeriesSequence, *made.GraphicAnnotationSequence):
        holder.ReferencedImageSequence = [origin.mention(outcome.image.frame)]
    view = of_frame(origin.header, outcome.image.frame or 0)
    _set_greys(made, view, origin.header, outcome)
    aspect = Fraction(pixel_aspect(view) or 1.0).limit_denominator(_MOST_ASPECT_TERM)
    (area,) = made.DisplayedAreaSelectionSequence
    area.PresentationPixelAspectRatio = [aspect.numerator, aspect.denominator]
    made.Laterality = ""  # required by type 2C; unknown, since a series may contain both sides
    complete(made, origin, run)
    return made


def _graphics(
    finding: FractureCall, heatmap: Heatmap, outcome: Outcome, origin: Origin, run: Run
) -> list[pr.GraphicObject]:
    """The contours of one finding, in pixels of the original, which may be non-square.

    Both coordinate systems have their origin 0.0 at the outer corner of the first pixel (PS3.3
    C.10.5.1.2).
    """
    stored = int(origin.reference.Rows), int(origin.reference.Columns)
    stored_px = np.divide(stored, heatmap.placement.source_shape)
    return [
        pr.GraphicObject(
            graphic_type="POLYLINE",
            # (row, column) to (column, row)
            graphic_data=(_thinned(line) * stored_px)[:, ::-1].copy(),
            units="PIXEL",
            tracking_id=subject(finding),
            tracking_uid=tracking_uid(finding, outcome),
        )
        for line in contours(heatmap, run.config.contour)
    ]


def _thinned(line: Contour) -> Contour:
    """The closed line, reduced to at most as many points as fit into one element."""
    step = -(-len(line) // MAX_POINTS)
    return line if step == 1 else np.vstack([line[:-1:step], line[:1]])


def _text(finding: FractureCall, line: int) -> pr.TextObject:
    """The caption, at the top left of the displayed area."""
    top = 0.01 + line * _LINE_SHARE
    return pr.TextObject(
        text_value=caption(finding),
        units="DISPLAY",
        bounding_box=(0.01, top, 0.99, top + 0.8 * _LINE_SHARE),
        text_justification="LEFT",
    )


def _set_greys(made: Dataset, view: Dataset, header: Dataset, outcome: Outcome) -> None:
    """Set the modality LUT, window and inversion used for judging (:mod:`...io.grey`).

    A presentation state overrides those of the original: without them a viewer would show the
    picture with low contrast, and MONOCHROME1 inverted.
    """
    big_endian = is_big_endian(header)
    slope = header_number(view.get("RescaleSlope"))
    intercept = header_number(view.get("RescaleIntercept"))
    if item := first_item(view, "ModalityLUTSequence"):
        modality = _lut_item(modality_table(item, view, big_endian))
        modality.ModalityLUTType = "US"
        made.ModalityLUTSequence = [modality]
    elif slope and intercept is not None:
        made.RescaleSlope, made.RescaleIntercept = view.RescaleSlope, view.RescaleIntercept
        made.RescaleType = "US"
    if item := first_item(view, "VOILUTSequence"):
        voi = Dataset()
        voi.VOILUTSequence = [_lut_item(voi_table(item, view, big_endian))]
    else:
        voi = _window(view, header, outcome)
    made.SoftcopyVOILUTSequence = [voi]
    made.PresentationLUTShape = "INVERSE" if is_inverted(view) else "IDENTITY"


def _lut_item(original: Table) -> Dataset:
    """A look-up table of the original without its explanation, which is free text."""
    table, first, bits = original
    copy = Dataset()
    descriptor = [len(table) % 2**16, first, bits]
    copy.add_new("LUTDescriptor", "SS" if first < 0 else "US", descriptor)
    copy.add_new("LUTData", "OW", table.astype("<u2").tobytes())
    return copy


def _window(view: Dataset, header: Dataset, outcome: Outcome) -> Dataset:
    """The first window of the original; without one, a window from minimum to maximum."""
    voi = Dataset()
    first = window(view)
    if first is None:
        low, high = _extremes(view, header, outcome)
        first = (low + high) / 2 + 0.5, high - low + 1.0, "LINEAR"
    centre, width, function = first
    voi.WindowCenter, voi.WindowWidth = _decimal(centre), _decimal(width)
    if function != "LINEAR":
        voi.VOILUTFunction = function
    return voi


def _extremes(view: Dataset, header: Dataset, outcome: Outcome) -> tuple[float, float]:
    """Minimum and maximum of the judged frame, without padding, after the modality LUT."""
    for index, frame in enumerate(stored_frames(header, outcome.image.name)):
        if index == (outcome.image.frame or 0):
            return modality_extremes(frame.values, view, big_endian=is_big_endian(header))
    return 0.0, 2.0 ** int(view.BitsStored) - 1.0


def _decimal(value: float) -> Any:
    """A number in at most 16 characters."""
    return f"{value:.10g}"
