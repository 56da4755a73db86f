"""What the words of data sets mean: labels, body regions, splits.

A word that is not in these lists means nothing here: it is reported, never guessed. The words of
regions come from :mod:`pipeline.regions`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

from pipeline.io.body_parts import BODY_PARTS
from pipeline.regions import REGIONS, Place, places

from ..index import NONE, UNKNOWN, Split

STATED_KINDS = ("fracture", "abnormality")
"""What the user may say that labels mean."""


class Label(NamedTuple):
    """What one word says of a picture.

    Attributes:
        value: 1 or 0.
        kind: What the word means by itself; ``unknown`` when it does not say.
        firm: Whether it says so whatever the other words are. ``normal`` beside ``fractured``
            means not fractured.
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
    """What a label word means; None when it is none. Case and ``_``, ``-``, spaces do not count."""
    # Between letters only: -1 is not 1.
    return _LABELS.get(re.sub(r"(?<=[a-z])[\s_-]+(?=[a-z])", "", word.strip().lower()))


def kind_of(label: Label, circles: Iterable[Iterable[Label]], stated: str = "") -> str:
    """What kind a label is.

    Args:
        label: The one.
        circles: Labels that stand beside it, the nearest first: the first circle whose firm words
            agree on a kind lends it to the others.
        stated: What the user says, of all words that are not firm.
    """
    if label.firm or stated:
        return label.kind if label.firm else stated
    for circle in circles:
        kinds = {other.kind for other in circle if other.firm}
        if len(kinds) == 1:
            return kinds.pop()
    return label.kind


def denied(labels: Iterable[Label], stated: str) -> list[str]:
    """A fault when firm words say another kind than the user."""
    kinds = sorted({label.kind for label in labels if label.firm} - {stated})
    if not stated or not kinds:
        return []
    return [f"the label words say {' and '.join(kinds)}, --label-kind says {stated}"]


def split_of(word: str) -> Split | None:
    """The split that a word names; None when it names none."""
    return _SPLITS.get(word.strip().lower())


def regions_of(text: str, data_set: str = "") -> str | None:
    """The regions that words name, as in the index; None when a word is not understood.

    Several words may be joined by ``;``, ``,``, ``+``, ``/`` or ``&``; sides (``left``) and ``XR``
    do not count. A neighbour of a region leaves it open (``CLAVICLE`` is ``shoulder?``), unless
    another word says that it is in view. Empty is ``unknown``. The index's own values keep their
    meaning.

    Args:
        text: The words; case does not count.
        data_set: Whose own words count first: a key of :attr:`pipeline.regions.Region.data_sets`.
    """
    own = _own_words(data_set)
    whole = text.strip().lower()
    words = [whole] if whole in own else re.split(r"[;,+/&]", whole)
    found: list[Place] = []
    for word in filter(None, map(str.strip, words)):
        place = own.get(word) or _place(word)
        if place is None:
            return None
        found.append(place)
    shown = {region for place in found for region in place.shown}
    possible = shown.union(*(place.perhaps for place in found))
    if not found or (possible == {*REGIONS} and not shown):
        return UNKNOWN
    names = (name if name in shown else f"{name}?" for name in REGIONS if name in possible)
    return ";".join(names) or NONE


@cache
def _own_words(data_set: str) -> Mapping[str, Place]:
    return places(lambda region: region.data_sets.get(data_set, ""))


def _place(word: str) -> Place | None:
    if word in (NONE, UNKNOWN):
        return Place() if word == NONE else Place(perhaps=REGIONS)
    if word.removesuffix("?") in REGIONS:
        return Place(perhaps=(word[:-1],)) if word.endswith("?") else Place((word,))
    plain = "".join(part for part in re.findall(r"[a-z0-9]+", word) if part not in _SIDES)
    return BODY_PARTS.get(plain.upper())
