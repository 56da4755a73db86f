"""The table of supported body regions, from which every other list of them is derived.

A region is one entry of :data:`TABLE`. Header words, flags, codes, tables, plots, settings and help
texts are derived from it; docs/contributing.md describes how to add a region.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

ANY_REGION = "all"
"""Region value of a fracture stage that examines pictures of every region."""

_NAME = re.compile("[a-z]+")
_RESERVED = (ANY_REGION, "none", "unknown")  # reserved values in region fields
_COLOUR = re.compile("#[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class Region:
    """One supported body region.

    Attributes:
        name: Lower-case letters. It is used as a network label, in names of bundles and columns,
            and as an option value.
        site: Code and meaning of the finding site in SNOMED CT (DICOM PS3.16, CID 4031).
        colour: Colour of its curves in plots, ``#rrggbb``.
        parts: Words for body parts, separated by spaces: DICOM values of BodyPartExamined, and
            other words common in exports and folder names. A picture of such a part shows the
            region; a part with a trailing ``?`` (``FOREARM?``) may or may not show it.
        views: Words of ViewPosition that are used only for this region.
        data_sets: Words, as in ``parts``, by data set: only those with a different meaning there,
            or that ``parts`` cannot contain.
    """

    name: str
    site: tuple[str, str]
    colour: str
    parts: str
    views: str = ""
    data_sets: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in _RESERVED:
            raise ValueError(
                f"region name is {self.name!r}, expected lower-case letters, and none of "
                f"{', '.join(_RESERVED)}"
            )
        if not _COLOUR.fullmatch(self.colour):
            raise ValueError(f"colour of {self.name} is {self.colour!r}, expected #rrggbb")
        if self.name.upper() not in self.parts.split():
            raise ValueError(
                f"parts of {self.name} are {self.parts!r}, expected to include {self.name.upper()}"
            )


TABLE = (
    Region(
        name="elbow",
        site=("16953009", "Elbow joint"),
        colour="#c25b00",
        parts="ELBOW OLECRANON FOREARM? RADIUS? ULNA? RADIUSULNA? ARM? HUMERUS? UPPERARM?",
        data_sets={"fracatlas": "arm+trunk", "fracatlas as distributed": "hand?"},
    ),
    Region(
        name="hand",
        site=("85562004", "Hand"),
        colour="#1f5a99",
        parts="HAND HANDS WRIST FINGER FINGERS THUMB CARPUS SCAPHOID "
        "FOREARM? RADIUS? ULNA? RADIUSULNA?",
        views="SCAPHOID",
        # In pictures of arm and trunk the hand is often cropped, or held by a parent. FracAtlas
        # labels the whole upper limb as hand.
        data_sets={"fracatlas": "arm+trunk?", "fracatlas as distributed": "hand?"},
    ),
    Region(
        name="shoulder",
        site=("16982005", "Shoulder"),
        colour="#2c7a4b",
        parts="SHOULDER ACJOINT ACROMION CLAVICLE? CLAVICLES? SCAPULA? ARM? HUMERUS? UPPERARM?",
        views="AXILLARY",
        data_sets={"fracatlas": "arm+trunk", "fracatlas as distributed": "hand?"},
    ),
)
"""The supported regions, in the order of every region vector; append new ones at the end."""

REGIONS = tuple(region.name for region in TABLE)
"""Names of the supported regions."""

REGIONS_IN_WORDS = " and ".join(filter(None, (", ".join(REGIONS[:-1]), REGIONS[-1])))
"""Names of the supported regions as text: ``elbow, hand and shoulder``."""


class Place(NamedTuple):
    """The supported regions that a picture of a body part shows.

    Attributes:
        shown: The regions that it shows.
        perhaps: The regions that it may or may not show.
    """

    shown: tuple[str, ...] = ()
    perhaps: tuple[str, ...] = ()


def places(words: Callable[[Region], str], table: Sequence[Region] = TABLE) -> dict[str, Place]:
    """The place of each word.

    Args:
        words: Returns the words of a region, separated by spaces; a trailing ``?`` marks a region
            that may or may not be in view.
        table: The regions.
    """
    places_by_word: dict[str, Place] = {}
    for region in table:
        for text in words(region).split():
            word = text.removesuffix("?")
            shown, perhaps = places_by_word.get(word, Place())
            if word == text:
                shown = (*shown, region.name)
            else:
                perhaps = (*perhaps, region.name)
            places_by_word[word] = Place(shown, perhaps)
    return places_by_word
