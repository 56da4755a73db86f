"""Vocabulary of data sets: words for labels, body regions and splits.

Unknown words are reported, never guessed. The words for regions come from :mod:`pipeline.regions`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

from pipeline.io.body_parts import BODY_PARTS
from pipeline.regions import REGIONS, Place, places

from ...samples import NONE, UNKNOWN, Split

STATED_KINDS = ("fracture", "abnormality")
"""Kinds of labels that the user may state."""


class Label(NamedTuple):
    """The meaning of one label word.

    Attributes:
        value: 1 or 0.
        kind: Kind that the word implies; ``unknown`` if it implies none.
        firm: Whether other words cannot change the kind. With ``fractured``, ``normal`` means not
            fractured.
    """

    value: int
    kind: str
    firm: bool


_WORDS = {
    ("fracture", True): (
        ("fractured", "fracture", "fractures"),
        ("notfractured", "nonfractured", "unfractured", "notfracture", "nonfracture", "nofracture",
         "nofractures"),
    ),
    ("abnormality", True): (("abnormal", "abnormality"), ("notabnormal", "noabnormality")),
    ("abnormality", False): ((), ("normal",)),
    (UNKNOWN, False): (
        ("1", "1.0", "true", "yes", "positive", "pos"),
        ("0", "0.0", "false", "no", "negative", "neg", "healthy"),
    ),
}  # fmt: skip
_LABELS = {
    word: Label(value, kind, firm)
    for (kind, firm), (positive, negative) in _WORDS.items()
    for value, words in ((1, positive), (0, negative))
    for word in words
}

_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

_SIDES = frozenset(("left", "right", "l", "r", "lt", "rt", "xr", "xray"))


def label_of(word: str) -> Label | None:
    """Parse a label word; None if it is unknown. Case, ``_``, ``-`` and spaces are ignored."""
    # Between letters only: -1 is not 1.
    return _LABELS.get(re.sub(r"(?<=[a-z])[\s_-]+(?=[a-z])", "", word.strip().lower()))


def kind_of(label: Label, circles: Iterable[Iterable[Label]], stated: str = "") -> str:
    """The kind of a label.

    Args:
        label: The label.
        circles: Sets of related labels, the nearest first: the first set whose firm words agree on
            a kind determines it.
        stated: The user's choice for all words that are not firm.
    """
    if label.firm or stated:
        return label.kind if label.firm else stated
    for circle in circles:
        kinds = {other.kind for other in circle if other.firm}
        if len(kinds) == 1:
            return kinds.pop()
    return label.kind


def denied(labels: Iterable[Label], stated: str) -> list[str]:
    """A fault if firm words contradict the kind that the user stated."""
    kinds = sorted({label.kind for label in labels if label.firm} - {stated})
    if not stated or not kinds:
        return []
    return [f"the label words mean {' and '.join(kinds)}, but --label-kind is {stated}"]


def split_of(word: str) -> Split | None:
    """Parse the name of a split; None if it is unknown."""
    return _SPLITS.get(word.strip().lower())


def regions_of(text: str, data_set: str = "") -> str | None:
    """Parse words for regions to the notation of the index; None if a word is unknown.

    Several words may be joined by ``;``, ``,``, ``+``, ``/`` or ``&``; sides (``left``) and ``XR``
    are ignored. An adjacent body part makes a region uncertain (``CLAVICLE`` is ``shoulder?``),
    unless another word puts the region in view. Empty is ``unknown``. Values in the notation of the
    index stay unchanged.

    Args:
        text: The words; case is ignored.
        data_set: Data set whose words take precedence, a key of
            :attr:`pipeline.regions.Region.data_sets`.
    """
    vocabulary = _vocabulary(data_set)
    whole = text.strip().lower()
    words = [whole] if whole in vocabulary else re.split(r"[;,+/&]", whole)
    matches: list[Place] = []
    for word in filter(None, map(str.strip, words)):
        place = vocabulary.get(word) or _place(word)
        if place is None:
            return None
        matches.append(place)
    visible = {region for place in matches for region in place.shown}
    possible = visible.union(*(place.perhaps for place in matches))
    if not matches or (possible == {*REGIONS} and not visible):
        return UNKNOWN
    names = (name if name in visible else f"{name}?" for name in REGIONS if name in possible)
    return ";".join(names) or NONE


@cache
def _vocabulary(data_set: str) -> Mapping[str, Place]:
    return places(lambda region: region.data_sets.get(data_set, ""))


def _place(word: str) -> Place | None:
    if word in (NONE, UNKNOWN):
        return Place() if word == NONE else Place(perhaps=REGIONS)
    if word.removesuffix("?") in REGIONS:
        return Place(perhaps=(word[:-1],)) if word.endswith("?") else Place((word,))
    plain = "".join(part for part in re.findall(r"[a-z0-9]+", word) if part not in _SIDES)
    return BODY_PARTS.get(plain.upper())
