"""All codes in the objects, with their sources.

A test compares the standard codes with the tables of DICOM PS3.16 in pydicom. One concept that
DICOM does not list, *Fracture of bone*, is from SNOMED CT (International Edition). Concepts that no
standard has are in a private scheme, which every report declares.
"""

from __future__ import annotations

from pydicom.sr.coding import Code

from ...outcome import Verdict
from ...regions import TABLE

SITES = {region.name: Code(region.site[0], "SCT", region.site[1]) for region in TABLE}
"""Finding sites, by region. CID 4031 *Common Anatomic Region*."""

SIDES = {
    "L": Code("7771000", "SCT", "Left"),
    "R": Code("24028007", "SCT", "Right"),
    "B": Code("51440002", "SCT", "Bilateral"),
}
"""Sides, by the value in the header. CID 244 *Laterality*."""

TARGETS = {
    "fracture": Code("125605004", "SCT", "Fracture of bone"),  # SNOMED CT, not listed in PS3.16
    "abnormality": Code("C9440", "NCIt", "Abnormality"),  # PS3.16, CID 6333
}
"""Targets, by the meaning of the training labels."""

PRESENCE = {
    Verdict.POSITIVE: Code("52101004", "SCT", "Present"),
    Verdict.UNCERTAIN: Code("373068000", "SCT", "Undetermined"),
    Verdict.NEGATIVE: Code("272519000", "SCT", "Absent"),
}
"""CID 240 *Present-Absent*."""

PROBABILITY = Code("122157", "DCM", "Probability")  # PS3.16 Annex D
NO_UNITS = Code("1", "UCUM", "no units")  # CID 7181
OPERATING_POINT = Code("111081", "DCM", "CAD Operating Point Description")  # PS3.16 Annex D
COMMENT = Code("121106", "DCM", "Comment")  # PS3.16 Annex D
TITLE = Code("126000", "DCM", "Imaging Measurement Report")  # CID 7021
PROCEDURE = Code("43468-8", "LN", "XR unspecified body region")  # CID 100
EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500
SOURCE = Code("121322", "DCM", "Source image for image processing operation")  # CID 7202

PRIVATE = "99FXPIPE"
PRIVATE_NAME = "fxpipe: verdicts and thresholds"

VERDICT = Code("VERDICT", PRIVATE, "Verdict of fxpipe")
VERDICTS = {
    Verdict.POSITIVE: Code("POSITIVE", PRIVATE, "positive"),
    Verdict.UNCERTAIN: Code("UNCERTAIN", PRIVATE, "uncertain"),
    Verdict.NEGATIVE: Code("NEGATIVE", PRIVATE, "negative"),
}
POSITIVE_FROM = Code("POSITIVE_FROM", PRIVATE, "Probability from which positive")
UNCERTAIN_FROM = Code("UNCERTAIN_FROM", PRIVATE, "Probability from which uncertain")
