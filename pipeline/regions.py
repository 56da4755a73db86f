"""The supported body regions: the one table that every list of them is derived from.

A region is one entry of :data:`TABLE`. Header words, flags, codes, tables, plots, settings and help
texts follow from it; docs/contributing.md shows how to add one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

ANY_REGION = "all"
"""In place of a region: a fracture stage that looks at pictures of every region."""

_NAME = re.compile("[a-z]+")
_TAKEN = (ANY_REGION, "none", "unknown")  # values of their own where regions stand
_COLOUR = re.compile("#[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class Region:
    """One supported body region.

    Attributes:
        name: Lower-case letters. It is a label of networks, a part of names of bundles and columns,
            and a value of options.
        site: Code and meaning of the finding site in SNOMED CT (DICOM PS3.16, CID 4031).
        colour: Of its curves in plots, ``#rrggbb``.
        parts: Words for parts of the body, separated by spaces: DICOM's for BodyPartExamined, and
            what else is common in exports and names of folders. A picture of such a part shows the
            region; with ``?`` behind it (``FOREARM?``) it may or may not show the region.
        views: Words of ViewPosition that are used for this region alone.
        data_sets: Words, as in ``parts``, by data set: only those that mean something else there,
            or that ``parts`` cannot hold.
    """

    name: str
    site: tuple[str, str]
    colour: str
    parts: str
    views: str = ""
    data_sets: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in _TAKEN:
            raise ValueError(
                f"region name is {self.name!r}, wanted lower-case letters, and none of "
                f"{', '.join(_TAKEN)}"
            )
        if not _COLOUR.fullmatch(self.colour):
            raise ValueError(f"colour of {self.name} is {self.colour!r}, wanted #rrggbb")
        if self.name.upper() not in self.parts.split():
            raise ValueError(f"parts of {self.name} are {self.parts!r}, wanted its own name in it")


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
        # On arms with a trunk the hand is often cut off, or held by a parent. The authors of
        # FracAtlas call the whole upper limb a hand.
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
"""The supported regions, in the order of every region vector: a new one goes to the end."""

REGIONS = tuple(region.name for region in TABLE)
"""Their names."""

REGIONS_IN_WORDS = " and ".join(filter(None, (", ".join(REGIONS[:-1]), REGIONS[-1])))
"""Their names as a text: ``elbow, hand and shoulder``."""


class Place(NamedTuple):
    """Where in the supported regions a part of the body lies.

    Attributes:
        shown: The regions that a picture of it shows.
        perhaps: The regions that such a picture may or may not show.
    """

    shown: tuple[str, ...] = ()
    perhaps: tuple[str, ...] = ()


def places(words: Callable[[Region], str], table: Sequence[Region] = TABLE) -> dict[str, Place]:
    """The place of each word.

    Args:
        words: The words of a region, separated by spaces, those with ``?`` for a region that may or
            may not be in view.
        table: The regions.
    """
    found: dict[str, Place] = {}
    for region in table:
        for text in words(region).split():
            word = text.removesuffix("?")
            shown, perhaps = found.get(word, Place())
            if word == text:
                shown = (*shown, region.name)
            else:
                perhaps = (*perhaps, region.name)
            found[word] = Place(shown, perhaps)
    return found
