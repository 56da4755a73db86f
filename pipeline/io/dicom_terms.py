"""The words that a coded header value may hold, so that nothing else of a header is passed on.

A coded value (VR CS) is a word of up to 16 capitals, and so may a name be that somebody typed into
the wrong field: only known words pass. Defined terms of DICOM PS3.3 (C.7.3.1.1.1, C.8.1.1,
C.8.11.5), body parts of PS3.16 Annex L for the skeleton, and what else is common in exports.
"""

from __future__ import annotations

from collections.abc import Mapping

from .body_parts import BODY_PARTS, VIEWS

_MODALITIES = """
    AR AS ASMT AU BDUS BI BMD CD CF CP CR CS CT CTPROTOCOL DD DF DG DM DOC DR DS DX EC ECG EEG EMG
    EOG EPS ES FA FID FS GM HC HD IO IOL IVOCT IVUS KER KO LEN LP LS MA MG MR MS NM OAM OCT OP OPM
    OPR OPT OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD
    RTRECORD RTSEGANN RTSTRUCT RWV SC SEG SM SMR SR SRF ST STAIN TG US VA VF XA XC XRF
"""
_VIEWS = """
    AP PA LL RL RLD LLD RLO LLO LAT LATERAL OBL OBLIQUE AXIAL TANGENTIAL DP PD DL VD DV LM ML LR
    FRONTAL Y STANDING LORDOTIC INTERNAL EXTERNAL ROTATION OUTLET
"""
_PHOTOMETRIC = """
    MONOCHROME1 MONOCHROME2 RGB PALETTE COLOR YBR FULL 422 PARTIAL 420 ICT RCT XYB ARGB CMYK HSV
"""
_SIDES = "LEFT RIGHT BILATERAL BOTH UPPER LOWER DISTAL PROXIMAL ANTERIOR POSTERIOR L R BI AND OR OF"
_VAGUE = """
    EXTREMITY LIMB UPPERLIMB UPPEREXTREMITY SKELETON BONE JOINT BODY WHOLEBODY TRUNK OTHER UNKNOWN
    VIEW VIEWS
"""

PROJECTIONS = ("CR", "DX", "DR", "RG")
"""Modalities that say that a picture is a projection radiograph. DR is no term of the standard,
but occurs."""


def _words(*texts: str) -> frozenset[str]:
    return frozenset(word for text in texts for word in text.split())


WORDS: Mapping[str, frozenset[str]] = {
    "Modality": _words(_MODALITIES),
    "BodyPartExamined": _words(_VAGUE, _SIDES, _VIEWS) | {*VIEWS, *BODY_PARTS},
    "ViewPosition": _words(_VIEWS, _SIDES) | {*VIEWS},
    "ImageLaterality": _words("L R U B"),
    "Laterality": _words("L R U B"),
    "PhotometricInterpretation": _words(_PHOTOMETRIC),
    "PresentationIntentType": _words("FOR PRESENTATION PROCESSING"),
}
"""By keyword; a value may be several of them."""


def known(keyword: str, value: object) -> str | None:
    """A coded header value in capitals, if all its words are known; None if not, or if absent.

    Args:
        keyword: One of :data:`WORDS`.
        value: As pydicom reads it.
    """
    text = str(value or "").strip().upper()  # some exports write Hand, against the standard
    words = text.replace("_", " ").split()
    return text if words and WORDS[keyword].issuperset(words) else None
