"""The overlay as a secondary capture, for viewers that show neither reports nor marks."""

from __future__ import annotations

import re

import numpy as np
from highdicom import UID
from highdicom.sc import SCImage
from highdicom.sr import CodedConcept

from ...domain import Heatmap, Rendered
from ...heatmap import overlay
from ...outcome import FractureCall, Outcome
from ..record import caption
from . import codes
from .object_provenance import Kind, Run, complete, identification
from .origin import Origin
from .structured_report import laterality

# Codes of directions: A, LPF, and those for animals; excludes free text.
_DIRECTION = re.compile(r"[A-Z]{1,4}")
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def secondary_capture(
    finding: FractureCall,
    heatmap: Heatmap,
    rendered: Rendered,
    outcome: Outcome,
    origin: Origin,
    run: Run,
    number: int,
) -> SCImage:
    """The picture with the heatmap and the caption of one finding burned in.

    *Burned In Annotation* means text that identifies the patient (PS3.3 C.7.6.1). The caption does
    not, so the value of the original is copied.

    Args:
        finding: Finding with a heatmap.
        heatmap: Heatmap of the finding.
        rendered: The picture.
        outcome: Outcome of the picture.
        origin: Its original.
        run: The run.
        number: Number of the overlay in its series.
    """
    words = caption(finding)
    image = overlay(rendered, heatmap, run.config.contour, run.config.opacity, words)
    ids = identification(Kind.OVERLAY, origin, outcome, run, number, finding.region)
    made = SCImage(
        pixel_array=np.asarray(image),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # required by highdicom; replaced below
        study_instance_uid=UID(origin.study),
        patient_id="",
        patient_name="",
        patient_birth_date="",
        patient_sex="",
        accession_number="",
        study_id="",
        study_date="",
        study_time="",
        referring_physician_name="",
        **ids,
    )
    made.PatientOrientation = _orientation(origin)
    made.ConversionType = "WSD"
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.DerivationDescription = words
    made.ImageComments = "Heatmap and caption by software. Not for measurement."
    source = origin.mention(outcome.image.frame)
    source.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.SOURCE)]
    made.SourceImageSequence = [source]
    if side := laterality(outcome):
        made.ImageLaterality = side
    else:
        made.Laterality = ""  # required instead (type 2C), empty if unknown
    if (burned_in := origin.header.get("BurnedInAnnotation")) in ("YES", "NO"):
        made.BurnedInAnnotation = burned_in
    for keyword in _LOSSY:
        if origin.header.get(keyword):
            made[keyword] = origin.header[keyword]
    complete(made, origin, run)
    made.DateOfSecondaryCapture = made.InstanceCreationDate
    made.TimeOfSecondaryCapture = made.InstanceCreationTime
    return made


def _orientation(origin: Origin) -> list[str]:
    """The directions of rows and columns in the original; empty if missing or invalid."""
    value = origin.header.get("PatientOrientation")
    words = [str(word) for word in value] if value and not isinstance(value, str) else []
    return words if len(words) == 2 and all(_DIRECTION.fullmatch(w) for w in words) else []
