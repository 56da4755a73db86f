"""Check whether a DICOM object is a radiograph that fxpipe judges.

Messages quote only standard terms: names of SOP classes (PS3.6 Annex A) and modalities.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import UID, MediaStorageDirectoryStorage

from ..errors import NotARadiographError, OwnOutputError, UnreadableImageError
from .dicom_terms import PROJECTIONS, known
from .own_output import describe_own

MODALITIES = (*PROJECTIONS, "OT", "SC")
"""Projection radiographs and, as OT or SC, secondary captures of them. SC is not in the standard
but occurs. Fluoroscopy (RF, XA), mammography (MG) and dental pictures (IO, PX) are projections too,
but no model was trained on them, so they are refused."""

_EXPECTED = f"expected a radiograph ({', '.join(MODALITIES)})"
_PROJECTIONS = ("Computed Radiography Image", "Digital X-Ray Image", "Secondary Capture Image")
"""Parts of the names of SOP classes for :data:`MODALITIES`."""


def check_judged(ds: Dataset, name: str) -> None:
    """Refuse a readable object that is not a radiograph that fxpipe judges.

    Args:
        ds: The header of the file.
        name: File name, for errors.

    Raises:
        OwnOutputError: fxpipe created the object.
        NotARadiographError: The object is a directory, a document, another modality, or raw
            detector data.
        UnreadableImageError: The modality is not a standard term.
    """
    if own := describe_own(ds):
        raise OwnOutputError(f"{name}: found {own} created by fxpipe, {_EXPECTED}")
    sop_class = _sop_class(ds)
    if sop_class == MediaStorageDirectoryStorage or "DirectoryRecordSequence" in ds:
        raise NotARadiographError(f"{name}: found the directory of a DICOM medium, {_EXPECTED}")
    modality = known("Modality", ds.get("Modality"))
    if ds.get("Modality") and modality is None:
        raise UnreadableImageError(f"{name}: found modality with an illegal value, {_EXPECTED}")
    kind = sop_class.name if sop_class.name != sop_class else ""  # registered classes have a name
    other = modality not in (None, *MODALITIES)
    if (kind and "Image" not in kind) or (other and "PixelData" not in ds):
        raise NotARadiographError(
            f"{name}: found a DICOM object ({kind or 'of no registered class'}, modality "
            f"{modality or 'not given'}) without a picture, {_EXPECTED}"
        )
    if other:
        raise NotARadiographError(f"{name}: found modality {modality}, {_EXPECTED}")
    if modality is None and kind and not any(words in kind for words in _PROJECTIONS):
        raise NotARadiographError(f"{name}: found {kind} without a modality, {_EXPECTED}")
    intent = known("PresentationIntentType", ds.get("PresentationIntentType"))
    if intent == "FOR PROCESSING" or kind.endswith("For Processing"):
        raise NotARadiographError(
            f"{name}: found raw detector data (FOR PROCESSING), expected FOR PRESENTATION",
            "export the processed picture",
        )


def _sop_class(ds: Dataset) -> UID:
    """SOP class of the object, else of the file meta information; empty if both lack it."""
    meta = getattr(ds, "file_meta", None)
    uid = ds.get("SOPClassUID") or (meta.get("MediaStorageSOPClassUID") if meta else None)
    return UID(str(uid or "").strip())
