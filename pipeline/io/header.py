"""DICOM header values as they occur: one that is illegal costs itself, never the picture.

What is sure to be meant (small letters in a coded value, a decimal comma) is put right in the data
set; what is not is taken out of it, with a note. So nobody who reads it later has to fear it. Notes
name keywords and quote no value: patient identifiers may stand in any of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
"""(row, column) distances of pixel centres in mm; the calibrated one first, as viewers do."""
_PAIRS = (*SPACINGS, "PixelAspectRatio")
_COUNTS = ("NumberOfFrames", "HighBit")
_NUMBERS = (
    *("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
)
_WORDS = (
    *("Modality", "BodyPartExamined", "ViewPosition", "ImageLaterality", "Laterality"),
    *("PhotometricInterpretation", "PresentationIntentType", "PresentationLUTShape"),
    *("VOILUTFunction", "BurnedInAnnotation"),
)
_OF_PIXELS = (
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "PresentationLUTShape"),
)
_VOI, _MODALITY, _MEASURES = (
    "FrameVOILUTSequence",
    "PixelValueTransformationSequence",
    "PixelMeasuresSequence",
)
_GROUPS = {
    _VOI: ("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    _MODALITY: ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    _MEASURES: _PAIRS,
}
"""Functional groups, and the keywords that mean the same at the top level (PS3.3 C.7.6.16.2)."""
_MOST_SPACING_MM = 100.0


# ------------------------------------------------------------------------------ single values


def header_number(value: Any) -> float | None:
    """The first of one or several header numbers; None when there is no finite one."""
    if isinstance(value, MultiValue | list | tuple):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def header_text(ds: Dataset, keyword: str) -> str:
    """A text, several values of it joined as in the file; empty when it cannot be read."""
    try:
        value = ds.get(keyword)
        values = value if isinstance(value, MultiValue | list | tuple) else [value]
        return "\\".join("" if each is None else str(each) for each in values).strip()
    # As in decode: pydicom raises nearly anything on hostile values.
    except Exception:  # noqa: BLE001
        return ""


def first_item(ds: Dataset, keyword: str) -> Dataset | None:
    """The first item of a LUT sequence that has a table; None when there is none."""
    item = _first(ds, keyword)
    if item is None or item.get("LUTData") is None or item.get("LUTDescriptor") is None:
        return None
    return item


def window(ds: Dataset) -> tuple[float, float, str] | None:
    """Centre, width and function of the first window, if the standard allows it.

    A linear window has a width of at least 1, the others one above 0 (PS3.3 C.11.2.1.2.1,
    C.11.2.1.3).
    """
    centre, width = header_number(ds.get("WindowCenter")), header_number(ds.get("WindowWidth"))
    function = header_text(ds, "VOILUTFunction") or "LINEAR"
    if centre is None or width is None:
        return None
    legal = {"LINEAR": width >= 1.0, "LINEAR_EXACT": width > 0.0, "SIGMOID": width > 0.0}
    return (centre, width, function) if legal.get(function) else None


# ------------------------------------------------------------------------------ whole headers


def mend(ds: Dataset) -> list[str]:
    """Put right or take out what is illegal among the values that fxpipe reads.

    Args:
        ds: Changed in place; its functional groups too.

    Returns:
        Each thing that was found, once: words for a flag.
    """
    notes = _mend_item(ds)
    for holder in (*_shared(ds), *_per_frame(ds)):
        for group in _GROUPS:
            if (item := _first(holder, group)) is not None:
                notes += _mend_item(item)
    return list(dict.fromkeys(notes))


def of_frame(ds: Dataset, index: int) -> Dataset:
    """What the header says of the grey values and the spacing of one frame.

    The functional groups of the frame go before the shared ones, and those before the top level;
    a window that the standard forbids is passed over.

    Args:
        ds: Mended.
        index: Zero-based.

    Returns:
        A flat data set that shares its elements with ``ds``.
    """
    view = Dataset()
    _share(ds, _OF_PIXELS, view)
    holders = [*_per_frame(ds)[index : index + 1], *_shared(ds)]
    for group, keywords in _GROUPS.items():
        items = [item for holder in holders if (item := _first(holder, group)) is not None]
        spoken = next((item for item in (*items, ds) if _says(item, group)), None)
        if spoken is not None:
            _share(spoken, keywords, view)
    return view


def _says(item: Dataset, group: str) -> bool:
    """Whether an item holds what its functional group is for."""
    if group == _VOI:
        return first_item(item, "VOILUTSequence") is not None or window(item) is not None
    if group == _MODALITY:
        slope = header_number(item.get("RescaleSlope"))
        return first_item(item, "ModalityLUTSequence") is not None or slope is not None
    return any(item.get(keyword) for keyword in _PAIRS)


def _share(source: Dataset, keywords: tuple[str, ...], view: Dataset) -> None:
    for keyword in keywords:
        if keyword in source:
            view.add(source[keyword])


def _mend_item(ds: Dataset) -> list[str]:
    for keyword in _WORDS:
        if keyword in ds:
            _mend_word(ds, keyword)
    return [
        note
        for keyword in (*_COUNTS, *_NUMBERS, *_PAIRS)
        if keyword in ds
        for note in _mend_numbers(ds, keyword)
    ]


def _mend_word(ds: Dataset, keyword: str) -> None:
    """A coded value in capitals, and the first of several."""
    found = header_text(ds, keyword)
    word = found.partition("\\")[0].strip().upper()
    if word != found:
        ds.add_new(keyword, "CS", word)


def _mend_numbers(ds: Dataset, keyword: str) -> Iterator[str]:
    """What is wrong with a number, or with a pair of them."""
    texts: list[str] = []
    try:
        value = ds[keyword].value
        values = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
        texts = ["" if each is None else str(each).strip() for each in values]
        if not any(texts):  # pydicom reads some of these as None and some as a text
            del ds[keyword]
            return
        numbers = [float(text.replace(",", ".")) for text in _meant(keyword, texts)]
        legal = _legal(keyword, numbers)
    # As in header_text.
    except Exception:  # noqa: BLE001
        legal = False
    if not legal:
        del ds[keyword]
        yield f"an illegal {keyword} was left out"
    elif any("," in text for text in texts):
        ds[keyword].value = numbers if keyword in _PAIRS else numbers[0]
        yield f"a decimal comma in {keyword} was read as a point"


def _meant(keyword: str, texts: list[str]) -> list[str]:
    """The numbers that are used: both of a pair, else the first."""
    return texts if keyword in _PAIRS else texts[:1]


def _legal(keyword: str, numbers: list[float]) -> bool:
    if not all(map(math.isfinite, numbers)):
        return False
    if keyword in _PAIRS:
        most = _MOST_SPACING_MM if keyword in SPACINGS else math.inf
        return len(numbers) == 2 and all(0.0 < number < most for number in numbers)
    return keyword not in _COUNTS or (numbers[0] >= 0.0 and numbers[0].is_integer())


def _shared(ds: Dataset) -> list[Dataset]:
    return _items(ds, "SharedFunctionalGroupsSequence")[:1]


def _per_frame(ds: Dataset) -> list[Dataset]:
    return _items(ds, "PerFrameFunctionalGroupsSequence")


def _first(ds: Dataset, keyword: str) -> Dataset | None:
    return next(iter(_items(ds, keyword)), None)


def _items(ds: Dataset, keyword: str) -> list[Dataset]:
    """Of a sequence; none of what claims to be one and is not."""
    try:
        value = ds.get(keyword)
    # As in header_text.
    except Exception:  # noqa: BLE001
        return []
    return list(value) if isinstance(value, Sequence) else []
