"""What a header says is in the picture: the one table of words for parts of the body.

Routing, flags and the tables of training pictures read it. The words are body parts of DICOM
PS3.16 Annex L for the skeleton, and what else is common in exports; eponyms (of views) are left
out, because they could be a patient's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """Where in the supported regions a part of the body lies.

    Attributes:
        regions: In which a picture of it may be routed; none where it lies clear of all of them.
        certain: Whether a picture of it shows each of them. Pictures of a forearm, an upper arm or
            a clavicle may or may not show the joint beside it.
    """

    regions: tuple[str, ...]
    certain: bool = True


_HAND = "HAND HANDS WRIST FINGER FINGERS THUMB CARPUS SCAPHOID"
_ELBOW = "ELBOW OLECRANON"
_SHOULDER = "SHOULDER ACJOINT ACROMION"
_GIRDLE = "CLAVICLE CLAVICLES SCAPULA"
_FOREARM = "FOREARM RADIUS ULNA RADIUSULNA"
_ARM = "ARM HUMERUS UPPERARM"
_ELSEWHERE = """
    LOWERLIMB LOWEREXTREMITY HIP HIPS PELVIS SIJOINT THIGH FEMUR KNEE KNEES PATELLA LEG LEGS
    LOWERLEG CALF TIBIA FIBULA TIBIAFIBULA TIBFIB ANKLE ANKLES FOOT FEET HEEL CALCANEUS TOE TOES
    CHEST THORAX THORACIC RIB RIBS STERNUM HEART BREAST ABDOMEN
    SPINE CERVICAL LUMBAR SACRUM SACRAL COCCYX
    CSPINE TSPINE LSPINE SSPINE CTSPINE TLSPINE LSSPINE CERVICALSPINE THORACICSPINE LUMBARSPINE
    SKULL HEAD FACE NECK JAW MANDIBLE MAXILLA NOSE ORBIT ORBITS SINUS SINUSES TMJ ZYGOMA TEETH
"""

BODY_PARTS: Mapping[str, Place] = {
    **dict.fromkeys(_HAND.split(), Place(("hand",))),
    **dict.fromkeys(_ELBOW.split(), Place(("elbow",))),
    **dict.fromkeys(_SHOULDER.split(), Place(("shoulder",))),
    **dict.fromkeys(_GIRDLE.split(), Place(("shoulder",), certain=False)),
    **dict.fromkeys(_FOREARM.split(), Place(("hand", "elbow"), certain=False)),
    **dict.fromkeys(_ARM.split(), Place(("elbow", "shoulder"), certain=False)),
    **dict.fromkeys(_ELSEWHERE.split(), Place(())),
}
"""Words of BodyPartExamined. One that is not here says nothing."""

VIEWS: Mapping[str, Place] = {
    "SCAPHOID": Place(("hand",)),
    "AXILLARY": Place(("shoulder",)),
    **dict.fromkeys(("SUNRISE", "SKYLINE", "MORTISE", "FROGLEG", "ODONTOID"), Place(())),
}
"""Words of ViewPosition that are said of one part of the body alone; AP, LATERAL, AXIAL, Y or
LORDOTIC are said of several."""


@dataclass(frozen=True, slots=True)
class BodyPart:
    """What the words of one header say together.

    Attributes:
        said: The words, as they stand in the header; empty when it says nothing of a body part.
        regions: In which a picture of what is named may be routed.
        named: Those of them that are in view for certain.
        elsewhere: Whether it names a part that lies clear of all supported regions.
    """

    said: str = ""
    regions: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    elsewhere: bool = False


def body_part(header: Mapping[str, str] | None) -> BodyPart:
    """The body part that a header names in BodyPartExamined and ViewPosition.

    Args:
        header: See :class:`pipeline.domain.XrayImage`.
    """
    header = header or {}
    said: list[str] = []
    places: list[Place] = []
    for keyword, table in (("BodyPartExamined", BODY_PARTS), ("ViewPosition", VIEWS)):
        value = header.get(keyword, "")
        found = [table[word] for word in value.replace("_", " ").split() if word in table]
        places += found
        said += [value] if found else []
    return BodyPart(
        said=", ".join(said),
        regions=frozenset(region for place in places for region in place.regions),
        named=frozenset(region for place in places if place.certain for region in place.regions),
        elsewhere=any(not place.regions for place in places),
    )
