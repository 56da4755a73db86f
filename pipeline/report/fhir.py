"""The results as one FHIR R4 bundle: a diagnostic report per input, an observation per finding.

FHIR R4 (4.0.1), https://hl7.org/fhir/R4/: ``DiagnosticReport``, ``Observation``, ``Device``. Every
report is *preliminary*, because it is unverified, or *cancelled* if there is no verdict. Subject,
accession number and study are included only if identifiers are kept.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydicom.sr.coding import Code

from .. import DISTRIBUTION, version
from ..errors import OutputError
from ..outcome import FractureCall, Outcome
from .dicom import codes
from .record import caption, image_text, plain
from .stream import BEGINNING, Mark
from .summary import INTENDED_USE, MEANING
from .writer import Job, StreamWriter

Resource = dict[str, Any]

_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "NCIt": "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl",
}
"""URIs of the code systems: https://hl7.org/fhir/R4/terminologies-systems.html."""

_RADIOLOGY = ("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD", "Radiology")
_IMAGING = ("http://terminology.hl7.org/CodeSystem/observation-category", "imaging", "Imaging")
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:fxpipe:fhir")


class FhirWriter(StreamWriter):
    """Writes a ``Bundle`` of type *collection*, entry by entry.

    Args:
        path: The file; an existing one is replaced.
        root: See :func:`pipeline.report.record.to_record`.
        after: Position where the bundle of an unfinished run continues.
    """

    def __init__(self, path: Path, root: Path, after: Mark = BEGINNING) -> None:
        self._root = root
        self._rows = after.rows
        self._device = _url("device", version())
        super().__init__(path, after)
        if not after.size:
            head = {"resourceType": "Bundle", "type": "collection", "timestamp": _now()}
            self.stream.write(json.dumps(head)[:-1] + ', "entry": [\n')
            self.stream.write(_entry(self._device, _device()))
            self.stream.flush()

    @classmethod
    def opened(cls, path: Path, job: Job) -> Self:
        """See :meth:`~.writer.Writer.opened`."""
        return cls(path, job.root, job.after(path))

    def write(self, outcome: Outcome) -> None:
        """Append one report and its observations."""
        self._rows += 1
        key = f"{self._rows} {outcome.image.sha256} {outcome.image.frame}"
        results = []
        for finding in outcome.findings:
            url = _url("observation", f"{key} {finding.region}")
            results.append({"reference": url})
            self._append(url, self._observation(outcome, finding))
        self._append(_url("report", key), self._report(outcome, results))
        self.stream.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the list after every end of the run, so that the file is a valid bundle.

        Not after a write error: a second attempt on a full disk would hide the first error.
        """
        if not isinstance(error, OutputError):
            self.stream.write("\n]}\n")
            self.stream.flush()
        super().__exit__(kind, error, trace)

    def _append(self, url: str, resource: Resource) -> None:
        self.stream.write(",\n" + _entry(url, resource))

    def _report(self, outcome: Outcome, results: list[dict[str, str]]) -> Resource:
        name = image_text(outcome.image, self._root)
        if outcome.image.frame is not None:
            name += f" (frame {outcome.image.frame})"
        parts = [caption(finding) for finding in outcome.findings] or [plain(outcome.error or "")]
        parts += [flag.reason for flag in outcome.flags]
        meaning = f"{MEANING} " if results else ""
        report: Resource = {
            "resourceType": "DiagnosticReport",
            "status": "preliminary" if results else "cancelled",
            "category": [_concept(*_RADIOLOGY)],
            "code": _coded(codes.PROCEDURE),
            "issued": _now(),
            "conclusion": f"{name}: {'; '.join(parts)}. {meaning}Unverified. {INTENDED_USE}",
        }
        if results:
            report["result"] = results
        return report | _identified(outcome.identity)

    def _observation(self, outcome: Outcome, finding: FractureCall) -> Resource:
        point = finding.operating_point
        values: list[tuple[Resource, float]] = [
            (_coded(codes.PROBABILITY), finding.probability),
            ({"text": f"positive from ({point.name})"}, point.threshold),
            ({"text": f"uncertain from ({point.name})"}, point.doubt_below),
            *(({"text": f"if fractured: {name}"}, p) for name, p in finding.types.items()),
        ]
        observation: Resource = {
            "resourceType": "Observation",
            "status": "preliminary",
            "category": [_concept(*_IMAGING)],
            "code": _coded(codes.TARGETS[finding.target]),
            "valueCodeableConcept": _coded(codes.PRESENCE[finding.verdict]),
            "device": {"reference": self._device},
            "component": [{"code": code, "valueQuantity": _share(value)} for code, value in values],
            "note": [{"text": "bundles: " + json.dumps(outcome.bundle_digests, sort_keys=True)}],
        }
        if finding.region in codes.SITES:
            observation["bodySite"] = _coded(codes.SITES[finding.region])
        subject = _identified(outcome.identity).get("subject")
        return observation | ({"subject": subject} if subject else {})


def _device() -> Resource:
    """The software, referenced by every observation."""
    return {
        "resourceType": "Device",
        "deviceName": [{"name": DISTRIBUTION, "type": "model-name"}],
        "type": {"text": "software that reads radiographs"},
        "version": [{"value": version()}],
        "note": [{"text": INTENDED_USE}],
    }


def _identified(identity: Mapping[str, str] | None) -> Resource:
    """Elements that identify patient, accession number and study, if they are kept and known."""
    known = {keyword: plain(value) for keyword, value in (identity or {}).items() if value}
    elements: Resource = {}
    if "PatientID" in known:
        elements["subject"] = {"type": "Patient", "identifier": {"value": known["PatientID"]}}
        if "PatientName" in known:
            elements["subject"]["display"] = known["PatientName"]
    if "AccessionNumber" in known:
        elements["identifier"] = [{"value": known["AccessionNumber"]}]
    if "StudyInstanceUID" in known:
        uid = {"system": "urn:dicom:uid", "value": f"urn:oid:{known['StudyInstanceUID']}"}
        elements["imagingStudy"] = [{"type": "ImagingStudy", "identifier": uid}]
    return elements


def _coded(code: Code) -> Resource:
    return _concept(_SYSTEMS[code.scheme_designator], code.value, code.meaning)


def _concept(system: str, code: str, display: str) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


def _share(value: float) -> Resource:
    """A number in [0, 1] as a dimensionless quantity."""
    ucum = {"unit": "1", "system": "http://unitsofmeasure.org", "code": "1"}
    return {"value": round(value, 6), **ucum}


def _entry(url: str, resource: Resource) -> str:
    return json.dumps({"fullUrl": url, "resource": resource}, ensure_ascii=False, allow_nan=False)


def _url(kind: str, key: str) -> str:
    return uuid.uuid5(_NAMESPACE, f"{kind} {key}").urn


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
