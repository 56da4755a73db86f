"""Which DICOM objects are radiographs that can be judged, and what the others are.

Only terms of the standard are quoted: names of SOP classes (PS3.6 Annex A) and modalities.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import UID, MediaStorageDirectoryStorage

from ..errors import NotARadiographError, OwnOutputError, UnreadableImageError
from .own import describe_own
from .terms import PROJECTIONS, known

MODALITIES = (*PROJECTIONS, "OT", "SC")
"""Projection radiographs and, as OT or SC, secondary captures of them. SC is no term of the
standard but occurs. Fluoroscopy (RF, XA), mammography (MG) and dental pictures (IO, PX) are
projections too, but none that a supported model has learned: they are refused."""

_WANTED = f"wanted a radiograph ({', '.join(MODALITIES)})"
_PROJECTIONS = ("Computed Radiography Image", "Digital X-Ray Image", "Secondary Capture Image")
"""In the names of the SOP classes of what :data:`MODALITIES` make."""


def check_judged(ds: Dataset, name: str) -> None:
    """Refuse what is readable and no radiograph that fxpipe judges.

    Args:
        ds: The header of the file.
        name: File name, for errors.

    Raises:
        OwnOutputError: fxpipe made it.
        NotARadiographError: A directory, a document, another modality, or raw detector data.
        UnreadableImageError: The modality is no term of the standard.
    """
    if own := describe_own(ds):
        raise OwnOutputError(f"{name}: found {own} that fxpipe made, {_WANTED}")
    sop_class = _sop_class(ds)
    if sop_class == MediaStorageDirectoryStorage or "DirectoryRecordSequence" in ds:
        raise NotARadiographError(f"{name}: found the directory of a DICOM medium, {_WANTED}")
    modality = known("Modality", ds.get("Modality"))
    if ds.get("Modality") and modality is None:
        raise UnreadableImageError(f"{name}: found modality with an illegal value, {_WANTED}")
    kind = sop_class.name if sop_class.name != sop_class else ""  # a name only where registered
    other = modality not in (None, *MODALITIES)
    if (kind and "Image" not in kind) or (other and "PixelData" not in ds):
        raise NotARadiographError(
            f"{name}: found a DICOM object ({kind or 'of no registered class'}, modality "
            f"{modality or 'not given'}) that holds no picture, {_WANTED}"
        )
    if other:
        raise NotARadiographError(f"{name}: found modality {modality}, {_WANTED}")
    if modality is None and kind and not any(words in kind for words in _PROJECTIONS):
        raise NotARadiographError(f"{name}: found {kind} without a modality, {_WANTED}")
    intent = known("PresentationIntentType", ds.get("PresentationIntentType"))
    if intent == "FOR PROCESSING" or kind.endswith("For Processing"):
        raise NotARadiographError(
            f"{name}: found raw detector data (FOR PROCESSING), wanted FOR PRESENTATION",
            "export the processed picture",
        )


def _sop_class(ds: Dataset) -> UID:
    """As the object says it, else as its file does; empty when neither does."""
    meta = getattr(ds, "file_meta", None)
    said = ds.get("SOPClassUID") or (meta.get("MediaStorageSOPClassUID") if meta else None)
    return UID(str(said or "").strip())
