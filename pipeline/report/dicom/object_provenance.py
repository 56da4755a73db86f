"""Which object it is, who made it, when, and whose it is: what all kinds have in common."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from highdicom import SOPClass

from ...config import RunConfig
from ...io.own_output import MAKER, SERIES
from ...outcome import FractureCall, Outcome
from ..record import finding_record
from .origin import Origin

# Any fixed one will do: names below it are unique because they hold digests.
_NAMESPACE = uuid.UUID("5f0e5b4e-6d0f-5a52-9b60-7a2d2f1c7f11")
_DATED = ("InstanceCreation", "Content", "PresentationCreation")


class Kind(Enum):
    """The kinds of object, by the word in their file names.

    Each has a series of its own, numbered far above those of modalities.
    """

    REPORT = "report"
    OVERLAY = "overlay"
    MARKS = "marks"

    @property
    def series_number(self) -> int:
        """9001, 9002 and 9003."""
        return list(SERIES)[list(Kind).index(self)]


@dataclass(frozen=True, slots=True)
class Run:
    """What is the same for every object of a run.

    Attributes:
        version: Of fxpipe.
        digests: Bundle name to SHA-256 of every network, also those that had nothing to say.
        config: Its settings.
    """

    version: str
    digests: Mapping[str, str]
    config: RunConfig

    @property
    def weights(self) -> str:
        """All networks in a few characters."""
        text = json.dumps(dict(self.digests), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def keeps_identity(self) -> bool:
        """Whether objects name the patient."""
        return self.config.identifiers == "keep"


def uid(*parts: Any) -> str:
    """A UID that is the same whenever its parts are (PS3.5 B.2, UUID version 5).

    Args:
        parts: Anything that JSON can hold.
    """
    text = json.dumps(parts, sort_keys=True, allow_nan=False)
    return f"2.25.{uuid.uuid5(_NAMESPACE, text).int}"


def identification(
    kind: Kind, origin: Origin, outcome: Outcome, run: Run, number: int, about: str = ""
) -> dict[str, Any]:
    """Arguments that highdicom wants for every object: UIDs, numbers, equipment.

    Equal findings about equal files by equal networks and settings get equal UIDs: who runs
    fxpipe again does not fill a PACS with copies. The instance's UID stands for all that it says,
    the time aside.

    Args:
        kind: Of the object.
        origin: Of the picture.
        outcome: About it.
        run: That found it.
        number: Of the object in its series.
        about: Tells objects of one kind about one picture apart.
    """
    series = uid("series", kind.value, origin.study, run.version, dict(run.digests), _settings(run))
    said = (
        outcome.image.sha256,
        outcome.image.frame,
        dict(outcome.bundle_digests),
        [finding_record(finding) for finding in outcome.findings],
        [(flag.name, flag.reason) for flag in outcome.flags],
        outcome.unexamined,
        about,
    )
    return {
        "series_instance_uid": series,
        "series_number": kind.series_number,
        "sop_instance_uid": uid("instance", series, *said),
        "instance_number": number,
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
        "software_versions": [f"{MAKER} {run.version}", f"weights {run.weights}"],
        "series_description": f"{MAKER} {kind.value} (research, not verified)",
    }


def tracking_uid(finding: FractureCall, outcome: Outcome) -> str:
    """One and the same for a finding in all objects of its picture."""
    return uid("finding", outcome.image.sha256, outcome.image.frame, finding.region, finding.target)


def complete(made: SOPClass, origin: Origin, run: Run) -> None:
    """Add the time with its zone and, where identifiers are kept, whose object it is.

    Args:
        made: By highdicom, from ``origin.reference``, so that it names nobody yet.
        origin: Of the picture.
        run: That made it.
    """
    now = origin.now()
    for stem in _DATED:
        if f"{stem}Date" in made:
            setattr(made, f"{stem}Date", now.strftime("%Y%m%d"))
            setattr(made, f"{stem}Time", now.strftime("%H%M%S"))
    for item in made.get("ContributingEquipmentSequence") or ():  # highdicom names itself
        item.ContributionDateTime = now.strftime("%Y%m%d%H%M%S")
    made.TimezoneOffsetFromUTC = now.strftime("%z")
    if not run.keeps_identity:
        return
    if characters := origin.header.get("SpecificCharacterSet"):
        made.SpecificCharacterSet = characters
    made.copy_patient_and_study_information(origin.header)


def plain_text(text: str) -> str:
    """A text that every character set of DICOM can hold: the original's is kept with its names."""
    return text.encode("ascii", "replace").decode("ascii")


def _settings(run: Run) -> tuple[Any, ...]:
    """The settings that change what an object shows or holds."""
    config = run.config
    return config.operating_point, config.contour, config.opacity, config.identifiers
