"""What a header says is in the picture: words for parts of the body, and the regions they lie in.

Routing, flags and the tables of training pictures read it. The words are body parts of DICOM
PS3.16 Annex L for the skeleton, and what else is common in exports; eponyms (of views) are left
out, because they could be a patient's name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..regions import REGIONS, Place, places

_PARTS = """
    LOWERLIMB LOWEREXTREMITY HIP HIPS PELVIS SIJOINT THIGH FEMUR KNEE KNEES PATELLA LEG LEGS
    LOWERLEG CALF TIBIA FIBULA TIBIAFIBULA TIBFIB ANKLE ANKLES FOOT FEET HEEL CALCANEUS TOE TOES
    CHEST THORAX THORACIC RIB RIBS STERNUM HEART BREAST ABDOMEN
    SPINE CERVICAL LUMBAR SACRUM SACRAL COCCYX
    CSPINE TSPINE LSPINE SSPINE CTSPINE TLSPINE LSSPINE CERVICALSPINE THORACICSPINE LUMBARSPINE
    SKULL HEAD FACE NECK JAW MANDIBLE MAXILLA NOSE ORBIT ORBITS SINUS SINUSES TMJ ZYGOMA TEETH
"""
_VIEWS = "SUNRISE SKYLINE MORTISE FROGLEG ODONTOID"

BODY_PARTS: Mapping[str, Place] = {
    **dict.fromkeys(_PARTS.split(), Place()),
    **places(lambda region: region.parts),
}
"""Words of BodyPartExamined; those without a region lie clear of all. A word that is not here says
nothing."""

VIEWS: Mapping[str, Place] = {
    **dict.fromkeys(_VIEWS.split(), Place()),
    **places(lambda region: region.views),
}
"""Words of ViewPosition that are used for one part of the body alone; AP, LATERAL, AXIAL, Y or
LORDOTIC are used for several."""


@dataclass(frozen=True, slots=True)
class BodyPart:
    """What the words of one header say together.

    Attributes:
        said: The words, as they stand in the header; empty when it says nothing of a body part.
        regions: In which a picture of what is named may be routed.
        named: Those of them that are in view for certain.
        elsewhere: Whether it names a part that lies clear of all these regions.
    """

    said: str = ""
    regions: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    elsewhere: bool = False


def body_part(header: Mapping[str, str] | None, regions: Collection[str] = REGIONS) -> BodyPart:
    """The body part that a header names in BodyPartExamined and ViewPosition.

    Args:
        header: See :class:`pipeline.domain.XrayImage`.
        regions: Those that the router knows: weights from before a region was added do not know
            it, and for them its body parts lie elsewhere.
    """
    header = header or {}
    said: list[str] = []
    found: list[Place] = []
    for keyword, table in (("BodyPartExamined", BODY_PARTS), ("ViewPosition", VIEWS)):
        value = header.get(keyword, "")
        words = [word for word in value.replace("_", " ").split() if word in table]
        found += [table[word] for word in words]
        said += [value] if words else []
    shown = [{*place.shown}.intersection(regions) for place in found]
    possible = [{*place.shown, *place.perhaps}.intersection(regions) for place in found]
    return BodyPart(
        said=", ".join(said),
        regions=frozenset().union(*possible),
        named=frozenset().union(*shown),
        elsewhere=not all(possible),
    )
