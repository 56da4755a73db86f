"""Tolerant reading of DICOM header values: an illegal value is dropped, the picture is kept.

Unambiguous errors (lower case in a coded value, a decimal comma) are corrected in the data set;
other illegal values are removed from it, with a note. Later readers can rely on the values. Notes
name keywords and quote no values, because any value may contain patient identifiers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
"""(row, column) distances of pixel centres in mm; the calibrated one first, as in viewers."""
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
"""Functional groups, and the equivalent keywords at the top level (PS3.3 C.7.6.16.2)."""
_MOST_SPACING_MM = 100.0


# ------------------------------------------------------------------------------ single values


def header_number(value: Any) -> float | None:
    """The first of one or several header numbers; None if it is missing or not finite."""
    if isinstance(value, MultiValue | list | tuple):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def header_text(ds: Dataset, keyword: str) -> str:
    """A text, several values joined as in the file; empty if it cannot be read."""
    try:
        value = ds.get(keyword)
        values = value if isinstance(value, MultiValue | list | tuple) else [value]
        return "\\".join("" if each is None else str(each) for each in values).strip()
    # As in decode: pydicom raises nearly any exception on hostile values.
    except Exception:  # noqa: BLE001
        return ""


def first_item(ds: Dataset, keyword: str) -> Dataset | None:
    """The first item of a LUT sequence, if it has a table; else None."""
    item = _first(ds, keyword)
    if item is None or item.get("LUTData") is None or item.get("LUTDescriptor") is None:
        return None
    return item


def window(ds: Dataset) -> tuple[float, float, str] | None:
    """Centre, width and function of the first window, if it is valid.

    The width is at least 1 for a linear window, and above 0 for the others (PS3.3 C.11.2.1.2.1,
    C.11.2.1.3).
    """
    centre, width = header_number(ds.get("WindowCenter")), header_number(ds.get("WindowWidth"))
    function = header_text(ds, "VOILUTFunction") or "LINEAR"
    if centre is None or width is None:
        return None
    legal = {"LINEAR": width >= 1.0, "LINEAR_EXACT": width > 0.0, "SIGMOID": width > 0.0}
    return (centre, width, function) if legal.get(function) else None


# ------------------------------------------------------------------------------ whole headers


def correct(ds: Dataset) -> list[str]:
    """Correct or remove illegal values among those that fxpipe reads.

    Args:
        ds: The header; changed in place, including its functional groups.

    Returns:
        Notes without duplicates, as text for a flag.
    """
    notes = _correct_item(ds)
    for holder in (*_shared(ds), *_per_frame(ds)):
        for group in _GROUPS:
            if (item := _first(holder, group)) is not None:
                notes += _correct_item(item)
    return list(dict.fromkeys(notes))


def of_frame(ds: Dataset, index: int) -> Dataset:
    """Header values for the grey values and the spacing of one frame.

    The functional groups of the frame have precedence over the shared ones, and those over the top
    level. An invalid window is skipped.

    Args:
        ds: Header, corrected by :func:`correct`.
        index: Zero-based frame number.

    Returns:
        A flat data set that shares its elements with ``ds``.
    """
    view = Dataset()
    _share(ds, _OF_PIXELS, view)
    holders = [*_per_frame(ds)[index : index + 1], *_shared(ds)]
    for group, keywords in _GROUPS.items():
        items = [item for holder in holders if (item := _first(holder, group)) is not None]
        source = next((item for item in (*items, ds) if _has_group(item, group)), None)
        if source is not None:
            _share(source, keywords, view)
    return view


def _has_group(item: Dataset, group: str) -> bool:
    """Whether an item has the values of a functional group."""
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


def _correct_item(ds: Dataset) -> list[str]:
    for keyword in _WORDS:
        if keyword in ds:
            _correct_word(ds, keyword)
    return [
        note
        for keyword in (*_COUNTS, *_NUMBERS, *_PAIRS)
        if keyword in ds
        for note in _correct_numbers(ds, keyword)
    ]


def _correct_word(ds: Dataset, keyword: str) -> None:
    """Convert a coded value to upper case, and keep the first of several."""
    text = header_text(ds, keyword)
    word = text.partition("\\")[0].strip().upper()
    if word != text:
        ds.add_new(keyword, "CS", word)


def _correct_numbers(ds: Dataset, keyword: str) -> Iterator[str]:
    """Correct or remove a number or a pair of numbers, and yield a note."""
    texts: list[str] = []
    try:
        value = ds[keyword].value
        values = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
        texts = ["" if each is None else str(each).strip() for each in values]
        if not any(texts):  # pydicom reads an empty value as None or as text
            del ds[keyword]
            return
        numbers = [float(text.replace(",", ".")) for text in _used(keyword, texts)]
        legal = _legal(keyword, numbers)
    # As in header_text.
    except Exception:  # noqa: BLE001
        legal = False
    if not legal:
        del ds[keyword]
        yield f"an illegal {keyword} was ignored"
    elif any("," in text for text in texts):
        ds[keyword].value = numbers if keyword in _PAIRS else numbers[0]
        yield f"a decimal comma in {keyword} was read as a point"


def _used(keyword: str, texts: list[str]) -> list[str]:
    """Both numbers of a pair, else the first number."""
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
    """Items of a sequence; empty for an invalid one."""
    try:
        value = ds.get(keyword)
    # As in header_text.
    except Exception:  # noqa: BLE001
        return []
    return list(value) if isinstance(value, Sequence) else []
